"""Exceptions to error maps and back."""

from __future__ import annotations

import enum
import json
import traceback
from dataclasses import dataclass

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_rpc import errors
from trio_rpc.errors import (
    DecodeError,
    Fate,
    InvalidArguments,
    MethodNotFound,
    Overloaded,
    RemoteCancelled,
    RemoteError,
    RemoteTraceback,
    Unavailable,
)
from trio_rpc.services import error_maps as faults
from trio_rpc.services.decorators import wire_name
from trio_rpc.services.error_maps import BUILTINS, from_error, refusal, to_error
from trio_rpc.wire.codec import Codec
from trio_rpc.wire.messages import Notification, ReplyErr


class Side(enum.Enum):
    BUY = "buy"


@dataclass
class Item:
    name: str


class Gone(Exception):
    pass


class LongGone(Gone):
    pass


class Sold(Exception):
    def __init__(self, item: Item, side: Side = Side.BUY, *, why: str = ""):
        super().__init__(item, side)
        self.item, self.side, self.why = item, side, why


@dataclass
class Late(Exception):
    item: Item
    minutes: float = 0.0


@attrs.define(auto_exc=True)
class Early(Exception):
    minutes: int


class Rewritten(Exception):
    def __init__(self, symbol, price):
        super().__init__(f"{symbol} at {price}")


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError


class Unspeakable:
    def __repr__(self):
        raise RuntimeError


DECLARED = (Gone, Sold, Late, Early, Rewritten, Unprintable)
BY_NAME = {wire_name(cls): cls for cls in DECLARED}


def travel(exc, raises=DECLARED, detail="message"):
    """Send an exception through a real codec and rebuild it."""
    error = to_error(exc, raises, detail)
    (message,) = Codec().decode(Codec().encode(ReplyErr(1, error)))
    assert all(type(key) is str for key in message.error)
    return from_error(message.error, {wire_name(cls): cls for cls in raises})


def same(one, two):
    assert type(one) is type(two)
    if isinstance(one, BaseExceptionGroup):
        assert one.message == two.message
        for left, right in zip(one.exceptions, two.exceptions, strict=True):
            same(left, right)
    else:
        assert one.args == two.args
    assert getattr(one, "__notes__", []) == getattr(two, "__notes__", [])


# Declared and built-in exceptions arrive as instances of their own class.

values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**100), 2**100),
    st.floats(allow_nan=False),
    st.text(st.characters(codec="utf-8"), max_size=50),
    st.binary(max_size=50),
    st.tuples(st.integers(), st.lists(st.integers(), max_size=3)),
    st.dictionaries(st.integers(), st.dates(), max_size=3),
    st.sets(st.uuids(), max_size=3),
)
OF_FIVE = {UnicodeDecodeError, UnicodeEncodeError, UnicodeTranslateError}
leaf_classes = st.sampled_from([Gone, *set(BUILTINS.values()) - {OSError} - OF_FIVE])
texts = st.text(st.characters(codec="utf-8"), max_size=30)


def _make(cls, args, notes):
    exc = cls(*args)
    for note in notes:
        exc.add_note(note)
    return exc


leaves = st.builds(_make, leaf_classes, st.lists(values, max_size=1), st.lists(texts, max_size=2))
exceptions = st.recursive(
    leaves,
    lambda parts: st.builds(
        lambda message, inner, notes: _make(ExceptionGroup, (message, inner), notes),
        texts,
        st.lists(parts, min_size=1, max_size=3),
        st.lists(texts, max_size=2),
    ),
    max_leaves=10,
)


@given(exceptions, st.sampled_from(["message", "traceback"]))
def test_exceptions_arrive_as_they_were_raised(exc, detail):
    same(travel(exc, detail=detail), exc)


@pytest.mark.parametrize("name", sorted(set(BUILTINS) - {wire_name(cls) for cls in OF_FIVE}))
def test_every_listed_built_in_exception_arrives_as_its_class(name):
    cls = BUILTINS[name]
    rebuilt = travel(cls("text"), raises=())
    assert type(rebuilt) is cls
    assert rebuilt.args == ("text",)


def test_os_errors_keep_their_number_and_file_name():
    rebuilt = travel(FileNotFoundError(2, "No such file", "a.txt"), raises=())
    assert type(rebuilt) is FileNotFoundError
    assert rebuilt.errno == 2
    assert travel(OSError(13, "no"), raises=()).errno == 13


@pytest.mark.parametrize(
    ("exc", "base"),
    [
        (FileNotFoundError(2, "No such file", "a.txt"), OSError),
        (KeyError("a"), LookupError),
        (ZeroDivisionError("a"), Exception),
    ],
)
def test_a_listed_exception_arrives_as_its_class_even_if_its_base_is_declared(exc, base):
    rebuilt = travel(exc, raises=(base,))
    assert type(rebuilt) is type(exc)
    assert rebuilt.args == exc.args


def test_arguments_are_converted_to_the_annotations_of_the_constructor():
    rebuilt = travel(Sold(Item("x"), Side.BUY))
    assert type(rebuilt) is Sold
    assert (rebuilt.item, rebuilt.side) == (Item("x"), Side.BUY)


def test_exceptions_may_be_dataclasses():
    for exc in (Late(Item("x"), 2.5), Late(item=Item("x"), minutes=1)):
        rebuilt = travel(exc)
        assert type(rebuilt) is Late
        assert (rebuilt.item, rebuilt.minutes) == (exc.item, exc.minutes)


def test_exceptions_may_be_attrs_classes():
    assert travel(Early(minutes=3)).minutes == 3


def test_a_subclass_arrives_as_the_nearest_declared_class():
    rebuilt = travel(LongGone("x"))
    assert type(rebuilt) is Gone
    assert rebuilt.args == ("x",)
    assert rebuilt.__notes__ == [f"raised as {__name__}.LongGone"]
    assert type(travel(LongGone("x"), raises=(Gone, LongGone))) is LongGone


def test_a_class_whose_args_do_not_fit_its_constructor_keeps_its_text():
    rebuilt = travel(Rewritten("BTC", 3))
    assert type(rebuilt) is Rewritten
    assert str(rebuilt) == "BTC at 3"


def test_a_users_class_is_not_mistaken_for_a_built_in_one():
    mine = type("KeyError", (Exception,), {})
    assert type(travel(mine("x"), raises=(mine,))) is mine
    untyped = from_error(to_error(mine("x"), (mine,)))
    assert (type(untyped), untyped.type_name) == (RemoteError, "KeyError")


def test_a_class_of_the_peers_main_module_is_found_by_its_name():
    there = type("Gone", (Exception,), {"__module__": "__main__"})
    assert type(from_error(to_error(there("x"), (there,)), BY_NAME)) is Gone


# All other exceptions arrive as RemoteError.


def test_undeclared_exceptions_arrive_as_remote_error():
    exc = Gone("text")
    exc.add_note("a note")
    rebuilt = travel(exc, raises=())
    assert type(rebuilt) is RemoteError
    assert rebuilt.type_name == f"{__name__}.Gone"
    assert rebuilt.message == "text"
    assert rebuilt.notes == ("a note",)
    assert rebuilt.__notes__ == ["a note"]
    assert rebuilt.remote_traceback == ""
    assert rebuilt.__cause__ is None
    assert rebuilt.fate is Fate.STOPPED


@pytest.mark.parametrize(
    "exc",
    [
        json.JSONDecodeError("x", "y", 0),
        StopAsyncIteration(),
        StopIteration(),
        MemoryError(),
        KeyboardInterrupt(),
        SystemExit(3),
        GeneratorExit(),
    ],
)
def test_other_built_in_exceptions_are_not_rebuilt(exc):
    assert type(travel(exc)) is RemoteError


@pytest.mark.parametrize(
    "exc",
    [
        MethodNotFound("x"),
        InvalidArguments("x", "y"),
        Overloaded(),
        Unavailable(),
        RemoteCancelled(),
        RemoteError("KeyError", "x"),
        errors.SessionBroken(),
        errors.DecodeError("x"),
    ],
)
def test_law_15_an_error_of_another_call_is_not_taken_for_one_of_this_call(exc):
    # A handler's own calls may fail like this, which says nothing about the fate of the handler.
    rebuilt = travel(exc)
    assert type(rebuilt) is RemoteError
    assert rebuilt.type_name == f"trio_rpc.errors.{type(exc).__name__}"
    assert rebuilt.fate is Fate.STOPPED


def _raised(exc):
    try:
        raise exc  # noqa: TRY301
    except BaseException as caught:  # noqa: BLE001
        return caught


# error_detail: the text of an error that the caller gets.


@pytest.mark.parametrize("detail", ["none", "message"])
def test_tracebacks_are_not_sent_by_default(detail):
    for exc in (_raised(Gone("x")), _raised(OSError("x")), ExceptionGroup("g", [Gone("x")])):
        assert "Traceback" not in repr(to_error(exc, DECLARED, detail))
        assert travel(exc, detail=detail).__cause__ is None


@pytest.mark.parametrize("raises", [DECLARED, ()])
def test_a_remote_traceback_is_the_cause_of_the_rebuilt_exception(raises):
    rebuilt = travel(_raised(Gone("x")), raises=raises, detail="traceback")
    assert isinstance(rebuilt.__cause__, RemoteTraceback)
    assert "in _raised" in rebuilt.__cause__.text
    shown = "".join(traceback.format_exception(rebuilt))
    assert shown.index("in _raised") < shown.index("direct cause")
    if raises == ():
        assert rebuilt.remote_traceback == rebuilt.__cause__.text


@pytest.mark.parametrize(
    "exc",
    [
        ValueError("secret"),
        Gone("secret"),
        KeyError("secret"),
        type("secret", (Exception,), {})(),
        ExceptionGroup("secret", [ValueError("secret"), Gone("secret")]),
        Unprintable("secret"),
    ],
)
def test_error_detail_none_hides_all_of_an_undeclared_exception(exc):
    exc.add_note("secret")
    error = to_error(exc, (), "none")
    assert "secret" not in repr(error)
    rebuilt = from_error(error)
    if not isinstance(exc, ExceptionGroup):
        assert str(rebuilt) == "Exception: the handler failed"


def test_declared_exceptions_are_sent_even_with_error_detail_none():
    assert travel(Gone("x"), detail="none").args == ("x",)
    group = travel(ExceptionGroup("g", [Gone("x"), KeyError("y")]), detail="none")
    assert [type(part) for part in group.exceptions] == [Gone, RemoteError]


# Groups


def test_groups_work_with_except_star():
    with pytest.raises(ExceptionGroup) as rest:
        try:
            raise travel(
                ExceptionGroup("g", [Gone(1), ExceptionGroup("h", [KeyError(2), OSError()])])
            )
        except* Gone as gone:
            assert gone.exceptions[0].args == (1,)  # noqa: PT017
        except* KeyError:
            pass
    (inner,) = rest.value.exceptions
    assert [type(part) for part in inner.exceptions] == [OSError]


def test_a_group_of_base_exceptions_arrives_as_a_group():
    rebuilt = travel(BaseExceptionGroup("g", [KeyboardInterrupt(), Gone("x")]))
    assert type(rebuilt) is ExceptionGroup
    assert [type(part) for part in rebuilt.exceptions] == [RemoteError, Gone]


def test_groups_of_many_exceptions_are_cut():
    rebuilt = travel(ExceptionGroup("g", [Gone(i) for i in range(1000)]))
    assert len(rebuilt.exceptions) == faults.MAX_LEAVES
    assert rebuilt.__notes__ == ["900 more were left out"]


def test_deeply_nested_groups_are_cut():
    exc = Gone("x")
    for _ in range(200):
        exc = ExceptionGroup("g", [exc])
    rebuilt = travel(exc)
    depth = 0
    while isinstance(rebuilt, ExceptionGroup):
        (rebuilt,), depth = rebuilt.exceptions, depth + 1
    assert depth == faults.MAX_DEPTH - 1
    assert type(rebuilt) is RemoteError


# Parts of an exception that cannot be sent.


@pytest.mark.parametrize(
    "value",
    [
        object(),
        Unspeakable(),
        lambda: 1,
        2**10_000,
        "\ud800",
        b"x" * 10**6,
        [[]] * 10**6,
        {"a": object()},
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("cls", [Gone, ValueError])
def test_an_argument_that_cannot_be_sent_travels_as_text(cls, value):
    rebuilt = travel(cls("first", value))
    assert type(rebuilt) is cls
    assert rebuilt.args[0] == "first"
    assert type(rebuilt.args[1]) is str
    assert len(rebuilt.args[1]) <= faults.MAX_TEXT


def test_an_argument_that_contains_itself_travels_as_text():
    loop: list[object] = []
    loop.append(loop)
    assert travel(Gone(loop)).args == ("[[[[[[[...]]]]]]]",)


class Hostile(Exception):
    args = property(lambda self: 1 / 0)
    __notes__ = property(lambda self: 1 / 0)


def test_an_exception_whose_attributes_raise_still_gives_an_error():
    assert type(travel(Hostile("x"), raises=(Hostile,))) is RemoteError
    assert type(travel(Hostile("x"))) is RemoteError
    assert travel(Unprintable("x")).args == ("x",)
    assert "failed" in travel(Unprintable("x"), raises=()).message


def test_notes_that_are_not_text_are_left_out():
    exc = Gone("x")
    exc.__notes__ = ["a", 3, None]
    assert travel(exc).__notes__ == ["a"]
    exc.__notes__ = 3
    assert not hasattr(travel(exc), "__notes__")


def test_huge_texts_are_cut():
    exc = _raised(ValueError("x" * 10**7))
    exc.add_note("n" * 10**7)
    error = to_error(exc, (), "traceback")
    assert len(error["message"]) == faults.MAX_TEXT
    assert error["message"].endswith("… (10000000 characters)")
    assert len(Codec().encode(Notification("", [error]))) < 200_000
    assert len(from_error(error).args[0]) == faults.MAX_TEXT


def test_many_large_texts_are_cut_further():
    parts = []
    for _ in range(100):
        parts.append(ValueError(*["x" * 10**5] * 30))
        parts[-1].__notes__ = ["n" * 10**5] * 100
    error = to_error(ExceptionGroup("g" * 10**6, parts))
    assert len(Codec().encode(Notification("", [error]))) < 2_000_000
    assert len(from_error(error).exceptions) == 100


@given(st.text(st.characters(), max_size=100))
def test_any_text_survives(text):
    rebuilt = travel(Gone(text))
    if all(not 0xD800 <= ord(char) < 0xE000 for char in text):
        assert rebuilt.args == (text,)
    else:
        assert type(rebuilt.args[0]) is str


# Errors that the library itself raises.


@pytest.mark.parametrize(
    ("exc", "code"),
    [
        (MethodNotFound("text"), "method_not_found"),
        (InvalidArguments("text", "symbol"), "invalid_arguments"),
        (Overloaded("text"), "overloaded"),
        (Unavailable("text"), "unavailable"),
        (RemoteCancelled("text"), "cancelled"),
        (RemoteCancelled("text", fate=Fate.NOT_STARTED), "cancelled"),
    ],
)
def test_law_15_refusals_keep_their_class_and_fate(exc, code):
    error = refusal(exc)
    assert error["code"] == code
    rebuilt = from_error(error)
    assert type(rebuilt) is type(exc)
    assert str(rebuilt) == "text"
    assert rebuilt.fate is exc.fate
    assert getattr(rebuilt, "parameter", None) == getattr(exc, "parameter", None)


def test_unknown_codes_give_remote_error():
    assert type(from_error({"code": "deadline", "message": "x"})) is RemoteCancelled
    for code in ("internal", "of a later version", "__class__"):
        rebuilt = from_error({"code": code, "message": "text"})
        assert type(rebuilt) is RemoteError
        assert (rebuilt.type_name, rebuilt.message) == (code, "text")
    assert refusal(RemoteError("x", "y"))["code"] == "internal"


# Hostile error maps


def _nested(depth):
    error = {"code": "raised", "type": "x", "message": ""}
    for _ in range(depth):
        error = {"code": "raised", "type": "x", "message": "", "errors": [error]}
    return error


RAISED = {"code": "raised", "type": "builtins.ValueError", "message": "m"}


@pytest.mark.parametrize(
    "error",
    [
        {},
        {"code": "raised"},
        {"code": 1, "message": ""},
        {"code": "raised", "message": ""},
        {"message": ""},
        {"code": "overloaded", "message": None},
        {"code": "cancelled", "message": "", "started": 1},
        {"code": "cancelled", "message": "", "started": None},
        {"code": "overloaded", "message": "", "started": None},
        {"code": "invalid_arguments", "message": "", "parameter": 3},
        {**RAISED, "type": None},
        {**RAISED, "args": {}},
        {**RAISED, "args": "abc"},
        {**RAISED, "args": None},
        {**RAISED, "args": [], "fields": None},
        {**RAISED, "args": [], "fields": []},
        {**RAISED, "args": [], "fields": {b"x": 1}},
        {**RAISED, "notes": "abc"},
        {**RAISED, "notes": [1]},
        {**RAISED, "traceback": []},
        {**RAISED, "errors": []},
        {**RAISED, "errors": {}},
        {**RAISED, "errors": None},
        {**RAISED, "errors": [3]},
        {**RAISED, "errors": [{"code": "overloaded", "message": ""}]},
        {**RAISED, "errors": [RAISED] * 101},
        {**RAISED, "errors": [_nested(5)] * 101},
        _nested(16),
        _nested(60),
    ],
)
def test_malformed_error_maps_are_refused(error):
    with pytest.raises(DecodeError):
        from_error(error, BY_NAME)


def test_classes_come_only_from_the_declaration():
    for name in (
        "builtins.SystemExit",
        "builtins.eval",
        "os.system",
        "builtins.BaseException",
        "Gone",
    ):
        rebuilt = from_error({**RAISED, "type": name, "args": ["echo"]}, {})
        assert type(rebuilt) is RemoteError


def test_arguments_that_do_not_fit_the_constructor_give_remote_error():
    for args in ([1], [{"name": 1}], [{"name": "x"}, "sell"], [{"name": "x"}, "buy", 1], []):
        rebuilt = from_error({**RAISED, "type": "Sold", "args": args}, BY_NAME)
        assert type(rebuilt) is RemoteError


class Elsewhere(Exception):
    def __new__(cls, *args):
        return ValueError(*args)


class Shy(Exception):
    def __init__(self, value: Missing):  # noqa: F821
        super().__init__(value)


def test_odd_constructors_are_not_called():
    by_name = {"Elsewhere": Elsewhere, "Shy": Shy}
    assert type(from_error({**RAISED, "type": "Elsewhere", "args": []}, by_name)) is Elsewhere
    rebuilt = from_error({**RAISED, "type": "Shy", "args": [1]}, by_name)
    assert (type(rebuilt), rebuilt.args) == (Shy, (1,))


wire_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=10,
)
field_names = st.sampled_from(
    ["item", "side", "errno", "filename", "object", "start", "end", "encoding", "reason", "args"]
)
names = st.sampled_from([*BUILTINS, *BY_NAME, "x"])
keys = st.sampled_from(
    [
        "code",
        "message",
        "type",
        "args",
        "fields",
        "notes",
        "traceback",
        "errors",
        "parameter",
        "started",
    ]
)
codes = st.sampled_from(
    ["raised", "cancelled", "deadline", "invalid_arguments", "overloaded", "internal", "?"]
)
error_maps = st.deferred(
    lambda: st.fixed_dictionaries(
        {"code": codes, "message": st.text(max_size=5)},
        optional={
            "type": names,
            "args": st.lists(wire_values, max_size=5),
            "fields": st.dictionaries(field_names, wire_values, max_size=6),
            "notes": st.lists(st.text(max_size=3), max_size=2),
            "traceback": st.text(max_size=5),
            "errors": st.lists(error_maps, max_size=2),
            "parameter": st.text(max_size=3),
            "started": st.booleans(),
        },
    )
)


@settings(max_examples=500)
@given(error_maps | st.dictionaries(keys, wire_values, max_size=9))
def test_hostile_error_maps_give_an_exception_or_a_decode_error(error):
    try:
        rebuilt = from_error(error, BY_NAME)
    except DecodeError:
        return
    assert isinstance(rebuilt, Exception)
    assert not isinstance(rebuilt, (errors.SessionBroken, errors.ProtocolError))
    assert len(str(rebuilt)) < 10_000


class OwnZeroDivision(Exception):
    pass


@pytest.mark.parametrize("calls", [1, 2, 60])
def test_an_error_that_passes_through_several_calls_names_the_first_exception_once(calls):
    error = OwnZeroDivision("by zero")
    for _ in range(calls):
        error = from_error(to_error(error))
    assert type(error) is RemoteError
    assert str(error) == f"{__name__}.OwnZeroDivision: by zero"

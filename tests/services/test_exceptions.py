"""Exceptions arrive with their class, text, args and attributes, or a note names the lost parts."""

from __future__ import annotations

import asyncio
import collections
import enum
import errno
import json
import urllib.error
from dataclasses import dataclass, field
from typing import Any, ClassVar

import attrs
import pytest
import trio

from trio_rpc import RemoteError, duplex, method, stream
from trio_rpc.services.decorators import wire_name
from trio_rpc.services.error_maps import from_error, to_error
from trio_rpc.wire.codec import Codec
from trio_rpc.wire.messages import ReplyErr


def travel(exc: BaseException, raises: tuple[type[Exception], ...] | None = None) -> Any:
    if raises is None:
        raises = (type(exc),)
    error = to_error(exc, raises)
    (message,) = Codec().decode(Codec().encode(ReplyErr(1, error)))
    return from_error(message.error, {wire_name(cls): cls for cls in raises})


class Side(enum.Enum):
    BUY = "buy"


@dataclass
class Item:
    name: str


CALLS: list[str] = []
"""The special methods of the classes below that have run."""


@pytest.fixture(autouse=True)
def no_calls():
    CALLS.clear()


class MadeUp(Exception):
    def __init__(self, symbol: str, item: Item) -> None:
        CALLS.append("__init__")
        super().__init__(f"no {symbol}")
        self.symbol, self.item = symbol, item


class SameTypes(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(f"error: {text}")


class KeywordOnly(Exception):
    def __init__(self, *, code: int, side: Side = Side.BUY) -> None:
        super().__init__()
        self.code, self.side = code, side

    def __str__(self) -> str:
        return f"code {self.code}, {self.side.name}"


class Private(Exception):
    def __init__(self, item: Item, side: Side) -> None:
        self._item, self.__side = item, side

    def __str__(self) -> str:
        return f"{self._item} {self.__side}"


class Derived(Exception):
    retries = 0

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.is_server = code >= 500
        self.retries = 3


class Annotated(Exception):
    count: int
    items: list[Item]
    limit: ClassVar[int] = 3


class Slots(Exception):
    __slots__ = ("item",)

    def __init__(self, item: Item) -> None:
        self.item = item


class Reduced(Exception):
    value: int

    def __reduce__(self):
        CALLS.append("__reduce__")
        return ValueError, ()

    def __setstate__(self, state):
        CALLS.append("__setstate__")

    def __setattr__(self, name, value):
        CALLS.append("__setattr__")
        super().__setattr__(name, value)

    def __new__(cls, *args):
        CALLS.append("__new__")
        return super().__new__(cls, *args)

    def __init__(self, value: int) -> None:
        CALLS.append("__init__")
        vars(self)["value"] = value

    @property
    def path(self) -> str:
        return str(self.args)

    @path.setter
    def path(self, value: str) -> None:
        CALLS.append("path")


class Child(MadeUp):
    def __init__(self, symbol: str, item: Item, extra: float) -> None:
        super().__init__(symbol, item)
        self.extra = extra


class NoFile(FileNotFoundError):
    def __init__(self, path: str, tries: int) -> None:
        super().__init__(errno.ENOENT, "it is not there", path)
        self.tries = tries


class Both(KeyError, AttributeError):
    pass


@dataclass
class Data(Exception):
    item: Item
    minutes: float = 0.0
    total: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        CALLS.append("__post_init__")
        self.total = self.minutes * 2


@dataclass(frozen=True, kw_only=True)
class FrozenData(Exception):
    item: Item


@attrs.define(auto_exc=True)
class Attrs(Exception):
    item: Item
    minutes: int = attrs.field(kw_only=True, default=1)


@attrs.frozen
class FrozenAttrs(Exception):
    item: Item


ITEM = Item("x")


def state(exc: BaseException) -> dict[str, Any]:
    found = {name: value for name, value in vars(exc).items() if name != "__notes__"}
    for name in ("errno", "strerror", "filename", "filename2", "item", "minutes", "name", "path"):
        if not isinstance(getattr(type(exc), name, None), property):
            found[name] = getattr(exc, name, None)
    for name in ("object", "start", "end", "reason", "encoding", "msg", "lineno", "offset", "text"):
        found[name] = getattr(exc, name, None)
    return found


def _annotated() -> Annotated:
    exc = Annotated("x")
    exc.count, exc.items = 3, [ITEM]
    return exc


ALL = [
    OSError(2, "No such file", "a.txt"),
    OSError(errno.EXDEV, "Cross", "a", None, "b"),
    OSError("only a text"),
    OSError(),
    OSError("a", "b"),
    FileNotFoundError(2, "No such file", b"a.txt"),
    ConnectionRefusedError(111, "Connection refused"),
    PermissionError(13, "no", 3),
    BlockingIOError(11, "would block", 5),
    TimeoutError("timed out"),
    KeyError("x"),
    KeyError(("a", 1)),
    UnicodeDecodeError("utf-8", b"ab\xff", 2, 3, "invalid start byte"),
    UnicodeEncodeError("ascii", "ab\xff", 2, 3, "ordinal"),
    UnicodeTranslateError("ab\xff", 2, 3, "why"),
    ImportError("no", name="thing", path="/thing.py"),
    ModuleNotFoundError("No module named 'x'", name="x"),
    NameError("name 'x' is not defined", name="x"),
    AttributeError("no attribute", name="x"),
    SyntaxError("invalid", ("a.py", 1, 2, "x = ", 1, 3)),
    IndentationError("unexpected indent", ("a.py", 1, 2, "x = ", 1, 3)),
    json.JSONDecodeError("Expecting value", "[1,\n", 4),
    MadeUp("BTC", ITEM),
    SameTypes("x"),
    KeywordOnly(code=3),
    Private(ITEM, Side.BUY),
    Derived(503),
    _annotated(),
    Slots(ITEM),
    Reduced(3),
    Child("BTC", ITEM, 1.5),
    NoFile("a.txt", 3),
    Both("x"),
    Data(ITEM, 2.0),
    Data(item=ITEM),
    FrozenData(item=ITEM),
    Attrs(ITEM, minutes=3),
    FrozenAttrs(ITEM),
    trio.TooSlowError("x"),
    urllib.error.URLError("refused"),
]


@pytest.mark.parametrize("exc", ALL, ids=lambda exc: type(exc).__name__)
def test_an_exception_arrives_as_it_was_raised(exc):
    vars(exc)["__notes__"] = ["a note"]  # add_note cannot add to a frozen dataclass
    CALLS.clear()
    arrived = travel(exc)
    assert type(arrived) is type(exc)
    assert CALLS == []
    assert str(arrived) == str(exc)
    assert arrived.args == exc.args
    assert state(arrived) == state(exc)
    assert arrived.__notes__ == ["a note"]


@pytest.mark.parametrize("exc", ALL, ids=lambda exc: type(exc).__name__)
def test_an_exception_in_a_group_arrives_as_it_was_raised_also_over_two_hops(exc):
    group = travel(ExceptionGroup("g", [exc, ValueError()]), (type(exc),))
    arrived = travel(group.exceptions[0])
    assert (type(arrived), str(arrived), state(arrived)) == (type(exc), str(exc), state(exc))


UNDECLARED = [
    exc
    for exc in ALL
    if type(exc).__module__ == "builtins" and not isinstance(exc, (SyntaxError, IndentationError))
]


def test_a_note_names_the_class_of_a_group():
    class Several(ExceptionGroup):
        pass

    arrived = travel(Several("g", [ValueError("x")]), ())
    assert type(arrived) is ExceptionGroup
    assert arrived.__notes__ == [f"raised as {Several.__module__}.{Several.__qualname__}"]


def test_a_frozen_exception_also_has_the_remote_traceback_as_its_cause():
    exc = FrozenData(item=ITEM)
    arrived = from_error(to_error(exc, (FrozenData,), "traceback"), {"FrozenData": FrozenData})
    assert "FrozenData" in str(arrived.__cause__)


@pytest.mark.parametrize("exc", UNDECLARED, ids=lambda exc: type(exc).__name__)
def test_built_in_exceptions_arrive_as_they_were_raised_without_a_declaration(exc):
    arrived = travel(exc, ())
    assert (type(arrived), str(arrived), state(arrived)) == (type(exc), str(exc), state(exc))


def test_a_subclass_of_os_error_arrives_as_the_declared_class_with_its_attributes():
    arrived = travel(NoFile("a.txt", 3), (OSError,))
    assert type(arrived) is OSError
    assert (arrived.errno, arrived.filename) == (errno.ENOENT, "a.txt")
    assert str(arrived) == "[Errno 2] it is not there: 'a.txt'"
    assert sorted(arrived.__notes__) == ["lost on its way: tries", f"raised as {__name__}.NoFile"]


class Odd(Exception):
    def __init__(self, lock: trio.Lock, item) -> None:
        super().__init__("odd", item)
        self.lock, self.item, self.side = lock, item, Side.BUY


async def test_a_note_names_the_lost_parts():
    exc = Odd(trio.Lock(), ITEM)
    exc.later = 3
    arrived = travel(exc)
    assert type(arrived) is Odd
    assert vars(arrived) == {"__notes__": arrived.__notes__}
    note, text = arrived.__notes__
    assert text == f"its text was: {exc}"
    assert note.startswith("lost on its way: ")
    assert set(note.removeprefix("lost on its way: ").split(", ")) == {
        *("lock", "item", "side", "later"),
        "the class of argument 2",
    }


def test_the_object_of_an_attribute_error_is_not_sent():
    try:
        {"secret": 1}.password  # noqa: B018
    except AttributeError as exc:
        error = to_error(exc)
        assert "'secret'" not in str(error)
        arrived = travel(exc, ())
    assert (arrived.name, arrived.obj) == ("password", None)
    assert arrived.__notes__ == ["lost on its way: obj"]


class Lost(Exception):
    def __str__(self) -> str:
        return f"it was {self.what}"


def test_a_text_made_from_a_lost_attribute_is_kept_in_a_note():
    exc = Lost()
    exc.what = "that"
    assert travel(exc).__notes__ == ["lost on its way: what", "its text was: it was that"]


# A peer that sends arbitrary error maps.


def raised(cls: type[Exception], args: list[Any], fields: Any = None) -> Any:
    error = {"code": "raised", "type": wire_name(cls), "message": "m", "args": args}
    return from_error(
        error if fields is None else error | {"fields": fields}, {wire_name(cls): cls}
    )


def test_a_peer_cannot_choose_which_attributes_are_set():
    names = [
        "path",
        "__class__",
        "__dict__",
        "args",
        "with_traceback",
        "__cause__",
        "x",
        "__notes__",
    ]
    exc = raised(Reduced, ["a"], dict.fromkeys(names, 1))
    assert CALLS == []
    assert type(exc) is Reduced
    assert exc.args == ("a",)
    assert set(vars(exc)) == {"__notes__"}
    assert exc.__cause__ is None
    lost = "lost on its way, since this end's class does not accept them: 'path', "
    assert exc.__notes__[0].startswith(lost)


def test_attributes_are_checked_against_the_annotations():
    exc = raised(MadeUp, ["no x"], {"symbol": 3, "item": {"name": "x"}})
    assert vars(exc) == {"item": ITEM, "__notes__": exc.__notes__}
    assert "'symbol'" in exc.__notes__[0]


@pytest.mark.parametrize(
    ("cls", "fields"),
    [
        (UnicodeDecodeError, {"object": "text"}),
        (UnicodeDecodeError, {"start": -(10**15)}),
        (UnicodeDecodeError, {"end": -1}),
        (UnicodeDecodeError, {"end": 2**62}),
        (UnicodeDecodeError, {"encoding": 3}),
        (UnicodeDecodeError, {"reason": None}),
    ],
)
def test_exceptions_implemented_in_c_get_only_valid_attributes(cls, fields):
    right = {"encoding": "utf-8", "object": b"x", "start": 0, "end": 1, "reason": "why"}
    assert str(raised(cls, [], right)) == "'utf-8' codec can't decode byte 0x78 in position 0: why"
    assert type(raised(cls, [], right | fields)) is RemoteError


def test_without_fields_the_args_are_those_of_the_constructor():
    exc = raised(MadeUp, ["BTC", {"name": "x"}])
    assert (exc.symbol, exc.item) == ("BTC", ITEM)
    assert CALLS == []
    assert type(raised(KeywordOnly, [])) is RemoteError
    assert type(raised(MadeUp, ["BTC"])) is RemoteError
    assert type(raised(MadeUp, ["BTC", 3])) is RemoteError
    gone = raised(FileNotFoundError, [2, "No such file", "a.txt"])
    assert (gone.errno, gone.filename, gone.args) == (2, "a.txt", (2, "No such file"))
    assert str(gone) == "[Errno 2] No such file: 'a.txt'"
    data = raised(Data, [{"name": "x"}])
    assert (data.item, data.minutes) == (ITEM, 0.0)


# Exceptions that signal an end.

SIGNALS = [
    StopIteration,
    StopAsyncIteration,
    trio.EndOfChannel,
    GeneratorExit,
    trio.Cancelled,
    KeyboardInterrupt,
    SystemExit,
    asyncio.CancelledError,
    type("Mine", (StopIteration,), {}),
    type("Mine", (trio.EndOfChannel,), {}),
    type("Mine", (KeyError, trio.EndOfChannel), {}),
]


@pytest.mark.parametrize("decorate", [method, stream, duplex])
@pytest.mark.parametrize("cls", SIGNALS, ids=lambda cls: cls.__name__)
def test_exceptions_that_signal_an_end_cannot_be_declared(decorate, cls):
    with pytest.raises(
        TypeError, match=f"raises= contains {cls.__name__}, which signals .*your own"
    ):
        decorate(raises=(ValueError, cls))


def test_exception_groups_cannot_be_declared():
    for group in (ExceptionGroup, BaseExceptionGroup):
        with pytest.raises(TypeError, match="group"):
            method(raises=(group,))


def test_an_exception_that_only_its_own_module_can_make_cannot_be_declared():
    pydantic = pytest.importorskip("pydantic")
    with pytest.raises(TypeError, match="ValidationError, which only its own module can make"):
        method(raises=(KeyError, pydantic.ValidationError))
    # Its base can be declared, and its text arrives.
    try:
        pydantic.TypeAdapter(int).validate_python("x")
    except pydantic.ValidationError as exc:
        arrived = travel(exc, (ValueError,))
    assert type(arrived) is ValueError
    assert "valid integer" in arrived.__notes__[0]


class _Coded(Exception):
    pass


class _CodedBetter(_Coded):
    def __init__(self, code):
        super().__init__(code)
        self.code = code

    def __str__(self):
        return f"the code was {self.code}"


def test_a_subclass_that_arrives_as_its_base_keeps_its_text_in_a_note():
    arrived = travel(_CodedBetter(7), (_Coded,))
    assert (type(arrived), str(arrived)) == (_Coded, "7")
    assert arrived.__notes__[0].endswith("_CodedBetter: the code was 7")


def test_the_text_of_a_subclass_is_not_repeated_if_its_base_has_the_same():
    arrived = travel(type("Other", (_Coded,), {})(7), (_Coded,))
    assert arrived.__notes__ == [f"raised as {__name__}.Other"]


def test_a_note_names_a_lost_named_tuple_in_args():
    point = collections.namedtuple("point", "x")  # noqa: PYI024
    assert travel(ValueError(point(1)), ()).__notes__ == [
        "lost on its way: the class of argument 1"
    ]


# ── parts beyond the bounds, and text that cannot be sent ────────────────────────────────────


class Attributed(Exception):
    def __init__(self, count: int) -> None:
        super().__init__("x")
        self.__dict__ |= {f"attribute_{number}": object() for number in range(count)}


def test_a_note_says_that_arguments_beyond_the_bound_were_lost():
    arrived = travel(ValueError(*range(50)), ())
    assert arrived.args == tuple(range(20))
    assert arrived.__notes__[0] == "lost on its way: arguments 21 to 50"
    assert not hasattr(travel(ValueError(*range(20)), ()), "__notes__")


def test_a_note_says_that_notes_were_left_out():
    for raises in ((ValueError,), (OSError,)):
        for count, expected in ((20, "note 19"), (21, "2 more notes were left out")):
            exc = ValueError("x")
            exc.__notes__ = [f"note {number}" for number in range(count)]
            arrived = travel(exc, raises)
            assert len(arrived.__notes__) == 20
            assert arrived.__notes__[-1] == expected


def test_a_note_says_how_many_lost_attributes_it_does_not_name():
    (note, *_) = travel(Attributed(30)).__notes__
    assert note.startswith("lost on its way: attribute_0, ")
    assert note.endswith(", attribute_19, and 10 more")


def test_a_note_says_that_an_argument_had_lone_surrogates():
    arrived = travel(ValueError("a", "b\udcff"), ())
    assert arrived.args == ("a", "b\\udcff")
    assert arrived.__notes__ == ["lost on its way: the lone surrogates of argument 2"]
    assert travel(ValueError("ä💩"), ()).args == ("ä💩",)


@pytest.mark.parametrize(
    "exc",
    [
        UnicodeEncodeError("utf-8", "a\udcffb", 1, 2, "surrogates not allowed"),
        UnicodeTranslateError("a\udcffb", 1, 2, "not there"),
    ],
)
def test_an_error_about_text_with_lone_surrogates_arrives_as_itself(exc):
    arrived = travel(exc, ())
    assert type(arrived) is type(exc)
    assert (arrived.object, arrived.start, arrived.end) == ("a?b", 1, 2)
    assert arrived.reason == exc.reason
    assert "the lone surrogates of object" in arrived.__notes__[0]
    assert "its text was: " + str(exc) in arrived.__notes__


def test_the_error_of_encoding_lone_surrogates_arrives_as_itself():
    with pytest.raises(UnicodeEncodeError) as caught:
        "\udcff".encode()
    assert type(travel(caught.value, ())) is UnicodeEncodeError

"""Values, annotations and texts that JSON would change are errors; without a connection."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import json
import math
import pathlib
import re
import uuid
import zoneinfo
from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Literal, NamedTuple, Protocol, TypedDict, TypeVar, Union

import attrs
import msgspec
import pydantic
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import TypeAliasType

import trio_rpc
from trio_rpc.errors import InvalidArguments
from trio_rpc.gateway import Gateway
from trio_rpc.gateway.json_messages import encode, from_json_exactly, to_json
from trio_rpc.gateway.json_values import Form, lower
from trio_rpc.gateway.server.forms import CallbackForm, Forms
from trio_rpc.services.conversion import adapt
from trio_rpc.services.tables import build_table

T = TypeVar("T")


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Corner(enum.Enum):
    TOP = (0, 1)
    END = (1, 0)


class Permission(enum.Flag):
    READ = 1
    WRITE = 2


@dataclasses.dataclass(frozen=True)
class Point:
    x: float
    y: float


@dataclasses.dataclass(eq=False)
class Unequal:
    name: bytes
    when: dt.datetime | None = None


@attrs.frozen
class Pair:
    first: int
    second: frozenset[int]


class Row(NamedTuple):
    key: str
    size: int


class Tagged(msgspec.Struct, tag="tagged", rename="camel", frozen=True):
    some_value: int


class Array(msgspec.Struct, array_like=True, frozen=True):
    name: str
    values: list[float]


class Options(TypedDict):
    depth: int
    names: list[str]


SCALARS = {
    None: st.none(),
    bool: st.booleans(),
    int: st.integers(),
    float: st.floats(),
    str: st.text(st.characters(codec=None, exclude_categories=())),
    bytes: st.binary(),
    bytearray: st.binary().map(bytearray),
    complex: st.complex_numbers(),
    decimal.Decimal: st.decimals(allow_nan=False) | st.just(decimal.Decimal("NaN")),
    dt.datetime: st.datetimes(allow_imaginary=False, timezones=st.none() | st.timezones()),
    dt.date: st.dates(),
    dt.time: st.times(timezones=st.none() | st.just(dt.UTC)),
    dt.timedelta: st.timedeltas(),
    uuid.UUID: st.uuids(),
    Color: st.sampled_from(Color),
    Level: st.sampled_from(Level),
    Corner: st.sampled_from(Corner),
    Permission: st.sampled_from([Permission.READ, Permission.READ | Permission.WRITE]),
    Literal["a", 1]: st.sampled_from(["a", 1]),
    Point: st.builds(Point, st.floats(), st.floats()),
    Unequal: st.builds(Unequal, st.binary(), st.none() | st.datetimes()),
    Pair: st.builds(Pair, st.integers(), st.frozensets(st.integers())),
    Row: st.builds(Row, st.text(), st.integers()),
    Tagged: st.builds(Tagged, st.integers()),
    Array: st.builds(Array, st.text(), st.lists(st.floats())),
    Options: st.fixed_dictionaries({"depth": st.integers(), "names": st.lists(st.text())}),
}
HASHABLE = [one for one in SCALARS if one not in (bytearray, Unequal, Array, Options)]
ANYTHING = st.one_of(*SCALARS.values())


def nested(annotation: Any) -> list[tuple[Any, st.SearchStrategy[Any]]]:
    """Return annotations that contain this one, with strategies for their values."""
    value = SCALARS[annotation]
    made = [
        (annotation, value),
        (list[annotation], st.lists(value)),
        (Sequence[annotation], st.lists(value) | st.lists(value).map(tuple)),
        (tuple[annotation, int], st.tuples(value, st.integers())),
        (tuple[annotation, ...], st.lists(value).map(tuple)),
        (dict[str, annotation], st.dictionaries(st.text(), value)),
        (Union.__getitem__((annotation, None)), st.none() | value),
        (Union.__getitem__((annotation, str)), st.text() | value),
        (
            Union.__getitem__((annotation, bytes, complex, None)),
            st.binary() | st.complex_numbers() | value,
        ),
    ]
    if annotation in HASHABLE:
        made += [
            (set[annotation], st.sets(value)),
            (frozenset[annotation], st.frozensets(value)),
            (AbstractSet[annotation], st.sets(value) | st.frozensets(value)),
            (dict[annotation, int], st.dictionaries(value, st.integers())),
            (Mapping[annotation, str], st.dictionaries(value, st.text())),
        ]
    return made


CASES = [case for one in SCALARS for case in nested(one)] + [
    (Any, ANYTHING | st.lists(ANYTHING) | st.dictionaries(st.from_type(str), ANYTHING)),
    (object, ANYTHING | st.lists(ANYTHING).map(tuple)),
    (list, st.lists(ANYTHING)),
    (dict, st.dictionaries(st.one_of(*(SCALARS[one] for one in HASHABLE)), st.integers())),
]


def forms_of(annotation: Any) -> Forms | None:
    """Register a method with this annotation, or return None if a gateway refuses it."""

    class Service:
        @trio_rpc.method
        async def same(self, x): ...

    Service.same.__annotations__.update({"x": annotation, "return": annotation})
    try:
        [method] = build_table(Service()).values()
        return Forms(method)
    except TypeError:
        return None


@pytest.mark.parametrize(("annotation", "values"), CASES, ids=[str(case[0]) for case in CASES])
def test_a_value_is_read_back_equal_by_the_same_annotation_or_is_refused(annotation, values):
    forms = forms_of(annotation)
    if forms is None:
        pytest.skip("refused at registration")

    @settings(max_examples=25, deadline=None)
    @given(values)
    def check(value: Any) -> None:
        try:
            text = encode({"x": forms.result.write(value)})
        except (TypeError, ValueError):
            return
        # Read and written again, as a browser would.
        again = json.dumps(json.loads(text), allow_nan=False).encode()
        read = forms.bind(from_json_exactly(again))["x"]
        if annotation in (Any, object, list, dict):
            assert lower(read) == lower(value)
            return
        assert read == value or repr(read) == repr(value)  # values of Unequal are never equal

    check()


GOOD = [
    (bytes, b"\x00\xff", "AP8="),
    (dict[int, str], {1: "one"}, {"1": "one"}),
    (complex, 1j, [0.0, 1.0]),
    (complex | None, 1 + 2j, [1.0, 2.0]),
    (complex | None | int, 1 + 2j, [1.0, 2.0]),
    (set[int], {1}, [1]),
    (tuple[int, ...], (1, 2), [1, 2]),
    (decimal.Decimal, decimal.Decimal("1.10"), "1.10"),
    (dt.datetime, dt.datetime(2026, 1, 2, 3, tzinfo=dt.UTC), "2026-01-02T03:00:00Z"),
    (dt.timedelta, dt.timedelta(seconds=1.5), "PT1.5S"),
    (uuid.UUID, uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    (Color, Color.RED, "red"),
    (dict[Color, int], {Color.RED: 1}, {"red": 1}),
    (Corner, Corner.TOP, [0, 1]),
    (float, -0.0, -0.0),
    (float, 1e308, 1e308),
    (float, 3, 3),
    (int, 2**53 - 1, 2**53 - 1),
    (object, Point(1, 2), {"x": 1, "y": 2}),
    (object, Color.RED, "red"),
    (Unequal, Unequal(b"a"), {"name": "YQ==", "when": None}),
    (Tagged, Tagged(1), {"type": "tagged", "someValue": 1}),
]


@pytest.mark.parametrize(("annotation", "value", "text"), GOOD)
def test_a_value_is_written_in_its_json_form(annotation, value, text):
    forms = forms_of(annotation)
    assert json.loads(encode(forms.result.write(value))) == text


BAD = [
    (float, math.nan),
    (float, -math.inf),
    (list[float], [1.0, math.inf]),
    (dict[float, int], {math.nan: 1}),
    (complex, complex(0, math.nan)),
    (decimal.Decimal, decimal.Decimal("NaN")),
    (decimal.Decimal, decimal.Decimal("sNaN")),
    (Color | str, Color.RED),
    (int, 2**53),
    (int, -(2**53)),
    (object, [2**60]),
    (dict, {1: "a", "1": "b"}),
    (dict[Any, int], {Color.RED: 1, "red": 2}),
    (dict[int | str, int], {1: 1, "1": 2}),
    (dict, {1: "a"}),
    (dict[Any, int], {(1, 2): 3}),
    (dict[Any, int], {True: 1}),
    (dict[Any, int], {None: 1}),
    (object, b"bytes"),
    (object, {1, 2}),
    (object, (1, 2)),
    (object, 1j),
    (object, dt.date(2026, 1, 1)),
    (object, decimal.Decimal(1)),
    (object, uuid.UUID(int=1)),
    (str | bytes, b"abc"),
    (dt.datetime | str, dt.datetime(2026, 1, 1)),  # noqa: DTZ001
    (str, "\ud800"),
    (dict[str, int], {"\udfff": 1}),
    (dt.datetime, dt.datetime(2026, 10, 25, 2, 30, fold=1)),  # noqa: DTZ001
    (dt.time, dt.time(2, 30, fold=1)),
    # Without a date, a zone whose offset depends on the date has none.
    (dt.time, dt.time(2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"))),
    (list[dt.time], [dt.time(2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"))]),
    (int, "1"),
    (None, 1),
    (object, object()),
]


@pytest.mark.parametrize(("annotation", "value"), BAD)
def test_a_value_that_json_would_change_is_refused_when_it_is_written(annotation, value):
    forms = forms_of(annotation)
    assert forms is not None
    with pytest.raises((TypeError, ValueError)) as caught:
        forms.result.write(value)
    assert "\n" not in str(caught.value)


def test_the_fold_of_a_time_with_a_zone_is_kept_in_its_offset():
    forms = forms_of(dt.datetime)

    class Zone(dt.tzinfo):
        def utcoffset(self, when):
            return dt.timedelta(hours=2 - when.fold)

    second = dt.datetime(2026, 10, 25, 2, 30, tzinfo=Zone(), fold=1)
    assert forms.result.write(second) == "2026-10-25T02:30:00+01:00"


def test_numbers_of_other_libraries_are_written_if_they_are_python_floats():
    class Float64(float):  # like numpy.float64; numpy.int64 is not an int
        def __repr__(self) -> str:
            return f"np.float64({float(self)})"

    class Int64:
        def __index__(self) -> int:
            return 1

    assert forms_of(float).result.write(Float64(1.5)) == 1.5
    with pytest.raises(TypeError, match="Int64 cannot be sent as JSON"):
        forms_of(int).result.write(Int64())


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"a": 1, "a": 2}', "the key 'a' appears twice"),
        (b'{"a": {"b": 1, "b": 1}}', "the key 'b' appears twice"),
        (b'{"a": 9007199254740993}', "beyond 2^53"),
        (b'{"a": -9007199254740993}', "beyond 2^53"),
        (b'{"a": ' + b"9" * 5000 + b"}", "out of range"),
        (b'{"a": 1e400}', "out of range"),
        (b'{"a": 1e-400}', "too small"),
        (b'{"a": NaN}', "malformed"),
        (b'{"a": Infinity}', "malformed"),
        (b'{"a": "\\ud800"}', "data"),
        (b"[" * 100_000, "nested"),
    ],
)
def test_a_body_that_would_be_changed_by_reading_is_refused(body, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        from_json_exactly(body)


@dataclasses.dataclass
class Holder:
    numbers: set[int]
    table: dict[float, list[frozenset[str]]] = dataclasses.field(default_factory=dict)


@pytest.mark.parametrize(
    ("annotation", "body"),
    [
        (set[int], b"[1, 1]"),
        (frozenset[Color], b'["red", "blue", "red"]'),
        (list[set[int]], b"[[1], [2, 2]]"),
        (tuple[set[int], int], b"[[1, 1], 1]"),
        (dict[str, set[int]], b'{"a": [1, 1]}'),
        (dict[float, int], b'{"1": 1, "1.0": 2}'),
        (Holder, b'{"numbers": [1, 1]}'),
        (Holder, b'{"numbers": [1], "table": {"1": [["a", "a"]]}}'),
        (Holder | None, b'{"numbers": [1], "table": {"1": [], "1e0": []}}'),
    ],
)
def test_an_argument_with_repeated_elements_or_keys_is_refused(annotation, body):
    with pytest.raises(InvalidArguments, match=r"twice|equal after conversion|repeats an element"):
        forms_of(annotation).bind({"x": from_json_exactly(body)})


class Renamed(msgspec.Struct, rename="camel", frozen=True):
    some_names: frozenset[str] = frozenset()
    some_numbers: frozenset[int] = frozenset()


class TaggedArray(msgspec.Struct, array_like=True, tag="array"):
    names: set[str]


class Keyed(pydantic.BaseModel):
    names: set[str] = pydantic.Field(set(), alias="theNames")
    hidden: set[int] = pydantic.Field(set(), exclude=True)
    either: set[str] = pydantic.Field(
        set(), validation_alias=pydantic.AliasChoices("first", "second")
    )


class Open(pydantic.BaseModel, extra="allow"):
    __pydantic_extra__: dict[str, set[str]] = pydantic.Field(init=False)


class Root(pydantic.RootModel[list[set[str]]]):
    pass


@pydantic.dataclasses.dataclass
class KeyedDataclass:
    names: set[str] = pydantic.Field(alias="theNames")


@attrs.define
class Private:
    _names: set[str]
    sizes: set[int] = attrs.field(factory=set, alias="counts")


class Named(NamedTuple):
    key: str
    names: set[str]


class Entry(TypedDict, total=False):
    first: list[str]
    names: set[str]


class Numbered(TypedDict, total=False):
    first: list[int]
    numbers: set[int]


REPEATED = [
    (Renamed, {"someNames": ["a", "a"]}),
    (Renamed, {"someNumbers": [1, 1]}),
    (list[Renamed], [{"someNames": []}, {"someNames": ["a", "a"]}]),
    (TaggedArray, ["array", ["a", "a"]]),
    (Keyed, {"theNames": ["a", "a"]}),
    (Keyed, {"hidden": [1, 1]}),
    (Keyed, {"first": ["a", "a"], "second": ["a"]}),
    (Keyed, {"second": ["a", "a"]}),
    (dict[str, Keyed], {"a": {"theNames": ["a", "a"]}}),
    (Open, {"other": ["a", "a"]}),
    (Root, [["a"], ["a", "a"]]),
    (KeyedDataclass, {"theNames": ["a", "a"]}),
    (Private, {"_names": ["a", "a"]}),
    (Private, {"_names": [], "sizes": [1, 1]}),
    (Named, ["a", ["a", "a"]]),
    (Entry, {"unknown": 1, "names": ["a", "a"], "first": []}),
    (Numbered, {"numbers": [1, 1], "first": []}),
    (collections.deque[set[str]], [["a"], ["a", "a"]]),
    (collections.OrderedDict[str, set[str]], {"a": ["a", "a"]}),
    (dict[bytes, int], {"YQ==": 1, "YR==": 2}),
    (set[frozenset[str]], [["a", "a"], ["b", "c"]]),
    (set[frozenset[int]], [[1, 1], [2, 3]]),
    (set[tuple[frozenset[str], int]], [[["a", "a"], 1]]),
    (set[Renamed], [{"someNames": ["a", "a"]}]),
    (list[set[frozenset[str]]], [[["a", "a"], ["b", "c"]]]),
]


@pytest.mark.parametrize(("annotation", "value"), REPEATED)
def test_a_repeated_element_is_found_under_any_key_and_in_any_container(annotation, value):
    forms = forms_of(annotation)
    with pytest.raises(InvalidArguments, match=r"twice|equal after conversion|repeats an element"):
        forms.bind({"x": value})
    ask = CallbackForm("ask", Callable[[], Awaitable[annotation]])
    with pytest.raises(trio_rpc.DecodeError):
        ask.read(value, 1000)


@pytest.mark.parametrize(
    ("annotation", "value", "read"),
    [
        (Holder, {"numbers": [1, 2], "unknown": [1, 1]}, Holder({1, 2})),
        (Renamed, {"someNames": ["a"], "some_names": ["b", "b"]}, Renamed(frozenset("a"))),
        (Keyed, {"theNames": ["a"], "names": ["b", "b"]}, Keyed(theNames={"a"})),
        (Keyed, {"first": ["a"], "second": ["b", "b"]}, Keyed(first={"a"})),
        (Entry, {"names": ["a"], "unknown": ["b", "b"]}, {"names": {"a"}}),
        (Entry, {"unknown": ["b", "b"]}, {}),
        (Numbered, {"unknown": [1, 1], "numbers": [1], "first": [2, 2]}, None),
        (set[frozenset[int]] | list[list[int]], [[1, 1], [2]], [[1, 1], [2]]),
        (list[str], ["a", "a"], ["a", "a"]),
    ],
)
def test_a_value_that_loses_nothing_is_accepted(annotation, value, read):
    got = forms_of(annotation).bind({"x": value})["x"]
    assert got == (read if read is not None else {"numbers": {1}, "first": [2, 2]})
    assert CallbackForm("ask", Callable[[], Awaitable[annotation]]).read(value, 1000) == got


def test_law_13_keys_that_arrive_choose_no_attribute():
    class Watched:
        looked_up = False

        @property
        def trap(self):
            Watched.looked_up = True
            raise ValueError("of the class")

    made = dataclasses.make_dataclass("Made", [("names", set[str])], bases=(Watched,))
    read = forms_of(made).bind({"x": {"names": ["a"], "trap": ["b", "b"]}})["x"]
    assert read == made({"a"})
    assert not Watched.looked_up


def test_a_body_keeps_numbers_and_texts_exactly():
    body = b'{"a": -0.0, "b": 100000000000000000000, "c": 1e-300, "d": "\\ud83d\\ude00", "e": 0e5}'
    read = from_json_exactly(body)
    assert read == {"a": 0.0, "b": 1e20, "c": 1e-300, "d": "😀", "e": 0.0}
    assert math.copysign(1, read["a"]) == -1
    assert type(read["b"]) is float


def test_an_integer_that_a_browser_may_have_rounded_is_refused_but_a_large_float_is_not():
    assert forms_of(float).bind(from_json_exactly(b'{"x": 100000000000000000000}')) == {"x": 1e20}
    with pytest.raises(InvalidArguments, match="Expected `int`, got `float`"):
        forms_of(int).bind(from_json_exactly(b'{"x": 9007199254740992}'))


@pytest.mark.parametrize(
    "value",
    [b"", (1,), {1}, {1: 2}, 2**53, math.nan, 1j, Point(1, 2), Color.RED, "\ud800", [dt.date.min]],
)
def test_without_an_annotation_only_json_values_can_be_sent(value):
    if isinstance(value, (Point, Color)):
        assert to_json(value)  # they become an object and a text
        return
    with pytest.raises((TypeError, ValueError)):
        to_json({"x": value})


# ── registration ─────────────────────────────────────────────────────────────────────────────


class Several(Protocol[T]):
    async def __call__(self, one: T, *more: T, **others: T) -> None: ...


class OfBytes(Several[bytes], Protocol):
    """A Protocol that fills in the type variable of its base."""


Sink = TypeAliasType("Sink", "Callable[[T], Awaitable[None]]", type_params=(T,))
Bound = TypeVar("Bound", bound=Callable[[bytes], Awaitable[None]])


class WithDate(Protocol):
    async def __call__(self, when: dt.date, *, size: int = 0) -> None: ...


@pytest.mark.parametrize(
    ("annotation", "args", "kwargs", "written"),
    [
        (Callable[[int], Awaitable[None]], (1,), {}, (1, False)),
        (Callable[[bytes], Awaitable[None]], (b"a",), {}, ("YQ==", False)),
        (Callable[[bytes, int], Awaitable[None]] | None, (b"a", 1), {}, (["YQ==", 1], True)),
        (Callable[[list[int]], Awaitable[None]], ([1, 2],), {}, ([1, 2], False)),
        (Callable[[], Awaitable[None]], (), {}, (None, True)),
        (Callable[..., Awaitable[None]], (1, 2), {}, ([1, 2], True)),
        (Callable[..., Awaitable[None]], (), {"a": 1}, ({"a": 1}, True)),
        (Callable, (1,), {}, (1, False)),
        (WithDate, (dt.date(2026, 1, 2),), {}, ("2026-01-02", False)),
        (Several[bytes], (b"a", b"a"), {}, (["YQ==", "YQ=="], True)),
        (Several[bytes], (), {"one": b"a", "b": b"a"}, ({"one": "YQ==", "b": "YQ=="}, True)),
        (OfBytes, (b"a",), {}, ("YQ==", False)),
        (Sink[bytes], (b"a",), {}, ("YQ==", False)),
        (Sink[bytes] | None, (b"a",), {}, ("YQ==", False)),
        (Bound, (b"a",), {}, ("YQ==", False)),
        (Callable[[int, *tuple[bytes, ...]], Awaitable[None]], (1, b"a"), {}, ([1, "YQ=="], True)),
        (
            WithDate,
            (),
            {"when": dt.date(2026, 1, 2), "size": 1},
            ({"when": "2026-01-02", "size": 1}, True),
        ),
    ],
)
def test_arguments_of_callbacks_are_written(annotation, args, kwargs, written):
    assert CallbackForm("found", annotation).write(args, kwargs) == written


@pytest.mark.parametrize(
    ("annotation", "args", "kwargs"),
    [
        (Callable[[int], Awaitable[None]], (), {}),
        (Callable[[int], Awaitable[None]], (1, 2), {}),
        (Callable[[int], Awaitable[None]], ("1",), {}),
        (Callable[[int], Awaitable[None]], (), {"found": 1}),
        (Callable[..., Awaitable[None]], (b"bytes",), {}),
        (Callable[..., Awaitable[None]], (1,), {"a": 1}),
        (Callable[..., Awaitable[None]], (), {"a": math.nan}),
        (WithDate, ("2026",), {}),
        (Several[bytes], (b"a", 1), {}),
        (Several[bytes], (), {"one": b"a", "b": 1}),
        (Sink[bytes], (1,), {}),
        (Bound, (1,), {}),
    ],
)
def test_arguments_of_callbacks_that_do_not_fit_are_refused(annotation, args, kwargs):
    with pytest.raises((TypeError, ValueError)):
        CallbackForm("found", annotation).write(args, kwargs)


def test_call_back_with_several_arguments_requires_a_tuple():
    two = CallbackForm("found", Callable[[int, str], Awaitable[None]])
    assert two.write_whole((1, "a")) == ([1, "a"], True)
    with pytest.raises(TypeError, match="several arguments: give a tuple"):
        two.write_whole([1, "a"])
    one = CallbackForm("found", Callable[[tuple[int, int]], Awaitable[None]])
    assert one.write_whole((1, 2)) == ([1, 2], False)
    none = CallbackForm("done", Callable[[], Awaitable[None]])
    assert none.write_whole(None) == (None, True)


class Refused:
    """Methods that a browser could never call."""

    async def positional(self, a: int, /, b: int = 1) -> int: ...
    async def optional_positional(self, a: int = 1, /) -> int: ...
    async def not_ascii(self, größe: Callable[[int], Awaitable[None]]) -> None: ...  # noqa: PLC2401
    async def taken(self, spread: Callable[[int], Awaitable[None]]) -> None: ...
    async def many(self, **callbacks: Callable[[int], Awaitable[None]]) -> None: ...
    async def inside(self, callbacks: list[Callable[[int], Awaitable[None]]]) -> None: ...
    async def asked_plainly(self, found: Callable[[int], bool] | None = None) -> None: ...
    async def bound(self, found: Callable[[Missing], Awaitable[None]]) -> None: ...  # noqa: F821
    async def unknown(self) -> Missing: ...  # noqa: F821


@dataclasses.dataclass(frozen=True)
class Place:
    row: int


@dataclasses.dataclass
class Board:
    places: dict[Place, int]


class BoardModel(pydantic.BaseModel):
    places: dict[tuple[int, int], int]


class BoardRoot(pydantic.RootModel[dict[tuple[int, int], int]]): ...


@dataclasses.dataclass
class Boards:
    all: list[BoardModel]


@pytest.mark.parametrize(
    "annotation",
    [
        dict[tuple[int, int], int],
        dict[bool, int],
        dict[None, int],
        dict[complex, int],
        dict[Place, int],
        dict[Corner, int],
        dict[Literal[True], int],
        Mapping[frozenset[int], int],
        list[dict[str, dict[tuple[int, ...], int]]],
        Board | None,
        BoardModel,
        BoardRoot,
        Boards,
        dict[bool | tuple[int, ...], int],
    ],
    ids=str,
)
def test_a_dict_with_keys_that_are_not_text_in_json_is_refused_at_registration(annotation):
    async def take(self, x): ...

    async def give(self): ...

    async def tell(self, found): ...

    take.__annotations__["x"] = give.__annotations__["return"] = annotation
    tell.__annotations__["found"] = Callable[[annotation], Awaitable[None]]
    for function, what in ((take, "'x'"), (give, "its result"), (tell, "'found'")):
        service = type("Service", (), {"do": trio_rpc.method(function)})()
        text = rf"^do, in a gateway: {what} has keys of .* keys are text in JSON: write a list of pairs"
        with pytest.raises(TypeError, match=text):
            Gateway(service)


@pytest.mark.parametrize(
    "annotation",
    [
        dict[int | bool, int],
        dict[Color, int],
        dict[uuid.UUID, int],
        dict[Any, int],
        dict[str, Place],
    ],
    ids=str,
)
def test_a_dict_with_keys_that_have_a_text_in_json_is_accepted(annotation):
    async def take(self, x): ...

    take.__annotations__["x"] = annotation
    Gateway(type("Service", (), {"do": trio_rpc.method(take)})())


@pytest.mark.parametrize("name", [name for name in vars(Refused) if not name.startswith("_")])
def test_a_method_that_no_browser_can_call_is_refused_at_registration(name):
    function = trio_rpc.method(vars(Refused)[name])
    service = type("Service", (), {name: function, "__module__": __name__})()
    with pytest.raises(TypeError, match=name):
        Gateway(service)


def test_a_method_that_reports_its_start_can_be_called_by_a_browser():
    class Service:
        @trio_rpc.method
        async def serve(self, port: int, *, task_status: trio.TaskStatus[int]) -> None: ...

    [method] = build_table(Service()).values()
    bound = Forms(method).bind({"port": 1})
    assert bound == {"port": 1, "task_status": trio.TASK_STATUS_IGNORED}
    with pytest.raises(InvalidArguments, match="task_status"):
        Forms(method).bind({"port": 1, "task_status": 2})


def test_methods_that_a_browser_can_call_partly_are_accepted():
    class Service:
        @trio_rpc.method
        async def log(self, line: str, *parts: str, größe: int = 1, **more: int) -> None: ...  # noqa: PLC2401

        @trio_rpc.method
        async def maybe(self, found: Callable[[int], Awaitable[None]] | None = None) -> None: ...

        @trio_rpc.method
        async def with_date(self, found: WithDate) -> None: ...

        @trio_rpc.method
        async def with_ignored_results(
            self,
            found: Callable[[int], object],
            lost: Callable[[int], Awaitable[bool | None]],
            done: Callable[[], Awaitable[bool | None]],
        ) -> None: ...

    assert Gateway(Service())


def test_converting_the_arguments_of_a_call_has_a_bounded_cost():
    forms = forms_of(list[pathlib.Path])
    body = {"x": ["a"] * 100}
    assert len(forms.bind(body)["x"]) == 100
    with pytest.raises(InvalidArguments, match=r"max_nodes \(500\) in the limits of the receiving"):
        forms.bind(body, 500)


def test_the_gateways_own_results_have_no_such_bound():
    paths = [pathlib.Path("a")] * 40_000  # a quarter of a million units, and more
    assert Form(list[pathlib.Path], adapt(list[pathlib.Path])).write(paths) == ["a"] * 40_000


OnItem = Callable[[int], Awaitable[None]]


@dataclasses.dataclass
class Hooks:
    on: OnItem
    name: str = ""


@attrs.define
class AttrsHooks:
    on: OnItem


class StructHooks(msgspec.Struct):
    on: list[OnItem]


class NamedHooks(NamedTuple):
    on: OnItem


class DictHooks(TypedDict):
    on: OnItem


class ModelHooks(pydantic.BaseModel):
    on: OnItem


class RootHooks(pydantic.RootModel[list[OnItem]]): ...


@dataclasses.dataclass
class MoreHooks:
    inner: dict[str, ModelHooks]


@dataclasses.dataclass
class MayHook:
    on: OnItem | None = None
    parts: list[MayHook] = dataclasses.field(default_factory=list)


class MayHookModel(pydantic.BaseModel):
    on: OnItem | None = None
    parts: list[MayHookModel] = []


@dataclasses.dataclass
class Chain:
    after: Chain | None
    name: str


@pytest.mark.parametrize(
    "annotation",
    [
        Hooks,
        AttrsHooks,
        StructHooks,
        NamedHooks,
        DictHooks,
        ModelHooks,
        RootHooks,
        MoreHooks,
        list[Hooks],
        Hooks | None,
        Hooks | ModelHooks,
    ],
    ids=str,
)
def test_objects_that_always_have_a_function_are_refused_when_a_gateway_is_made(annotation):
    async def take(self, x): ...

    async def give(self): ...

    take.__annotations__["x"] = give.__annotations__["return"] = annotation
    for function, what in ((take, "'x' can never be passed"), (give, "its result can never be")):
        service = type("Service", (), {"do": trio_rpc.method(function)})()
        with pytest.raises(TypeError, match=f"^do, in a gateway: {what}.*no functions inside"):
            Gateway(service)


@pytest.mark.parametrize("annotation", [MayHook, MayHookModel, Hooks | int, Chain], ids=str)
def test_objects_that_may_have_no_function_are_accepted_by_a_gateway(annotation):
    async def take(self, x): ...

    async def give(self): ...

    take.__annotations__["x"] = give.__annotations__["return"] = annotation
    for function in (take, give):
        Gateway(type("Service", (), {"do": trio_rpc.method(function)})())

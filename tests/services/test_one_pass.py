"""Decoding directly into annotated types gives the same values as decoding in two steps.

The two ways are compared on bytes as our own encoder writes them, and on bytes that another encoder
could write: numbers of any width, keys in any order or given twice, fields that a class does not
have, text that is not UTF-8, and extensions.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime as dt
import enum
import functools
import struct
import tracemalloc
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, TypedDict

import msgspec
import pytest
from helpers.wire_values import QUICK, values
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_rpc.errors import DecodeError, InvalidArguments
from trio_rpc.services.shapes import shape_of
from trio_rpc.services.signatures import Signature
from trio_rpc.wire import Codec, Limits
from trio_rpc.wire.codec import REFUSED
from trio_rpc.wire.messages import Item, Notification, Reply, Request


@dataclasses.dataclass
class Point:
    x: int
    y: float = 0.5


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    name: str
    points: list[Point]
    data: bytes | None = None


@dataclasses.dataclass
class Open:
    x: Any
    more: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Tree:
    x: int
    parts: list[Tree] = dataclasses.field(default_factory=list)


class Made(msgspec.Struct):
    x: int
    name: str = ""


class Row(msgspec.Struct, array_like=True):
    x: int
    name: str = ""


class Named(TypedDict):
    x: int
    name: NotRequired[str]


class Pair(NamedTuple):
    x: int
    name: str = ""


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1


TYPES = [
    Point, Line, Open, Tree, Made, Row, Named, Pair, Colour, Level, Any, int, float, str, bytes, bool, None,
    list, dict, list[int], list[float], list[Point], list[bytes], dict[str, Any], dict[str, Point],
    dict[str, Made], collections.abc.Sequence[int], collections.abc.Mapping[str, Line], int | None,
    Point | None, list[Any], list[dict[str, Any]], list[Colour], Literal["red", 1],
    Annotated[int, msgspec.Meta(gt=0)], dict[str, list[Row]], list[Pair | None], str | list[str],
]  # fmt: skip

WITH_SHAPE = [one for one in TYPES if one not in (Any, int, float, str, bool, None)]


# ── bytes that any encoder could write ───────────────────────────────────────────────────────


def _header(size, small, limit, wide):
    return bytes([small | size]) if size < limit else bytes([wide]) + struct.pack(">I", size)


def text(data):
    return _header(len(data), 0xA0, 32, 0xDB) + data


def array(parts, *, wide=False):
    return _header(len(parts), 0x90, 0 if wide else 16, 0xDD) + b"".join(parts)


def a_map(pairs, *, wide=False):
    head = _header(len(pairs), 0x80, 0 if wide else 16, 0xDF)
    return head + b"".join(key + value for key, value in pairs)


numbers = st.one_of(
    st.integers(-32, 127).map(lambda n: struct.pack(">b", n)),
    st.integers(0, 2).map(lambda n: b"\xcc" + struct.pack(">B", n)),
    st.integers(-2, 2).map(lambda n: b"\xd2" + struct.pack(">i", n)),
    st.integers(-(2**63), 2**63 - 1).map(lambda n: b"\xd3" + struct.pack(">q", n)),
    st.integers(0, 2**64 - 1).map(lambda n: b"\xcf" + struct.pack(">Q", n)),
    st.floats(width=32).map(lambda n: b"\xca" + struct.pack(">f", n)),
    st.floats().map(lambda n: b"\xcb" + struct.pack(">d", n)),
)
NAMES = [b"x", b"y", b"name", b"points", b"data", b"more", b"parts", b"red", b"other"]
texts = st.sampled_from(NAMES).map(text) | st.sampled_from(
    [b"", "é".encode(), b"\xff", b"\xed\xa0\x80"]
).map(text)
leaves = st.one_of(
    numbers,
    texts,
    st.sampled_from([b"\xc0", b"\xc2", b"\xc3", b"\xc4\x01b", b"\xc1"]),
    values.map(lambda one: Codec().encode(Reply(1, one))[3:]),
    st.sampled_from(
        [b"\xd6\xff\0\0\0\1", b"\xd4\x01\x90", b"\xc7\x0c\xff" + bytes(12), b"\xd4\x40\1"]
    ),
)
anything = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(array, st.lists(inner, max_size=4), wide=st.booleans()),
        st.builds(a_map, st.lists(st.tuples(texts | inner, inner), max_size=4), wide=st.booleans()),
    ),
    max_leaves=8,
)
xs = st.just(text(b"x"))
points = st.builds(
    a_map,
    st.lists(st.tuples(texts, anything), max_size=1).flatmap(
        lambda more: st.tuples(
            st.tuples(xs, numbers), st.tuples(st.just(text(b"y")), numbers), *map(st.just, more)
        ).flatmap(st.permutations)
    ),
)
lines = st.builds(
    lambda name, several, data: a_map(
        [(text(b"name"), name), (text(b"points"), array(several)), (text(b"data"), data)]
    ),
    texts,
    st.lists(points, max_size=3),
    st.sampled_from([b"\xc0", b"\xc4\x01b"]) | anything,
)
likely = st.one_of(anything, points, lines, st.builds(array, st.lists(points | lines, max_size=3)))


# ── values as our own encoder writes them ────────────────────────────────────────────────────

integers, names = st.integers(-(2**63), 2**64 - 1), st.text(max_size=5)
made_points = st.builds(Point, integers, st.floats())
fitting = st.one_of(
    values,
    made_points,
    st.builds(Line, names, st.lists(made_points, max_size=3), st.none() | st.binary(max_size=3)),
    st.builds(Open, values, st.dictionaries(names, values, max_size=2)),
    st.recursive(
        st.builds(Tree, integers), lambda inner: st.builds(Tree, integers, st.lists(inner))
    ),
    st.builds(Made, integers, names),
    st.builds(Row, integers, names),
    st.builds(Pair, integers, names),
    st.sampled_from([*Colour, *Level]),
    st.lists(made_points, max_size=3),
    st.dictionaries(names, made_points, max_size=3),
)


# ── the two ways ─────────────────────────────────────────────────────────────────────────────


def signature_of_type(wanted):
    def function(value):
        """Accept one argument."""

    function.__annotations__ = {"value": wanted, "return": wanted}
    return Signature(function, skip_self=False, name="f")


SIGNATURES = [signature_of_type(wanted) for wanted in TYPES]


class Types:
    """The annotated types of one method, for its arguments, its result and its items."""

    def __init__(self, signature):
        self.signature = signature
        self.shape = shape_of(signature.adapted_result())

    def arguments(self, method, count):
        return self.signature.shape(count)

    def result(self, call):
        return self.shape

    item = result


def codec_for(signature, **options):
    codec = Codec(**options)
    codec.use(types_of(signature))
    return codec


types_of = functools.cache(Types)


def arrived(signature, packet, limits, *, directly):
    """Return the converted values and the kind of the message, or the error."""
    codec = codec_for(signature, limits=limits)
    if not directly:
        codec._refused = 1
    try:
        [message] = codec.decode(packet)
        assert directly or getattr(message, "shape", None) is None
        if getattr(message, "problem", None) is not None:
            return message.problem
        if isinstance(message, Request | Notification):
            if message.shape is not None:
                return message.args, {}, getattr(message, "context", None)
            bound = signature.bind(message.args, message.kwargs)
            return list(bound[0]), bound[1], getattr(message, "context", None)
        if isinstance(message, Reply | Item):
            value = getattr(message, "result", None) if type(message) is Reply else message.value
            size = getattr(message, "size", 0)
            convert = signature.result_converter()
            if message.shape is None and convert is not None:
                value = convert(value)
            return value, size
    except (DecodeError, InvalidArguments) as error:
        return f"{type(error).__name__}: {error}"
    else:
        return repr(message)


def shown(value):
    """Return a form of a value in which NaN is equal to itself, and all types show."""
    if dataclasses.is_dataclass(value):
        state = {f.name: shown(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return type(value), state
    if isinstance(value, msgspec.Struct):
        return type(value), shown(msgspec.structs.asdict(value))
    if isinstance(value, dict):
        return type(value), [(shown(key), shown(one)) for key, one in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [shown(one) for one in value]
    return type(value), repr(value)


def check(signature, packet, limits):
    one = arrived(signature, packet, limits, directly=True)
    other = arrived(signature, packet, limits, directly=False)
    assert shown(one) == shown(other)


limited = st.builds(
    lambda depth, nodes: Limits(max_depth=depth, max_nodes=nodes),
    st.sampled_from([2, 3, 5, 64]),
    st.sampled_from([4, 16, 64, 250_000]),
)


@given(st.sampled_from(SIGNATURES), likely, limited)
@settings(QUICK, max_examples=100)
def test_any_bytes_mean_the_same_in_both_ways(signature, value, limits):
    name = text(b"f")
    for packet in (
        b"\x94\x01\x05" + name + array([value]),
        b"\x96\x01\x05" + name + array([value]) + b"\x80" + a_map([(text(b"deadline"), b"\x01")]),
        b"\x95\x01\x05" + name + array([]) + a_map([(text(b"value"), value)]),
        b"\x93\x02" + name + array([value]),
        b"\x93\x03\x05" + value,
        b"\x93\x14\x05" + value,
    ):
        check(signature, packet, limits)


@given(st.sampled_from(SIGNATURES), fitting, limited)
@settings(QUICK, max_examples=100)
def test_values_of_our_own_encoder_mean_the_same_in_both_ways(signature, value, limits):
    codec = Codec()
    for message in (
        Request(5, "f", [value]),
        Request(5, "f", [value], None, {"deadline": 1.5, "tags": {"a": value}}),
        Request(5, "f", [], {"value": value}),
        Notification("f", [value]),
        Reply(5, value),
        Item(5, value),
    ):
        check(signature, codec.encode(message), limits)


def twice(key, value=b"\x01"):
    """Return a map in which one key is given twice."""
    return a_map([(text(key), value), (text(key), value)])


def deep(levels):
    return b"\x91" * levels + b"\x01"


CALL, BY_NAME, IN_CONTEXT = b"\x94\x01\x05", b"\x95\x01\x05", b"\x96\x01\x05"
NAME, NONE, NO_NAMES = text(b"f"), b"\x90", b"\x80"
BAD_MESSAGES = {
    "a key twice in an argument": (Any, CALL + NAME + array([twice(b"x")])),
    "a key twice in a dataclass": (Point, CALL + NAME + array([twice(b"x")])),
    "a key twice in a result": (Point, b"\x93\x03\x05" + twice(b"x")),
    "a key twice in an item": (Any, b"\x93\x14\x05" + twice(b"x")),
    "a key twice in a notification": (Any, b"\x93\x02" + NAME + array([twice(b"x")])),
    "a name twice": (Any, BY_NAME + NAME + NONE + twice(b"value")),
    "a key twice in a named argument": (
        Any,
        BY_NAME + NAME + NONE + a_map([(text(b"value"), twice(b"x"))]),
    ),
    "a key twice in the context": (
        int,
        IN_CONTEXT + NAME + array([b"\x01"]) + NO_NAMES + twice(b"deadline"),
    ),
    "a key twice below the context": (
        int,
        IN_CONTEXT + NAME + array([b"\x01"]) + NO_NAMES + a_map([(text(b"tags"), twice(b"x"))]),
    ),
    "an argument too deep": (Any, CALL + NAME + array([deep(4)])),
    "a result too deep": (Any, b"\x93\x03\x05" + deep(4)),
    "a named argument too deep": (
        Any,
        BY_NAME + NAME + NONE + a_map([(text(b"value"), deep(4))]),
    ),
    "the context too deep": (
        list[int],
        IN_CONTEXT
        + NAME
        + array([array([b"\x01"])])
        + NO_NAMES
        + a_map([(text(b"tags"), deep(4))]),
    ),
}


@pytest.mark.parametrize("what", BAD_MESSAGES)
def test_a_forbidden_message_is_refused_in_both_ways(what):
    wanted, packet = BAD_MESSAGES[what]
    is_deep = "deep" in what
    limits = Limits(max_depth=4) if is_deep else Limits()
    for directly in (True, False):
        found = arrived(signature_of_type(wanted), packet, limits, directly=directly)
        assert ("more than 4 levels deep" if is_deep else "twice") in str(found)


TUPLE = b"\xd4\x01\x90"
DATE = b"\xc7\x0a\x05" + b"2026-01-02"


@pytest.mark.parametrize(("raw", "value"), [(TUPLE, ()), (DATE, dt.date(2026, 1, 2))])
def test_a_field_that_may_be_anything_takes_an_extension_as_the_protocol_reads_it(raw, value):
    signature = signature_of_type(Open)
    for directly in (True, False):
        args, _, _ = arrived(
            signature,
            CALL + NAME + array([a_map([(text(b"x"), raw), (text(b"more"), b"\x80")])]),
            Limits(),
            directly=directly,
        )
        assert args == [Open(value)]


# ── which types have a shape ─────────────────────────────────────────────────────────────────


SENT = [
    Point(1, 2.5), Line("a", [Point(1)], b"b"), Open({"a": [1]}, {"b": None}), Tree(1, [Tree(2)]),
    Made(1, "a"), Row(1, "a"), {"x": 1}, Pair(1, "a"), Colour.RED, Level.LOW,
]  # fmt: skip


@pytest.mark.parametrize("value", SENT, ids=repr)
def test_a_lone_message_is_decoded_directly(value):
    wanted = Named if type(value) is dict else type(value)
    several = list[wanted]  # type: ignore[valid-type]
    signature = signature_of_type(several)
    codec = codec_for(signature)
    for message in (Request(1, "f", [[value]]), Reply(1, [value]), Item(1, [value])):
        [arrived] = codec.decode(codec.encode(message))
        assert arrived.shape is not None
        [made] = arrived.args[0] if type(arrived) is Request else arrived.to_wire()[2]
        assert type(made) is type(value)
        assert made == value


class Initialised(msgspec.Struct):
    x: int

    def __post_init__(self):
        raise AssertionError


@dataclasses.dataclass
class Checked:
    x: int

    def __post_init__(self):
        raise AssertionError


@dataclasses.dataclass
class Numbered:
    x: int = dataclasses.field(default_factory=lambda: 1)


class Lenient(enum.Enum):
    A = "a"

    @classmethod
    def _missing_(cls, value):
        raise AssertionError


class Brief(msgspec.Struct, omit_defaults=True):
    x: int = 0


@pytest.mark.parametrize(
    "wanted",
    [
        Initialised, Checked, Numbered, Lenient, Brief, list[Checked], dict[str, Lenient],
        set[int], frozenset[str], tuple[int, ...], dict[int, str], dt.datetime, bytearray, memoryview,
        complex, list[tuple[int, int]], collections.abc.Callable[[], int], Point | Line,
    ],
    ids=str,
)  # fmt: skip
def test_types_that_run_code_of_users_or_are_not_plain_have_no_shape(wanted):
    """Such code must not run before the protocol has accepted the message."""
    signature = signature_of_type(wanted)
    assert shape_of(signature.adapted_result()) is None
    assert signature.shape(1) is None


def test_only_numbers_of_arguments_that_fit_have_a_shape():
    def function(a: Point, b: int = 1, *, c: int = 2):
        """Accept some arguments."""

    signature = Signature(function, skip_self=False)
    shapes = [signature.shape(count) for count in (-16, 0, 1, 2, 3, 111)]
    assert [shape is not None for shape in shapes] == [False, False, True, True, False, False]


def test_messages_that_look_like_one_that_was_refused_are_read_in_the_other_way_for_a_while():
    signature = signature_of_type(Point)
    codec = codec_for(signature)
    good = codec.encode(Reply(1, Point(1)))
    other = b"\x93\x03\x01" + a_map([(text(b"x"), b"\x01"), (text(b"unknown"), b"\x01")])
    found = []
    for packet in (good, other, *[good] * (REFUSED + 1)):
        [message] = codec.decode(packet)
        found.append(message.shape is not None)
    assert found == [True, False, *[False] * REFUSED, True]


def test_the_large_values_of_a_list_are_not_reserved_before_they_arrive():
    """A list is made as it fills, whatever length is announced."""
    signature = signature_of_type(list[Point])
    for value in (b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdc\xff\xff" * 100):
        tracemalloc.start()
        try:
            with pytest.raises(DecodeError):
                list(codec_for(signature).decode(b"\x93\x03\x05" + value))
            assert tracemalloc.get_traced_memory()[1] < 1_000_000
        finally:
            tracemalloc.stop()

"""Plain values are encoded by msgspec, to the bytes that the Converter and msgpack make of them."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any, ClassVar, NamedTuple

import msgspec
import pytest
from helpers.wire_values import QUICK, messages, texts, values
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_rpc.errors import EncodeError
from trio_rpc.wire import Codec, Limits, TypeRegistry
from trio_rpc.wire.messages import Reply, Request
from trio_rpc.wire.plain import FEW, is_plain


@dataclasses.dataclass
class Point:
    x: Any
    y: Any = 0


@dataclasses.dataclass(slots=True)
class Slotted:
    x: Any


@dataclasses.dataclass(frozen=True)
class Frozen:
    size: Any
    inner: Any = None


class Made(msgspec.Struct):
    x: Any
    y: Any = msgspec.UNSET


class Row(msgspec.Struct, array_like=True):
    x: Any
    y: Any = 1


class Short(msgspec.Struct, omit_defaults=True):
    x: Any = 1


class Tagged(msgspec.Struct, tag=True):
    x: Any


class Pair(NamedTuple):
    x: Any
    y: Any


@dataclasses.dataclass
class Counted:
    count: ClassVar[int] = 0
    x: Any = 0


@dataclasses.dataclass
class Text(str):  # noqa: SLOT000 - it has a dict, as most have
    x: Any = 0


@dataclasses.dataclass
class Values(list):
    x: Any = 0


class Colour(enum.Enum):
    RED = 1


class Number(int):
    pass


class Name(str):
    __slots__ = ()


@dataclasses.dataclass
class Computed:
    x: Any

    def __getattribute__(self, name):
        return 7 if name == "x" else super().__getattribute__(name)


@dataclasses.dataclass
class Missing:
    x: Any

    def __getattr__(self, name):
        return 7


CLASSES = [
    Point, Slotted, Frozen, Made, Row, Short, Tagged, Counted, Computed, Missing, lambda x: Pair(x, x),
]  # fmt: skip

objects = st.recursive(
    values | st.sampled_from([Colour.RED, Number(3), Name("n"), Text(), Values(), Short(1)]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(texts | st.sampled_from([Name("n"), b"b"]), inner, max_size=4),
        *(st.builds(cls, inner) for cls in CLASSES),
    ),
    max_leaves=8,
)


def encoded(codec, message, *, plainly):
    """Return the bytes of a message, or the error; in the way of all values if not ``plainly``."""
    try:
        if plainly:
            return codec.encode(message)
        return bytes(codec._encode_converted(message.to_wire(), None))
    except EncodeError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - as encode_parts() does
        return f"cannot be sent: {str(error) or repr(error):.200}"


def both_ways(message, **options):
    codec = Codec(**options)
    plainly = encoded(codec, message, plainly=True)
    assert plainly == encoded(codec, message, plainly=False)
    return plainly


@given(messages)
@settings(QUICK, max_examples=300)
def test_every_message_is_encoded_to_the_same_bytes(message):
    both_ways(message)


@given(objects)
@settings(QUICK, max_examples=500)
def test_every_object_is_encoded_to_the_same_bytes(value):
    both_ways(Reply(1, value))
    both_ways(Request(1, "m", [value] * (FEW + 4)))


@given(objects, st.integers(1, 12), st.integers(1, 60))
@settings(QUICK, max_examples=300)
def test_the_limits_are_the_same(value, depth, nodes):
    limits = Limits(max_depth=depth, max_nodes=nodes)
    both_ways(Request(1, "m", [value]), limits=limits)
    both_ways(Request(1, "m", [[value]] * (FEW + 4)), limits=limits)


@pytest.mark.parametrize(
    "value",
    [
        "text",
        [1, None, 2.5, True, b"bytes"],
        {"a": 1, b"b": {"c": []}},
        [[{"a": index}] for index in range(100)],
        Point(1, [Slotted({"a": Frozen(2.5)})]),
        [Point(index, Row(index, "é")) for index in range(100)],
    ],
)
def test_plain_values_are_recognised(value):
    assert is_plain(Reply(1, value).to_wire(), TypeRegistry(), Limits())


@pytest.mark.parametrize(
    "value",
    [
        (1,), {1}, {1: 2}, Colour.RED, Number(3), Name("n"), {Name("n"): 1}, bytearray(b"b"),
        Text(), Values(), Short(1), Tagged(1), Made(msgspec.UNSET), Counted(), Computed(1), Missing(1),
        Pair(1, 2),
    ],
)  # fmt: skip
def test_other_values_are_converted(value):
    for several in (value, [value], {"a": [value]}, [{"a": [value]}] * 100):
        assert not is_plain(Reply(1, several).to_wire(), TypeRegistry(), Limits())
        both_ways(Reply(1, several))


def test_a_registered_class_is_an_extension():
    registry = TypeRegistry()
    registry.register(64, Point, encode=lambda point: point.x, decode=Point)
    for value in (Point(1), [Point(index) for index in range(100)]):
        assert not is_plain(Reply(1, value).to_wire(), registry, Limits())
        both_ways(Reply(1, value), registry=registry)


def test_an_object_without_one_of_its_fields_cannot_be_sent():
    point, slotted = Point(1, 2), Slotted(1)
    del point.y, slotted.x
    both_ways(Reply(1, point))  # the class still has the default
    for value in (slotted, [slotted] * 100):
        assert "has no attribute" in both_ways(Reply(1, value))


def test_an_attribute_that_is_not_a_field_is_not_sent():
    point = Point(1, 2)
    point.more = (1,)
    assert both_ways(Reply(1, point)) == both_ways(Reply(1, {"x": 1, "y": 2}))


def test_text_that_is_not_unicode_and_large_ints_are_left_to_the_other_way():
    assert "surrogates" in both_ways(Reply(1, ["\ud800"]))
    assert b"\xc7" in both_ways(Reply(1, [2**64]))


def test_lists_that_hold_each_other_end():
    wide: list[Any] = [[]]
    for _ in range(40):
        wide = [wide, wide]
    assert "values in one message" in both_ways(Reply(1, wide))
    loop: list[Any] = []
    loop.append(loop)
    assert "contains itself" in both_ways(Reply(1, loop))
    pair: list[Any] = [loop]
    loop[:] = [pair, pair]
    assert "contains itself" in both_ways(Reply(1, pair))

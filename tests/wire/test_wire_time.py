"""No message within the default limits blocks the event loop for long."""

from __future__ import annotations

import dataclasses
import decimal
import enum
import fractions
import gc
import ipaddress
import math
import pathlib
import time
import uuid

import msgpack
import msgspec
import pydantic
import pytest

from trio_rpc.errors import DecodeError
from trio_rpc.services.conversion import adapt
from trio_rpc.services.converters import make_converter
from trio_rpc.wire import Codec, Limits
from trio_rpc.wire.keys import KeyBuilder
from trio_rpc.wire.scan import walk

MOST = Limits().max_nodes
RATIO = 12
"""How much more work the worst message may take than an ordinary one with as many values.

The largest ratio measured was 5. An ordinary message takes a fifth of the 0.2 s that
docs/performance.md states for an ordinary machine; on a slow or busy machine, both take longer."""

CONVERTED_RATIO = 60
"""The same when an annotation requires an object for each value. The largest measured was 25."""

MODELS_RATIO = 12
"""How much more work a model may take than with Pydantic alone. The largest measured was 4."""

ATTEMPTS = 5
"""Measurements, of which the best counts, because other programs can only slow them down."""


def extension(code, payload):
    return msgpack.packb(msgpack.ExtType(code, payload))


def nested(code, levels):
    inner = b"\x01"
    for _ in range(levels):
        inner = extension(code, b"\x91" + inner)
    return inner


KINDS = {
    "dates": extension(5, b"2026-01-02"),
    "times with offsets": extension(4, b"2026-01-02T03:04:05.000006+03:30:15.000001"),
    "decimals": extension(8, b"1"),
    "long decimals": extension(8, b"1" * 1024),
    "time spans": extension(7, bytes.fromhex("93010203")),
    "UUIDs": extension(9, bytes(16)),
    "big ints": extension(10, b"\x01" * 1024),
    "complex": extension(11, bytes(16)),
    "references": extension(32, b"\x92\x01\x01"),
    "users' types": extension(64, b"\x90"),
    "nested users' types": nested(64, 25),
    "nested frozensets": nested(3, 25),
    "nested tuples": nested(1, 25),
    "maps with keys of any type": extension(12, b"\x92\x01\x02"),
    "maps": b"\x81\xa1a\x01",
    "empty maps": b"\x80",
    "arrays": b"\x90",
    "deep arrays": b"\x91" * 50 + b"\x01",
    "text": b"\xa1a",
}


def seconds(work):
    """Return the thread's processor time without garbage collection, which covers all objects."""
    gc.disable()
    try:
        began = time.thread_time()
        work()
        return time.thread_time() - began
    finally:
        gc.enable()


def assert_in_proportion(work, ordinary, ratio):
    best, best_ordinary = math.inf, math.inf
    for _ in range(ATTEMPTS):
        best = min(best, seconds(work))
        best_ordinary = min(best_ordinary, seconds(ordinary))
        if best < ratio * best_ordinary:
            return
    raise AssertionError(f"{best:.3f} s, but an ordinary message takes {best_ordinary:.3f} s")


def ordinary_message(count):
    """Make a message with this many values, as programs send them."""
    row = {"id": 7, "name": "some text", "price": 1.5, "on": True}
    return msgpack.packb([3, 1, [row] * (count // 9)])


@pytest.mark.parametrize("item", KINDS.values(), ids=KINDS.keys())
def test_the_largest_message_of_each_kind_is_decoded_in_bounded_time(item):
    count = min((MOST - 10) // walk(memoryview(item), MOST), 15_000_000 // len(item))
    message = b"\x93\x03\x01\xdd" + count.to_bytes(4, "big") + item * count
    ordinary = ordinary_message(MOST - 10)
    assert len(Codec().decode_message(message).result) == count
    assert_in_proportion(
        lambda: Codec().decode_message(message), lambda: Codec().decode_message(ordinary), RATIO
    )


@dataclasses.dataclass
class WithSet:
    ids: set[int] = dataclasses.field(default_factory=set)


@dataclasses.dataclass
class WithPath:
    path: pathlib.Path = pathlib.Path("a")


class Struct(msgspec.Struct):
    path: pathlib.Path = pathlib.Path("a")


class Model(pydantic.BaseModel):
    ids: set[int] = set()
    inner: Model | None = None
    values: list[int] = []


class Side(enum.Enum):
    BUY = ("buy", 1)


VALUES = 25_000


def nested_models(values):
    value = {"values": values}
    for _ in range(50):
        value = {"inner": value}
    return value


CONVERTED = {
    "a set": (set[int], [*range(VALUES)]),
    "sets": (list[set[int]], [[1]] * (VALUES // 2)),
    "empty sets": (list[set[int]], [[]] * VALUES),
    "a set of decimals": (frozenset[decimal.Decimal], [str(one) for one in range(VALUES)]),
    "keys": (dict[decimal.Decimal, int], {str(one): 1 for one in range(VALUES // 2)}),
    "dicts": (list[dict[decimal.Decimal, int]], [{"1": 1}] * (VALUES // 3)),
    "empty dicts": (list[dict[decimal.Decimal, int]], [{}] * VALUES),
    "dataclasses": (list[WithSet], [{"ids": [1]}] * (VALUES // 4)),
    "empty dataclasses": (list[WithPath], [{}] * VALUES),
    "Structs": (list[Struct], [{"path": "a"}] * (VALUES // 3)),
    "nested models": (Model, nested_models([1] * VALUES)),
    "a union": (list[WithPath | WithSet], [{}] * VALUES),
    "paths": (list[pathlib.Path], ["a"] * VALUES),
    "networks": (list[ipaddress.IPv4Network], ["1.2.3.4/32"] * VALUES),
    "fractions": (list[fractions.Fraction], ["1/2"] * VALUES),
    "UUIDs": (list[uuid.UUID], [str(uuid.UUID(int=1))] * VALUES),
    "enums": (list[Side], [["buy", 1]] * (VALUES // 3)),
    "a union of text": (list[pathlib.Path | int], ["a"] * VALUES),
}


@pytest.mark.parametrize(("annotation", "value"), CONVERTED.values(), ids=CONVERTED.keys())
def test_converting_a_message_to_its_annotation_takes_bounded_time(annotation, value):
    convert = make_converter(adapt(annotation))
    message, ordinary = msgpack.packb([3, 1, value]), ordinary_message(VALUES)
    assert_in_proportion(
        lambda: convert(Codec().decode_message(message).result),
        lambda: Codec().decode_message(ordinary),
        CONVERTED_RATIO,
    )


@pytest.mark.parametrize("value", [{}, {"ids": [1]}, {"inner": {}}], ids=str)
def test_making_models_takes_little_more_time_than_pydantic_takes(value):
    values = [value] * (VALUES // 4)
    convert = make_converter(adapt(list[Model]))
    pydantics = pydantic.TypeAdapter(list[Model])
    assert_in_proportion(
        lambda: convert(values), lambda: pydantics.validate_python(values), MODELS_RATIO
    )


@pytest.mark.parametrize("last", ["x", None], ids=["text", "nothing"])
def test_a_value_deep_inside_a_model_that_does_not_fit_is_refused_in_bounded_time(last):
    convert = make_converter(adapt(Model))
    message = msgpack.packb([3, 1, nested_models([1] * VALUES + [last])])

    def work():
        with pytest.raises(TypeError, match="valid integer"):
            convert(Codec().decode_message(message).result)

    ordinary = ordinary_message(VALUES)
    assert_in_proportion(work, lambda: Codec().decode_message(ordinary), CONVERTED_RATIO)


@pytest.mark.parametrize("item", [KINDS["dates"], KINDS["decimals"], KINDS["nested frozensets"]])
def test_a_million_values_are_refused_before_they_are_built(item):
    count = 16_000_000 // len(item)
    message = b"\x93\x03\x01\xdd" + count.to_bytes(4, "big") + item * count
    with pytest.raises(DecodeError, match="more than"):
        Codec().decode_message(message)


def test_garbage_collection_is_off_while_inserting_into_a_large_set_is_timed():
    seen = []
    KeyBuilder(lambda: seen.append(gc.isenabled()) or 0.0).set(list(range(5000)))
    assert seen
    assert not any(seen)
    assert gc.isenabled()

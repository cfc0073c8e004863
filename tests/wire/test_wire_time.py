"""No message within the default limits blocks the event loop for long."""

from __future__ import annotations

import collections
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

import attrs
import msgpack
import msgspec
import pydantic
import pytest

from trio_rpc.errors import DecodeError
from trio_rpc.services.conversion import adapt
from trio_rpc.services.converters import WireRead, make_converter, make_reader
from trio_rpc.wire import Codec, Limits, TypeRegistry
from trio_rpc.wire.keys import KeyBuilder
from trio_rpc.wire.scan import walk

MOST = Limits().max_nodes
RATIO = 40
"""The most work of the worst message, as a multiple of an ordinary one with as many values.

The largest ratio measured was 18. An ordinary message takes a twentieth of the 0.2 s that
docs/performance.md states for an ordinary machine; on a slow or busy machine, both take longer."""

REFUSED_RATIO = 60
"""The same ratio for a deep value that does not fit, and whose errors Pydantic describes."""

MODELS_RATIO = 40
"""The most work of a model, as a multiple of Pydantic alone. The largest measured was 4."""

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
INSIDE_MANY = {
    "tuples": (1, 29, b"\x91"),
    "users' types": (64, 50, b""),
}
"""The code of an extension, how often it is inside itself, and the bytes before the next one."""

INSIDE = 12
"""The most work of values inside many extensions, as a multiple of the same values inside none. The
largest ratio measured was 6, and 80 when each extension was counted by itself."""


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


@pytest.mark.parametrize(("code", "levels", "head"), INSIDE_MANY.values(), ids=INSIDE_MANY.keys())
@pytest.mark.parametrize("item", [b"\xce\0\x01\0\0", b"\xa4text"], ids=["ints", "texts"])
def test_many_values_inside_many_extensions_are_counted_once(code, levels, head, item):
    count = MOST - 500
    flat = inside = b"\xdd" + count.to_bytes(4, "big") + item * count
    for _ in range(levels):
        inside = extension(code, head + inside)
    flat, inside = b"\x93\x03\x01" + flat, b"\x93\x03\x01" + inside
    assert Codec().decode_message(inside).problem is None
    assert_in_proportion(
        lambda: Codec().decode_message(inside), lambda: Codec().decode_message(flat), INSIDE
    )


TWICE = 3
"""The most work of a message that is decoded twice, as a multiple of the same one decoded once."""

UNHASHABLE = extension(2, b"\x91" + extension(70, b"\x05"))


@pytest.mark.parametrize("kind", ["dates", "maps with keys of any type", "maps"])
def test_keys_that_cannot_be_used_at_most_double_the_time_of_the_largest_message(kind):
    item = KINDS[kind]
    count = (MOST - 100) // walk(memoryview(item), MOST)
    values = item * count
    once = b"\x93\x03\x01\xdd" + count.to_bytes(4, "big") + values
    twice = b"\x93\x03\x01\xdd" + (count + 1).to_bytes(4, "big") + values + UNHASHABLE
    registry = TypeRegistry()
    registry.register(70, WithSet, lambda _: 5, lambda value: [value])
    assert "could not be decoded" in Codec(registry).decode_message(twice).problem
    assert_in_proportion(
        lambda: Codec(registry).decode_message(twice),
        lambda: Codec(registry).decode_message(once),
        TWICE,
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


class Plain(pydantic.BaseModel):
    x: int = 0


class Plains(pydantic.BaseModel):
    all: list[Plain] = []


class Urls(pydantic.BaseModel):
    all: list[pydantic.HttpUrl] = []


class Networks(pydantic.BaseModel):
    all: list[ipaddress.IPv4Network] = []


WithDefaults = dataclasses.make_dataclass(
    "WithDefaults",
    [(f"f{n}", list[int], dataclasses.field(default_factory=list)) for n in range(20)],
)
WithPaths = dataclasses.make_dataclass(
    "WithPaths", [(f"f{n}", pathlib.Path, pathlib.Path("a")) for n in range(40)]
)


@attrs.define
class Attrs:
    a: int = 0
    b: int = attrs.field(default=0, validator=attrs.validators.instance_of(int))
    c: list[int] = attrs.Factory(list)


class Flags(enum.Flag):
    A = 1
    B = 2


VALUES = 25_000
"""Values that a message may have, and units that its conversion may cost: a tenth of the default."""


def nested_models(values):
    value = {"values": values}
    for _ in range(50):
        value = {"inner": value}
    return value


def many(item):
    return lambda count: [item] * count


CONVERTED = {
    "a set": (set[int], lambda count: [*range(count)]),
    "sets": (list[set[int]], many([1])),
    "empty sets": (list[set[int]], many([])),
    "a set of decimals": (frozenset[decimal.Decimal], lambda count: [*map(str, range(count))]),
    "keys": (dict[decimal.Decimal, int], lambda count: {str(one): 1 for one in range(count)}),
    "keys that are paths": (
        dict[pathlib.Path, int],
        lambda count: {f"{n}": 1 for n in range(count)},
    ),
    "dicts": (list[dict[decimal.Decimal, int]], many({"1": 1})),
    "empty dicts": (list[dict[fractions.Fraction, int]], many({})),
    "dataclasses": (list[WithSet], many({"ids": [1]})),
    "empty dataclasses": (list[WithPath], many({})),
    "dataclasses with many fields": (list[WithPaths], many({})),
    "dataclasses with many defaults": (list[WithDefaults], many({})),
    "attrs classes": (list[Attrs], many({})),
    "Structs": (list[Struct], many({"path": "a"})),
    "models": (list[Model], many({})),
    "models that Pydantic makes": (Plains, lambda count: {"all": [{}] * count}),
    "URLs that Pydantic makes": (Urls, lambda count: {"all": ["http://a.b/c"] * count}),
    "networks that Pydantic makes": (Networks, lambda count: {"all": [1] + ["1.2.3.4"] * count}),
    "nested models": (Model, lambda count: nested_models([1] * count)),
    "a union": (list[WithPath | WithSet], many({})),
    "a union of text": (list[pathlib.Path | int], many("a")),
    "a union of bytes": (list[str | bytes], many("a")),
    "a union whose last member fits": (
        list[uuid.UUID | ipaddress.IPv4Address | fractions.Fraction | pathlib.Path],
        many("a"),
    ),
    "paths": (list[pathlib.Path], many("a")),
    "long paths": (list[pathlib.Path], many("a/" * 300)),
    "addresses": (list[ipaddress.IPv6Address], many("2001:db8:1:2:3:4:5:6")),
    "networks": (list[ipaddress.IPv4Network], many("1.2.3.4/32")),
    "interfaces": (list[ipaddress.IPv6Interface], many("2001:db8:1:2:3:4:5:6/128")),
    "fractions": (list[fractions.Fraction], many("1/2")),
    "long fractions": (list[fractions.Fraction], many("1" * 4000 + "/" + "3" * 4000)),
    "UUIDs": (list[uuid.UUID], many(str(uuid.UUID(int=1)))),
    "enums": (list[Side], many(["buy", 1])),
    "flags": (list[Flags], many(3)),
    "deques": (list[collections.deque[int]], many([])),
    "counters": (list[collections.Counter[str]], many({})),
}


def cost(annotation, value):
    read = WireRead(10**9)
    make_reader(adapt(annotation))(value, read)
    return read.most - read.left


def size(value):
    """Return how many values a value counts as in a message."""
    return walk(memoryview(msgpack.packb(value)), 10**9)


@pytest.mark.parametrize(("annotation", "make"), CONVERTED.values(), ids=CONVERTED.keys())
def test_converting_the_largest_allowed_message_takes_bounded_time(annotation, make):
    some = make(100)
    count = 100 * (VALUES - 300) // max(cost(annotation, some), size(some))
    convert = make_converter(adapt(annotation))
    message, ordinary = msgpack.packb([3, 1, make(count)]), ordinary_message(VALUES)
    assert_in_proportion(
        lambda: convert(Codec().decode_message(message).result, VALUES),
        lambda: Codec().decode_message(ordinary),
        RATIO,
    )


@pytest.mark.parametrize("value", [{}, {"ids": [1]}, {"inner": {}}], ids=str)
def test_making_models_takes_little_more_time_than_pydantic_takes(value):
    values = [value] * (VALUES // 4)
    convert = make_converter(adapt(list[Model]))
    pydantics = pydantic.TypeAdapter(list[Model])
    assert_in_proportion(
        lambda: convert(values, 10**9), lambda: pydantics.validate_python(values), MODELS_RATIO
    )


@pytest.mark.parametrize("last", ["x", None], ids=["text", "nothing"])
def test_a_value_deep_inside_a_model_that_does_not_fit_is_refused_in_bounded_time(last):
    convert = make_converter(adapt(Model))
    message = msgpack.packb([3, 1, nested_models([1] * VALUES + [last])])

    def work():
        with pytest.raises(TypeError, match="valid integer"):
            convert(Codec().decode_message(message).result)

    ordinary = ordinary_message(VALUES)
    assert_in_proportion(work, lambda: Codec().decode_message(ordinary), REFUSED_RATIO)


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

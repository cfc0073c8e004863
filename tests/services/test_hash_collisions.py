"""A set or dict that an annotation requires stays cheap even if a peer makes its keys collide."""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import fractions
import ipaddress
import itertools
import pathlib
import typing
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypedDict, TypeVar

import attrs
import msgspec
import pytest

from trio_rpc import method
from trio_rpc.errors import InvalidArguments
from trio_rpc.gateway.json_values import read_json
from trio_rpc.services import keyed
from trio_rpc.services.conversion import adapt
from trio_rpc.services.converters import convert_to
from trio_rpc.services.signatures import Signature, complaint
from trio_rpc.wire.keys import KeyBuilder

MANY = 200
NUMBERS = list(range(MANY))
TEXTS = {str(number): 1 for number in NUMBERS}
ADDRESSES = [f"10.0.0.{number}/32" for number in NUMBERS]
UUIDS = [str(uuid.UUID(int=number)) for number in NUMBERS]
TIMES = [f"2026-01-01T00:00:{number % 60:02}.{number:06}Z" for number in NUMBERS]

T = TypeVar("T")
UserId = NewType("UserId", int)
Ids = NewType("Ids", set[int])


@dataclass(frozen=True)
class Point:
    x: int


@dataclass
class WithSet:
    ids: set[int]


@attrs.define
class AttrsWithSet:
    ids: set[int]


class StructWithSet(msgspec.Struct):
    ids: set[int]


class TaggedWithSet(msgspec.Struct, tag="tagged"):
    ids: set[int]


class OtherWithSet(msgspec.Struct, tag="other"):
    ids: set[int]


class GenericWithSet(msgspec.Struct, Generic[T]):
    ids: set[T]


class TupleWithSet(NamedTuple):
    ids: frozenset[int]


class DictWithSet(TypedDict):
    ids: set[int]


class WithDict(msgspec.Struct):
    prices: dict[decimal.Decimal, int]


SETS = [
    (set[int], NUMBERS),
    (set, NUMBERS),
    (frozenset, NUMBERS),
    (set, NUMBERS),
    (typing.AbstractSet[int], NUMBERS),
    (collections.abc.Set, NUMBERS),
    (collections.abc.MutableSet[int], NUMBERS),
    (frozenset[float], NUMBERS),
    (set[Any], NUMBERS),
    (set[UserId], NUMBERS),
    (Ids, NUMBERS),
    (set[int | str], NUMBERS),
    (set[int] | str, NUMBERS),
    (set[int] | None, NUMBERS),
    (Annotated[set[int], msgspec.Meta(max_length=1000)], NUMBERS),
    (set[decimal.Decimal], [*TEXTS]),
    (set[decimal.Decimal], set(TEXTS)),
    (set[uuid.UUID], UUIDS),
    (set[dt.datetime], TIMES),
    (set[fractions.Fraction], [f"{number}/1" for number in NUMBERS]),
    (set[ipaddress.IPv4Network], ADDRESSES),
    (set[tuple[int, int]], [[number, 1] for number in NUMBERS]),
    (set[Point], [{"x": number} for number in NUMBERS]),
    (list[set[int]], [NUMBERS]),
    (dict[str, set[int]], {"ids": NUMBERS}),
    (tuple[str, set[int]], ["ids", NUMBERS]),
    (collections.deque[set[int]], [NUMBERS]),
    (WithSet, {"ids": NUMBERS}),
    (list[WithSet], [{"ids": NUMBERS}]),
    (AttrsWithSet, {"ids": NUMBERS}),
    (StructWithSet, {"ids": NUMBERS}),
    (TaggedWithSet, {"type": "tagged", "ids": NUMBERS}),
    (TaggedWithSet | OtherWithSet, {"type": "other", "ids": NUMBERS}),
    (GenericWithSet[int], {"ids": NUMBERS}),
    (TupleWithSet, [NUMBERS]),
    (DictWithSet, {"ids": NUMBERS}),
]

DICTS = [
    (dict[decimal.Decimal, int], TEXTS),
    (dict[int, int], TEXTS),
    (dict[float, int], TEXTS),
    (dict[float, int], dict.fromkeys(NUMBERS, 1)),
    (collections.abc.Mapping[decimal.Decimal, int], TEXTS),
    (collections.abc.MutableMapping[decimal.Decimal, int], TEXTS),
    (dict[uuid.UUID, int], dict.fromkeys(UUIDS, 1)),
    (dict[dt.datetime, int], dict.fromkeys(TIMES, 1)),
    (dict[fractions.Fraction, int], {f"{number}/1": 1 for number in NUMBERS}),
    (dict[ipaddress.IPv4Network, int], dict.fromkeys(ADDRESSES, 1)),
    (dict[decimal.Decimal | uuid.UUID, int], TEXTS),
    (collections.Counter[decimal.Decimal], TEXTS),
    (collections.defaultdict[decimal.Decimal, int], TEXTS),
    (collections.OrderedDict[decimal.Decimal, int], TEXTS),
    (dict[decimal.Decimal, int] | int, TEXTS),
    (dict[decimal.Decimal, int] | None, TEXTS),
    (list[dict[decimal.Decimal, int]], [TEXTS]),
    (Annotated[dict[decimal.Decimal, int], msgspec.Meta(min_length=1)], TEXTS),
    (WithDict, {"prices": TEXTS}),
]


PATHS = [pathlib.Path, pathlib.PurePosixPath, pathlib.PureWindowsPath, ipaddress.IPv4Address]


def shown(value):
    """Name a test by its annotation, because the values are long and unordered."""
    return str(value) if isinstance(value, type) or typing.get_origin(value) else ""


@pytest.fixture
def slow(monkeypatch):
    """Make all guarded keys seem slow, so that any key which passes the guard is noticed."""
    spent = itertools.accumulate(itertools.cycle((0.0, 1.0, 0.0, 0.0)))
    monkeypatch.setattr(keyed._KEYS, "builder", KeyBuilder(lambda: next(spent)))


@pytest.mark.parametrize("read", [convert_to, read_json], ids=["wire", "JSON"])
@pytest.mark.parametrize(("annotation", "value"), SETS + DICTS, ids=shown)
def test_values_that_become_keys_are_guarded(slow, annotation, value, read):
    if read is convert_to and is_for_json(annotation, value):
        pytest.skip("text becomes a number only in JSON")
    if read is read_json and (type(value) is set or 0 in value):
        pytest.skip("JSON has no sets and only text keys")
    adapted = adapt(annotation)
    with pytest.raises(msgspec.ValidationError, match="chosen to take long"):
        read(value, adapted)


def is_for_json(annotation, value):
    return annotation in (dict[int, int], dict[float, int]) and value is TEXTS


def refuse_custom(wanted, _value):
    raise TypeError(f"msgspec does not make a {wanted}")


@pytest.mark.parametrize(("annotation", "value"), SETS + DICTS, ids=shown)
def test_ordinary_keys_are_converted_as_by_msgspec(annotation, value):
    read = read_json if is_for_json(annotation, value) else convert_to
    made = read(value, adapt(annotation))
    try:
        by_msgspec = msgspec.convert(
            value, annotation, str_keys=read is read_json, dec_hook=refuse_custom
        )
    except (TypeError, msgspec.ValidationError):
        return  # msgspec does not convert this
    if annotation in (dict[fractions.Fraction, int], dict[ipaddress.IPv4Network, int]):
        return  # msgspec leaves such keys unconverted
    assert made == by_msgspec
    assert type(made) is type(by_msgspec)


@pytest.mark.parametrize(
    "annotation",
    [
        set[str],
        frozenset[bytes],
        set[str | None],
        set[Literal[1, 2]],
        dict[str, int],
        dict[str, Any],
        dict[Any, int],
        dict,
        list[int],
        Point,
    ],
    ids=str,
)
def test_keys_whose_hashes_a_peer_cannot_choose_are_left_to_msgspec(annotation):
    assert adapt(annotation) == annotation


@pytest.mark.parametrize("read", [convert_to, read_json], ids=["wire", "JSON"])
@pytest.mark.parametrize("key", PATHS, ids=shown)
def test_paths_and_addresses_hash_as_text_and_need_no_guard(slow, key, read):
    texts = [f"10.0.{number // 256}.{number % 256}" for number in range(2000)]
    made = {key(text) for text in texts}
    assert read(texts, adapt(set[key])) == made
    assert read(dict.fromkeys(texts, 1), adapt(dict[key, int])) == dict.fromkeys(made, 1)


@pytest.mark.parametrize("key", [ipaddress.IPv4Interface, ipaddress.IPv6Address], ids=shown)
def test_addresses_that_hash_as_numbers_are_guarded(slow, key):
    texts = [str(key(number)) for number in range(2000)]
    with pytest.raises(msgspec.ValidationError, match="chosen to take long"):
        convert_to(texts, adapt(set[key]))


def chosen(count):
    return [number * (2**61 - 1) for number in range(1, count + 1)]


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (set[int], chosen(60_000)),
        (set, chosen(60_000)),
        (set[int] | str, chosen(60_000)),
        (dict[decimal.Decimal, int], dict.fromkeys(map(str, chosen(60_000)), 1)),
        (list[set[int]], [chosen(1000) for _ in range(200)]),
        (list[set[int]], [chosen(100) for _ in range(50)] + [chosen(10_000)]),
    ],
    ids=["set", "bare", "union", "dict", "many", "last"],
)
def test_chosen_hashes_are_refused(annotation, value):
    """The clock decides, since different hashes can also collide. Unguarded, each takes 15 s."""
    with pytest.raises(msgspec.ValidationError, match="chosen to take long"):
        convert_to(value, adapt(annotation))


def test_repeated_equal_values_do_not_count_as_collisions():
    assert convert_to([1] * 50_000, adapt(set[int])) == {1}
    assert convert_to([{"x": 1}] * 20_000, adapt(set[Point])) == {Point(1)}


def test_a_value_that_arrives_as_a_set_is_not_rebuilt(slow):
    came = set(range(MANY))
    assert convert_to(came, adapt(set[int])) is came


def test_two_texts_for_the_same_key_are_an_error():
    with pytest.raises(
        msgspec.ValidationError, match="two keys of a dict are equal after conversion"
    ):
        convert_to({"1": 1, "1.0": 2}, adapt(dict[decimal.Decimal, int]))
    with pytest.raises(
        msgspec.ValidationError, match="two keys of a dict are equal after conversion"
    ):
        convert_to({**TEXTS, "1.0": 2}, adapt(dict[decimal.Decimal, int]))


@pytest.mark.parametrize(
    ("annotation", "value", "text"),
    [
        (set[int], [1, "a"], "Expected `int`, got `str` - at `$[1]`"),
        (set[int], 1, "Expected `list`, got `int`"),
        (set[int] | str, ["a"], "Expected `int`, got `str` - at `$[0]`"),
        (set[int] | str, 1.5, "Expected `set | str`, got `float`"),
        (list[set[int]], [[1], ["a"]], "Expected `int`, got `str` - at `$[1][0]`"),
        (WithSet, {"ids": ["a"]}, "Expected `int`, got `str` - at `$.ids[0]`"),
        (dict[decimal.Decimal, int], {"1": "a"}, "Expected `int`, got `str` - at `$[...]`"),
        (dict[decimal.Decimal, int], TEXTS | {"x": 1}, "Invalid decimal string - at `key` in `$`"),
        (
            list[dict[decimal.Decimal, int]],
            [TEXTS | {"x": 1}],
            "Invalid decimal string - at `key` in `$[0]`",
        ),
        (
            dict[fractions.Fraction, list[int]],
            {"1/2": ["a"]},
            "Expected `int`, got `str` - at `$[...][0]`",
        ),
        (
            dict[fractions.Fraction, int],
            {"a": 1},
            "Expected `Fraction`, got `str` - at `key` in `$`",
        ),
        (
            Annotated[set[int], msgspec.Meta(max_length=2)],
            [1, 2, 3],
            "Expected `list` of length <= 2",
        ),
        (
            Annotated[dict[decimal.Decimal, int], msgspec.Meta(max_length=2)],
            TEXTS,
            "Expected `dict` of length <= 2",
        ),
        (set[Any], [[1]], "unhashable type: 'list'"),
    ],
)
def test_errors_keep_their_path(annotation, value, text):
    with pytest.raises(msgspec.ValidationError) as caught:
        convert_to(value, adapt(annotation))
    assert complaint(caught.value) == text


class Service:
    @method
    async def take(self, ids: set[int], more: dict[decimal.Decimal, int], *rest: set[int]) -> None:
        pass

    @method
    async def ask(self, ids: Callable[[], Awaitable[set[int]]]) -> set[int]:
        return await ids()


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ([NUMBERS, {}], {}),
        ([[], TEXTS], {}),
        ([[], {}, NUMBERS], {}),
        ([], {"ids": NUMBERS, "more": {}}),
    ],
)
def test_arguments_are_guarded(slow, args, kwargs):
    with pytest.raises(InvalidArguments, match="chosen to take long"):
        Signature(Service.take).bind(args, kwargs)


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (set[list[int]], "a list has none: write tuple"),
        (set[set[int]], "a set has none: write frozenset"),
        (frozenset[bytearray], "a bytearray has none: write bytes"),
        (set[dict[str, int]], "a dict has none: write a frozen dataclass"),
        (set[WithSet], "a WithSet has none: make it frozen, or write list"),
        (set[tuple[int, list[int]]], "a list has none"),
        (dict[WithSet, int], "keys of a dict must have a hash"),
        (list[set[Annotated[list[int], 1]]], "a list has none"),
    ],
)
def test_a_set_of_unhashable_items_is_refused_at_registration(annotation, text):
    with pytest.raises(TypeError, match=text):
        adapt(annotation)

"""Objects are sent as their fields, and msgspec.convert rebuilds the annotated type from them."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import uuid
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import attrs
import msgspec
import pytest

from trio_rpc import DEFAULT_LIMITS
from trio_rpc.errors import EncodeError
from trio_rpc.wire import Codec
from trio_rpc.wire.messages import Reply


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


class Level(enum.IntEnum):
    LOW = 1


class Size(enum.Enum):
    BIG = 2**40


class Word(enum.StrEnum):
    YES = "yes"


class Flags(enum.Flag):
    A = 1
    B = 2


class Point(NamedTuple):
    x: int
    y: float = 0.0


@dataclass
class Order:
    symbol: str
    at: dt.datetime
    price: decimal.Decimal
    tags: set[str] = field(default_factory=set)
    legs: dict[int, Point] = field(default_factory=dict)
    colour: Colour = Colour.RED
    parent: Order | None = None
    made: int = field(default=0, init=False)
    kind: ClassVar[str] = "order"


@dataclass(frozen=True, slots=True)
class Slotted:
    pair: tuple[int, str]
    _hidden: bytes = b""


@attrs.define
class Account:
    owner: str
    _secret: uuid.UUID
    limits: dict[tuple[str, int], list[int]] = attrs.field(factory=dict, alias="caps")


class Plain(msgspec.Struct):
    a: int
    b: list[Point] = []


class Renamed(msgspec.Struct, rename="camel"):
    first_name: str
    last_seen: dt.date | None = None


class Tagged(msgspec.Struct, tag=True):
    a: int


class OddlyTagged(msgspec.Struct, tag_field="what", tag=7, rename={"a": "type"}):
    a: int


class Arrayed(msgspec.Struct, array_like=True):
    a: int
    b: Colour = Colour.GREEN


class TaggedArray(msgspec.Struct, array_like=True, tag="ta"):
    a: tuple[int, ...]


class Sparse(msgspec.Struct, omit_defaults=True):
    a: int = 1
    b: int | msgspec.UnsetType = msgspec.UNSET


class Either(msgspec.Struct):
    one: Tagged | OtherTagged
    arrays: list[TaggedArray]


class OtherTagged(msgspec.Struct, tag=True):
    a: str


ORDER = Order(
    "BTC",
    dt.datetime(2024, 1, 2, tzinfo=dt.UTC),
    decimal.Decimal("1.10"),
    {"x", "y"},
    {1: Point(1, 2.0), 2**70: Point(3)},
    Colour.GREEN,
    Order("ETH", dt.datetime(2024, 1, 2), decimal.Decimal(5)),  # noqa: DTZ001 - naive on purpose
)

OBJECTS = [
    (Colour.GREEN, Colour),
    (Colour.RED, Colour),
    (Level.LOW, Level),
    ({Size.BIG: [Size.BIG]}, dict[Size, list[Size]]),
    (Word.YES, Word),
    (Flags.A | Flags.B, Flags),
    (Point(1, 2.5), Point),
    (ORDER, Order),
    ([ORDER, ORDER], list[Order]),
    ({"a": Point(1, 2)}, dict[str, Point]),
    ({Colour.GREEN: Plain(1)}, dict[Colour, Plain]),
    ({Word.YES: 1}, dict[Word, int]),
    ({Colour.RED, Colour.GREEN}, set[Colour]),
    ({Point(1, 2.0)}, set[Point]),
    ({Point(1, 2.0): Slotted((1, "a"))}, dict[Point, Slotted]),
    (Slotted((1, "a"), b"h"), Slotted),
    (Account("ann", uuid.UUID(int=7), {("a", 1): [2]}), Account),
    (Plain(1, [Point(1)]), Plain),
    (Renamed("Ann", dt.date(2024, 1, 1)), Renamed),
    (Tagged(5), Tagged),
    (OddlyTagged(5), OddlyTagged),
    (Arrayed(1), Arrayed),
    (TaggedArray((1, 2)), TaggedArray),
    (Sparse(5), Sparse),
    (Sparse(1, 2), Sparse),
    (Either(OtherTagged("x"), [TaggedArray(())]), Either),
    ((Tagged(1), [Slotted((1, "b"))]), tuple[Tagged, list[Slotted]]),
]


def through(value, codec=None):
    codec = codec or Codec()
    [reply] = codec.decode(codec.encode(Reply(1, value)))
    return reply.result


@pytest.mark.parametrize(("value", "annotation"), OBJECTS)
def test_convert_gives_back_the_annotated_type(value, annotation):
    converted = msgspec.convert(through(value), annotation)
    assert converted == value
    assert type(converted) is type(value)


class Text(str):
    __slots__ = ()

    def __str__(self):
        return "something else"


class Number(int):
    pass


class Real(float):
    pass


class Data(bytes):
    pass


class Moment(dt.datetime):
    pass


class Pair(tuple):
    __slots__ = ()


SUBCLASSED: list[tuple[Any, Any]] = [
    (Text("a"), "a"),
    (Number(5), 5),
    (Number(2**70), 2**70),
    (Real(1.5), 1.5),
    (Data(b"x"), b"x"),
    (Pair((1, 2)), (1, 2)),
    (Moment(2024, 1, 1), dt.datetime(2024, 1, 1)),  # noqa: DTZ001 - naive on purpose
    (collections.OrderedDict(a=1), {"a": 1}),
    (collections.defaultdict(list, a=[(1,)]), {"a": [(1,)]}),
    (collections.Counter("aab"), {"a": 2, "b": 1}),
    ({Text("k"): Text("v")}, {"k": "v"}),
    ([Text("k"), {1: Text("v")}], ["k", {1: "v"}]),
]


@pytest.mark.parametrize(("value", "base"), SUBCLASSED)
def test_subclasses_arrive_as_their_built_in_base_class(value, base):
    arrived = through(value)
    assert arrived == base
    assert type(arrived) is type(base)


def test_the_value_of_an_enum_may_be_of_any_type():
    class Place(enum.Enum):
        HERE = (1, (2, 3))

    assert through(Place.HERE) == (1, (2, 3))


class Frozen(list):
    __hash__ = object.__hash__


FIELDS = {"pair": (1, "a"), "_hidden": b""}


UNHASHABLE_ON_ARRIVAL = [
    {Slotted((1, "a")): 1},
    {(1, Slotted((1, "a"))): 1},
    {frozenset({Slotted((1, "a"))}): 1},
    {Frozen(): 1},
]


@pytest.mark.parametrize("value", UNHASHABLE_ON_ARRIVAL)
def test_a_key_that_would_be_unhashable_on_arrival_is_not_sent(value):
    with pytest.raises(EncodeError, match="cannot be a key"):
        Codec().encode(Reply(1, value))


@pytest.mark.parametrize(
    ("value", "arrives"),
    [
        ({Slotted((1, "a"))}, [FIELDS]),
        ({(1, Slotted((1, "a")))}, [(1, FIELDS)]),
        (frozenset({frozenset({Slotted((1, "a"))})}), [[FIELDS]]),
        ([{Frozen([2])}, {1: frozenset({Slotted((1, "a"))})}], [[[2]], {1: [FIELDS]}]),
    ],
)
def test_a_set_of_elements_that_would_be_unhashable_on_arrival_is_sent_as_an_array(value, arrives):
    assert through(value) == arrives


def test_the_attempt_to_send_such_a_set_as_a_set_does_not_count_towards_the_limits():
    @dataclass(frozen=True)
    class Point:
        x: int

    limits = dataclasses.replace(DEFAULT_LIMITS, max_nodes=1024)
    points = {Point(x) for x in range(300)}  # 3 + 300 * 3 values
    assert len(through(points, Codec(None, limits))) == 300


def test_different_keys_that_would_be_equal_on_arrival_are_refused():
    with pytest.raises(EncodeError, match="equal once they are sent"):
        Codec().encode(Reply(1, {"red": 1, Colour.RED: 2}))


def test_an_object_without_one_of_its_fields_is_refused():
    with pytest.raises(EncodeError):
        Codec().encode(Reply(1, Slotted.__new__(Slotted)))

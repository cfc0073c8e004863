"""Enums and flags: each member arrives as itself, and a peer cannot make a flag's class grow."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import gc
import uuid
from collections.abc import Awaitable, Callable

import pytest
from helpers.gateway_tools import hosting
from hypothesis import given
from hypothesis import strategies as st

import trio_rpc
from trio_rpc.gateway import Gateway, Message
from trio_rpc.gateway.json_values import Form, read_json
from trio_rpc.services.conversion import adapt
from trio_rpc.services.converters import convert_to
from trio_rpc.services.flags import MOST

Shape = enum.Enum(
    "Shape",
    {
        "LIST": [1, "a"],
        "NESTED": [[1], 2],
        "TUPLE": (1, 2),
        "DICT": {"a": [1]},
        "NUMBER": 3,
    },
)


@pytest.mark.parametrize("member", list(Shape))
def test_a_member_whose_value_is_a_container_arrives_as_itself(member):
    assert convert_to(member.value, adapt(Shape)) is member
    as_json = list(member.value) if type(member.value) is tuple else member.value
    assert read_json(as_json, adapt(Shape)) is member


VALUES = {
    "date": dt.date(2020, 1, 1),
    "time": dt.time(1, 2),
    "datetime": dt.datetime(2020, 1, 1, tzinfo=dt.UTC),
    "timedelta": dt.timedelta(hours=1),
    "Decimal": decimal.Decimal("0.05"),
    "UUID": uuid.UUID(int=1),
    "bytes": b"\xff",
    "complex": 1 + 2j,
    "frozenset": frozenset({1, 2}),
    "set": {1, 2},
    "tuple of dates": (dt.date(2020, 1, 1), 1),
    "dates in a set": frozenset({dt.date(2020, 1, 1)}),
}
"""Values that JSON holds in other types."""


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_a_member_whose_value_json_has_in_another_type_arrives_as_itself(value):
    cls = enum.Enum("Kind", {"FIRST": "first", "SECOND": value, "THIRD": 3})
    adapted = adapt(cls)
    form = Form(cls, adapted)
    for member in cls:
        assert read_json(form.write(member), adapted) is member
        assert convert_to(member.value, adapted) is member
        in_list = Form(list[cls], adapt(list[cls]))
        assert read_json(in_list.write([member]), adapt(list[cls])) == [member]
    for wrong in ("2021-01-01", "no", [9], 9):
        with pytest.raises((TypeError, ValueError), match="is not a valid Kind"):
            read_json(wrong, adapted)


def test_a_default_for_missing_values_does_not_hide_a_member():
    class Day(enum.Enum):
        NEVER = dt.date(1, 1, 1)
        FIRST = dt.date(2020, 1, 1)

        @classmethod
        def _missing_(cls, value):
            return cls.NEVER

    assert read_json("2020-01-01", adapt(Day)) is Day.FIRST
    assert read_json("2021-01-01", adapt(Day)) is Day.NEVER


def test_the_text_of_a_member_that_is_text_is_not_taken_for_another_member():
    cls = enum.Enum("Kind", {"DATE": dt.date(2020, 1, 1), "TEXT": "2020-01-01"})
    assert read_json("2020-01-01", adapt(cls)) is cls.TEXT
    with pytest.raises(TypeError, match="would be read back"):
        Form(cls, adapt(cls)).write(cls.DATE)


async def test_such_members_travel_through_a_gateway():
    class Every(enum.Enum):
        HOUR = dt.timedelta(hours=1)
        DAY = dt.timedelta(days=1)

    class Clock:
        @trio_rpc.method
        async def ring(self, every: Every, rung: Callable[[Every], Awaitable[Every]]) -> Every:
            assert isinstance(every, Every)
            assert await rung(every) is every
            return every

    async with hosting(Gateway(Clock())) as url:
        message = Message("127.0.0.1", int(url.rpartition(":")[2]))
        assert await message.post("ring", {"every": "P1D"}, {"rung": lambda one: one}) == "P1D"
        with pytest.raises(trio_rpc.InvalidArguments, match="is not a valid"):
            await message.post("ring", {"every": "P2D"}, {"rung": lambda one: one})


@pytest.mark.parametrize("value", [[1], [], [1, "b"], {"a": (2,)}, (1, "b"), [[2], 1]])
def test_another_container_is_not_a_member(value):
    with pytest.raises((TypeError, ValueError), match="is not a valid Shape"):
        convert_to(value, adapt(Shape))


def _flags(kind):
    return kind("Marks", [f"F{number}" for number in range(16)])


@pytest.mark.parametrize("kind", [enum.Flag, enum.IntFlag])
@pytest.mark.parametrize("read", [convert_to, read_json], ids=["wire", "JSON"])
def test_law_12_the_combinations_that_a_peer_sends_are_not_kept_forever(kind, read):
    cls = _flags(kind)
    adapted = adapt(cls)
    for value in range(2**16):
        assert read(value, adapted).value == value
        assert len(cls._value2member_map_) <= MOST + 1
    assert set(cls) <= set(cls._value2member_map_.values())  # all declared members stay


@pytest.mark.parametrize("kind", [enum.Flag, enum.IntFlag])
def test_a_combination_that_is_in_use_stays_equal_to_itself(kind):
    cls = _flags(kind)
    adapted = adapt(cls)
    used = [convert_to(value, adapted) for value in range(0, 2**16, 17)]
    for value in range(2**16):
        convert_to(value, adapted)
    gc.collect()
    assert len(cls._value2member_map_) <= 2 * len(used) + MOST
    for one in used:
        assert cls(one.value) is one
        assert convert_to(one.value, adapted) is one


@given(st.lists(st.integers(0, 2**16 - 1), max_size=30))
def test_received_flags_equal_the_flags_that_python_makes(values):
    cls = _flags(enum.Flag)
    adapted = adapt(list[cls])
    assert convert_to(values, adapted) == [cls(value) for value in values]


@pytest.mark.parametrize("cls", [enum.Enum, enum.IntEnum, enum.StrEnum, enum.Flag, enum.IntFlag])
def test_an_enum_without_members_is_refused(cls):
    for one in (cls, cls("Empty", [])):
        for annotation in (one, list[one], one | None):
            with pytest.raises(TypeError, match="has no members, so no value fits"):
                adapt(annotation)

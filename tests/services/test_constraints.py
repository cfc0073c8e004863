"""Constraints of Pydantic, annotated_types and msgspec also hold outside of models."""

from __future__ import annotations

import datetime as dt
import decimal
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, NamedTuple, TypedDict

import annotated_types as at
import msgspec
import pydantic
import pytest
import trio

import trio_rpc
from trio_rpc.errors import DecodeError, Fate, InvalidArguments
from trio_rpc.gateway.json_values import read_json
from trio_rpc.services.conversion import adapt
from trio_rpc.services.converters import convert_to
from trio_rpc.testing import open_session_pair

Positive = Annotated[int, at.Gt(0)]
NOON = "2026-07-01T12:00:00"
NEW_YEAR = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
IN_BERLIN = Annotated[dt.datetime, at.Timezone("Europe/Berlin")]


@dataclass
class Line:
    count: Annotated[int, pydantic.Field(gt=0)] = 1


class Named(TypedDict):
    name: Annotated[str, at.MinLen(2)]


class Pair(NamedTuple):
    one: Annotated[int, at.Interval(gt=0, lt=5)]


class Struct(msgspec.Struct):
    count: pydantic.PositiveInt


SITE = Annotated[pydantic.AnyUrl, pydantic.UrlConstraints(max_length=20)]

CONSTRAINTS = [
    (pydantic.UUID1, str(uuid.uuid1()), str(uuid.UUID(int=0)), "UUID version 1"),
    (pydantic.UUID4, uuid.uuid4(), uuid.uuid1(), "UUID version 4"),
    (list[pydantic.UUID5], [uuid.uuid5(uuid.UUID(int=0), "a")], [uuid.uuid4()], "version 5"),
    (SITE, "https://a/", "https://localhost/long", "at most 20 characters"),
    (Annotated[int, pydantic.Field(gt=0)], 1, 0, "greater than 0"),
    (Annotated[str, at.MinLen(3)], "abc", "ab", "at least 3 characters"),
    (Annotated[str, pydantic.Field(pattern="^a")], "a", "b", "match pattern"),
    (Annotated[list[int], at.Len(1, 10)], [1], [], "at least 1 item"),
    (Annotated[set[int], at.MinLen(1)], [1], [], "at least 1 item"),
    (Annotated[decimal.Decimal, at.Gt(0)], "1", "0", "greater than 0"),
    (pydantic.conint(gt=0), 1, 0, "greater than 0"),
    (pydantic.conlist(int, min_length=1), [1], [], "at least 1 item"),
    (Annotated[int, msgspec.Meta(gt=0)], 1, 0, "`int` >= 1"),
    (Annotated[int, msgspec.Meta(gt=0), at.Lt(9)], 1, 9, "less than 9"),
    (Annotated[int, msgspec.Meta(gt=0), at.Lt(9)], 1, 0, "`int` >= 1"),
    (Annotated[int, at.Predicate(lambda value: value > 3)], 4, 1, "failed"),
    (list[Positive], [1], [1, 0], r"greater than 0 - at `\$\[1\]`"),
    (dict[Annotated[str, at.MinLen(1)], int], {"a": 1}, {"": 1}, "at least 1 character"),
    (set[Positive], [1], [0], "greater than 0"),
    (Positive | None, 1, 0, "greater than 0"),
    (Line, {"count": 1}, {"count": 0}, r"greater than 0 - at `\$.count`"),
    (Named, {"name": "ab"}, {"name": "a"}, r"at least 2 characters - at `\$.name`"),
    (Pair, [1], [5], "less than 5"),
    (Struct, {"count": 1}, {"count": 0}, "greater than 0"),
    (Annotated[int, pydantic.BeforeValidator(int)], "1", "x", "invalid literal"),
    (Annotated[dt.datetime, at.Timezone(...)], NOON + "Z", NOON, "a time with an offset"),
    (Annotated[dt.datetime, at.Timezone(None)], NOON, NOON + "Z", "a time without an offset"),
    (Annotated[dt.time, at.Timezone(...)], "12:00:00Z", "12:00:00", "a time with an offset"),
    (IN_BERLIN, NOON + "+02:00", NOON + "+01:00", "in the zone Europe/Berlin"),
    (IN_BERLIN, "2026-01-01T12:00:00+01:00", NOON, "in the zone Europe/Berlin"),
    (Annotated[dt.datetime, at.Timezone(dt.UTC)], NOON + "Z", NOON + "+01:00", "zone UTC"),
    (list[IN_BERLIN | None], [None], [NOON], r"zone Europe/Berlin.*at `\$\[0\]`"),
    (Annotated[dt.datetime, at.Timezone(...), at.Gt(NEW_YEAR)], NOON + "Z", NOON, "an offset"),
    (
        Annotated[dt.datetime, at.Timezone(...), at.Gt(NEW_YEAR)],
        NOON + "Z",
        "2025-07-01T12:00:00Z",
        r"greater than datetime.datetime\(2026",
    ),
]


def test_both_offsets_of_an_hour_that_occurs_twice_are_in_its_zone():
    for offset in ("+01:00", "+02:00"):
        convert_to(f"2026-10-25T02:30:00{offset}", adapt(IN_BERLIN))


def test_an_unknown_zone_is_refused_at_registration():
    with pytest.raises(TypeError, match="there is no time zone 'Nowhere/At_All'"):
        adapt(Annotated[dt.datetime, at.Timezone("Nowhere/At_All")])


def test_a_zone_is_checked_without_pydantic(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydantic", None)
    with pytest.raises(ValueError, match="with an offset"):
        convert_to(NOON, adapt(Annotated[dt.datetime, at.Timezone(...)]))


@pytest.mark.parametrize("read", [convert_to, read_json], ids=["wire", "JSON"])
@pytest.mark.parametrize(
    ("annotation", "good", "bad", "text"),
    CONSTRAINTS,
    ids=[f"{number}" for number in range(len(CONSTRAINTS))],
)
def test_a_value_has_to_satisfy_the_constraints_of_its_annotation(
    annotation, good, bad, text, read
):
    adapted = adapt(annotation)
    read(good, adapted)
    with pytest.raises((TypeError, ValueError), match=text):
        read(bad, adapted)


@pytest.mark.parametrize("metadata", ["a unit", object(), pydantic.Field(description="x")])
def test_other_metadata_is_ignored(metadata):
    assert convert_to(0, adapt(Annotated[int, metadata])) == 0


def test_a_constraint_that_only_pydantic_can_check_is_refused_without_pydantic(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydantic", None)
    with pytest.raises(TypeError, match=r"Gt\(gt=0\).*not installed: install it, or write"):
        adapt(Positive)


def test_bytes_that_pydantic_would_decode_again_are_refused():
    with pytest.raises(TypeError, match="write bytes"):
        adapt(pydantic.Base64Bytes)


class Service:
    @trio_rpc.method
    async def take(self, count: Positive) -> None:
        raise AssertionError(count)

    @trio_rpc.method
    async def give(self, value: int) -> Positive:
        return value

    @trio_rpc.stream
    async def items(self) -> AsyncIterator[Positive]:
        yield 0

    @trio_rpc.method
    async def start(self, *, task_status: trio.TaskStatus[Positive] = trio.TASK_STATUS_IGNORED):
        task_status.started(0)

    @trio_rpc.method
    async def ask(self, get: Callable[[int], Awaitable[Positive]]) -> str:
        with pytest.raises(DecodeError, match="greater than 0"):
            await get(0)
        return "refused"


async def test_constraints_hold_wherever_a_value_is_received():
    async def same(value: int) -> int:
        return value

    async with open_session_pair(Service()) as (_, client):
        service = client.proxy("", Service)
        with pytest.raises(InvalidArguments, match="greater than 0") as caught:
            await service.take(0)
        assert caught.value.fate is Fate.NOT_STARTED
        with pytest.raises(DecodeError, match="greater than 0"):
            await service.give(0)
        async with service.items() as items:
            with pytest.raises(DecodeError, match="greater than 0"):
                await items.receive()
        async with trio.open_nursery() as nursery:
            with pytest.raises(DecodeError, match="greater than 0"):
                await nursery.start(service.start)
        assert await service.ask(same) == "refused"


def test_a_constraint_that_pydantic_cannot_check_is_refused_in_one_line():
    class Odd:
        def __get_pydantic_core_schema__(self, source, handler):
            raise pydantic.PydanticUserError("not here\nat all", code=None)

    Odd.__module__ = "pydantic"
    with pytest.raises(TypeError, match=r"Pydantic cannot check the constraint .*: not here\Z"):
        adapt(Annotated[int, Odd()])

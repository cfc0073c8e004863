"""The items of an Iterable, a Reversible and a Container are converted to their annotation."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Container, Iterable, Reversible
from typing import Generic, TypeVar, TypeVarTuple

import msgspec
import pytest

import trio_rpc
from trio_rpc.gateway.json_values import JsonRead
from trio_rpc.services.conversion import adapt
from trio_rpc.services.converters import convert_to
from trio_rpc.services.tables import build_table
from trio_rpc.testing import open_session_pair

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
DAY = dt.date(2020, 1, 1)


@dataclasses.dataclass(frozen=True)
class Order:
    number: int


@dataclasses.dataclass
class Basket:
    orders: Iterable[Order]


@dataclasses.dataclass
class Row(Generic[T, *Ts]):
    first: T
    rest: tuple[*Ts]


class Line(msgspec.Struct, Generic[*Ts]):
    parts: tuple[*Ts]


class Shop:
    @trio_rpc.method
    async def place(self, orders: Iterable[Order]) -> Iterable[Order]:
        return orders


@pytest.mark.parametrize("cls", [Iterable, Reversible, Container])
@pytest.mark.parametrize(
    ("item", "sent", "made"),
    [
        (Order, [{"number": 1}], [Order(1)]),
        (Order, ({"number": 1},), (Order(1),)),
        (dt.date, {DAY}, {DAY}),
        (dt.date, ["2020-01-01"], [DAY]),
        (list[int], [[1]], [[1]]),
        (str, {"a": 1}, {"a": 1}),
    ],
)
def test_items_are_converted_and_the_container_is_kept(cls, item, sent, made):
    if not isinstance(sent, cls):
        pytest.skip("a set is not reversible")
    found = convert_to(sent, adapt(cls[item]))
    assert (type(found), found) == (type(made), made)


@pytest.mark.parametrize("cls", [Iterable, Reversible, Container])
def test_an_item_that_does_not_fit_is_refused(cls):
    for wrong in ([{"number": "x"}], [3], 3):
        with pytest.raises(Exception, match="Expected"):
            convert_to(wrong, adapt(cls[Order]))


def test_they_are_converted_within_other_types():
    assert convert_to({"orders": [{"number": 1}]}, adapt(Basket)) == Basket([Order(1)])
    assert convert_to([[{"number": 1}]], adapt(list[Iterable[Order]])) == [[Order(1)]]


async def test_an_argument_and_a_result_arrive_as_they_were_sent():
    async with open_session_pair(Shop()) as (_, session):
        assert await session.proxy("", Shop).place([Order(1)]) == [Order(1)]
        with pytest.raises(trio_rpc.InvalidArguments, match="Expected"):
            await session.call("place", [1])


def test_a_gateway_reads_them_as_well():
    bound = build_table(Shop())["place"].signature.bind_names(
        {"orders": [{"number": 1}]}, JsonRead()
    )
    assert bound == {"orders": [Order(1)]}


def test_a_class_of_any_number_of_types_is_made_with_several_of_them():
    row = {"first": 1, "rest": ["2020-01-01", 2]}
    assert convert_to(row, adapt(Row[int, dt.date, int])) == Row(1, (DAY, 2))
    assert convert_to({"parts": [1, "2020-01-01"]}, adapt(Line[int, dt.date])) == Line((1, DAY))

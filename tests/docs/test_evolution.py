"""Each row of the table in docs/how-to/evolve.md, with old and new clients and servers."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from helpers.pages import section, table

import trio_rpc
from trio_rpc import DecodeError, Fate, InvalidArguments, MethodNotFound, RemoteError
from trio_rpc.testing import open_session_pair


class SoldOut(Exception):
    pass


@dataclass
class OldOrder:
    item: str


@dataclass
class NewOrder:
    item: str
    amount: int = 1


class Old:
    @trio_rpc.method
    async def buy(self, order: OldOrder) -> OldOrder:
        return order

    @trio_rpc.method
    async def double(self, number: int) -> int:
        return 2 * number


class New:
    @trio_rpc.method(raises=(SoldOut,))
    async def buy(self, order: NewOrder, coupon: str = "") -> NewOrder:
        if order.item == "milk":
            raise SoldOut("milk")
        return NewOrder(order.item, order.amount + len(coupon))

    @trio_rpc.method
    async def double(self, number: int | str) -> int | str:
        return 2 * number if number != 0 else "nothing"

    @trio_rpc.method
    async def added(self) -> None:
        pass


@pytest.fixture
async def to_new():
    async with open_session_pair(New(), None) as (_, session):
        yield session.proxy("", Old)


@pytest.fixture
async def to_old():
    async with open_session_pair(Old(), None) as (_, session):
        yield session.proxy("", New)


async def test_an_old_client_can_call_a_new_server(to_new):
    assert await to_new.buy(OldOrder("tea")) == OldOrder("tea")
    assert await to_new.double(2) == 4
    with pytest.raises(RemoteError, match="SoldOut: milk"):
        await to_new.buy(OldOrder("milk"))
    with pytest.raises(DecodeError):
        await to_new.double(0)


async def test_a_new_client_can_call_an_old_server(to_old):
    assert await to_old.buy(NewOrder("tea", 3)) == NewOrder("tea", 1)
    with pytest.raises(MethodNotFound) as missing:
        await to_old.added()
    with pytest.raises(InvalidArguments) as too_many:
        await to_old.buy(NewOrder("tea"), "SUMMER")
    with pytest.raises(InvalidArguments) as other_type:
        await to_old.double("two")
    for info in (missing, too_many, other_type):
        assert info.value.fate is Fate.NOT_STARTED


def test_the_table_has_these_rows():
    rows = table(section("docs/how-to/evolve.md", "Evolve a service"), "change")
    assert [row[0] for row in rows] == [
        "a new method",
        "a new parameter with a default",
        "a new field with a default",
        "a new field in a result",
        "another exception in `raises=`",
        "a wider type of a parameter (`int` to `float`)",
        "a wider type of a result",
    ]

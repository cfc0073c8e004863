"""An override that collects arguments has the annotations of the method that it overrides."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
import trio

import trio_rpc
from trio_rpc.errors import InvalidArguments
from trio_rpc.testing import open_session_pair


@dataclass
class Order:
    number: int


class Desk:
    @trio_rpc.method
    async def put(
        self, one: Order, other: Order | None = None, *, last: Order | None = None
    ) -> Any:
        assert all(one is None or isinstance(one, Order) for one in (one, other, last))
        return [one, other, last]

    @trio_rpc.method
    async def several(self, *orders: Order, **named: Order) -> int:
        assert all(isinstance(one, Order) for one in (*orders, *named.values()))
        return len(orders) + len(named)

    @trio_rpc.method
    async def ask(self, back: Callable[[Order], Awaitable[Order]]) -> bool:
        return isinstance(await back(Order(1)), Order)

    @trio_rpc.method
    async def feed(self, *, task_status: trio.TaskStatus[Order] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started(Order(1))

    @trio_rpc.stream
    async def values(self, one: Order) -> AsyncIterator[Order]:
        assert isinstance(one, Order)
        yield one

    @trio_rpc.duplex
    async def echo(self, channel: trio.abc.Channel[Order], one: Order) -> None:
        assert isinstance(one, Order)
        async for item in channel:
            assert isinstance(item, Order)
            await channel.send(item)


def traced(function: Any) -> Any:
    async def wrapper(*args, **kwargs):
        return await function(*args, **kwargs)

    return wrapper


def traced_by_position(function: Any) -> Any:
    async def wrapper(self, *args):
        return await function(self, *args)

    return wrapper


class Traced(Desk):
    put = traced(Desk.put)
    several = traced(Desk.several)
    ask = traced(Desk.ask)
    feed = traced(Desk.feed)
    echo = traced(Desk.echo)

    def values(self, *given, **named):
        return Desk.values(self, *given, **named)


class ByPosition(Desk):
    put = traced_by_position(Desk.put)
    several = traced_by_position(Desk.several)
    ask = traced_by_position(Desk.ask)
    echo = traced_by_position(Desk.echo)


@pytest.fixture(params=[Traced, ByPosition])
async def desk(request):
    async with open_session_pair(request.param()) as (_, session):
        yield session.proxy("", Desk)


async def test_collected_arguments_are_converted(desk):
    assert await desk.put(Order(1)) == [{"number": 1}, None, None]
    assert await desk.put(Order(1), Order(2)) == [{"number": 1}, {"number": 2}, None]
    assert await desk.several(Order(1), Order(2)) == 2
    with pytest.raises(InvalidArguments, match="'one'"):
        await desk.put("no")
    with pytest.raises(InvalidArguments, match="'orders'"):
        await desk.several("no")


async def test_collected_callbacks_and_channels_have_their_types(desk):
    assert await desk.ask(lambda one: Order(one.number + 1)) is True
    async with desk.echo(Order(1)) as channel:
        await channel.send(Order(2))
        assert await channel.receive() == Order(2)


async def test_arguments_collected_by_name_are_converted_and_started_values_sent():
    async with open_session_pair(Traced()) as (_, session):
        desk: Any = session.proxy("", Desk)
        assert await desk.put(one=Order(1), last=Order(3)) == [{"number": 1}, None, {"number": 3}]
        assert await desk.several(Order(1), named=Order(2)) == 2
        with pytest.raises(InvalidArguments, match="'last'"):
            await desk.put(Order(1), last="no")
        async with trio.open_nursery() as nursery:
            assert await nursery.start(desk.feed) == Order(1)
        async with desk.values(Order(1)) as values:
            assert await values.receive() == Order(1)


async def test_names_that_an_override_does_not_collect_are_refused():
    async with open_session_pair(ByPosition()) as (_, session):
        with pytest.raises(InvalidArguments, match="only by position"):
            await session.call("put", one=Order(1))

"""Types of a real session for a type checker. mypy --strict reads this; it never runs."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, assert_type

import trio

import trio_rpc
from trio_rpc.testing import memory_channel_pair, open_session_pair


class Market:
    @trio_rpc.method
    async def price(self, symbol: str) -> float:
        return 1.0

    @trio_rpc.method
    async def backtest(self, on_progress: Callable[[float], Awaitable[None]]) -> int:
        await on_progress(1.0)
        return 1

    @trio_rpc.notification
    async def log(self, line: str) -> None:
        pass

    @trio_rpc.stream
    async def ticks(self, symbol: str) -> AsyncGenerator[float, None]:
        yield 1.0

    @trio_rpc.stream(raises=(KeyError,))
    def history(self, *, days: int = 1) -> AsyncIterator[int]:
        raise NotImplementedError

    @trio_rpc.duplex
    async def chat(self, channel: trio.abc.Channel[str], room: str) -> None:
        await channel.send(room)

    @trio_rpc.method
    async def total(self, prices: AsyncIterator[float]) -> float:
        return sum([price async for price in prices])

    @trio_rpc.method
    async def feed(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started(1)


class Overriding(Market):
    """Overrides of streams and duplexes need the decorator again; those of methods do not."""

    async def price(self, symbol: str) -> float:
        return 2.0

    async def backtest(self, on_progress: Callable[[float], Awaitable[None]]) -> int:
        return 2

    @trio_rpc.stream
    async def ticks(self, symbol: str) -> AsyncGenerator[float, None]:
        yield 2.0

    @trio_rpc.duplex
    async def chat(self, channel: trio.abc.Channel[str], room: str) -> None:
        await channel.send(room)


class Later:
    """A plain def that callers await is annotated with Awaitable. Interfaces and services may be."""

    @trio_rpc.method
    def price(self, symbol: str) -> Awaitable[float]:
        return Market().price(symbol)

    @trio_rpc.notification
    def log(self, line: str) -> Awaitable[None]:
        return Market().log(line)


class Sooner(Later):
    async def price(self, symbol: str) -> float:
        return 3.0


async def later(session: trio_rpc.Session) -> None:
    assert_type(await session.proxy("later", Later).price("BTC"), float)
    assert_type(await session.proxy("later", Sooner).price("BTC"), float)
    await session.proxy("later", Later).log("hello")


class Main:
    market = trio_rpc.Identifier("market", Market)
    later = trio_rpc.Identifier("later", Later)


async def identifiers(session: trio_rpc.Session) -> None:
    assert_type(Main.market, trio_rpc.Identifier[Market])
    assert_type(session.proxy(Main.market), Market)
    assert_type(await session.proxy(Main.market).price("BTC"), float)
    assert_type(await session.call(session.proxy(Main.market).price, "BTC"), float)
    async with session.open_scope() as scope:
        assert_type(scope.proxy(Main.later), Later)
    assert_type(session.set(Main.market, Overriding()), Overriding)
    assert_type(session.set("later", Sooner()), Sooner)


class Dynamic:
    @trio_rpc.fallback
    async def anything(self, call: trio_rpc.Call) -> str:
        return call.method

    @trio_rpc.fallback(raises=(KeyError,))
    def plain(self, call: trio_rpc.Call) -> None:
        pass


async def events(server: trio_rpc.Server) -> None:
    async for event in server.session_events():
        assert_type(event, trio_rpc.SessionEvent)
        assert_type(event.end, trio_rpc.SessionEnd | None)


async def show(done: float) -> None:
    pass


async def use(session: trio_rpc.Session, nursery: trio.Nursery) -> None:
    market = session.proxy("market", Market)
    assert_type(market, Market)
    assert_type(await market.price("BTC"), float)
    assert_type(await market.backtest(show), int)
    assert_type(await session.call(market.price, "BTC", abandon_on_cancel=True), float)
    assert_type(await session.call("market.price", "BTC"), Any)
    await market.log("hello")
    await session.notify(market.log, "hello")
    assert_type(session.proxy("market"), trio_rpc.Proxy)
    assert_type(await session.ping(), float)
    assert_type(session.statistics(), trio_rpc.SessionStatistics)
    assert_type(session.tree(), list[trio_rpc.ScopeNode])
    assert_type(
        await trio_rpc.connect_in(nursery, "tcp://localhost:5000", {"market": Market()}),
        trio_rpc.Session,
    )
    context = ssl.create_default_context()
    url = "tls://localhost:5000"
    await trio_rpc.connect_in(nursery, url, ssl_context=context, resume=trio_rpc.Resume(grace=60))


async def some_prices() -> AsyncGenerator[float, None]:
    yield 1.0


async def references(session: trio_rpc.Session, nursery: trio.Nursery) -> None:
    market = session.proxy("market", Market)
    async with market.ticks("BTC") as ticks:
        assert_type(ticks, trio_rpc.ItemStream[float])
        async for batch in ticks.batches():
            assert_type(batch, list[float])
        assert_type(await ticks.receive_many(), list[float])
        async for tick in ticks:
            assert_type(tick, float)
        assert_type(await ticks.receive(), float)
    async with market.history(days=3) as history:
        assert_type(await history.receive(), int)
    async with session.stream(market.ticks, "BTC") as ticks:
        assert_type(await ticks.receive(), float)
    async with session.stream("market.ticks", "BTC") as anything:
        assert_type(await anything.receive(), Any)
    async with market.chat("lobby") as channel:
        assert_type(channel, trio.abc.Channel[str])
        await channel.send("hello")
    async with session.duplex(market.chat, "lobby") as channel:
        assert_type(await channel.receive(), str)
    assert_type(await market.total(some_prices()), float)
    _, receive = trio.open_memory_channel[float](1)
    assert_type(await market.total(receive), float)
    await nursery.start(market.feed)
    async with session.open_scope() as scope:
        assert_type(scope, trio_rpc.RemoteScope)
        assert_type(await scope.call(market.price, "BTC"), float)
        assert_type(scope.proxy("market", Market), Market)
        async with scope.stream(market.ticks, "BTC") as ticks:
            assert_type(await ticks.receive(), float)
    assert_type(trio_rpc.current_call().nursery, trio.Nursery)


async def open_all(nursery: trio.Nursery) -> None:
    async with trio_rpc.connect("tcp://localhost:5000", limits=trio_rpc.Limits()) as session:
        assert_type(session, trio_rpc.Session)
    async with trio_rpc.open_server({"market": Market()}, "tcp://127.0.0.1:0") as server:
        assert_type(server, trio_rpc.Server)
        assert_type(server.urls, list[str])
    left, right = memory_channel_pair()
    async with trio_rpc.open_session(left, Market()) as session:
        assert_type(session, trio_rpc.Session)
    await trio_rpc.serve_session(right, Market())
    async with open_session_pair(Market(), lambda session: Market()) as (a, b):
        assert_type(a, trio_rpc.Session)
        assert_type(b, trio_rpc.Session)


async def audit(call: trio_rpc.Call, proceed: Callable[[], Awaitable[Any]]) -> Any:
    assert_type(call.session, trio_rpc.Session)
    assert_type(call.session_or_none, trio_rpc.Session | None)
    assert_type(trio_rpc.current_call(), trio_rpc.Call)
    with trio_rpc.metadata(user="ann"):
        return await proceed()

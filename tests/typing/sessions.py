"""What a type checker sees of a real session. mypy --strict reads this; nothing runs it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
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
    assert_type(trio_rpc.current_call(), trio_rpc.Call)
    with trio_rpc.metadata(user="ann"):
        return await proceed()

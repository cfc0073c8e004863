"""Types of service clients, handlers and providers. mypy --strict reads this; it never runs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import assert_type

import trio

import trio_rpc
from trio_rpc import ConnectionHandler, ServiceClient, ServiceProvider
from trio_rpc.channels import serve_forwarding


class Market:
    def __init__(self, screen: Screen, name: str = "") -> None:
        self.screen = screen

    @trio_rpc.method
    async def price(self, symbol: str) -> float:
        await self.screen.show(symbol)
        return 1.0

    @trio_rpc.notification
    async def log(self, line: str) -> None:
        pass

    @trio_rpc.stream
    async def ticks(self, symbol: str) -> AsyncGenerator[float, None]:
        yield 1.0


class Screen:
    @trio_rpc.method
    async def show(self, text: str) -> int:
        return 1


async def clients(channel: trio.abc.Channel[bytes]) -> None:
    client = ServiceClient(Market)
    assert_type(client, ServiceClient[Market])
    assert_type(client.proxy, Market)
    assert_type(await client.proxy.price("BTC"), float)
    assert_type(client.proxy.ticks("BTC"), AbstractAsyncContextManager[trio_rpc.ItemStream[float]])
    client.target = Screen()
    assert_type(await client.listen(channel), trio_rpc.SessionEnd)
    async with trio.open_nursery() as nursery:
        session: trio_rpc.Session = await nursery.start(client.listen, channel)
        assert_type(session.limits, trio_rpc.Limits)
    assert_type(client.session, trio_rpc.Session | None)
    untyped = ServiceClient(target=Screen(), grace=10, max_waiting=3, credentials="token")
    assert_type(untyped.proxy, trio_rpc.Proxy)
    await untyped.proxy.anything(1)


async def kept_processes() -> None:
    async with trio_rpc.keep_process(["market"], Market, Screen(), name="market") as market:
        assert_type(market, trio_rpc.KeptProcess[Market])
        assert_type(await market.proxy.price("BTC"), float)
        assert_type(market.session, trio_rpc.Session | None)
        async for state in market.states():
            assert_type(state, trio_rpc.ProcessState)
            assert_type(state.end, trio_rpc.SessionEnd | None)
    restart = trio_rpc.Restart(times=3, within=60)
    async with trio_rpc.keep_process(["market"], restart=restart) as untyped:
        assert_type(untyped, trio_rpc.KeptProcess[trio_rpc.Proxy])
        await untyped.proxy.anything(1)


def make_market(screen: Screen, name: str) -> Market:
    return Market(screen, name)


async def make_later(screen: Screen) -> Market:
    await trio.lowlevel.checkpoint()
    return Market(screen)


async def handlers(channel: trio.abc.Channel[bytes]) -> None:
    handler = ConnectionHandler("markets/{name}", make_market, Screen)
    assert_type(handler, ConnectionHandler[Screen])
    untyped = ConnectionHandler("market", make_later)
    assert_type(untyped, ConnectionHandler[trio_rpc.Proxy])
    from_class = ConnectionHandler("markets/{name}", Market, Screen, error_detail="none")
    await handler(channel, name="crypto")
    await trio_rpc.serve_connections([handler, untyped, from_class], "tcp://127.0.0.1:0")
    route: Callable[..., Awaitable[object]] = handler
    await serve_forwarding({"markets/{name}": route}, "tcp://127.0.0.1:0")


async def providers() -> None:
    provider = ServiceProvider("tcp://127.0.0.1:1", resume=True, grace=3)
    market = provider.proxy("market", Market, Screen())
    assert_type(market, Market)
    assert_type(await market.price("BTC"), float)
    assert_type(provider.proxy("other"), trio_rpc.Proxy)
    assert_type(provider.add("third", ServiceClient(Market)), ServiceClient[Market])
    async with trio.open_nursery() as nursery:
        await nursery.start(provider.run)
        await provider.proxy("fourth").method()

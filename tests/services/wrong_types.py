"""Mistakes that mypy --strict must find. Each such line ends with the codes of its errors."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Protocol, TypeVar

import trio

import trio_rpc
from trio_rpc import (
    ConnectionHandler,
    Identifier,
    Limits,
    ServiceClient,
    ServiceProvider,
    connect,
    keep_process,
    open_process,
    open_server,
    open_session,
    serve,
)
from trio_rpc.services import duplex, method, notification, stream

T = TypeVar("T")


class Session(Protocol):
    def proxy(self, service: str, interface: Callable[..., T]) -> T: ...


class Market:
    @method
    async def price(self, symbol: str) -> float:
        return 1.0

    @notification
    async def log(self, line: str) -> None:
        pass

    @method
    async def backtest(self, on_progress: Callable[[float], Awaitable[None]]) -> None:
        pass

    @method
    async def total(self, prices: AsyncIterator[float]) -> float:
        return 1.0

    @stream
    async def ticks(self, symbol: str) -> AsyncGenerator[float, None]:
        yield 1.0

    @duplex
    async def chat(self, channel: trio.abc.Channel[str], room: str) -> None:
        pass

    @stream  # E: arg-type
    async def no_stream(self) -> float:
        return 1.0

    @duplex  # E: arg-type
    async def no_channel(self, room: str) -> None:
        pass

    @method(raises=(int,))  # E: arg-type
    async def sell(self) -> None:
        pass

    @method(raises=(KeyboardInterrupt,))  # E: arg-type
    async def stop(self) -> None:
        pass

    method(raises=KeyError)  # E: call-overload
    notification(raises=(KeyError,))  # E: call-overload
    method(3)  # E: call-overload


class Live(Market):
    async def price(self, symbol: int) -> float:  # E: override
        return 1.0


class Undecorated(Market):
    """Overrides without the decorator, which work at run time but not for a type checker.

    To the checker, the decorator gives a stream or a duplex the type that its caller sees."""

    async def ticks(self, symbol: str) -> AsyncGenerator[float, None]:  # E: override
        yield 1.0

    async def chat(self, channel: trio.abc.Channel[str], room: str) -> None:  # E: override
        pass


async def wrong_calls(session: Session) -> str:
    market = session.proxy("market", Market)
    await market.price(3)  # E: arg-type
    await market.price()  # E: call-arg
    await market.price("BTC", now=True)  # E: call-arg
    await market.missing()  # E: attr-defined
    text: str = await market.price("BTC")  # E: assignment
    market.price("BTC")  # E: unused-coroutine
    await market.log("a", "b")  # E: call-arg
    return text


async def takes_text(text: str) -> None:
    pass


async def words() -> AsyncGenerator[str, None]:
    yield "word"


async def wrong_streams(session: Session) -> None:
    market = session.proxy("market", Market)
    await market.backtest(takes_text)  # E: arg-type
    await market.total(words())  # E: arg-type
    async with market.ticks(3) as ticks:  # E: arg-type
        text: str = await ticks.receive()  # E: assignment
        await ticks.send(text)  # E: attr-defined
    async for _ in market.ticks("BTC"):  # E: attr-defined
        pass
    async with market.chat() as channel:  # E: call-arg
        await channel.send(3)  # E: arg-type


def wrong_proxies(session: Session) -> None:
    session.proxy("market", Market())  # E: arg-type
    session.proxy("market", "Market")  # E: arg-type
    session.proxy(Market, "market")  # E: arg-type


async def wrong_identifiers(session: trio_rpc.Session) -> None:
    market = session.proxy(Identifier("market", Market))
    await market.price(3)  # E: arg-type
    await market.missing()  # E: attr-defined
    Identifier("market", Market())  # E: arg-type
    session.proxy(Identifier("market", Market), Market)  # E: call-overload


async def wrong_clients(channel: trio.abc.Channel[bytes]) -> None:
    client = ServiceClient(Market)
    await client.proxy.price(3)  # E: arg-type
    await client.proxy.missing()  # E: attr-defined
    ServiceClient("Market")  # E: call-overload
    ServiceClient(Market, limts=Limits())  # E: call-overload
    provider = ServiceProvider("tcp://127.0.0.1:1")
    await provider.proxy("market", Market).price()  # E: call-arg
    provider.proxy(Market)  # E: call-overload
    provider.proxy("market", Market).price("BTC")  # E: unused-coroutine
    ConnectionHandler("market", "Market", Market)  # E: call-overload
    keep_process(["market"], Market, restart=3)  # E: call-overload
    keep_process(["market"], Market, limts=Limits())  # E: call-overload


async def wrong_options(session: Session, channel: trio.abc.Channel[bytes]) -> None:
    async with open_session(channel, limts=Limits()):  # E: call-arg
        pass
    async with connect("tcp://127.0.0.1:1", limits=3):  # E: arg-type
        pass
    async with open_process(["plugin"], error_detail="all"):  # E: arg-type
        pass
    async with open_server(None, authenticate=takes_text):  # E: arg-type
        pass
    await serve(None, "tcp://127.0.0.1:0", filter=())  # E: call-arg

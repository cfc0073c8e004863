"""Types of decorators and proxies for a type checker. mypy --strict reads this; it never runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, assert_type, overload

import trio

from trio_rpc.services import Kind, Proxy, RemoteMethod, method, notification

T = TypeVar("T")


class Session(Protocol):
    """The part of a session that these checks need."""

    @overload
    def proxy(self, service: str = "") -> Proxy: ...
    # A Callable, because mypy does not allow Protocols and abstract classes as type[T].
    @overload
    def proxy(self, service: str, interface: Callable[..., T]) -> T: ...


class UnknownSymbol(Exception):
    pass


@dataclass
class Order:
    symbol: str
    count: int


class Market:
    """A class that is both a service and its interface."""

    @method
    async def price(self, symbol: str) -> float:
        return 1.0

    @method(raises=(UnknownSymbol, KeyError))
    async def order(self, order: Order, *, now: bool = False) -> dict[int, Order]:
        return {}

    @method()
    async def backtest(self, on_progress: Callable[[float], Awaitable[None]]) -> None:
        await on_progress(1.0)

    @method
    async def feed(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started(1)

    @notification
    async def log(self, line: str) -> None:
        pass

    @method
    def inline(self, number: int) -> str:
        return str(number)


class OnlyShape(Protocol):
    """An interface without bodies."""

    @method
    async def price(self, symbol: str) -> float: ...

    @method(raises=(UnknownSymbol,))
    def later(self, symbol: str) -> Awaitable[Order]: ...


class Abstract(ABC):
    @method
    @abstractmethod
    async def price(self, symbol: str) -> float: ...


class Live(OnlyShape):
    """A service that implements an interface."""

    async def price(self, symbol: str) -> float:
        return 2.0

    async def later(self, symbol: str) -> Order:
        return Order(symbol, 1)


async def typed_proxies(session: Session) -> None:
    market = session.proxy("market", Market)
    assert_type(market, Market)
    assert_type(await market.price("BTC"), float)
    assert_type(await market.order(Order("BTC", 1), now=True), dict[int, Order])
    await market.log("hello")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(market.price, "BTC")
        await nursery.start(market.feed)


async def interfaces_without_bodies(session: Session) -> None:
    assert_type(await session.proxy("market", OnlyShape).price("BTC"), float)
    assert_type(await session.proxy("market", OnlyShape).later("BTC"), Order)
    assert_type(await session.proxy("market", Abstract).price("BTC"), float)


async def untyped_proxies(session: Session) -> None:
    anything = session.proxy("market")
    assert_type(anything, Proxy)
    assert_type(anything.price, RemoteMethod)
    assert_type(anything.price.kind, Kind)
    assert_type(await anything.price("BTC", now=3), Any)
    assert_type(session.proxy(), Proxy)


async def local_calls() -> None:
    """Call decorated methods, which are still methods."""
    market = Market()
    assert_type(await market.price("BTC"), float)
    assert_type(market.inline(3), str)
    assert_type(Market.inline(market, 3), str)

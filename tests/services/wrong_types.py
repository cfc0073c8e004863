"""Mistakes that mypy --strict must find. Each line that has one names the errors' codes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from trio_rpc.services import method, notification

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

    @method(raises=(int,))  # E: arg-type
    async def sell(self) -> None:
        pass

    @method(raises=(KeyboardInterrupt,))  # E: arg-type
    async def stop(self) -> None:
        pass

    method(raises=KeyError)  # E: call-overload
    notification(raises=(KeyError,))  # E: call-arg
    method(3)  # E: call-overload


class Live(Market):
    async def price(self, symbol: int) -> float:  # E: override
        return 1.0


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


def wrong_proxies(session: Session) -> None:
    session.proxy("market", Market())  # E: arg-type
    session.proxy("market", "Market")  # E: arg-type
    session.proxy(Market, "market")  # E: arg-type

"""A service, and the class that describes it to its clients.

Serve it:    uv run trio-rpc serve examples.market:services --listen tcp://127.0.0.1:5000
Look at it:  uv run trio-rpc describe tcp://127.0.0.1:5000
Call it:     uv run trio-rpc call tcp://127.0.0.1:5000 market.price '["BTC"]'
Use it:      uv run python -m examples.client tcp://127.0.0.1:5000
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field

import trio
import trio_rpc


class UnknownSymbol(Exception):
    """The market does not trade this symbol."""


@dataclass
class Order:
    symbol: str
    amount: float


@dataclass
class Receipt:
    order: Order
    total: float


class Dealer:
    """The service that a client offers to the market, which calls it while it works."""

    @trio_rpc.method
    async def progress(self, share: float) -> None:
        """Accept the progress of a back test, from 0 to 1."""

    @trio_rpc.method
    async def confirm(self, order: Order, total: float) -> bool:
        """Return whether the order may be filled at this price."""
        return False


@dataclass
class Market:
    """The market: one object for each session, with a proxy of that session's client."""

    dealer: Dealer
    prices: dict[str, float] = field(default_factory=lambda: {"BTC": 97_000.0, "ETH": 3_300.0})

    @trio_rpc.method(raises=(UnknownSymbol,))
    async def price(self, symbol: str) -> float:
        """Return the price of one symbol."""
        try:
            return self.prices[symbol]
        except KeyError:
            raise UnknownSymbol(symbol) from None

    @trio_rpc.method(raises=(UnknownSymbol,))
    async def order(self, order: Order) -> Receipt | None:
        """Fill an order, if the client confirms the price within five seconds."""
        total = order.amount * await self.price(order.symbol)
        with trio.move_on_after(5):
            if await self.dealer.confirm(order, total):
                return Receipt(order, total)
        return None

    @trio_rpc.method
    async def backtest(self, strategy: str, steps: int = 20) -> float:
        """Test a strategy on past prices, and report progress to the client."""
        gain = 0.0
        for step in range(steps):
            await trio.sleep(0.02)
            gain += len(strategy) / steps
            await self.dealer.progress((step + 1) / steps)
        return gain

    @trio_rpc.stream
    async def ticks(self, symbol: str) -> AsyncGenerator[float, None]:
        """Send the price repeatedly, until the client stops the stream."""
        price = await self.price(symbol)
        while True:
            yield price
            price *= 1.001
            await trio.sleep(0.02)

    @trio_rpc.method
    async def watch(self, symbol: str, on_price: Callable[[float], Awaitable[None]]) -> None:
        """Call back with the price repeatedly, until the client's remote scope ends."""

        async def run() -> None:
            while True:
                await on_price(self.prices[symbol])
                await trio.sleep(0.02)

        trio_rpc.current_call().nursery.start_soon(run)

    @trio_rpc.method
    async def halt(self, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        """Stop trading until the caller cancels this call."""
        task_status.started("halted")
        await trio.sleep_forever()

    @trio_rpc.notification
    async def log(self, line: str) -> None:
        """Write a line to the market's log."""
        print(f"log: {line!r}")


def services(session: trio_rpc.Session) -> dict[str, object]:
    """Return the services for one session."""
    return {"market": Market(session.proxy("dealer", Dealer))}

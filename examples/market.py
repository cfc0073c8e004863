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
    """The market does not trade this."""


@dataclass
class Order:
    symbol: str
    amount: float


@dataclass
class Receipt:
    order: Order
    total: float


class Dealer:
    """What a client offers to the market, which calls back while it works."""

    @trio_rpc.method
    async def progress(self, share: float) -> None:
        """Hear how far a back test has come: 0 to 1."""

    @trio_rpc.method
    async def confirm(self, order: Order, total: float) -> bool:
        """Say whether the order is to be filled at this price."""
        return False


@dataclass
class Market:
    """One for each session: it keeps a proxy of the client that it belongs to."""

    dealer: Dealer
    prices: dict[str, float] = field(default_factory=lambda: {"BTC": 97_000.0, "ETH": 3_300.0})

    @trio_rpc.method(raises=(UnknownSymbol,))
    async def price(self, symbol: str) -> float:
        """Tell the price of one symbol."""
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
        """Try a strategy on the past, and report progress to the client."""
        gain = 0.0
        for step in range(steps):
            await trio.sleep(0.02)
            gain += len(strategy) / steps
            await self.dealer.progress((step + 1) / steps)
        return gain

    @trio_rpc.stream
    async def ticks(self, symbol: str) -> AsyncGenerator[float, None]:
        """Tell the price again and again, until the client leaves."""
        price = await self.price(symbol)
        while True:
            yield price
            price *= 1.001
            await trio.sleep(0.02)

    @trio_rpc.method
    async def watch(self, symbol: str, on_price: Callable[[float], Awaitable[None]]) -> None:
        """Call back with the price now and then, for as long as the client's remote scope lasts."""

        async def run() -> None:
            while True:
                await on_price(self.prices[symbol])
                await trio.sleep(0.02)

        trio_rpc.current_call().nursery.start_soon(run)

    @trio_rpc.method
    async def halt(self, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        """Stop trading, and go on with it when the caller cancels this."""
        task_status.started("halted")
        await trio.sleep_forever()

    @trio_rpc.notification
    async def log(self, line: str) -> None:
        """Write a line into the market's log."""
        print(f"log: {line!r}")


def services(session: trio_rpc.Session) -> dict[str, object]:
    """Make the services of one session."""
    return {"market": Market(session.proxy("dealer", Dealer))}

"""A client of examples/market.py with callbacks: uv run python -m examples.client URL."""

from __future__ import annotations

import sys

import trio
import trio_rpc

from examples.market import Dealer, Market, Order, UnknownSymbol


class Terminal(Dealer):
    async def progress(self, share: float) -> None:
        print(f"  back test: {share:.0%}")

    async def confirm(self, order: Order, total: float) -> bool:
        print(f"  confirming {order.amount} {order.symbol} for {total:,.2f}")
        return total < 100_000


async def main(url: str) -> None:
    async with trio_rpc.connect(url, {"dealer": Terminal()}) as session:
        market = session.proxy("market", Market)

        print("BTC:", await market.price("BTC"))
        try:
            await market.price("XYZ")
        except UnknownSymbol as exc:
            print("unknown symbol:", exc)

        print(await market.order(Order("ETH", 2.0)))
        print("gain:", await market.backtest("mean", steps=4))

        with trio.move_on_after(0.1) as scope:
            await market.backtest("slow", steps=1000)
        print("cancelled in time:", scope.cancelled_caught)  # the handler has also ended

        async with market.ticks("BTC") as ticks:
            print("ticks:", [round(await ticks.receive()) for _ in range(3)])

        async with session.open_scope() as scope:  # the callback works until the block ends
            prices, watched = trio.open_memory_channel[float](1)
            await scope.call(market.watch, "ETH", prices.send)
            print("watched:", round(await watched.receive()))

        async with trio.open_nursery() as nursery:
            print(await nursery.start(market.halt))
            nursery.cancel_scope.cancel()

        await market.log("bye")


if __name__ == "__main__":
    trio.run(main, sys.argv[1])

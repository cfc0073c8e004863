from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

import trio
import trio_rpc
from trio_rpc.testing import open_session_pair


class Desk:
    @trio_rpc.method
    async def backtest(self, on_progress: Callable[[float], Awaitable[None]]) -> str:
        await on_progress(0.5)  # runs at the caller, inside its scope
        return "done"

    @trio_rpc.stream
    async def ticks(self, symbol: str) -> AsyncGenerator[float, None]:
        try:
            price = 0.0
            while True:
                price += 1.0
                yield price  # paused when the consumer is slow
        finally:
            print("the generator is closed")

    @trio_rpc.method
    async def total(self, prices: AsyncIterator[float]) -> float:
        return sum([price async for price in prices])  # pulls a stream of the caller

    @trio_rpc.duplex
    async def chat(self, channel: trio.abc.Channel[str], room: str) -> None:
        async for line in channel:
            await channel.send(f"{room}: {line}")

    @trio_rpc.method
    async def feed(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started(42)
        await trio.sleep_forever()

    @trio_rpc.method
    async def subscribe(self, on_tick: Callable[[float], Awaitable[None]]) -> None:
        nursery = trio_rpc.current_call().nursery  # the nursery of the caller's remote scope
        nursery.start_soon(on_tick, 7.0)


async def show(value: float) -> None:
    print("called back with", value)


async def some_prices() -> AsyncGenerator[float, None]:
    yield 10.0
    yield 20.0


async def call_back(desk: Desk) -> None:
    print(await desk.backtest(show))


async def take_some(desk: Desk) -> None:
    async with desk.ticks("BTC") as ticks:
        async for tick in ticks:
            print("tick", tick)
            if tick == 2.0:
                break  # leaving the block closes the generator, and waits for it


async def lend_a_stream(desk: Desk) -> None:
    print(await desk.total(some_prices()))


async def talk(desk: Desk) -> None:
    async with desk.chat("lobby") as channel:
        await channel.send("hello")
        print(await channel.receive())


async def start_a_task(desk: Desk) -> None:
    async with trio.open_nursery() as nursery:
        print("started with", await nursery.start(desk.feed))
        nursery.cancel_scope.cancel()  # cancels the handler, and waits for it


async def lend_for_longer(desk: Desk, session: trio_rpc.Session) -> None:
    called = trio.Event()

    async def show_once(value: float) -> None:
        await show(value)
        called.set()

    async with session.open_scope() as scope:  # references passed here live until the block ends
        await scope.call(desk.subscribe, show_once)
        await called.wait()


async def main() -> None:
    async with open_session_pair(Desk(), None) as (_, session):
        desk = session.proxy("", Desk)
        for step in (call_back, take_some, lend_a_stream, talk, start_a_task):
            await step(desk)
        await lend_for_longer(desk, session)


if __name__ == "__main__":
    trio.run(main)

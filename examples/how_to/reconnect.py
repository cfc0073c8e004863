import tempfile
from collections.abc import AsyncGenerator

import trio
import trio_rpc


async def follow(url: str) -> None:
    """Print all ticks, from one server after the other."""
    async with trio_rpc.open_pool(url) as pool:
        clock = pool.proxy("clock", Clock)
        while True:
            try:
                async with clock.ticks() as ticks:
                    async for tick in ticks:
                        print(tick)
                return
            except (trio_rpc.SessionBroken, trio_rpc.RemoteCancelled):
                print("the server has left")


class Clock:
    def __init__(self, name: str, *, is_last: bool) -> None:
        self.name = name
        self.is_last = is_last
        self.has_ticked = trio.Event()

    @trio_rpc.stream
    async def ticks(self) -> AsyncGenerator[str, None]:
        yield f"{self.name} server, tick 1"
        yield f"{self.name} server, tick 2"
        self.has_ticked.set()
        if not self.is_last:
            await trio.sleep_forever()


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        url = f"unix:{folder}/clock"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow, url)  # there is no server yet
            await trio.sleep(0.2)
            first = Clock("first", is_last=False)
            async with trio_rpc.open_server({"clock": first}, url) as server:
                await first.has_ticked.wait()
                await server.drain(grace=0.1)
            second = Clock("second", is_last=True)
            async with trio_rpc.open_server({"clock": second}, url) as server:
                await second.has_ticked.wait()
                await server.drain(grace=0.1)


if __name__ == "__main__":
    trio.run(main)

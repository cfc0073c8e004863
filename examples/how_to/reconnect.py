import contextlib
import random
import tempfile
from collections.abc import AsyncGenerator

import trio
import trio_rpc


@contextlib.asynccontextmanager
async def connect_when_up(url: str) -> AsyncGenerator[trio_rpc.Session, None]:
    """Open a session as soon as there is a server."""
    pause = 0.1
    async with contextlib.AsyncExitStack() as stack:
        while True:
            try:
                session = await stack.enter_async_context(trio_rpc.connect(url))
                break
            except (OSError, trio_rpc.SessionBroken):
                await trio.sleep(random.uniform(0, pause))
                pause = min(2 * pause, 10)
        yield session


async def follow(url: str) -> None:
    """Print all ticks, from one server after the other."""
    while True:
        try:
            async with (
                connect_when_up(url) as session,
                session.proxy("clock", Clock).ticks() as ticks,
            ):
                async for tick in ticks:
                    print(tick)
                return
        except (trio_rpc.SessionBroken, trio_rpc.RemoteCancelled, trio_rpc.Unavailable):
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

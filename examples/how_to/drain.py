import random
import tempfile
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio
import trio_rpc

T = TypeVar("T")


class Client:
    """Makes calls over one session, and over a new one after each restart of the server."""

    def __init__(self, nursery: trio.Nursery, url: str) -> None:
        self._nursery = nursery
        self._url = url
        self._lock = trio.Lock()
        self._session: trio_rpc.Session | None = None

    async def call(self, function: Callable[[trio_rpc.Session], Awaitable[T]]) -> T:
        """Make a call, and repeat it if the server was closing and has not started it."""
        while True:
            session = await self._connected()
            try:
                return await function(session)
            except (trio_rpc.SessionBroken, trio_rpc.Unavailable) as exc:
                if exc.fate is not trio_rpc.Fate.NOT_STARTED:
                    raise

    async def _connected(self) -> trio_rpc.Session:
        async with self._lock:
            while self._session is None or not self._session.is_open:
                try:
                    self._session = await trio_rpc.connect_in(self._nursery, self._url)
                except (OSError, trio_rpc.SessionBroken):
                    await trio.sleep(random.uniform(0, 0.1))
            return self._session


class Counter:
    def __init__(self) -> None:
        self.count = 0

    @trio_rpc.method
    async def add(self) -> None:
        await trio.sleep(0.01)
        self.count += 1


async def restart_often(counters: list[Counter], url: str) -> None:
    for counter in counters:
        async with trio_rpc.open_server({"counter": counter}, url) as server:
            await trio.sleep(0.3)
            await server.drain(grace=10)


async def work(client: Client) -> None:
    for _ in range(50):
        await client.call(lambda session: session.proxy("counter", Counter).add())


async def main() -> None:
    counters = [Counter() for _ in range(20)]
    with tempfile.TemporaryDirectory() as folder:
        url = f"unix:{folder}/counter"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(restart_often, counters, url)
            client = Client(nursery, url)
            async with trio.open_nursery() as workers:
                for _ in range(20):
                    workers.start_soon(work, client)
            nursery.cancel_scope.cancel()
    print("calls that were counted:", sum(counter.count for counter in counters))
    print("by several servers:", sum(counter.count > 0 for counter in counters) > 1)


if __name__ == "__main__":
    trio.run(main)

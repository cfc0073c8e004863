import contextlib

import trio
import trio_rpc


class Feed:
    """A service of one client, with tasks that live as long as its session."""

    def __init__(self, session: trio_rpc.Session) -> None:
        self.session = session
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> None:
        self._nursery = await self._stack.enter_async_context(trio.open_nursery())
        self._nursery.start_soon(self._tick)
        print("entered")

    async def __aexit__(self, *exc: object) -> None:
        self._nursery.cancel_scope.cancel()
        await self._stack.aclose()
        print("left")

    async def _tick(self) -> None:
        try:
            await trio.sleep_forever()  # such as a subscription, or a connection to a database
        finally:
            print("the task has ended")

    @trio_rpc.method
    async def latest(self) -> float:
        return 42.0


async def main() -> None:
    async with trio_rpc.open_server(Feed, "tcp://127.0.0.1:0") as server:
        async with trio_rpc.connect(server.urls[0]) as session:
            print(await session.proxy("", Feed).latest())
        await server.drain()
        print("the server is still there")


if __name__ == "__main__":
    trio.run(main)

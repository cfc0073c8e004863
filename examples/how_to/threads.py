import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import trio
import trio_rpc
from anyio.from_thread import BlockingPortal, start_blocking_portal


class Scanner:
    @trio_rpc.method
    async def scan(self, names: list[str], found: Callable[[str], Awaitable[None]]) -> int:
        """Look at each name in a thread, and call back from there."""

        def work() -> int:
            for name in names:
                time.sleep(0.01)  # stands for work that blocks
                trio.from_thread.run(found, name.upper())
            return len(names)

        return await trio.to_thread.run_sync(work)


async def serve_and_scan() -> None:
    """Call from a thread of a Trio program."""
    async with (
        trio_rpc.open_server(Scanner(), "tcp://127.0.0.1:0") as server,
        trio_rpc.connect(server.urls[0]) as session,
    ):
        scanner = session.proxy("", Scanner)

        async def found(name: str) -> None:
            print("found", name)

        def in_a_thread() -> None:
            print("scanned", trio.from_thread.run(scanner.scan, ["a", "b"], found))

        await trio.to_thread.run_sync(in_a_thread)


class Square:
    @trio_rpc.method
    def of(self, number: int) -> int:
        return number * number


def without_trio(portal: BlockingPortal, url: str) -> None:
    """Call from the threads of a program that does not run Trio."""
    with portal.wrap_async_context_manager(trio_rpc.connect(url)) as session:

        async def square(number: int) -> int:
            with trio.fail_after(5):
                return int(await session.call("of", number))

        with ThreadPoolExecutor(4) as threads:
            print(list(threads.map(lambda number: portal.call(square, number), range(5))))


def main() -> None:
    trio.run(serve_and_scan)
    with (
        start_blocking_portal(backend="trio") as portal,
        portal.wrap_async_context_manager(
            trio_rpc.open_server(Square(), "tcp://127.0.0.1:0")
        ) as server,
    ):
        without_trio(portal, server.urls[0])


if __name__ == "__main__":
    main()

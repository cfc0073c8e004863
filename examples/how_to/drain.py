import tempfile

import trio
import trio_rpc


class Counter:
    def __init__(self) -> None:
        self.count = 0

    @trio_rpc.method
    async def add(self) -> None:
        await trio.sleep(0.01)
        self.count += 1


async def restart_often(counter: Counter, url: str) -> None:
    while True:
        async with trio_rpc.open_server({"counter": counter}, url) as server:
            await trio.sleep(0.3)
            await server.drain(grace=10)


async def work(counter: Counter) -> None:
    for _ in range(100):
        await counter.add()


async def main() -> None:
    counters = [Counter() for _ in range(3)]
    with tempfile.TemporaryDirectory() as folder:
        urls = [f"unix:{folder}/counter{number}" for number in range(3)]
        async with trio.open_nursery() as nursery:
            for counter, url in zip(counters, urls, strict=True):
                nursery.start_soon(restart_often, counter, url)
            async with trio_rpc.open_pool(*urls) as pool, trio.open_nursery() as workers:
                for _ in range(20):
                    workers.start_soon(work, pool.proxy("counter", Counter))
            nursery.cancel_scope.cancel()
    print("calls that were counted:", sum(counter.count for counter in counters))
    print("by several servers:", sum(counter.count > 0 for counter in counters) > 1)


if __name__ == "__main__":
    trio.run(main)

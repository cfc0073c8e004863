import json
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import trio
import trio_rpc
from trio_rpc.nats import Topic, open_nats


@dataclass
class Change:
    symbol: str
    price: float


class Prices:
    """Each instance passes the changes of all instances on to its own clients."""

    def __init__(self, topic: Topic) -> None:
        self._topic = topic

    @trio_rpc.method
    async def set(self, symbol: str, price: float) -> None:
        self._topic.publish(json.dumps({"symbol": symbol, "price": price}).encode())

    @trio_rpc.stream
    async def changes(self, symbol: str) -> AsyncGenerator[Change, None]:
        async with self._topic.subscribe() as changes:
            async for data in changes:
                change = Change(**json.loads(data))
                if change.symbol == symbol:
                    yield change


async def serve(
    url: str, instance: str, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    async with open_nats(url) as nats, trio.open_nursery() as nursery:
        services = {"prices": Prices(nats.topic("prices"))}
        await nursery.start(trio_rpc.serve, services, f"{url}/prices/{instance}")
        task_status.started()


async def main(url: str) -> None:
    async with trio.open_nursery() as nursery:
        for instance in ("one", "two"):
            await nursery.start(serve, url, instance)
        async with (
            trio_rpc.connect(f"{url}/prices/one") as one,
            trio_rpc.connect(f"{url}/prices/two") as two,
            two.proxy("prices", Prices).changes("BTC") as changes,
        ):
            with trio.move_on_after(5):
                while True:
                    await one.proxy("prices", Prices).set("ETH", 5.0)
                    await one.proxy("prices", Prices).set("BTC", 10.0)
                    with trio.move_on_after(0.2):
                        print(await anext(changes))
                        break
        nursery.cancel_scope.cancel()


trio.run(main, sys.argv[1] if len(sys.argv) > 1 else "nats://127.0.0.1:4221")

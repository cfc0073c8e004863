import sys
from collections.abc import Awaitable, Callable

import trio
import trio_rpc
from trio_rpc.gateway import Gateway, open_spread, outlives, serve

URLS = {"a": "http://127.0.0.1:8000", "b": "http://127.0.0.1:8001"}
LINKS = {"a": "tcp://127.0.0.1:5001", "b": "tcp://127.0.0.1:5002"}


class Countdown:
    def __init__(self, home: str) -> None:
        self._home = home

    @trio_rpc.method
    @outlives
    async def count(self, start: int, tick: Callable[[int], Awaitable[None]]) -> str:
        for number in range(start, 0, -1):
            await tick(number)
            await trio.sleep(0.5)
        return f"counted at {self._home}"


async def main(home: str) -> None:
    gateway = Gateway(Countdown(home), home=home)
    async with open_spread(gateway, LINKS), trio.open_nursery() as nursery:
        await nursery.start(serve, gateway, URLS[home])
        print(f"{home} serves {URLS[home]}", flush=True)


if __name__ == "__main__":
    trio.run(main, sys.argv[1])

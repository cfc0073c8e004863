from collections.abc import Awaitable, Callable
from pathlib import Path

import trio
import trio_rpc
from trio_rpc.gateway import Gateway, outlives, serve

URL = "http://127.0.0.1:8000"


class Reports:
    @trio_rpc.method
    @outlives
    async def build(self, year: int, progress: Callable[[float], Awaitable[None]]) -> str:
        for day in range(365):
            await trio.sleep(0.02)  # stands for the work
            await progress((day + 1) / 365)
        return f"the report of {year}"


async def main() -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, Gateway(Reports(), pages=Path(__file__).parent / "pages"), URL)
        print(f"look at {URL}/", flush=True)


if __name__ == "__main__":
    trio.run(main)

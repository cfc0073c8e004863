from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import trio
import trio_rpc
from trio_rpc.gateway import Gateway, serve

HTTP, SESSIONS = "http://127.0.0.1:8000", "ws://127.0.0.1:8001"


class Oven:
    def __init__(self, session: trio_rpc.Session) -> None:
        self.window = session.proxy("window")  # the page's own service

    @trio_rpc.method
    async def bake(self, loaves: int, progress: Callable[[float], Awaitable[None]]) -> str:
        if not await self.window.confirm(f"Bake {loaves} loaves?"):
            return "nothing was baked"
        for loaf in range(loaves):
            await trio.sleep(0.1)  # stands for the work
            await progress((loaf + 1) / loaves)
        return f"{loaves} loaves"

    @trio_rpc.stream
    async def temperatures(self) -> AsyncIterator[int]:
        for degrees in range(20, 240, 20):
            yield degrees
            await trio.sleep(0.02)


async def main() -> None:
    async with trio.open_nursery() as nursery:
        pages = Gateway({}, pages=Path(__file__).parent / "pages")  # also serves /session.js
        await nursery.start(serve, pages, HTTP)
        await nursery.start(
            lambda task_status: trio_rpc.serve(
                lambda session: {"oven": Oven(session)},
                SESSIONS,
                allowed_origins=[HTTP],
                resume=True,
                task_status=task_status,
            )
        )
        print(f"look at {HTTP}/", flush=True)


if __name__ == "__main__":
    trio.run(main)

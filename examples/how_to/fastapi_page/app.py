from collections.abc import Awaitable, Callable
from pathlib import Path

import trio
import trio_rpc
from fastapi import FastAPI
from fastapi.responses import FileResponse
from trio_rpc.gateway import Gateway

PAGE = Path(__file__).parent / "page.html"


class Jobs:
    def __init__(self) -> None:
        self.running = 0

    @trio_rpc.method
    async def render(self, frames: int, progress: Callable[[float], Awaitable[None]]) -> str:
        self.running += 1
        try:
            for frame in range(frames):
                await trio.sleep(0.1)  # stands for the work
                await progress((frame + 1) / frames)
            return f"rendered {frames} frames"
        finally:
            self.running -= 1  # also when the page cancels, or its tab is closed


jobs = Jobs()
gateway = Gateway(jobs)
app = FastAPI(lifespan=lambda _: gateway.run())
app.mount("/rpc", gateway)


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(PAGE)


@app.get("/running")
async def running() -> int:
    return jobs.running

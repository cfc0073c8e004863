from collections.abc import AsyncGenerator, Awaitable, Callable

import trio
import trio_rpc


class Jobs:
    @trio_rpc.method
    async def add(self, a: int, b: int) -> int:
        return a + b

    @trio_rpc.method
    async def render(self, frames: int, on_frame: Callable[[int], Awaitable[None]]) -> str:
        try:
            for frame in range(1, frames + 1):
                await trio.sleep(0.1)  # stands for the work
                await on_frame(frame)
        finally:
            print("render has ended", flush=True)
        return f"rendered {frames} frames"

    @trio_rpc.stream
    async def frames(self, first: int) -> AsyncGenerator[str, None]:
        try:
            while True:
                yield f"frame {first}"
                first += 1
        finally:
            print("frames has ended", flush=True)

    class NoSuchJob(Exception):
        """There is no job of this name."""

    @trio_rpc.method(raises=(NoSuchJob,))
    async def result_of(self, job: str) -> str:
        raise self.NoSuchJob(job)

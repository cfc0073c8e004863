"""Run tests as guests of asyncio or uvloop, and serve applications there with uvicorn.

Such a test is a Trio program in the host's loop: pytest-trio calls one of the functions in
``RUNNERS`` in place of ``trio.run``. uvicorn serves in the same loop, as it does for FastAPI.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import trio
import uvicorn

__all__ = ["RUNNERS", "host_loop", "serving_with_uvicorn"]


def _runner(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> Callable[..., Any]:
    def run(function: Any, *args: Any, **settings: Any) -> Any:
        async def host() -> Any:
            loop = asyncio.get_running_loop()
            done = loop.create_future()
            trio.lowlevel.start_guest_run(
                function,
                *args,
                run_sync_soon_threadsafe=loop.call_soon_threadsafe,
                run_sync_soon_not_threadsafe=loop.call_soon,
                done_callback=done.set_result,
                host_uses_signal_set_wakeup_fd=True,
                **settings,
            )
            return await done

        with asyncio.Runner(loop_factory=new_loop) as runner:
            return runner.run(host()).unwrap()

    return run


def _uvloop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()


RUNNERS = {"asyncio": _runner(asyncio.new_event_loop), "uvloop": _runner(_uvloop)}


def host_loop() -> asyncio.AbstractEventLoop | None:
    """Return the loop that this Trio run is a guest of, or None."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, and without its waits of 100 ms."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = trio.Event()
        self.stop = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        self.is_up.set()
        await self.stop.wait()


@contextlib.asynccontextmanager
async def serving_with_uvicorn(app: Any, **settings: Any) -> AsyncIterator[str]:
    """Serve an ASGI application in the host's loop, and yield its URL."""
    settings = {"lifespan": "on", "log_level": "warning", "timeout_graceful_shutdown": 2} | settings
    config = uvicorn.Config(app, ws="websockets-sansio", **settings)
    server = _Server(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        async with _running(server.serve(sockets=[listener]), server.is_up):
            try:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            finally:
                server.stop.set()


@contextlib.asynccontextmanager
async def _running(serve: Coroutine[Any, Any, None], is_up: trio.Event) -> AsyncIterator[None]:
    ended = trio.Event()
    task = asyncio.get_running_loop().create_task(serve)

    def has_ended(_task: object) -> None:
        ended.set()
        is_up.set()

    task.add_done_callback(has_ended)
    try:
        with trio.CancelScope(shield=True):
            await is_up.wait()
        if ended.is_set():
            raise RuntimeError("uvicorn did not start")
        yield
    finally:
        with trio.CancelScope(shield=True):
            await ended.wait()
        task.result()

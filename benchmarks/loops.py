"""One interface over Trio, asyncio and threads with blocking calls, for the timed loops.

So there is one set of timed loops, and each peer runs in its own event loop. Blocking functions are
also written as `async def`; they never suspend, so a single step runs them to the end.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import trio

__all__ = ["ASYNCIO", "BLOCKING", "TRIO", "Group", "Loop", "Work", "run_blocking"]

Work = Callable[..., Coroutine[Any, Any, Any]]


class Group(Protocol):
    """Tasks that end before their block does."""

    def start_soon(self, function: Work, *arguments: Any) -> None:
        """Start a task."""

    def cancel(self) -> None:
        """Cancel all tasks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """One way to run tasks."""

    run: Callable[..., Any]
    """Runs an async function with arguments to its end."""

    in_thread: Callable[[Callable[[], Any]], Awaitable[Any]]
    """Runs a blocking function, while the loop keeps its sessions alive."""

    sleep: Callable[[float], Awaitable[None]]

    group: Callable[[], AbstractAsyncContextManager[Group]]

    holds_in_tasks: bool = True
    """Whether an open session gets a task. Otherwise it stays in a stack of open blocks."""


class _TrioGroup:
    def __init__(self, nursery: trio.Nursery) -> None:
        self.start_soon = nursery.start_soon
        self.cancel = nursery.cancel_scope.cancel


@asynccontextmanager
async def _trio_group() -> AsyncGenerator[Group]:
    async with trio.open_nursery() as nursery:
        yield _TrioGroup(nursery)


TRIO = Loop(
    run=trio.run,
    in_thread=partial(trio.to_thread.run_sync, abandon_on_cancel=True),
    sleep=trio.sleep,
    group=_trio_group,
)


class _AsyncioGroup:
    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self._tasks: list[asyncio.Task[Any]] = []

    def start_soon(self, function: Work, *arguments: Any) -> None:
        self._tasks.append(self._group.create_task(function(*arguments)))

    def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()


@asynccontextmanager
async def _asyncio_group() -> AsyncGenerator[Group]:
    async with asyncio.TaskGroup() as group:
        yield _AsyncioGroup(group)


ASYNCIO = Loop(
    run=lambda function, *arguments: asyncio.run(function(*arguments)),
    in_thread=asyncio.to_thread,
    sleep=asyncio.sleep,
    group=_asyncio_group,
)


def run_blocking(function: Work, *arguments: Any) -> Any:
    """Run an async function that never suspends, and return its result."""
    try:
        function(*arguments).send(None)
    except StopIteration as stop:
        return stop.value
    raise RuntimeError(f"{function} waits for an event loop, but no loop is running")


class _Threads:
    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []

    def _run(self, function: Work, *arguments: Any) -> None:
        try:
            run_blocking(function, *arguments)
        except BaseException as error:  # noqa: BLE001 - join raises it
            self._errors.append(error)

    def start_soon(self, function: Work, *arguments: Any) -> None:
        thread = threading.Thread(target=self._run, args=(function, *arguments), daemon=True)
        self._threads.append(thread)
        thread.start()

    def cancel(self) -> None:
        raise NotImplementedError("a blocked thread cannot be cancelled")

    def join(self) -> None:
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise self._errors[0]


@asynccontextmanager
async def _threads() -> AsyncGenerator[Group]:
    threads = _Threads()
    yield threads
    threads.join()


async def _call(function: Callable[[], Any]) -> Any:
    return function()


async def _sleep(seconds: float) -> None:
    time.sleep(seconds)  # noqa: ASYNC251 - there is no loop to block


BLOCKING = Loop(
    run=run_blocking,
    in_thread=_call,
    sleep=_sleep,
    group=_threads,
    holds_in_tasks=False,
)

"""A process of clients, good and bad, which the measuring process calls."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import random
import time
from array import array
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import trio

import trio_rpc
from benchmarks.machine import raise_open_files
from benchmarks.under_load import bad_input
from benchmarks.under_load.served import FILES, TO_START

AT_ONCE = 20
"""Clients of one process that connect at the same time."""


class Crowd:
    """Clients that hold sessions, call in them, or send bad input."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._sessions: list[trio_rpc.Session] = []
        self._random = random.Random(os.getpid())  # noqa: S311 - no secret

    @trio_rpc.method
    def cpu(self) -> float:
        """Return the processor time of this process so far, in seconds."""
        return time.process_time()

    @trio_rpc.method
    async def open(self, url: str, count: int) -> None:
        """Open sessions with one call each, and keep them open."""

        async def open_one(_: int) -> None:
            session = await trio_rpc.connect_in(self._nursery, url, limits=TO_START)
            await session.call("echo", 1)
            self._sessions.append(session)

        await each_of(count, AT_ONCE, open_one)

    @trio_rpc.method
    async def open_until_full(self, url: str) -> int:
        """Open sessions until one gets no answer for a second; return the number of open ones."""
        while True:
            with trio.move_on_after(1) as patience:
                session = await trio_rpc.connect_in(self._nursery, url)
                self._sessions.append(session)
            if patience.cancelled_caught:
                return len(self._sessions)

    @trio_rpc.method
    async def close(self) -> None:
        """Close all sessions of this process."""
        async with trio.open_nursery() as nursery:
            for session in self._sessions:
                nursery.start_soon(session.aclose)
        self._sessions.clear()

    @trio_rpc.method
    async def call_some(self, seconds: float, rate: float) -> bytes:
        """Call in sessions chosen at random, so many in a second; return the times in ms."""
        times = array("f")
        until = trio.current_time() + seconds
        while trio.current_time() < until:
            await trio.sleep(self._random.expovariate(rate))
            times.append(await timed(self._random.choice(self._sessions)))
        return times.tobytes()

    @trio_rpc.method
    async def call_all(self, seconds: float, rate: float) -> dict[str, Any]:
        """Call in each session, so many times in a second.

        Return the times of the calls in ms, by how much they began late, the errors, and how many
        calls were not made, because the machine was too slow to begin them before the end.
        """
        times, late = array("f"), array("f")
        errors: list[str] = []
        began, missing, pace = trio.current_time(), 0, Pace()
        end = began + seconds

        async def client(session: trio_rpc.Session) -> None:
            nonlocal missing
            due = began + self._random.random() / rate
            while due < end:
                if trio.current_time() >= end:
                    missing += 1 + int((end - due) * rate)
                    return
                await pace.wait_until(due)
                late.append((trio.current_time() - due) * 1e3)
                try:
                    times.append(await timed(session))
                except trio_rpc.RpcError as exc:
                    errors.append(repr(exc)[:100])
                due += 1 / rate

        async with pace.running(), trio.open_nursery() as nursery:
            for session in self._sessions:
                nursery.start_soon(client, session)
        return {
            "times": times.tobytes(),
            "late": late.tobytes(),
            "errors": errors,
            "missing": missing,
        }

    @trio_rpc.method
    async def connect_again_and_again(self, url: str, seconds: float) -> bytes:
        """Connect, call and close, without a pause between; return the times in ms."""
        times = array("f")
        until = trio.current_time() + seconds
        while trio.current_time() < until:
            began = time.perf_counter()
            async with trio_rpc.connect(url) as session:
                await session.call("echo", 1)
                times.append((time.perf_counter() - began) * 1e3)
            await trio.sleep(0.02)
        return times.tobytes()

    @trio_rpc.method
    async def stay(self, port: int, count: int, rate: float, drips: bool) -> float:  # noqa: FBT001
        """Open connections that say nothing, or a byte a second, and wait until all are closed.

        Return the seconds that the longest one stayed after the server had accepted it.
        """
        stayed = array("f")
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in range(count):
                await trio.sleep_until(began + number / rate)
                nursery.start_soon(partial(bad_input.stay, port, stayed, drips=drips))
        return max(stayed, default=0.0)

    @trio_rpc.method
    async def cancel(self, port: int, pairs: int) -> int:
        """Send Requests, each with its Cancel; return how many were answered."""
        return await bad_input.cancel_pairs(port, pairs)

    @trio_rpc.method
    async def push_unread(self, port: int, count: int) -> int:
        """Send Requests without reading the answers; return the number of connections."""
        return await bad_input.push_unread(port, count)

    @trio_rpc.method
    async def ask_and_stop(self, port: int, megabytes: int, seconds: float) -> None:
        """Ask for results and a stream, and read nothing for some seconds."""
        await bad_input.ask_and_stop(port, megabytes, seconds)

    @trio_rpc.method
    async def send_bad(self, kind: str, port: int, count: int) -> int:
        """Connect so many times, and send something bad each time; return how often it failed."""
        failed = 0

        async def send_one(number: int) -> None:
            nonlocal failed
            failed += not await bad_input.send_bad(kind, port, number)

        await each_of(count, AT_ONCE, send_one)
        return failed

    @trio_rpc.method
    async def notify_badly(self, url: str, count: int) -> None:
        """Send notifications that are unknown, have wrong arguments, or fail."""
        bad: tuple[Callable[[trio_rpc.Session], Awaitable[None]], ...] = (
            lambda session: session.notify("no.such.thing"),
            lambda session: session.notify("note", "no number"),
            lambda session: session.notify("fail"),
        )
        async with trio_rpc.connect(url) as session:
            for number in range(count):
                await bad[number % len(bad)](session)
            await session.ping()


class Pace:
    """Wakes many clients, each at its time, in one task.

    A ``trio.sleep_until`` in each client adds a tenth to the client's processor time of a call.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int, trio.lowlevel.Task]] = []
        self._numbers = itertools.count()

    async def wait_until(self, when: float) -> None:
        """Wait until that time, or up to a millisecond longer."""
        entry = (when, next(self._numbers), trio.lowlevel.current_task())
        heapq.heappush(self._waiting, entry)
        await trio.lowlevel.wait_task_rescheduled(_may_be_cancelled)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Wake the clients while this block runs."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run)
            yield
            nursery.cancel_scope.cancel()

    async def _run(self) -> None:
        while True:
            now = trio.current_time()
            while self._waiting and self._waiting[0][0] <= now:
                trio.lowlevel.reschedule(heapq.heappop(self._waiting)[2])
            await trio.sleep(0.001)


def _may_be_cancelled(_raise: object) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.SUCCEEDED  # only together with the task that wakes the clients


async def timed(session: trio_rpc.Session) -> float:
    """Make a call, and return its time in ms."""
    began = time.perf_counter()
    if await session.call("echo", 7) != 7:
        raise AssertionError("another answer")
    return (time.perf_counter() - began) * 1e3


async def each_of(count: int, at_once: int, function: Callable[[int], Awaitable[None]]) -> None:
    """Call a function with each number below ``count``, some at a time."""
    numbers: Iterator[int] = iter(range(count))

    async def some() -> None:
        for number in numbers:
            await function(number)

    async with trio.open_nursery() as nursery:
        for _ in range(min(at_once, count)):
            nursery.start_soon(some)


async def main() -> None:
    """Serve the measuring process until it ends the session."""
    raise_open_files(FILES)
    async with trio.open_nursery() as nursery:
        with contextlib.suppress(trio_rpc.SessionBroken):
            await trio_rpc.serve_parent(Crowd(nursery), limits=TO_START)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)

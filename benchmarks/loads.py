"""The timed loops, which are the same for Trio, asyncio and blocking calls (see `loops`).

Each gets the client's side of a measurement, and reports metrics in each turn. Each checks the
replies, so that a fast wrong answer does not count.
"""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from benchmarks.interface import Calls, Measurement, Target, Turns
from benchmarks.loops import Group, Loop
from benchmarks.machine import raise_open_files, resident_bytes
from benchmarks.parts import Load

__all__ = ["LOADS", "SPARE_FILES", "Bench", "affordable"]

PATIENCE = 5.0
"""Seconds after which a handler that still runs counts as not cancelled."""

SETTLING = 0.5
"""Seconds for a server to clean up after the last of many calls."""

LONGEST = 0.2
"""The most seconds that the rates of one turn should take, without the warm-up."""

FOREVER = 86_400.0
"""Seconds, longer than any measurement."""

SPARE_FILES = 200
"""Open files that a process needs in addition to its sessions (a generous estimate)."""


@dataclass(frozen=True, slots=True)
class Bench:
    """The client's side of a measurement."""

    loop: Loop
    open_client: Callable[[str], AbstractAsyncContextManager[Calls]]
    target: Target
    load: Load
    turns: Turns

    def open(self) -> AbstractAsyncContextManager[Calls]:
        """Open one client."""
        return self.open_client(self.target.urls[0])

    async def next(self) -> bool:
        """Wait for this client's turn. Return False if there will be no other turn."""
        found: bool = await self.loop.in_thread(self.turns.wait)
        return found


def affordable(count: int, warm_up: int, seconds: float) -> int:
    """Return how much of that count to measure, given the duration of the warm-up.

    Slow adapters make fewer calls, so that all turns take about equally long.
    """
    return max(1, min(count, int(warm_up / seconds * LONGEST)))


async def _timed(call: Callable[[Any], Awaitable[Any]], value: object, load: Load) -> list[float]:
    """Make calls one at a time. Return the seconds of each call after the warm-up."""
    for _ in range(load.warm_up):
        assert await call(value) == value
    samples = []
    for _ in range(load.count):
        start = perf_counter()
        result = await call(value)
        samples.append(perf_counter() - start)
        assert result == value
    return samples


async def one_at_a_time(bench: Bench) -> None:
    """Measure the latency of one call at a time, in microseconds."""
    load = bench.load
    async with bench.open() as client:
        while await bench.next():
            samples = await _timed(client.echo, "x" * load.size, load)
            p99 = statistics.quantiles(samples, n=100)[98]
            bench.turns.report(
                {
                    "p50": statistics.median(samples) * 1e6,
                    "mean": statistics.fmean(samples) * 1e6,
                    "p99": p99 * 1e6,
                }
            )


async def large(bench: Bench) -> None:
    """Measure large payloads one at a time: MB/s, and the milliseconds of one."""
    load = bench.load
    async with bench.open() as client:
        assert client.large is not None
        while await bench.next():
            samples = await _timed(client.large, bytes(load.size), load)
            rate = load.size * load.count / sum(samples) / 1e6
            bench.turns.report({"rate": rate, "p50": statistics.median(samples) * 1e3})


async def _loop(client: Calls, value: str, count: int) -> None:
    echo = client.echo
    for _ in range(count):
        assert await echo(value) == value


async def _call_in_many_tasks(bench: Bench, client: Calls, count: int) -> None:
    callers, value = bench.load.callers, "x" * bench.load.size
    if client.many is not None:
        results = await client.many(value, count, callers)
        assert results == [value] * count
        return
    async with bench.loop.group() as group:
        for _ in range(callers):
            group.start_soon(_loop, client, value, count // callers)


async def in_flight(bench: Bench) -> None:
    """Measure the throughput of many tasks that call on one connection."""
    callers = bench.load.callers
    warm_up, count = (
        number // callers * callers for number in (bench.load.warm_up, bench.load.count)
    )
    async with bench.open() as client:
        while await bench.next():
            start = perf_counter()
            await _call_in_many_tasks(bench, client, warm_up)
            some = (
                affordable(count // callers, warm_up // callers, perf_counter() - start) * callers
            )
            start = perf_counter()
            await _call_in_many_tasks(bench, client, some)
            bench.turns.report({"rate": some / (perf_counter() - start)})


async def connecting(bench: Bench) -> None:
    """Measure how many sessions per second are opened, called once and closed, one at a time."""

    async def once() -> None:
        async with bench.open() as client:
            assert await client.echo("hello") == "hello"

    while await bench.next():
        for _ in range(bench.load.warm_up):
            await once()
        start = perf_counter()
        for _ in range(bench.load.count):
            await once()
        bench.turns.report({"rate": bench.load.count / (perf_counter() - start)})


class _Sessions:
    """Sessions that are opened, called once, and then left open."""

    def __init__(self, bench: Bench, group: Group, stack: AsyncExitStack) -> None:
        self._bench = bench
        self._group = group
        self._stack = stack
        self._started = 0
        self._opened = 0

    def _open_next(self) -> AbstractAsyncContextManager[Calls]:
        urls = self._bench.target.urls
        url = urls[self._started % len(urls)]
        self._started += 1
        return self._bench.open_client(url)

    async def _hold(self, opening: AbstractAsyncContextManager[Calls]) -> None:
        async with opening as client:
            assert await client.echo("hello") == "hello"
            self._opened += 1
            await self._bench.loop.sleep(FOREVER)

    async def open(self, count: int) -> None:
        enough = self._opened + count
        if not self._bench.loop.holds_in_tasks:
            while self._opened < enough:
                client = await self._stack.enter_async_context(self._open_next())
                assert await client.echo("hello") == "hello"
                self._opened += 1
        while self._opened < enough:
            while self._started < min(enough, self._opened + self._bench.load.callers):
                self._group.start_soon(self._hold, self._open_next())
            await self._bench.loop.sleep(0.001)  # takes less memory than an Event in each session


async def _grow(bench: Bench) -> Measurement:
    load, pid = bench.load, bench.target.pid
    count = min(load.count, raise_open_files(load.count + 2 * SPARE_FILES) - SPARE_FILES)
    measured = count - load.warm_up
    async with AsyncExitStack() as stack, bench.loop.group() as group:
        sessions = _Sessions(bench, group, stack)
        await sessions.open(load.warm_up)
        await bench.loop.sleep(SETTLING)
        before = resident_bytes(pid)
        start = perf_counter()
        await sessions.open(measured)
        seconds = perf_counter() - start
        await bench.loop.sleep(SETTLING)
        grown = resident_bytes(pid) - before
        if bench.loop.holds_in_tasks:
            group.cancel()
    return {"kib": grown / measured / 1024, "count": count, "opening": seconds / measured * 1e3}


async def idle(bench: Bench) -> None:
    """Measure the server's memory for each open session, in KiB."""
    while await bench.next():
        bench.turns.report(await _grow(bench))


async def _cancel(bench: Bench, client: Calls, count: int) -> Measurement:
    assert client.hang is not None
    assert client.running is not None
    async with bench.loop.group() as group:
        for _ in range(count):
            group.start_soon(client.hang)
        while await client.running() < count:
            await bench.loop.sleep(0.01)  # asks the server
        start = perf_counter()
        group.cancel()
    returned = perf_counter()
    left = await client.running()
    while left and perf_counter() < start + PATIENCE:
        left = await client.running()
    stopped = perf_counter()
    return {"ms": (stopped - start) * 1e3, "returned": (returned - start) * 1e3, "left": left}


async def cancelled(bench: Bench) -> None:
    """Measure the time from a cancel until all handlers and callers have ended, in milliseconds."""
    async with bench.open() as client:
        while await bench.next():
            await _cancel(bench, client, bench.load.warm_up)
            bench.turns.report(await _cancel(bench, client, bench.load.count))


LOADS = {
    "one": one_at_a_time,
    "flight": in_flight,
    "crowd": in_flight,
    "large": large,
    "connect": connecting,
    "idle": idle,
    "cancel": cancelled,
    "websocket": in_flight,
    "transports": in_flight,
}

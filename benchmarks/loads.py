"""The timed loops, the same ones for everything that runs under Trio.

Each is given a way to open a client, the server, the load, and its turns; in each turn it reports
metrics. Each checks what came back: a fast wrong answer is no result.
"""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from time import perf_counter
from typing import TYPE_CHECKING, Any

import trio

from benchmarks.machine import raise_open_files, resident_bytes
from benchmarks.parts import Load

if TYPE_CHECKING:
    from benchmarks.adapter import Calls, Measurement, Target, Turns

    OpenClient = Callable[[str], AbstractAsyncContextManager[Calls]]

__all__ = ["LOADS", "SPARE_FILES"]

PATIENCE = 5.0
"""Seconds after which a handler that still runs was not cancelled at all."""

SETTLING = 0.5
"""Seconds in which a server may tidy up after the last of many calls."""

SPARE_FILES = 200
"""Open files that a process needs beside its sessions, generously."""


async def _next(turns: Turns) -> bool:
    # In a thread, so that sessions are kept alive while others have their turns.
    return await trio.to_thread.run_sync(turns.wait, abandon_on_cancel=True)


async def _timed(call: Callable[[Any], Awaitable[Any]], value: object, load: Load) -> list[float]:
    """Call one at a time; return the seconds of each call after the warm-up."""
    for _ in range(load.warm_up):
        assert await call(value) == value
    samples = []
    for _ in range(load.count):
        start = perf_counter()
        result = await call(value)
        samples.append(perf_counter() - start)
        assert result == value
    return samples


async def one_at_a_time(open_client: OpenClient, target: Target, load: Load, turns: Turns) -> None:
    """Latency, in microseconds."""
    async with open_client(target.urls[0]) as client:
        while await _next(turns):
            samples = await _timed(client.echo, "x" * load.size, load)
            p99 = statistics.quantiles(samples, n=100)[98]
            turns.report(
                {
                    "p50": statistics.median(samples) * 1e6,
                    "mean": statistics.fmean(samples) * 1e6,
                    "p99": p99 * 1e6,
                }
            )


async def large(open_client: OpenClient, target: Target, load: Load, turns: Turns) -> None:
    """Large payloads one at a time: 10^6 bytes a second, and the milliseconds of one."""
    async with open_client(target.urls[0]) as client:
        assert client.large is not None
        while await _next(turns):
            samples = await _timed(client.large, bytes(load.size), load)
            rate = load.size * load.count / sum(samples) / 1e6
            turns.report({"rate": rate, "p50": statistics.median(samples) * 1e3})


async def _loop(client: Calls, value: str, count: int) -> None:
    echo = client.echo
    for _ in range(count):
        assert await echo(value) == value


async def _flock(client: Calls, load: Load, count: int) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(load.callers):
            nursery.start_soon(_loop, client, "x" * load.size, count // load.callers)


async def in_flight(open_client: OpenClient, target: Target, load: Load, turns: Turns) -> None:
    """Throughput of many tasks that call on one connection."""
    async with open_client(target.urls[0]) as client:
        while await _next(turns):
            await _flock(client, load, load.warm_up)
            start = perf_counter()
            await _flock(client, load, load.count)
            seconds = perf_counter() - start
            turns.report({"rate": load.count // load.callers * load.callers / seconds})


class _Sessions:
    """Sessions that are opened, called once, and then left open."""

    def __init__(self, open_client: OpenClient, target: Target, at_once: int) -> None:
        self._open_client = open_client
        self._urls = target.urls
        self._doorway = trio.Semaphore(at_once)
        self.opened = 0

    async def _hold(self, number: int) -> None:
        await self._doorway.acquire()
        async with self._open_client(self._urls[number % len(self._urls)]) as client:
            assert await client.echo("hello") == "hello"
            self.opened += 1
            self._doorway.release()
            await trio.sleep_forever()

    async def open(self, nursery: trio.Nursery, count: int) -> None:
        enough = self.opened + count
        for number in range(self.opened, enough):
            nursery.start_soon(self._hold, number)
        while self.opened < enough:  # noqa: ASYNC110 - costs less than an Event in each session
            await trio.sleep(0.02)


async def _grow(open_client: OpenClient, target: Target, load: Load) -> Measurement:
    count = min(load.count, raise_open_files(load.count + 2 * SPARE_FILES) - SPARE_FILES)
    measured = count - load.warm_up
    sessions = _Sessions(open_client, target, load.callers)
    async with trio.open_nursery() as nursery:
        await sessions.open(nursery, load.warm_up)
        await trio.sleep(SETTLING)
        before = resident_bytes(target.pid)
        start = perf_counter()
        await sessions.open(nursery, measured)
        seconds = perf_counter() - start
        await trio.sleep(SETTLING)
        grown = resident_bytes(target.pid) - before
        nursery.cancel_scope.cancel()
    return {"kib": grown / measured / 1024, "count": count, "opening": seconds / measured * 1e3}


async def idle(open_client: OpenClient, target: Target, load: Load, turns: Turns) -> None:
    """Memory that the server takes for each open session, in KiB."""
    while await _next(turns):
        turns.report(await _grow(open_client, target, load))


async def _cancel(client: Calls, count: int) -> Measurement:
    assert client.hang is not None
    assert client.running is not None
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(client.hang)
        while await client.running() < count:  # noqa: ASYNC110 - the server is asked
            await trio.sleep(0.01)
        start = perf_counter()
        nursery.cancel_scope.cancel()
    returned = perf_counter()
    left = await client.running()
    while left and perf_counter() < start + PATIENCE:
        left = await client.running()
    stopped = perf_counter()
    return {"ms": (stopped - start) * 1e3, "returned": (returned - start) * 1e3, "left": left}


async def cancelled(open_client: OpenClient, target: Target, load: Load, turns: Turns) -> None:
    """Time from a cancel until everything under it has stopped, in milliseconds."""
    async with open_client(target.urls[0]) as client:
        while await _next(turns):
            await _cancel(client, load.warm_up)
            turns.report(await _cancel(client, load.count))


LOADS = {
    "one": one_at_a_time,
    "flight": in_flight,
    "large": large,
    "idle": idle,
    "cancel": cancelled,
    "websocket": in_flight,
    "transports": in_flight,
}

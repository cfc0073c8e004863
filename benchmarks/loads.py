"""The timed loops, which are the same for Trio, asyncio and blocking calls (see `loops`).

Each gets the client's side of a measurement, and reports metrics in each turn. Each checks the
replies, so that a fast wrong answer does not count.
"""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

from benchmarks import payloads
from benchmarks.interface import Calls, Measurement, Target, Turns
from benchmarks.loops import Group, Loop
from benchmarks.machine import raise_open_files, resident_bytes
from benchmarks.meter import Meter, Used
from benchmarks.parts import GROUPS, Load

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

    def meter(self, client: Calls | None = None) -> Meter:
        """Start to measure the time of the clock, and the CPU time of both ends."""
        return Meter(self.target.pid if client is None else client.server_pid or self.target.pid)

    async def next(self) -> bool:
        """Wait for this client's turn. Return False if there will be no other turn."""
        found: bool = await self.loop.in_thread(self.turns.wait)
        return found


def affordable(count: int, warm_up: int, seconds: float) -> int:
    """Return how much of that count to measure, given the duration of the warm-up.

    Slow adapters make fewer calls, so that all turns take about equally long.
    """
    return max(1, min(count, int(warm_up / seconds * LONGEST)))


async def _timed(
    bench: Bench, call: Callable[[Any], Awaitable[Any]], value: object
) -> tuple[list[float], Used]:
    """Make calls one at a time. Return the seconds of each after the warm-up, and the CPU time.

    The checks of the results are in neither.
    """
    for _ in range(bench.load.warm_up):
        assert await call(value) == value
    samples = []
    meter = bench.meter()
    for _ in range(bench.load.count):
        start = perf_counter()
        result = await call(value)
        samples.append(perf_counter() - start)
        with meter.paused():
            assert result == value
    return samples, meter.stop(bench.load.count)


async def one_at_a_time(function: str, make: Callable[[Load], Any], bench: Bench) -> None:
    """Measure the latency of one call at a time, in microseconds.

    Arguments: the name of a function of `Calls`, and a function that makes the value to echo.
    """
    value = make(bench.load)
    async with bench.open() as client:
        echo = getattr(client, function)
        while await bench.next():
            samples, used = await _timed(bench, echo, value)
            p99 = statistics.quantiles(samples, n=100)[98]
            bench.turns.report(
                {
                    "p50": statistics.median(samples) * 1e6,
                    "mean": statistics.fmean(samples) * 1e6,
                    "p99": p99 * 1e6,
                    **used,
                }
            )


async def large(bench: Bench) -> None:
    """Measure large payloads one at a time: MB/s, also of CPU time, and the ms of one."""
    load = bench.load
    async with bench.open() as client:
        assert client.large is not None
        while await bench.next():
            samples, used = await _timed(bench, client.large, bytes(load.size))
            if used:
                used["cpu_rate"] = load.size / used["cpu"]
            rate = load.size * load.count / sum(samples) / 1e6
            bench.turns.report({"rate": rate, "p50": statistics.median(samples) * 1e3, **used})


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
            meter = bench.meter(client)
            await _call_in_many_tasks(bench, client, some)
            bench.turns.report({"rate": some / meter.seconds(), **meter.stop(some)})


async def connecting(bench: Bench) -> None:
    """Measure how many sessions per second are opened, called once and closed, one at a time."""

    async def once() -> None:
        async with bench.open() as client:
            assert await client.echo("hello") == "hello"

    while await bench.next():
        for _ in range(bench.load.warm_up):
            await once()
        count, meter = bench.load.count, bench.meter()
        for _ in range(count):
            await once()
        bench.turns.report({"rate": count / meter.seconds(), **meter.stop(count)})


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

    async def _hold(self, enough: int) -> None:
        async with self._open_next() as client:
            assert await client.echo("hello") == "hello"
            self._opened += 1
            if self._started < enough:
                self._group.start_soon(self._hold, enough)
            await self._bench.loop.sleep(FOREVER)

    async def open(self, count: int) -> None:
        """Open that many more sessions, some of them at the same time."""
        enough = self._opened + count
        if not self._bench.loop.holds_in_tasks:
            while self._opened < enough:
                client = await self._stack.enter_async_context(self._open_next())
                assert await client.echo("hello") == "hello"
                self._opened += 1
        elif count:
            for _ in range(min(count, self._bench.load.callers)):
                self._group.start_soon(self._hold, enough)
        while self._opened < enough:
            await self._bench.loop.sleep(0.01)


async def _grow(bench: Bench) -> Measurement:
    load, pid = bench.load, bench.target.pid
    count = min(load.count, raise_open_files(load.count + 2 * SPARE_FILES) - SPARE_FILES)
    measured = count - load.warm_up
    async with AsyncExitStack() as stack, bench.loop.group() as group:
        sessions = _Sessions(bench, group, stack)
        await sessions.open(load.warm_up)
        await bench.loop.sleep(SETTLING)
        before = resident_bytes(pid)
        meter = bench.meter()
        await sessions.open(measured)
        seconds, used = meter.seconds(), meter.stop(measured)
        await bench.loop.sleep(SETTLING)
        grown = resident_bytes(pid) - before
        if bench.loop.holds_in_tasks:
            group.cancel()
    opening = seconds / measured * 1e3
    return {"kib": grown / measured / 1024, "count": count, "opening": opening, **used}


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
        meter = bench.meter()
        group.cancel()
    returned = meter.seconds()
    left = await client.running()
    while left and meter.seconds() < PATIENCE:
        left = await client.running()
    stopped, used = meter.seconds(), meter.stop(count)
    return {"ms": stopped * 1e3, "returned": returned * 1e3, "left": left, **used}


async def cancelled(bench: Bench) -> None:
    """Measure the time from a cancel until all handlers and callers have ended, in milliseconds."""
    async with bench.open() as client:
        while await bench.next():
            await _cancel(bench, client, bench.load.warm_up)
            bench.turns.report(await _cancel(bench, client, bench.load.count))


def _text(load: Load) -> str:
    return "x" * load.size


LOADS: dict[str, Callable[[Bench], Awaitable[None]]] = {
    "one": partial(one_at_a_time, "echo", _text),
    "ws-one": partial(one_at_a_time, "echo", _text),
    "one-dict": partial(one_at_a_time, "value", lambda _: payloads.PAIR),
    "one-dataclass": partial(one_at_a_time, "quote", lambda _: payloads.Quote(**payloads.PAIR)),
    "values": partial(one_at_a_time, "value", lambda load: payloads.dicts(load.size)),
    "dataclasses": partial(one_at_a_time, "orders", lambda load: payloads.orders(load.size)),
    **dict.fromkeys(GROUPS["flights"], in_flight),
    **dict.fromkeys(GROUPS["sizes"], large),
    **dict.fromkeys(GROUPS["sessions"], idle),
    "connect": connecting,
    "cancel": cancelled,
    "websocket": in_flight,
    "transports": in_flight,
}

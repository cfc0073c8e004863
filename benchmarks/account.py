"""Account for the CPU time of one row: which step, function and line uses it.

    python -m benchmarks.account flight                  # 64 calls in flight, and its floor
    python -m benchmarks.account cancel --seconds 20 --lines 40
    python -m benchmarks.account one --bytecodes         # counts, which no other program disturbs
    python -m benchmarks.account --markdown              # the steps of every row, as in the docs

Both ends run in this process, over TCP on loopback, so one figure covers client and server. Caches
are warmer than in two processes, and there is no time in which one end waits for the other.

1. The library and the floor take turns of some 50 ms. The time is the least of the turns, because
   other programs can only make a turn longer. The ratio is also given as a median of the pairs.
2. Then a timer of CPU time interrupts each, and the innermost line of the library, of Trio or of
   the floor is counted. The shares of the samples, times the least time, are the account. Python
   runs the timer's function between two bytecodes, so a sample may be counted at the next call.
3. With ``--bytecodes``, the executed bytecodes of some operations are also counted, exactly.
"""

from __future__ import annotations

import argparse
import linecache
import math
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import trio
import trio_websocket
import wsproto

import trio_rpc
from benchmarks.adapters import (
    floor_echo,
    floor_items,
    floor_nursery,
    floor_scopes,
    floor_websocket,
    library,
)
from benchmarks.adapters.floor_wire import serve_streams
from benchmarks.interface import Calls, Ready
from benchmarks.steps import REST, STEPS, step_of

__all__ = ["ROWS", "Row", "Side", "main", "measured"]

Serve = Callable[[Sequence[str], Ready], Awaitable[None]]
OpenClient = Callable[[str], AbstractAsyncContextManager[Calls]]
Work = Callable[["Running", int], Awaitable[None]]

TURN = 0.05
"""Seconds of CPU time that one turn should take."""

INTERVAL = 0.001
"""Seconds of CPU time between two samples. Linux may round it up to its own tick."""

HEADING = f"{'each':>8} {'share':>6}  "


@dataclass(frozen=True, slots=True)
class Side:
    """One implementation: its server and its client."""

    title: str
    serve: Serve
    open_client: OpenClient


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the tables: the work, the library and the floor."""

    title: str
    work: Work
    library: Side
    floor: Side | None
    least: int = 1
    """A turn has a multiple of this many operations."""


class Running:
    """A server and a client of one side, ready for turns."""

    def __init__(self, row: Row, side: Side, url: str, client: Calls) -> None:
        self.row, self.side, self.url, self.client = row, side, url, client
        self.count = row.least
        self.least = math.inf

    async def turn(self) -> float:
        """Do the work of a turn, and return its CPU time in microseconds for each operation."""
        before = time.process_time()
        await self.row.work(self, self.count)
        used = (time.process_time() - before) / self.count * 1e6
        self.least = min(self.least, used)
        return used

    async def warm_up(self) -> None:
        """Do some work, and find how many operations make a turn."""
        for _ in range(3):
            used = await self.turn()
            self.count = max(1, int(TURN * 1e6 / used / self.row.least)) * self.row.least
        self.least = math.inf


@asynccontextmanager
async def running(row: Row, side: Side) -> AsyncGenerator[Running]:
    """Run a side's server, and open its client."""
    ready, urls = trio.Event(), list[str]()

    def started(found: Sequence[str]) -> None:
        urls.extend(found)
        ready.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(side.serve, ["127.0.0.1"], started)
        await ready.wait()
        async with side.open_client(urls[0]) as client:
            yield Running(row, side, urls[0], client)
        nursery.cancel_scope.cancel()


# ── the work ─────────────────────────────────────────────────────────────────────────────────────


async def one_at_a_time(run: Running, count: int) -> None:
    """Echo a short string, one call after the other."""
    echo = run.client.echo
    for _ in range(count):
        assert await echo("0123456789abcdef") == "0123456789abcdef"


async def in_flight(callers: int, run: Running, count: int) -> None:
    """Echo a short string in many tasks."""
    async with trio.open_nursery() as nursery:
        for _ in range(callers):
            nursery.start_soon(one_at_a_time, run, count // callers)


async def large(size: int, run: Running, count: int) -> None:
    """Echo bytes of that size."""
    value, echo = bytes(size), run.client.large
    assert echo is not None
    for _ in range(count):
        assert len(await echo(value)) == size


async def connect(run: Running, count: int) -> None:
    """Connect, call once and close."""
    for _ in range(count):
        async with run.side.open_client(run.url) as client:
            assert await client.echo("hello") == "hello"


async def stream(run: Running, count: int) -> None:
    """Receive numbers, one by one."""
    assert run.client.items is not None
    received = 0
    async with run.client.items(count, 0) as items:
        async for _ in items:
            received += 1
    assert received == count


async def batches(run: Running, count: int) -> None:
    """Receive numbers in batches, or one by one if the client has no batches."""
    if run.client.batches is None:
        await stream(run, count)
        return
    received = 0
    async with run.client.batches(count, 0) as items:
        async for batch in items:
            received += len(batch)
    assert received == count


async def cancel(run: Running, count: int) -> None:
    """Cancel calls all at once, until their handlers have ended. Also makes these calls."""
    hang, still = run.client.hang, run.client.running
    assert hang is not None
    assert still is not None
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(hang)
        while await still() < count:
            pass
        nursery.cancel_scope.cancel()
    while await still():
        pass


PLAIN = Side("trio_rpc, plain def", library.serve_bench, library.open_inline_client)
ASYNC = Side("trio_rpc, async def", library.serve_bench, library.open_client)
ECHO = Side("bare echo", serve_streams(floor_echo.handle), floor_echo.open_client)
NURSERY = Side(
    "a nursery and a writer", serve_streams(floor_nursery.handle), floor_nursery.Caller.open
)
SCOPES = Side(
    "a task and a scope for each request",
    serve_streams(floor_scopes.handle),
    floor_scopes.Caller.open,
)
ITEMS = Side("frames one way", serve_streams(floor_items.handle), floor_items.open_client)
BARE_WS = Side("bare trio-websocket", floor_websocket.serve, floor_websocket.open_bare_client)


async def _serve_websocket(hosts: Sequence[str], ready: Ready) -> None:
    async with trio.open_nursery() as nursery:
        services = {"bench": library.Bench()}
        ready(await nursery.start(trio_rpc.serve, services, f"ws://{hosts[0]}:0"))


WEBSOCKET = Side("trio_rpc over a WebSocket", _serve_websocket, library.open_client)

ROWS = {
    "one": Row("one call at a time, plain def", one_at_a_time, PLAIN, ECHO),
    "one-async": Row("one call at a time, async def", one_at_a_time, ASYNC, ECHO),
    "flight-8": Row("8 calls in flight", partial(in_flight, 8), ASYNC, NURSERY, 8),
    "flight": Row("64 calls in flight", partial(in_flight, 64), ASYNC, NURSERY, 64),
    "flight-500": Row("500 calls in flight", partial(in_flight, 500), ASYNC, NURSERY, 500),
    "large-256k": Row("256 KiB echoed", partial(large, 256 << 10), PLAIN, ECHO),
    "large": Row("1 MiB echoed", partial(large, 1 << 20), PLAIN, ECHO),
    "large-15m": Row("15 MiB echoed", partial(large, 15 << 20), PLAIN, ECHO),
    "connect": Row("connect, call and close", connect, ASYNC, NURSERY),
    "stream": Row("items of a stream, one by one", stream, ASYNC, ITEMS, 4096),
    "batches": Row("items of a stream, in batches", batches, ASYNC, ITEMS, 4096),
    "cancel": Row("calls made and cancelled, at once", cancel, ASYNC, SCOPES, 500),
    "ws-one": Row("one call at a time over a WebSocket", one_at_a_time, WEBSOCKET, BARE_WS),
}


# ── the account ──────────────────────────────────────────────────────────────────────────────────

ROOTS = {
    f"{Path(trio_rpc.__file__).parent}/": "",
    f"{Path(trio.__file__).parent}/": "trio/",
    f"{Path(trio_websocket.__file__).parent}/": "trio_websocket/",
    f"{Path(wsproto.__file__).parent}/": "wsproto/",
    f"{Path(__file__).parent}/": "benchmarks/",
}


Place = tuple[CodeType, int]


def _place(frame: FrameType | None) -> Place | None:
    """Return the innermost place in a known package."""
    while frame is not None:
        if frame.f_code.co_filename.startswith(tuple(ROOTS)):
            # Between two lines, a frame has no number.
            return frame.f_code, frame.f_lineno or frame.f_code.co_firstlineno
        frame = frame.f_back
    return None


def _file(code: CodeType) -> str:
    root = next(root for root in ROOTS if code.co_filename.startswith(root))
    return ROOTS[root] + code.co_filename[len(root) :]


class Account:
    """The samples, or the bytecodes, by step, function and line."""

    def __init__(self) -> None:
        self._places: Counter[Place | None] = Counter()

    def count(self, frame: FrameType | None) -> None:
        """Count one sample."""
        self._places[_place(frame)] += 1

    @property
    def total(self) -> int:
        """The sum of all counts, at least 1."""
        return max(1, self._places.total())

    def tables(self, each: float, most: int, *, by_line: bool) -> str:
        """Return the tables, in which each count stands for ``each`` of the unit.

        ``by_line``: there is a table of lines as well.
        """
        steps, functions, lines = self.steps(), Counter[str](), Counter[str]()
        for place, count in self._places.items():
            if place is None:
                continue
            code, number = place
            file, line = _file(code), linecache.getline(code.co_filename, number).strip()
            functions[f"{file} {code.co_qualname}"] += count
            lines[f"{file}:{number} {line[:70]}"] += count
        text = [*_table("step", steps, each, most), *_table("function", functions, each, most)]
        if by_line:
            text += _table("line", lines, each, most)
        return "\n".join(text)

    def steps(self) -> Counter[str]:
        """Return the counts of each step."""
        steps = Counter[str]()
        for place, count in self._places.items():
            if place is None:
                steps[REST] += count
                continue
            code, number = place
            line = linecache.getline(code.co_filename, number)
            steps[step_of(_file(code), code.co_qualname, line)] += count
        return steps


def _table(title: str, counts: Counter[str], each: float, most: int) -> list[str]:
    whole = max(1, counts.total())
    rows = [
        f"{count * each:8.2f} {count / whole:6.1%}  {name}"
        for name, count in counts.most_common(most)
    ]
    return [HEADING + title, *rows, ""]


async def sampled(run: Running, seconds: float) -> Account:
    """Work for that many seconds of CPU time, and count where it is spent."""
    account = Account()
    before = signal.signal(signal.SIGPROF, lambda _, frame: account.count(frame))
    # Otherwise each signal would wake Trio's loop.
    wakeup = signal.set_wakeup_fd(-1)
    try:
        signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)
        until = time.process_time() + seconds
        while time.process_time() < until:
            await run.turn()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGPROF, before)
    return account


async def bytecodes(run: Running, count: int) -> Account:
    """Count the bytecodes of some operations."""
    account = Account()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            account.count(frame)
        return trace

    sys.settrace(trace)
    try:
        await run.row.work(run, count)
    finally:
        sys.settrace(None)
    return account


async def measured(row: Row, seconds: float) -> tuple[list[float], list[Running]]:
    """Return the ratios of the pairs of turns, and both sides with their least times."""
    sides = [row.library] if row.floor is None else [row.library, row.floor]
    ratios, runs = [], []
    async with trio.open_nursery() as nursery:
        for side in sides:
            run = await _start(nursery, row, side)
            runs.append(run)
        until = time.process_time() + seconds
        while time.process_time() < until:
            ours, *floors = [await run.turn() for run in runs]
            ratios += [ours / floor for floor in floors]
        nursery.cancel_scope.cancel()
    return ratios, runs


async def _start(nursery: trio.Nursery, row: Row, side: Side) -> Running:
    async def hold(*, task_status: trio.TaskStatus[Running]) -> None:
        async with running(row, side) as run:
            await run.warm_up()
            task_status.started(run)
            await trio.sleep_forever()

    found: Running = await nursery.start(hold)
    return found


async def account_for(key: str, seconds: float, lines: int, *, count: bool) -> None:
    """Print the account of a row."""
    row = ROWS[key]
    ratios, runs = await measured(row, seconds)
    print(f"{row.title}: CPU time of both ends, in one process")
    for run in runs:
        print(f"{run.least:10.2f} µs  {run.side.title}")
    if ratios:
        ends = f"{min(ratios):.2f} .. {max(ratios):.2f}"
        print(f"{runs[0].least / runs[1].least:10.2f} times   least to least")
        print(f"{statistics.median(ratios):10.2f} times   median of {len(ratios)} pairs [{ends}]")
    for one in runs:
        async with running(row, one.side) as run:
            await run.warm_up()
            found = await sampled(run, seconds)
            print(f"\n{one.side.title}: {one.least:.2f} µs, {found.total} samples\n")
            print(found.tables(one.least / found.total, lines, by_line=True))
            if count:
                least = max(row.least, 20)
                counted = await bytecodes(run, least)
                print(f"{one.side.title}: bytecodes (in place of µs)\n")
                print(counted.tables(1 / least, lines, by_line=False))


async def table(keys: Sequence[str], seconds: float) -> None:
    """Print the steps of several rows as one table in Markdown."""
    columns = []
    for key in keys:
        row = ROWS[key]
        _, (ours, *floors) = await measured(row, seconds)
        async with running(row, row.library) as run:
            await run.warm_up()
            found = await sampled(run, seconds)
        each = ours.least / found.total
        steps = {step: count * each for step, count in found.steps().items()}
        columns.append((row.title, ours.least, [floor.least for floor in floors], steps))
        print(f"{row.title}: {ours.least:.1f} µs", file=sys.stderr)
    print(_line("µs of CPU, both ends", [title for title, *_ in columns]))
    print(_line("---", ["---:"] * len(columns)))
    for step in STEPS:
        print(_line(step, [_cell(steps.get(step, 0.0)) for *_, steps in columns]))
    print(_line("**all**", [f"**{_cell(all_)}**" for _, all_, *_ in columns]))
    print(_line("its floor", [" ".join(map(_cell, floors)) for _, _, floors, _ in columns]))


def _line(first: str, cells: Sequence[str]) -> str:
    return f"| {first} | {' | '.join(cells)} |"


def _cell(value: float) -> str:
    if value < 0.05:
        return ""
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.account",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("row", nargs="*", help=f"all, if none is given: {', '.join(ROWS)}")
    parser.add_argument("--seconds", type=float, default=5.0, help="of CPU time, for each part")
    parser.add_argument("--lines", type=int, default=25, help="rows of each table")
    parser.add_argument("--bytecodes", action="store_true", help="count bytecodes as well")
    parser.add_argument("--markdown", action="store_true", help="print one table of the steps")
    options = parser.parse_args()
    rows = options.row or list(ROWS)
    if unknown := set(rows) - set(ROWS):
        parser.error(f"no such row: {', '.join(unknown)}")
    if options.markdown:
        trio.run(table, rows, options.seconds)
        return
    for row in rows:
        trio.run(partial(account_for, row, options.seconds, options.lines, count=options.bytecodes))


if __name__ == "__main__":
    main()

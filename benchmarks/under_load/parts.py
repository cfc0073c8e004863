"""The parts: each puts a load on a server, and has figures that must hold meanwhile."""

from __future__ import annotations

import contextlib
import sys
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import trio

import trio_rpc
from benchmarks.machine import resident_bytes, seconds_waited
from benchmarks.under_load.crowd import each_of, timed
from benchmarks.under_load.served import TO_START

PROCESSES = 4
"""Processes of clients, so that none has more than a few thousand sessions."""
PROBE_PAUSE = 0.005
"""Seconds between two calls of the good client."""


@dataclass(frozen=True)
class Figure:
    """A measured value and its bound. A value without a bound is only shown."""

    name: str
    value: float
    most: float | None = None
    of_speed: bool = False
    """Whether it depends on the machine's speed and other programs: a quick run only shows it."""

    @property
    def holds(self) -> bool:
        """Whether the value is no more than the bound."""
        return self.most is None or self.value <= self.most


@dataclass
class Sizes:
    """The sizes of the loads."""

    seconds: float = 60.0
    undisturbed: float = 5.0
    """Seconds for which the good client is measured alone, before and after."""
    idle_sessions: int = 8000
    active_clients: int = 1000
    silent: int = 5000
    dripping: int = 1000
    pairs: int = 200_000
    unread: int = 1_000_000
    unread_megabytes: int = 100
    bad: int = 100_000


QUICK = Sizes(
    seconds=2,
    undisturbed=0.5,
    idle_sessions=40,
    active_clients=20,
    silent=40,
    dripping=20,
    pairs=3000,
    unread=20_000,
    bad=300,
)


def percentile(times: Sequence[float], percent: float) -> float:
    """Return the value that so many percent of the values do not exceed."""
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def floats(data: bytes) -> array[float]:
    """Read the times that a process of clients returned."""
    return array("f", data)


@dataclass
class Bench:
    """A server's process, processes of clients, and one good client in this process."""

    control: trio_rpc.Session
    crowds: list[trio_rpc.Session]
    good: trio_rpc.Session
    url: str
    port: int
    websocket_port: int
    figures: list[Figure] = field(default_factory=list)

    def add(
        self, name: str, value: float, most: float | None = None, *, of_speed: bool = True
    ) -> None:
        """Add a figure."""
        self.figures.append(Figure(name, round(value, 3), most, of_speed))

    async def usage(self) -> dict[str, float]:
        """Return the resources that the server has used so far, and holds now."""
        used: dict[str, float] = await self.control.call("usage")
        pid = self.control.peer.pid or 0
        return used | {"MiB": resident_bytes(pid) / 2**20, "kept waiting": seconds_waited(pid)}

    async def clients_cpu(self) -> float:
        """Return the processor time of all processes of clients so far."""
        return sum([await crowd.call("cpu") for crowd in self.crowds])

    async def in_all(self, method: str, *arguments: Any) -> list[Any]:
        """Call a method of each process of clients at once, and return all results."""
        results: list[Any] = []

        async def one(number: int) -> None:
            results.append(await self.crowds[number].call(method, *arguments))

        await each_of(len(self.crowds), len(self.crowds), one)
        return results

    async def probe(self, seconds: float) -> list[float]:
        """Call with the good client for some seconds, and return the times in ms."""
        times = []
        until = trio.current_time() + seconds
        while trio.current_time() < until:
            times.append(await timed(self.good))
            await trio.sleep(PROBE_PAUSE)
        return times

    async def probe_during(self, work: Callable[[], Awaitable[None]]) -> list[float]:
        """Call with the good client while something is done; return the times in ms."""
        times: list[float] = []

        async def call() -> None:
            while True:
                times.append(await timed(self.good))
                await trio.sleep(PROBE_PAUSE)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await work()
            nursery.cancel_scope.cancel()
        return times


@contextlib.asynccontextmanager
async def open_bench(processes: int, *, descriptors: int | None = None) -> AsyncIterator[Bench]:
    """Start the processes, and connect the good client."""
    program = [sys.executable, "-m"]
    few = () if descriptors is None else ("--descriptors", str(descriptors))
    async with AsyncExitStack() as stack:
        control = await stack.enter_async_context(
            trio_rpc.open_process([*program, "benchmarks.under_load.served", *few], limits=TO_START)
        )
        crowds = [
            await stack.enter_async_context(
                trio_rpc.open_process([*program, "benchmarks.under_load.crowd"], limits=TO_START)
            )
            for _ in range(processes)
        ]
        url, websocket = await control.call("urls")
        good = await stack.enter_async_context(trio_rpc.connect(url))
        ports = [int(urlsplit(each).port or 0) for each in (url, websocket)]
        yield Bench(control, crowds, good, url, *ports)


# ── A server's capacity ──────────────────────────────────────────────────────────────────────


async def idle(sizes: Sizes) -> list[Figure]:
    """Idle sessions with keepalive: their cost, and a new call among them."""
    async with open_bench(PROCESSES) as bench:
        empty = await bench.usage()
        await bench.in_all("open", bench.url, sizes.idle_sessions // PROCESSES)
        await trio.sleep(2)
        before, clients_before = await bench.usage(), await bench.clients_cpu()
        await trio.sleep(sizes.seconds)
        after, clients_after = await bench.usage(), await bench.clients_cpu()
        seconds = after["at"] - before["at"]
        bench.add("% of a core, server", (after["cpu"] - before["cpu"]) / seconds * 100, 10)
        bench.add("% of a core, all clients", (clients_after - clients_before) / seconds * 100)
        times = await bench.in_all("call_some", sizes.seconds / 3, 10.0)
        calls = [each for part in times for each in floats(part)]
        bench.add("call in an idle session, p50, ms", percentile(calls, 50))
        bench.add("call in an idle session, p99, ms", percentile(calls, 99), 20)
        new = floats(
            await bench.crowds[0].call("connect_again_and_again", bench.url, sizes.seconds / 6)
        )
        bench.add("new session and call, p99, ms", percentile(new, 99), 20)
        opened = sizes.idle_sessions // PROCESSES * PROCESSES
        missing = opened + 1 - (await bench.usage())["sessions"]
        bench.add("lost sessions", missing, 0, of_speed=False)
        bench.add("KiB for a session", (after["MiB"] - empty["MiB"]) * 1024 / opened)
        return bench.figures


async def busy(sizes: Sizes) -> list[Figure]:
    """Clients that call ten times a second each."""
    rate = 10.0
    processes = 2
    async with open_bench(processes) as bench:
        await bench.in_all("open", bench.url, sizes.active_clients // processes)
        before, clients_before = await bench.usage(), await bench.clients_cpu()
        parts = await bench.in_all("call_all", sizes.seconds, rate)
        after, clients_after = await bench.usage(), await bench.clients_cpu()
        seconds = after["at"] - before["at"]
        times = [each for part in parts for each in floats(part["times"])]
        late = [each for part in parts for each in floats(part["late"])]
        errors = [each for part in parts for each in part["errors"]]
        print(*set(errors), sep="\n", end="", file=sys.stderr)
        bench.add("errors", len(errors), 0, of_speed=False)
        bench.add("calls in a second", len(times) / sizes.seconds)
        missing = sum(part["missing"] for part in parts)
        bench.add("% of the calls that could not be begun", missing / len(times) * 100, 1)
        bench.add("p50, ms", percentile(times, 50))
        bench.add("p99, ms", percentile(times, 99), 50)
        bench.add("p99.9, ms", percentile(times, 99.9))
        bench.add("calls that the clients began late, p99, ms", percentile(late, 99))
        bench.add("% of a core, server", (after["cpu"] - before["cpu"]) / seconds * 100)
        bench.add("% of a core, clients", (clients_after - clients_before) / seconds * 100)
        return bench.figures


# ── The cost of strangers ────────────────────────────────────────────────────────────────────


async def silent(sizes: Sizes) -> list[Figure]:
    """Connections that say nothing."""
    return await _strangers(sizes, sizes.silent, drips=False)


async def dripping(sizes: Sizes) -> list[Figure]:
    """Connections that say a byte a second."""
    return await _strangers(sizes, sizes.dripping, drips=True)


async def _strangers(sizes: Sizes, count: int, *, drips: bool) -> list[Figure]:
    rate = 1000.0  # opened in a second, so that the flood lasts for seconds
    stayed = 0.0
    async with open_bench(1) as bench:
        lost: list[str] = []

        async def beside_new_clients(work: Callable[[], Awaitable[None]]) -> list[float]:
            new: list[float] = []
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_connect_repeatedly, bench.url, new, lost)
                await work()
                nursery.cancel_scope.cancel()
            return new

        async def be_alone() -> None:
            await beside_new_clients(partial(trio.sleep, sizes.undisturbed))

        async def come() -> None:
            nonlocal new
            new = await beside_new_clients(flood)

        async def flood() -> None:
            nonlocal stayed
            stayed = await bench.crowds[0].call("stay", bench.port, count, rate, drips)

        # The new clients connect in this process too, which delays some calls of the good one.
        new: list[float] = []
        before = await bench.probe_during(be_alone)
        during = await bench.probe_during(come)
        after = await bench.probe_during(be_alone)
        idle_value = max(percentile(before, 99), percentile(after, 99))
        bench.add("a good client, idle, p99, ms", idle_value)
        bench.add("a good client, p99, ms", percentile(during, 99), round(2 * idle_value, 3))
        bench.add("new good clients without a session", len(lost))
        if new:
            bench.add("a new good client, p99, ms", percentile(new, 99))
        bench.add("a stranger stays at most, s", stayed, 11)
        bench.add("left at the end", (await bench.usage())["opening"], 0, of_speed=False)
        return bench.figures


async def _connect_repeatedly(url: str, times: list[float], lost: list[str]) -> None:
    while True:
        began = trio.current_time()
        try:
            async with trio_rpc.connect(url) as session:
                await session.call("echo", 1)
                times.append((trio.current_time() - began) * 1e3)
        except (OSError, trio_rpc.SessionBroken) as exc:  # strangers fill the system's queue
            lost.append(repr(exc))
        await trio.sleep(0.1)


async def cancels(sizes: Sizes) -> list[Figure]:
    """Requests, each with its Cancel in the same segment."""
    answered = 0
    async with open_bench(1) as bench:
        await bench.crowds[0].call(
            "cancel", bench.port, 1000
        )  # makes everything that is made only once
        before = await bench.usage()

        async def flood() -> None:
            nonlocal answered
            answered = await bench.crowds[0].call("cancel", bench.port, sizes.pairs)

        times = await bench.probe_during(flood)
        after = await bench.usage()
        bench.add("unanswered", sizes.pairs - answered, 0, of_speed=False)
        bench.add("MiB more", after["MiB"] - before["MiB"], 32, of_speed=False)
        bench.add("another session, p99, ms", percentile(times, 99), 50)
        most = trio_rpc.DEFAULT_LIMITS.max_calls
        bench.add("handlers at once", after["most_running"], most, of_speed=False)
        bench.add("handlers left", after["running"], 0, of_speed=False)
        bench.add("seconds of the server's CPU", after["cpu"] - before["cpu"])
        return bench.figures


async def unread(sizes: Sizes) -> list[Figure]:
    """Clients that ask for much and read nothing."""
    most = 0.0
    async with open_bench(1) as bench:
        await bench.crowds[0].call("push_unread", bench.port, 1000)
        before = await bench.usage()

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, (await bench.usage())["MiB"] - before["MiB"])
                await trio.sleep(0.1)

        async def flood() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch)
                connections = await bench.crowds[0].call("push_unread", bench.port, sizes.unread)
                bench.add("MiB more for Requests", most, 64, of_speed=False)
                bench.add("connections that they used", connections)
                await bench.crowds[0].call(
                    "ask_and_stop", bench.port, sizes.unread_megabytes, min(3.0, sizes.seconds)
                )
                nursery.cancel_scope.cancel()

        times = await bench.probe_during(flood)
        bench.add("MiB more for results and a stream", most, 64, of_speed=False)
        bench.add("another session, p99, ms", percentile(times, 99))
        return bench.figures


async def bad_frames(sizes: Sizes) -> list[Figure]:
    """Bad packets, each of which ends its connection."""
    return await _bad("frames", sizes.bad)


async def bad_upgrades(sizes: Sizes) -> list[Figure]:
    """Requests that do not open a WebSocket, or open one that is not allowed."""
    return await _bad("upgrades", sizes.bad)


async def _bad(kind: str, count: int) -> list[Figure]:
    processes = 2
    async with open_bench(processes) as bench:
        port = bench.port if kind == "frames" else bench.websocket_port
        failed = 0

        async def flood() -> None:
            nonlocal failed
            failed = sum(await bench.in_all("send_bad", kind, port, count // processes))

        return await _log_lines(bench, flood, lambda: failed)


async def bad_notifications(sizes: Sizes) -> list[Figure]:
    """Notifications that are unknown, have wrong arguments, or fail."""
    async with open_bench(1) as bench:

        async def flood() -> None:
            await bench.crowds[0].call("notify_badly", bench.url, sizes.bad)

        return await _log_lines(bench, flood, lambda: 0)


async def _log_lines(
    bench: Bench, flood: Callable[[], Awaitable[None]], failed: Callable[[], int]
) -> list[Figure]:
    before = await bench.usage()
    times = await bench.probe_during(flood)
    after = await bench.usage()
    bench.add("seconds", after["at"] - before["at"])
    bench.add("seconds of the server's CPU", after["cpu"] - before["cpu"])
    bench.add("log lines", after["lines"] - before["lines"], 100, of_speed=False)
    bench.add("connections that were not ended", failed(), 0, of_speed=False)
    bench.add("another session, p99, ms", percentile(times, 99))
    bench.add("MiB more", after["MiB"] - before["MiB"])
    return bench.figures


async def descriptors(sizes: Sizes) -> list[Figure]:
    """A server whose descriptors are used up for ten seconds, while clients connect."""
    seconds = min(10.0, 5 * sizes.seconds)
    async with open_bench(1, descriptors=100) as bench:
        opened = await bench.crowds[0].call("open_until_full", bench.url)
        async with trio.open_nursery() as nursery:

            async def wait_outside(_: int) -> None:
                with contextlib.suppress(OSError, trio_rpc.RpcError):
                    await trio_rpc.connect_in(nursery, bench.url)

            for _ in range(20):
                nursery.start_soon(wait_outside, 0)
            before = await bench.usage()
            times = await bench.probe(seconds)
            after = await bench.usage()
            nursery.cancel_scope.cancel()
        began = trio.current_time()
        await bench.crowds[0].call("close")
        async with trio_rpc.connect(bench.url) as session:
            await timed(session)
        took = trio.current_time() - began
        spent = (after["cpu"] - before["cpu"]) / (after["at"] - before["at"]) * 100
        bench.add("sessions that were open", opened)
        bench.add("% of a core, server", spent, 20)
        bench.add("a session that was open, p99, ms", percentile(times, 99))
        bench.add("seconds until it serves again", took, 1)
        bench.add("log lines", after["lines"], 100, of_speed=False)
        return bench.figures


PARTS: dict[str, Callable[[Sizes], Awaitable[list[Figure]]]] = {
    "idle": idle,
    "busy": busy,
    "silent": silent,
    "dripping": dripping,
    "cancels": cancels,
    "unread": unread,
    "bad-frames": bad_frames,
    "bad-notifications": bad_notifications,
    "bad-upgrades": bad_upgrades,
    "descriptors": descriptors,
}

"""A server at three times its capacity: the calls that it answers in time, and all other outcomes.

Run it with ``python -m benchmarks.overload``. It takes about half a minute, in two processes on
loopback:

1. *Capacity*: 64 callers, one call after the other. The handler computes for 2 ms.
2. *Overload*: calls begin at three times that rate, each in ``trio.move_on_after(0.5)``.
3. *Recovery*: calls begin at half the capacity, from the end of the overload.

*Goodput* is the share of the capacity that is answered within the 0.5 s.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from typing import Any

import trio

import trio_rpc

WORK = 0.002
PATIENCE = 0.5
FACTOR = 3


class Worker:
    """A service whose calls cost processor time, or hold one of a few places."""

    @trio_rpc.method
    def work(self) -> int:
        """Compute for 2 ms."""
        until = time.thread_time() + WORK
        while time.thread_time() < until:
            pass
        return 1

    @trio_rpc.method
    async def use_one_of_four(self) -> int:
        """Hold one of four connections to a database for 8 ms."""
        async with _connections:
            await trio.sleep(WORK * 4)
        return 1


_connections = trio.CapacityLimiter(4)


async def serve(max_calls: int, max_handlers: int | None) -> None:
    limits = trio_rpc.Limits(max_calls=max_calls)
    server_limits = trio_rpc.ServerLimits(
        **({"max_handlers": max_handlers} if max_handlers else {})
    )
    async with trio.open_nursery() as nursery:
        [url] = await nursery.start(
            _serve, {"worker": Worker()}, "tcp://127.0.0.1:0", limits, server_limits
        )
        print(url, flush=True)


async def _serve(
    services: Any, url: str, limits: Any, server_limits: Any, *, task_status: Any
) -> None:
    await trio_rpc.serve(
        services, url, limits=limits, server_limits=server_limits, task_status=task_status
    )


class Load:
    """Calls that begin at a rate, and their outcomes."""

    def __init__(self, sessions: list[trio_rpc.Session], method: str) -> None:
        self._sessions = sessions
        self._method = method
        self.outcomes: Counter[str] = Counter()
        self.times: dict[str, list[float]] = {}
        self.answered_at: list[tuple[float, float]] = []

    async def call(self, session: trio_rpc.Session) -> None:
        """Make one call, and note its outcome."""
        began, outcome = trio.current_time(), "late"
        with trio.move_on_after(PATIENCE):
            try:
                await session.call(self._method)
                outcome = "answered"
            except trio_rpc.Overloaded:
                outcome = "refused"
            except trio_rpc.RpcError as exc:
                outcome = type(exc).__name__
        took = trio.current_time() - began
        if outcome == "answered" and took > PATIENCE:
            outcome = "late"
        self.outcomes[outcome] += 1
        self.times.setdefault(outcome, []).append(took)
        if outcome == "answered":
            self.answered_at.append((began, took))

    async def closed(self, callers: int, seconds: float) -> float:
        """Return the calls a second of that many callers."""
        until = trio.current_time() + seconds

        async def caller(number: int) -> None:
            while trio.current_time() < until:
                await self._sessions[number % len(self._sessions)].call(self._method)
                self.outcomes["answered"] += 1

        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in range(callers):
                nursery.start_soon(caller, number)
        return self.outcomes["answered"] / (trio.current_time() - began)

    async def open(self, rate: float, seconds: float) -> None:
        """Begin calls at a rate, whether or not the earlier ones have ended."""
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            number = 0
            while (now := trio.current_time()) < began + seconds:
                while number < (now - began) * rate:
                    nursery.start_soon(self.call, self._sessions[number % len(self._sessions)])
                    number += 1
                await trio.sleep(0.002)


def median_ms(times: list[float]) -> float | None:
    return round(statistics.median(times) * 1000, 1) if times else None


async def measure(url: str, options: argparse.Namespace) -> dict[str, Any]:
    async with trio.open_nursery() as nursery:
        sessions = [await trio_rpc.connect_in(nursery, url) for _ in range(options.sessions)]
        capacity = await Load(sessions, options.method).closed(64, options.seconds / 2)
        over = Load(sessions, options.method)
        await over.open(FACTOR * capacity, options.seconds)
        ended = trio.current_time()
        after = Load(sessions, options.method)
        await after.open(capacity / 2, 3.0)
        slow = [began - ended for began, took in after.answered_at if took > 0.05]
        report = {
            "method": options.method,
            "sessions": options.sessions,
            "capacity": round(capacity),
            "goodput": round(over.outcomes["answered"] / options.seconds / capacity, 3),
            "answered_ms": median_ms(over.times.get("answered", [])),
            "refused_ms": median_ms(over.times.get("refused", [])),
            "longest_ms": round(max(max(each) for each in over.times.values()) * 1000),
            "outcomes": dict(over.outcomes),
            "normal_after_s": round(max(slow, default=0.0), 2),
            "after": dict(after.outcomes),
        }
        nursery.cancel_scope.cancel()
    return report


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overload", description=__doc__)
    parser.add_argument("--sessions", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--max-calls", type=int, default=1024)
    parser.add_argument("--max-handlers", type=int)
    parser.add_argument("--method", default="worker.work")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        trio.run(serve, options.max_calls, options.max_handlers)
        return
    command = [sys.executable, "-m", "benchmarks.overload", "--serve"]
    command += ["--max-calls", str(options.max_calls)]
    if options.max_handlers:
        command += ["--max-handlers", str(options.max_handlers)]
    with subprocess.Popen(  # noqa: S603 - our own program
        command, stdout=subprocess.PIPE, text=True, env=os.environ
    ) as server:
        assert server.stdout is not None
        try:
            url = server.stdout.readline().strip()
            print(json.dumps(trio.run(measure, url, options)))
        finally:
            server.terminate()


if __name__ == "__main__":
    main()

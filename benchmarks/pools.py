"""Measure a pool: its cost beside a bare session, its sharing of load, and worker processes.

    python -m benchmarks.pools [--rounds N]

- The cost is the CPU time of both ends for one call, over a pool of one instance and over a bare
  session to the same server, in turns. The ratio is formed within each round.
- The shares are those of the least and the most used of three instances, of 30,000 calls.
- Worker processes run handlers that use the processor: a pool of four beside a pool of one, by the
  clock, in turns.

tests/drills/pools.py restarts, kills and freezes instances under load.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import trio

import trio_rpc

ALONE = 2_000
"""Calls of a turn, one at a time."""
AT_ONCE = 64
TOGETHER = 10_000
"""Calls of a turn, 64 at a time."""
SHARED = 30_000
JOBS = 24
GOAL_COST = 1.05
GOAL_SHARE = 0.10
GOAL_WORKERS = 1.8

Echo = Callable[[str], Awaitable[str]]


class Service:
    """The service of servers and workers."""

    @trio_rpc.method
    async def echo(self, text: str) -> str:
        """Return the text."""
        return text

    @trio_rpc.method
    def cpu(self) -> float:
        """Return the seconds of CPU time that this process has used."""
        return time.process_time()

    @trio_rpc.method
    def work(self, steps: int) -> int:
        """Use the processor."""
        return sum(number * number % 7 for number in range(steps))


@contextlib.asynccontextmanager
async def servers(count: int) -> AsyncIterator[list[str]]:
    """Start servers, each in a process, and end them with the block."""
    with tempfile.TemporaryDirectory() as folder:
        urls = [f"unix://{folder}/{number}" for number in range(count)]
        async with trio.open_nursery() as nursery:
            for url in urls:
                command = [sys.executable, "-m", "benchmarks.pools", "--serve", url]
                nursery.start_soon(functools.partial(trio.run_process, command, check=False))
            yield urls
            nursery.cancel_scope.cancel()


async def one_at_a_time(echo: Echo) -> int:
    """Make calls one at a time; return how many."""
    for _ in range(ALONE):
        await echo("0123456789abcdef")
    return ALONE


async def many_at_once(echo: Echo) -> int:
    """Make calls 64 at a time; return how many."""

    async def call() -> None:
        for _ in range(TOGETHER // AT_ONCE):
            await echo("0123456789abcdef")

    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(call)
    return TOGETHER // AT_ONCE * AT_ONCE


def show(what: str, values: list[float], unit: str, goal: str) -> None:
    """Print the median, the least and the greatest of the values."""
    middle = statistics.median(values)
    print(f"{what}: {middle:.3f}{unit} ({min(values):.3f} to {max(values):.3f}); goal: {goal}")


async def measure_cost(rounds: int) -> None:
    """Compare calls over a pool of one instance with calls over a bare session."""
    async with (
        servers(1) as [url],
        trio_rpc.connect(url, wait=60) as session,
        trio_rpc.open_pool(url) as pool,
    ):
        bare = session.proxy("", Service)
        pooled = pool.proxy("", Service)

        async def cpu_of(load: Callable[[Echo], Awaitable[int]], echo: Echo) -> float:
            before = time.process_time() + await bare.cpu()  # type: ignore[misc]
            count = await load(echo)
            return (time.process_time() + await bare.cpu() - before) / count  # type: ignore[misc]

        for load in (one_at_a_time, many_at_once):
            await cpu_of(load, bare.echo)
            await cpu_of(load, pooled.echo)
            ratios, times = [], []
            for _ in range(rounds):
                # Bare, pool, pool, bare: a drift of the machine falls on both.
                taken = [await cpu_of(load, e) for e in (bare.echo, pooled.echo)]
                taken += [await cpu_of(load, e) for e in (pooled.echo, bare.echo)]
                ratios.append((taken[1] + taken[2]) / (taken[0] + taken[3]))
                times.append((taken[0] + taken[3]) / 2 * 1e6)
            name = load.__name__.replace("_", " ")
            show(f"a bare session, {name}", times, " us of CPU a call", "none")
            show(f"a pool to a bare session, {name}", ratios, "", f"at most {GOAL_COST}")


async def measure_share() -> None:
    """Count the calls that each of three instances gets."""
    async with servers(3) as urls, trio_rpc.open_pool(*urls, patience=60) as pool:
        async for statuses in pool.states():
            if all(each.state == "open" for each in statuses):
                break
        echo = pool.proxy("", Service).echo

        async def call() -> None:
            for _ in range(SHARED // AT_ONCE):
                await echo("0123456789abcdef")

        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(call)
        counts = [each.calls for each in pool.instances()]
        mean = sum(counts) / len(counts)
        furthest = max(abs(count / mean - 1) for count in counts)
        print(f"calls of each instance: {counts}; {furthest:.1%} off; goal: {GOAL_SHARE:.0%}")


async def measure_workers(rounds: int) -> None:
    """Compare four worker processes with one."""
    command = "exec:" + shlex.join([sys.executable, "-m", "benchmarks.pools", "--worker"])
    limits = trio_rpc.Limits(handshake_timeout=60)
    options = {"patience": 60, "limits": limits}
    async with (
        trio_rpc.open_pool(command, **options) as one,  # type: ignore[arg-type]
        trio_rpc.open_pool(*[command] * 4, **options) as four,  # type: ignore[arg-type]
    ):
        async for statuses in four.states():
            if all(each.state == "open" for each in statuses):
                break

        async def seconds(pool: trio_rpc.Pool) -> float:
            started = time.perf_counter()
            async with trio.open_nursery() as nursery:
                for _ in range(JOBS):
                    nursery.start_soon(pool.call, "work", 400_000)
            return time.perf_counter() - started

        ratios = [await seconds(one) / await seconds(four) for _ in range(rounds)]
        show("four workers to one", ratios, " x", f"at least {GOAL_WORKERS}")


def main() -> None:
    """Measure, or serve one of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--serve", metavar="URL")
    parser.add_argument("--worker", action="store_true")
    chosen = parser.parse_args()
    if chosen.serve:
        trio.run(trio_rpc.serve, Service(), chosen.serve)
    elif chosen.worker:
        trio.run(trio_rpc.serve_parent, Service())
    else:
        trio.run(measure_cost, chosen.rounds)
        trio.run(measure_share)
        trio.run(measure_workers, chosen.rounds)


if __name__ == "__main__":
    main()

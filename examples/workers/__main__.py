"""A front that shares jobs among worker processes. One of them is killed in the middle of a job."""

from __future__ import annotations

import os
import shlex
import signal
import sys

import trio
import trio_rpc

from examples.workers.jobs import Jobs

WORKERS = 4
JOBS = 24
COMMAND = "exec:" + shlex.join([sys.executable, "-m", "examples.workers.worker"])
LIMITS = trio_rpc.Limits(handshake_timeout=60)  # seconds that a worker may take to start


class Front:
    def __init__(self, pool: trio_rpc.Pool) -> None:
        self.pool = pool
        self.jobs = pool.proxy("", Jobs)
        self.results: dict[int, int] = {}
        self.progress: dict[int, int] = {}
        self.half_done = trio.Event()

    async def run(self, number: int) -> None:
        """Run one job, and show its progress."""

        async def on_progress(percent: int) -> None:
            self.progress[number] = percent
            if number == JOBS // 2 and percent == 50:
                self.half_done.set()
            self.show()

        self.results[number] = await self.jobs.count_primes(2000 * number, on_progress)
        del self.progress[number]
        self.show()

    def show(self) -> None:
        """Show the jobs that are running, on one line of a terminal."""
        if sys.stdout.isatty():
            bars = " ".join(f"{job}:{done:3}%" for job, done in sorted(self.progress.items()))
            print(f"\r{len(self.results):2} of {JOBS} done  {bars:60.60}", end="", flush=True)

    async def kill_one(self) -> None:
        """Kill a worker that is busy."""
        await self.half_done.wait()
        busy = max(self.pool.instances(), key=lambda each: each.calls_in_flight)
        if busy.pid is None:
            raise RuntimeError(f"{busy.name} has just ended by itself")
        print(f"\nkill worker {busy.pid}, jobs that it was doing: {busy.calls_in_flight}")
        os.kill(busy.pid, signal.SIGKILL)


async def main() -> None:
    commands = [COMMAND] * WORKERS
    async with trio_rpc.open_pool(*commands, limits=LIMITS) as pool:
        front = Front(pool)
        at_once = trio.Semaphore(WORKERS)

        async def run(number: int) -> None:
            async with at_once:
                await front.run(number)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(front.kill_one)
            for number in range(1, JOBS + 1):
                nursery.start_soon(run, number)
        async for instances in pool.states():  # until the killed worker has been replaced
            if all(each.state == "open" for each in instances):
                break
    print(f"\n{len(front.results)} of {JOBS} jobs done, {sum(front.results.values())} primes")


if __name__ == "__main__":
    trio.run(main)

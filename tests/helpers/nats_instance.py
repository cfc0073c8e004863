"""A program that serves at URLs; it knows which calls it has run. Used by tests and drills.

Run it with the name of a service and URLs. It prints a line when clients can connect.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator

import trio

import trio_rpc
from trio_rpc.nats import NatsOptions


class Market:
    """Runs calls, and counts how often it has run each."""

    def __init__(self) -> None:
        self.runs: Counter[str] = Counter()

    @trio_rpc.method
    async def run(self, key: str) -> str:
        """Count a call."""
        self.runs[key] += 1
        return key

    @trio_rpc.method
    async def repeated(self) -> int:
        """Return how many calls were run more than once."""
        return sum(count > 1 for count in self.runs.values())

    @trio_rpc.method
    async def pid(self) -> int:
        """Return the id of this process."""
        return os.getpid()

    @trio_rpc.method
    async def block(self, seconds: float) -> None:
        """Block the event loop."""
        time.sleep(seconds)  # noqa: ASYNC251 - on purpose

    @trio_rpc.method
    async def wait(self) -> None:
        """Wait until cancelled."""
        await trio.sleep_forever()

    @trio_rpc.method
    async def echo(self, data: bytes) -> bytes:
        """Return the data."""
        return data

    @trio_rpc.stream
    async def blobs(self, count: int, size: int) -> AsyncGenerator[bytes, None]:
        """Yield data."""
        for _ in range(count):
            yield bytes(size)


async def main(service: str, *urls: str) -> None:
    """Serve until killed."""
    linger = float(os.environ.get("LINGER", "1"))
    async with trio.open_nursery() as nursery:
        options = NatsOptions(linger=linger, silence=float(os.environ.get("SILENCE", "5")))
        bound = await nursery.start(
            lambda task_status: trio_rpc.serve(
                {service: Market()}, *urls, nats=options, task_status=task_status
            )
        )
        print(*bound, flush=True)  # noqa: T201 - its parent reads it


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])

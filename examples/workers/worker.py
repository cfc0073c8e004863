"""A worker process: it does jobs for the process that has started it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio
import trio_rpc

from examples.workers.jobs import Jobs


def is_prime(number: int) -> bool:
    return number > 1 and all(number % each for each in range(2, int(number**0.5) + 1))


class Worker(Jobs):
    async def count_primes(self, below: int, on_progress: Callable[[int], Awaitable[None]]) -> int:
        count = 0
        for tenth in range(10):
            numbers = range(below * tenth // 10, below * (tenth + 1) // 10)
            count += sum(map(is_prime, numbers))
            await on_progress(10 * (tenth + 1))
        return count


if __name__ == "__main__":
    trio.run(trio_rpc.serve_parent, Worker())

"""The interface of the workers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio_rpc


class Jobs:
    """Jobs that take a while."""

    @trio_rpc.method(idempotent=True)
    async def count_primes(self, below: int, on_progress: Callable[[int], Awaitable[None]]) -> int:
        """Count the primes below a number, and report each tenth of the work in per cent."""
        raise NotImplementedError

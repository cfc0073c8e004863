"""Reconnecting with random delays, so that many clients do not reconnect at the same time."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import NoReturn

import trio

__all__ = ["full_jitter", "keep_connected"]

MAX_DOUBLINGS = 30
"""After this many failures the delay no longer grows, however long there is no server."""


async def keep_connected(
    connect: Callable[[], Awaitable[bool]],
    *,
    first_delay: float,
    max_delay: float,
    adjust: Callable[[float], float] | None = None,
) -> NoReturn:
    """Connect whenever there is no connection, until cancelled.

    The delay between two attempts is a random part of a bound (full jitter), so that a thousand
    clients of one server do not reconnect at the same moment. The bound doubles with each failed
    attempt.

    Args:
        connect: makes one connection and uses it until it is lost; returns whether it was useful.
            Its exceptions are raised here, so it handles errors that another attempt may overcome.
        first_delay: seconds that the first delay may take.
        max_delay: seconds that no delay exceeds.
        adjust: gets each delay, and returns the one to use, such as a longer one that the server
            has asked for.
    """
    failures = 0
    while True:
        failures = 0 if await connect() else failures + 1
        delay = full_jitter(failures, first_delay, max_delay)
        await trio.sleep(delay if adjust is None else adjust(delay))


def full_jitter(failures: int, first_delay: float, max_delay: float) -> float:
    """Return a random delay, whose bound doubles with each failure.

    Args:
        failures: the number of failed attempts.
        first_delay: the bound without a failure.
        max_delay: the greatest bound.
    """
    longest = min(max_delay, first_delay * 2 ** min(failures, MAX_DOUBLINGS))
    return random.uniform(0, longest)  # noqa: S311 - it is not a secret

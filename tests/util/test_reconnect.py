"""Reconnecting: the delays between attempts."""

from __future__ import annotations

import itertools

import pytest
import trio

from trio_rpc.util.reconnect import keep_connected


async def delays_after(answers):
    """Return the delay after each attempt; the answers tell which attempts were successful."""
    times = []

    async def connect():
        times.append(trio.current_time())
        if len(times) > len(answers):
            raise EOFError
        return answers[len(times) - 1]

    with pytest.raises(EOFError):
        await keep_connected(connect, first_delay=0.1, max_delay=10)
    return [after - before for before, after in itertools.pairwise(times)]


async def test_delays_are_spread_below_a_bound_that_doubles(autojump_clock):
    delays = await delays_after([False] * 40)
    assert all(delay <= min(10, 0.1 * 2 ** (n + 1)) for n, delay in enumerate(delays))
    assert len(set(delays)) == len(delays)
    assert max(delays) > 5
    assert min(delays[10:]) < 5


async def test_after_a_successful_attempt_the_bound_starts_again_at_the_first_delay(autojump_clock):
    delays = await delays_after([False] * 20 + [True] * 20)
    assert all(delay <= 0.1 for delay in delays[20:])


async def test_the_delay_is_bounded_after_any_number_of_failed_attempts(autojump_clock):
    delays = await delays_after([False] * 1100)  # 2 ** 1024 is too large for a float
    assert max(delays) <= 10


async def test_an_exception_from_an_attempt_ends_the_loop():
    async def connect():
        raise ConnectionRefusedError

    with pytest.raises(ConnectionRefusedError):
        await keep_connected(connect, first_delay=1, max_delay=1)

"""Time limits do not count time in which this program itself was blocked."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_rpc.util.time_limits import LISTENING, SilenceTimer, time_limit


async def test_a_block_that_ends_in_time_is_left_at_once(autojump_clock):
    async with time_limit(10, "no answer"):
        await trio.sleep(9)
    assert trio.current_time() == 9
    await trio.sleep(100)


async def test_a_block_that_takes_longer_raises_a_timeout_error(autojump_clock):
    with pytest.raises(TimeoutError, match=r"^no answer within 10 s$"):
        async with time_limit(10, "no answer"):
            await trio.sleep(11)
    assert trio.current_time() == 10


async def test_after_this_program_was_blocked_a_block_gets_its_time_once_more(
    autojump_clock,
):
    with pytest.raises(TimeoutError):
        async with time_limit(10, "no answer"):
            autojump_clock.jump(500)
            await trio.sleep(9)
            autojump_clock.jump(500)  # so the second interval does not count either
            await trio.sleep_forever()
    assert trio.current_time() == 1019


async def test_a_small_delay_does_not_count_as_blocked(autojump_clock):
    with pytest.raises(TimeoutError):
        async with time_limit(10, "no answer"):
            autojump_clock.jump(10.9)
            await trio.sleep(9)
    assert trio.current_time() == 10.9


async def test_an_exception_of_the_block_is_raised_without_a_group(autojump_clock):
    with pytest.raises(KeyError, match="its own"):
        async with time_limit(10, "no answer"):
            raise KeyError("its own")


async def test_a_cancellation_from_outside_is_not_a_timeout(autojump_clock):
    with trio.move_on_after(5) as scope:
        async with time_limit(10, "no answer"):
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_the_task_of_a_time_limit_ends_with_its_block(autojump_clock):
    before = trio.lowlevel.current_statistics().tasks_living
    async with time_limit(10, "no answer"):
        await wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living == before + 1
    assert trio.lowlevel.current_statistics().tasks_living == before


async def until_over(timer):
    """Look whenever it is time to, and return how long it takes until the time is over."""
    started = trio.current_time()
    while True:
        await trio.sleep_until(timer.deadline)
        if timer.is_over():
            return trio.current_time() - started


async def test_a_silence_timer_listens_during_the_last_tenth(autojump_clock):
    timer = SilenceTimer(10)
    assert await until_over(timer) == pytest.approx(10)
    timer.heard()
    await trio.sleep_until(timer.deadline)
    assert trio.current_time() == pytest.approx(19)
    autojump_clock.jump(0.999)  # a small delay, after which it still listens for a tenth
    assert not timer.is_over()
    assert await until_over(timer) == pytest.approx(1)


@pytest.mark.parametrize("looks", [0, 1, LISTENING])
async def test_a_silence_timer_begins_anew_after_this_program_was_blocked(autojump_clock, looks):
    timer = SilenceTimer(10)
    for _ in range(looks):
        await trio.sleep_until(timer.deadline)
        assert not timer.is_over()
    autojump_clock.jump(15)
    assert not timer.is_over()
    assert await until_over(timer) == pytest.approx(10)

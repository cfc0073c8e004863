"""The watchman of a server with many sessions does not keep their other tasks waiting."""

from __future__ import annotations

import math

import trio
import trio.testing

from trio_rpc.session.watch import AT_ONCE, Watchman

SESSIONS = 1000


class Watched:
    """The part of a session's watch that the watchman uses."""

    def __init__(self, watchman, seen):
        self.watchman, self.seen = watchman, seen
        self.planned = math.inf
        self.due = 5.0

    def plan(self, when):
        if when < self.planned:
            self.planned = when
            self.watchman.call(when, self)

    def act(self, now):
        self.seen.append(self)
        return True

    def look(self, now):
        self.due = now + 10


async def test_sessions_that_are_due_together_are_looked_after_in_parts(autojump_clock):
    watchman, seen = Watchman(), []
    for _ in range(SESSIONS):
        watchman.begin(Watched(watchman, seen))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watchman.run)
        for number in (1, 2):  # sessions due together stay together, as nothing takes time here
            before = len(seen)
            await trio.sleep_until(10 * number - 5)  # the watchman may already have had a turn
            while len(seen) < number * SESSIONS:
                assert len(seen) - before <= AT_ONCE
                before = len(seen)
                await trio.lowlevel.checkpoint()
            assert len(seen) - before <= AT_ONCE
        await trio.sleep(1)
        assert len(seen) == 2 * SESSIONS
        assert set(seen[:SESSIONS]) == set(seen[SESSIONS:])
        nursery.cancel_scope.cancel()


class Last(Watched):
    """A session that ends while the watchman looks after it, and was the last one."""

    def act(self, now):
        self.seen.append(self)
        self.watchman.stop()
        return False


async def test_a_watchman_that_looks_after_a_session_can_be_stopped(autojump_clock):
    watchman, seen = Watchman(), []
    watchman.begin(Last(watchman, seen))
    with trio.fail_after(60):
        await watchman.run()
    assert trio.current_time() == 5
    assert len(seen) == 1


async def test_a_watchman_that_sleeps_can_be_stopped(autojump_clock):
    watchman, seen = Watchman(), []
    watchman.begin(Watched(watchman, seen))
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watchman.run)
            await trio.testing.wait_all_tasks_blocked()
            watchman.stop()
    assert trio.current_time() == 0
    assert not seen

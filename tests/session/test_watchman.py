"""The watchman of a server with many sessions does not keep their other tasks waiting."""

from __future__ import annotations

import math

import trio

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

"""What a peer does wrong fills no log (S16)."""

from __future__ import annotations

import logging

import trio

import trio_rpc
from trio_rpc.channels.complaints import LINES, Complaints
from trio_rpc.testing import open_session_pair


async def test_so_many_lines_a_minute_and_then_a_count(autojump_clock, caplog):
    complaints = Complaints(logging.getLogger("test"))
    for _ in range(100_000):
        complaints.log(logging.WARNING, "wrong")
    assert len(caplog.records) == LINES
    await trio.sleep(60)
    complaints.log(logging.WARNING, "wrong again")
    assert [record.getMessage() for record in caplog.records[LINES:]] == [
        f"{100_000 - LINES} more lines were not logged",
        "wrong again",
    ]


async def test_s16_a_flood_of_bad_notifications_is_a_few_lines(caplog):
    class Fails:
        @trio_rpc.notification
        def fail(self):
            raise ValueError("no")

    async with open_session_pair(None, Fails()) as (a, _):
        for _ in range(2000):
            await a.notify("fail")
            await a.notify("no.such.thing")
        await a.ping()
    assert 0 < len(caplog.records) <= 2 * LINES  # the notification that fails has lines of its own

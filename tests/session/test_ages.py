"""The age of Requests, and calls that arrive after their deadline: they are refused unrun."""

from __future__ import annotations

import pytest
import trio
from helpers.raw_peer import session_with_raw_peer
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc.session.calls.ages import CallAges
from trio_rpc.wire import messages as m


@pytest.mark.parametrize("offset", [0.0, 1e6, -500.0])
async def test_an_age_is_the_excess_over_the_smallest_difference(offset):
    ages, waits = CallAges(), [0.5, 0.25, 0.25, 0.75, 0.25, 0.875]
    found = [ages.age_of(10 + n / 8, 10 + n / 8 + wait + offset) for n, wait in enumerate(waits)]
    assert found == [0.0, 0.0, 0.0, 0.5, 0.0, 0.625]


async def test_requests_that_wait_longer_and_longer_are_known_to():
    """A receiver that falls behind reads each Request later than the one before."""
    ages = CallAges()
    found = [ages.age_of(n * 0.25, n * 0.5) for n in range(100)]
    assert found == pytest.approx([n * 0.25 for n in range(100)])


async def test_a_clock_that_stood_still_makes_no_request_old():
    """The caller's computer has slept for an hour, and its clock with it."""
    ages = CallAges()
    assert ages.age_of(1, 101) == 0
    assert ages.age_of(2, 102) == 0
    assert ages.age_of(3, 3703) == 0
    assert ages.age_of(3.5, 3703.75) == 0.25


async def test_a_silence_does_not_hide_a_wait_that_is_longer():
    ages = CallAges()
    assert ages.age_of(1, 101) == 0
    assert ages.age_of(1, 103) == 0  # a silence of two seconds may have been a clock's
    assert ages.age_of(1, 103.5) == 0.5
    assert ages.age_of(0.5, 104.75) == 2.25  # a silence of 1.25 s cannot be the reason


async def test_a_drifting_clock_makes_no_request_old():
    """The caller's clock is slow by a thousandth: 3.6 s in an hour."""
    ages = CallAges()
    oldest = max(ages.age_of(n * 0.5 * 0.999, n * 0.5) for n in range(7200))
    assert 0.03 <= oldest < 0.062  # it loses that much in one to two windows


async def test_an_old_minimum_is_forgotten():
    ages = CallAges()
    found = [ages.age_of(n * 0.5, n * 0.5 + min(5, n * 0.25)) for n in range(200)]
    assert found[20] == 5
    assert found[-1] == 0


class Slow:
    """Methods that note when they begin."""

    def __init__(self):
        self.begun, self.deadlines = [], []

    @trio_rpc.method
    async def work(self, number: int) -> int:
        self.begun.append(number)
        self.deadlines.append(trio.current_effective_deadline() - trio.current_time())
        return number


def request(number, deadline, sent, method="work"):
    return m.Request(number, method, [number], {}, {"deadline": deadline, "sent": sent})


async def test_a_request_that_has_waited_for_its_whole_deadline_is_refused_unrun(autojump_clock):
    slow = Slow()
    async with session_with_raw_peer(slow) as (_, peer):
        peer.send(request(1, 0.5, 100.0))
        assert (await peer.read(m.Reply)).result == 1
        await trio.sleep(0.75)
        peer.send(request(2, 0.5, 100.0), request(3, 1.0, 100.0), request(4, 0.5, 100.7))
        error = (await peer.read(m.ReplyErr)).error
        assert (error["code"], error["started"]) == ("deadline", False)
        assert [(await peer.read(m.Reply)).result for _ in range(2)] == [3, 4]
    assert slow.begun == [1, 3, 4]
    assert slow.deadlines == pytest.approx([0.5, 0.25, 0.45])


async def test_without_a_deadline_no_request_is_too_late(autojump_clock):
    slow = Slow()
    async with session_with_raw_peer(slow) as (_, peer):
        peer.send(request(1, 0.5, 100.0))
        await peer.read(m.Reply)
        await trio.sleep(0.75)
        peer.send(m.Request(2, "work", [2], {}, {"sent": 0}))
        peer.send(m.Request(3, "work", [3], {}, {"deadline": 0.5}))
        assert [(await peer.read(m.Reply)).result for _ in range(2)] == [2, 3]


async def test_a_call_says_when_it_was_sent_if_it_has_a_deadline(autojump_clock):
    async with session_with_raw_peer() as (session, peer):

        async def call():
            with trio.move_on_after(2):
                await session.call("work", 1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await wait_all_tasks_blocked()
            sent = (await peer.read(m.Request)).context["sent"]
            await trio.sleep(1.5)
            nursery.start_soon(call)
            await wait_all_tasks_blocked()
            context = (await peer.read(m.Request)).context
            assert context["sent"] - sent == pytest.approx(1.5)
            assert context["deadline"] == pytest.approx(2)
            nursery.start_soon(session.call, "work", 1)
            await wait_all_tasks_blocked()
            assert (await peer.read(m.Request)).context is None
            nursery.cancel_scope.cancel()
            await wait_all_tasks_blocked()
            for number in (1, 2, 3):
                peer.send(m.ReplyErr(number, {"code": "cancelled", "message": ""}))

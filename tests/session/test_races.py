"""Races between cancelling a call, its end, and its session's end. Each test names its race."""

from __future__ import annotations

import pytest
import trio
from helpers.handlers import Clock, Echo, Sleeper
from helpers.raw_peer import close_at_once, session_with_raw_peer
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc import Fate, Limits
from trio_rpc.testing import memory_channel_pair, open_session_pair
from trio_rpc.wire import messages as m

CANCELLED = {"code": "cancelled", "message": "as you wished"}


# ── at the callee ────────────────────────────────────────────────────────────────────────────


async def test_request_and_its_cancel_in_one_packet(no_time):
    sleeper = Sleeper()
    async with session_with_raw_peer(sleeper) as (session, peer):
        peer.send(m.Request(1, "sleep", []), m.Cancel(1, "changed my mind"))
        reply = await peer.read(m.ReplyErr)
        assert reply.error["code"] == "cancelled"
        assert sleeper.reasons == ["changed my mind"]  # at its first wait
        assert sleeper.running == 0
        assert session.statistics().calls_in == 0
        peer.send(m.Request(2, "sleep", []), m.Ping(1))
        await peer.read(m.Pong)
        await wait_all_tasks_blocked()
        assert sleeper.running == 1
        await close_at_once(session)


async def test_request_and_its_cancel_in_one_packet_with_an_inline_handler(no_time):
    async with session_with_raw_peer(Echo()) as (session, peer):
        peer.send(m.Request(1, "inline", [5]), m.Cancel(1))
        assert await peer.read(m.Reply) == m.Reply(1, 5)
        assert session.statistics().late_cancels == 1


async def test_cancel_before_the_handler_starts(no_time):
    # A handler starts when its Request is read. A Cancel read in the same turn arrives before the
    # handler's task has run on its own.
    sleeper = Sleeper()
    async with session_with_raw_peer(sleeper) as (session, peer):
        peer.send(m.Request(1, "sleep", []), m.Request(2, "sleep", []), m.Cancel(2), m.Cancel(1))
        await wait_all_tasks_blocked()
        assert sleeper.started == 2
        assert sleeper.running == 0
        ids = [each.id for each in await peer.read_all(m.ReplyErr, 2)]
        assert sorted(ids) == [1, 2]
        assert session.statistics().calls_in == 0


async def test_cancelled_from_outside_before_the_handler_starts(no_time):
    sleeper = Sleeper()
    with trio.CancelScope() as scope:
        async with session_with_raw_peer(sleeper) as (_, peer):
            peer.send(m.Request(1, "sleep", []))
            scope.cancel()
            await peer.read(m.ReplyErr)
    # Like a task started in a cancelled nursery, it runs at most to its first checkpoint.
    assert sleeper.running == 0
    assert [how for _, how, _ in sleeper.ended] == ["cancelled"] * sleeper.started


async def test_cancel_of_a_handler_that_has_just_returned(no_time):
    sleeper = Sleeper()
    async with session_with_raw_peer(sleeper) as (_, peer):
        peer.send(m.Request(1, "sleep", []))
        await wait_all_tasks_blocked()
        sleeper.go.set()
        peer.send(m.Cancel(1))
        await wait_all_tasks_blocked()
        await peer.read_packet()
        assert peer.count(m.Reply, 1) + peer.count(m.ReplyErr, 1) == 1


# ── at the caller ────────────────────────────────────────────────────────────────────────────


async def test_cancel_and_reply_crossing(no_time):
    # The Reply had been sent when the Cancel arrived.
    async with session_with_raw_peer() as (session, peer), trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:

            async def cross():
                await peer.read(m.Request)
                scope.cancel()
                peer.send(m.Reply(1, "in time"))

            nursery.start_soon(cross)
            assert await session.call("anything") == "in time"
        assert not scope.cancelled_caught
        await wait_all_tasks_blocked()
        assert session.statistics().calls_out == 0
        assert session.statistics().state == "open"


async def test_cancel_and_reply_crossing_between_two_sessions_leaves_no_calls(no_time):
    class Slow:
        @trio_rpc.method
        async def echo(self, value):
            for _ in range(3):
                await trio.lowlevel.checkpoint()
            return value

    async with open_session_pair(None, Slow()) as (a, b):
        outcomes = set()
        for ticks in range(15):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:

                    async def cancel_later(scope=scope, ticks=ticks):
                        with trio.CancelScope(shield=True):
                            for _ in range(ticks):
                                await trio.lowlevel.checkpoint()
                        scope.cancel()

                    nursery.start_soon(cancel_later)
                    outcomes.add(await a.call("echo", "x"))
            outcomes.add(scope.cancelled_caught)
        await wait_all_tasks_blocked()
        assert outcomes >= {"x", True}
        assert a.statistics().calls_out == b.statistics().calls_in == 0
        assert a.statistics().late_replies == 0


async def test_cancel_then_session_death(no_time):
    async with session_with_raw_peer() as (session, peer), trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:

            async def die():
                await peer.read(m.Request)
                scope.cancel()
                await peer.read(m.Cancel)
                peer.channel.abort()

            nursery.start_soon(die)
            await session.call("anything")
        assert scope.cancelled_caught
        with pytest.raises(trio_rpc.SessionBroken):
            await session.call("anything")


async def test_deadline_and_reply_in_one_tick(autojump_clock):
    async with session_with_raw_peer() as (session, peer), trio.open_nursery() as nursery:
        for call in range(1, 11):

            async def answer_at(deadline):
                request = await peer.read(m.Request)
                await trio.sleep_until(deadline)
                peer.send(m.Reply(request.id, request.id))

            deadline = trio.current_time() + 1
            nursery.start_soon(answer_at, deadline)
            with trio.CancelScope(deadline=deadline) as scope:
                assert await session.call("anything") == call
            assert not scope.cancelled_caught
        await wait_all_tasks_blocked()
        assert session.statistics().calls_out == 0


async def test_remote_deadline_fires_before_the_callers_own(autojump_clock):
    # The handler's clock runs ahead, so it is cancelled a second early.
    async with session_with_raw_peer() as (session, peer), trio.open_nursery() as nursery:

        async def give_up_early():
            request = await peer.read(m.Request)
            await trio.sleep(request.context["deadline"] - 1)
            peer.send(m.ReplyErr(request.id, {"code": "deadline", "message": "too late"}))

        nursery.start_soon(give_up_early)
        with trio.move_on_after(3) as scope:
            await session.call("anything")
        assert scope.cancelled_caught
        assert trio.current_time() == pytest.approx(3, abs=0.001)
        await wait_all_tasks_blocked()
        assert not any(isinstance(each, m.Cancel) for each in peer.received)


async def test_remote_deadline_fires_and_then_the_caller_is_cancelled_for_another_reason(
    autojump_clock,
):
    async with session_with_raw_peer() as (session, peer), trio.open_nursery() as nursery:
        outer = trio.CancelScope()

        async def give_up_early():
            request = await peer.read(m.Request)
            peer.send(m.ReplyErr(request.id, {"code": "deadline", "message": "too late"}))
            await trio.sleep(1)
            outer.cancel()

        nursery.start_soon(give_up_early)
        with outer, trio.move_on_after(3) as scope:
            await session.call("anything")
        assert outer.cancelled_caught
        assert not scope.cancelled_caught


async def test_reply_before_the_caller_sleeps(no_time):
    """A reply that comes before its caller sleeps is not lost."""
    # See python-trio/trio issue 467. The other end answers while the Request is being sent.
    ours, theirs = memory_channel_pair()
    async with open_session_pair(None, None, channels=(ours, theirs)) as (a, _):

        def answer_at_once(packet):
            ours.on_send = None
            [request] = a._core.protocol._codec.decode(packet)
            answer = a._core.protocol._codec.encode(m.Reply(request.id, "early"))
            assert theirs.send_nowait(answer)

        ours.on_send = answer_at_once
        assert await a.call("anything") == "early"


async def test_cancelled_while_waiting_for_credit(no_time):
    peer_limits = Limits(max_calls=1)
    async with (
        session_with_raw_peer(peer_limits=peer_limits) as (session, peer),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(session.call, "holds the credit")
        await wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            nursery.start_soon(session.call, "first in the queue")
            await wait_all_tasks_blocked()
            scope.cancel()
            await session.call("cancelled in the queue")
        assert scope.cancelled_caught
        assert session.statistics().tasks_waiting == 1
        peer.send(m.Reply(1, None))
        await wait_all_tasks_blocked()
        peer.send(m.Reply(2, None))
        await wait_all_tasks_blocked()
        assert session.statistics().tasks_waiting == 0
        peer.send(m.Ping(1))
        await wait_all_tasks_blocked()
        while not any(isinstance(each, m.Pong) for each in peer.received):
            await peer.read_packet()
    sent = [each.method for each in peer.received if isinstance(each, m.Request)]
    assert sent == ["holds the credit", "first in the queue"]


async def test_cancelled_in_the_tick_in_which_credit_arrives(no_time):
    peer_limits = Limits(max_calls=1)
    async with (
        session_with_raw_peer(peer_limits=peer_limits) as (session, peer),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(session.call, "one")
        await wait_all_tasks_blocked()
        scope = trio.CancelScope()

        async def waits():
            with scope:
                await session.call("two")

        nursery.start_soon(waits)
        await wait_all_tasks_blocked()
        session._core.outgoing.finish(session._core.protocol._accept_terminal(m.Reply(1, None)))
        scope.cancel()
        cancel = await peer.read(m.Cancel)
        peer.send(m.ReplyErr(cancel.id, CANCELLED))
        await wait_all_tasks_blocked()
        assert scope.cancelled_caught
        assert session.statistics().calls_out == session.statistics().tasks_waiting == 0
        nursery.start_soon(session.call, "three")
        while (await peer.read(m.Request)).method != "three":
            pass
        peer.send(m.Reply(max(session._core.protocol.outgoing), None))
    assert session._core.outgoing._calls._let_in == 0


async def test_cancelled_with_30_mb_half_written_and_the_peer_not_reading(no_time):
    limits = Limits(max_message=64 * 2**20, send_buffer=64 * 2**20)
    async with (
        session_with_raw_peer(Echo(), limits=limits, peer_limits=limits) as (session, peer),
        trio.open_nursery() as nursery,
    ):
        with trio.CancelScope() as scope:
            nursery.start_soon(_cancel_when_blocked, scope)
            await session.call("upload", b"x" * (30 * 2**20))
        assert scope.cancelled_caught
        assert session.statistics().bytes_waiting < 1024

        results = []

        async def call():
            results.append(await session.call("echo", "after"))

        nursery.start_soon(call)
        nursery.start_soon(call)
        received = peer.protocol
        answered = 0
        while answered < 2:
            for event in received.receive(await peer.channel.receive()):
                if isinstance(event, m.Request):
                    assert event.method == "echo"
                    received.reply(event.id, event.args[0])
                    answered += 1
        peer.flush()
        await wait_all_tasks_blocked()
        assert results == ["after", "after"]
        peer.protocol.request("echo", ["the other way"])
        peer.flush()
        [reply] = list(received.receive(await peer.channel.receive()))
        assert reply.result == "the other way"


async def _cancel_when_blocked(scope):
    await wait_all_tasks_blocked()
    scope.cancel()


async def test_cancelled_by_abandon_on_cancel_and_then_the_reply(no_time):
    async with session_with_raw_peer() as (session, peer), trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            nursery.start_soon(_cancel_when_blocked, scope)
            await session.call("anything", abandon_on_cancel=True)
        assert scope.cancelled_caught
        assert session.statistics().calls_out == 1
        peer.send(m.Reply(1, "unwanted"))
        await wait_all_tasks_blocked()
        assert session.statistics().calls_out == 0
        assert session.statistics().late_replies == 1
        assert session.statistics().state == "open"


async def test_cancel_grace_over_then_a_late_reply(autojump_clock):
    limits = Limits(cancel_grace=2)
    async with (
        session_with_raw_peer(limits=limits) as (session, peer),
        trio.open_nursery() as nursery,
    ):
        with trio.CancelScope() as scope:
            nursery.start_soon(_cancel_when_blocked, scope)
            await session.call("anything")
        assert trio.current_time() == pytest.approx(2, abs=0.001)
        peer.send(m.Reply(1, "late"))
        await wait_all_tasks_blocked()
        assert session.statistics().late_replies == 1


@pytest.mark.parametrize("grace", [2, 20])  # shorter and longer than the driver's sleep
async def test_each_call_has_its_own_cancel_grace(autojump_clock, grace):
    left = []

    async def call(session, cancelled_at):
        with trio.move_on_at(cancelled_at):
            await session.call("anything")
        left.append(trio.current_time())

    limits = Limits(cancel_grace=grace)
    async with session_with_raw_peer(limits=limits) as (session, _):
        async with trio.open_nursery() as nursery:
            for cancelled_at in (3, 1, 2, 2):
                nursery.start_soon(call, session, cancelled_at)
        assert left == [1 + grace, 2 + grace, 2 + grace, 3 + grace]
        assert session.statistics().calls_out == 4


async def test_cancel_grace_over_and_reply_in_one_tick(autojump_clock):
    limits = Limits(cancel_grace=2)
    async with (
        session_with_raw_peer(limits=limits) as (session, peer),
        trio.open_nursery() as nursery,
    ):
        for _ in range(10):
            with trio.CancelScope() as scope:

                async def answer_at_the_last_moment(scope=scope):
                    request = await peer.read(m.Request)
                    scope.cancel()
                    await trio.sleep(2)
                    peer.send(m.Reply(request.id, "late"))

                nursery.start_soon(answer_at_the_last_moment)
                await session.call("anything")
            await wait_all_tasks_blocked()
            assert session.statistics().calls_out == 0
            assert session._core.outgoing.calls == {}


async def test_cancel_twice_from_nested_scopes(no_time):
    async with session_with_raw_peer() as (session, peer), trio.open_nursery() as nursery:
        with trio.CancelScope() as outer:
            with trio.CancelScope() as inner:

                async def cancel_both():
                    await peer.read(m.Request)
                    inner.cancel()
                    await peer.read(m.Cancel)
                    outer.cancel()
                    await wait_all_tasks_blocked()
                    peer.send(m.ReplyErr(1, CANCELLED))

                nursery.start_soon(cancel_both)
                await session.call("anything")
            await trio.lowlevel.checkpoint()
        assert inner.cancelled_caught or outer.cancelled_caught
    assert peer.count(m.Cancel, 1) == 1


async def test_cancel_before_the_request_has_left_sends_nothing(no_time):
    async with session_with_raw_peer(max_buffer=1) as (session, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.call, "in the buffer")
            await wait_all_tasks_blocked()
            nursery.start_soon(session.call, "in the writer's hand")
            await wait_all_tasks_blocked()
            with trio.CancelScope() as scope:
                nursery.start_soon(_cancel_when_blocked, scope)
                await session.call("never left")
            assert scope.cancelled_caught
            await peer.read_all(m.Request, 2)
            peer.send(m.Reply(1, None))
            await wait_all_tasks_blocked()
            peer.send(m.Reply(2, None))
        await close_at_once(session)
        await peer.read_until_closed()
    assert not any(isinstance(each, m.Cancel) for each in peer.received)
    assert sum(isinstance(each, m.Request) for each in peer.received) == 2


# ── load ─────────────────────────────────────────────────────────────────────────────────────


async def test_10000_requests_in_one_packet_do_not_affect_another_session(session_pair, no_time):
    count = 10_000
    limits = Limits(max_calls=count)
    turns = 0
    async with (
        session_pair(None, Echo()) as (healthy, _),
        session_with_raw_peer(Echo(), limits=limits, peer_limits=limits, max_buffer=10**7) as (
            session,
            peer,
        ),
    ):
        peer.send(*(m.Request(n, "echo", [n]) for n in range(1, count + 1)))
        while session.statistics().messages_received < count:
            assert await healthy.call("echo", turns) == turns
            turns += 1
        assert turns >= 5
        replies = await peer.read_all(m.Reply, count)
        assert [each.result for each in replies] == [each.id for each in replies]


async def test_10000_concurrent_calls_of_a_sleeping_method(session_pair, no_time):
    # The first 1,024 calls run, and the others wait for credit.
    sleeper = Sleeper()
    async with session_pair(None, sleeper) as (a, b):
        async with trio.open_nursery() as nursery:
            for _ in range(10_000):
                nursery.start_soon(a.call, "sleep")
            await wait_all_tasks_blocked()
            assert sleeper.running == b.statistics().calls_in == 1024
            assert a.statistics().tasks_waiting == 10_000 - 1024
            sleeper.go.set()
        assert sleeper.started == 10_000
        assert sleeper.most == 1024


async def test_1000_calls_cancelled_at_once(session_pair, no_time):
    sleeper = Sleeper()
    async with session_pair(None, sleeper) as (a, b):
        async with trio.open_nursery() as nursery:
            for _ in range(1000):
                nursery.start_soon(a.call, "sleep")
            await wait_all_tasks_blocked()
            assert sleeper.running == 1000
            nursery.cancel_scope.cancel()
        assert sleeper.running == 0
        assert a.statistics().calls_out == b.statistics().calls_in == 0


async def test_a_flood_of_notifications_keeps_its_order_and_its_bounds(session_pair, no_time):
    seen = []

    class Listener:
        most = running = 0

        @trio_rpc.notification
        async def note(self, number):
            self.running += 1
            self.most = max(self.most, self.running)
            seen.append(number)
            await trio.lowlevel.checkpoint()
            self.running -= 1

    listener = Listener()
    limits = {"limits": Limits(max_notifications=16)}
    async with session_pair(None, listener, options_b=limits) as (a, _):
        for number in range(5_000):
            await a.notify("note", number)
        await a.aclose()
    assert seen == list(range(5_000))
    assert listener.most <= 16


async def test_both_ends_can_send_large_messages_at_the_same_time(session_pair, no_time):
    async with session_pair(Echo(), Echo()) as (a, b):
        done = []

        async def call(session):
            assert len(await session.call("echo", b"x" * 1_000_000)) == 1_000_000
            done.append(session)

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(call, a)
                nursery.start_soon(call, b)
        assert len(done) == 20


async def test_a_nested_call_without_credit_is_refused_and_does_not_wait(session_pair, no_time):
    refused = []

    class Mirror:
        def __init__(self, session):
            self.session = session

        @trio_rpc.method
        async def bounce(self) -> None:
            try:
                await self.session.call("bounce")
            except trio_rpc.Overloaded as exc:
                refused.append(exc.fate)

    limits = {"limits": Limits(max_calls=4)}
    async with (
        session_pair(Mirror, Mirror, options_a=limits, options_b=limits) as (a, _),
        trio.open_nursery() as nursery,
    ):
        for _ in range(4):
            nursery.start_soon(a.call, "bounce")
    assert refused
    assert set(refused) == {Fate.NOT_STARTED}


async def test_a_deadline_that_passes_while_waiting_for_credit_sends_nothing(
    session_pair, autojump_clock
):
    limits = {"limits": Limits(max_calls=1)}
    sleeper = Sleeper()
    async with (
        session_pair(Clock(), sleeper, options_b=limits) as (a, _),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(a.call, "sleep")
        await wait_all_tasks_blocked()
        with trio.move_on_after(1) as scope:
            await a.call("sleep")
        assert scope.cancelled_caught
        assert sleeper.started == 1
        sleeper.go.set()


async def test_calls_that_call_back_fail_when_both_ends_are_out_of_credit(session_pair, no_time):
    # Each end holds the credit that the other waits for. They would wait forever, so both fail.
    class Both:
        @trio_rpc.method
        async def outer(self) -> str:
            arrived.append(self)
            while len(arrived) < 2:
                await trio.lowlevel.checkpoint()
            try:
                return await trio_rpc.current_call().session.call("inner")
            finally:
                refused.append(self)
                while len(refused) < 2:  # neither returns its credit before both have asked
                    await trio.lowlevel.checkpoint()

        @trio_rpc.method
        async def inner(self) -> str:
            return "there was room"

    arrived, refused = [], []
    options = {"limits": Limits(max_calls=1)}
    async with session_pair(Both(), Both(), options_a=options, options_b=options) as pair:

        async def call(session):
            with pytest.raises(trio_rpc.RemoteError, match="no credit is left"):
                await session.call("outer")

        async with trio.open_nursery() as nursery:
            for session in pair:
                nursery.start_soon(call, session)

"""Laws 9 to 11 of docs/guarantees.md: order, the writer, and the reader."""

from __future__ import annotations

import pytest
import trio
from helpers.handlers import Echo, Sleeper
from helpers.raw_peer import HELLO, RawPeer, close_at_once, session_with_raw_peer
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc import Limits, open_session
from trio_rpc.testing import memory_channel_pair, open_session_pair
from trio_rpc.wire import messages as m

# ── 9: arrival order ─────────────────────────────────────────────────────────────────────────


class Recorder:
    def __init__(self):
        self.seen = []
        self.deadlines = []

    @trio_rpc.method
    async def quick(self, number):
        self.seen.append(number)

    @trio_rpc.method
    async def slow(self, number):
        self.seen.append(number)
        await trio.sleep(1)

    @trio_rpc.method
    async def fails(self, number):
        self.seen.append(number)
        raise ValueError

    @trio_rpc.method
    def inline(self, number):
        self.seen.append(number)

    @trio_rpc.notification
    async def note(self, number):
        self.seen.append(number)

    @trio_rpc.notification
    def inline_note(self, number):
        self.seen.append(number)


METHODS = ["quick", "slow", "note", "inline", "fails", "inline_note"]


def _mixed(count):
    """Yield messages for all kinds of handlers, in all orders of two neighbours."""
    for number in range(1, count + 1):
        name = METHODS[(number * 7 + number // 6) % len(METHODS)]
        if "note" in name:
            yield m.Notification(name, [number])
        else:
            yield m.Request(number, name, [number])


@pytest.mark.parametrize("together", [True, False], ids=["one packet", "many packets"])
async def test_law_9_handlers_start_in_the_order_in_which_their_messages_arrived(
    autojump_clock, together
):
    """Handlers start in the order of arrival, notifications and requests together."""
    recorder = Recorder()
    async with session_with_raw_peer(recorder, max_buffer=10**6) as (_, peer):
        messages = list(_mixed(500))
        for some in [messages] if together else [[each] for each in messages]:
            peer.send(*some)
        await trio.sleep(3)
        assert recorder.seen == list(range(1, 501))


async def test_law_9_an_inline_handler_does_not_overtake_earlier_ones(no_time):
    recorder = Recorder()
    async with session_with_raw_peer(recorder) as (_, peer):
        peer.send(
            m.Request(1, "quick", [1]), m.Request(2, "inline", [2]), m.Notification("note", [3])
        )
        await wait_all_tasks_blocked()
        assert recorder.seen == [1, 2, 3]
        await peer.read(m.Reply)
        assert peer.count(m.Reply, 2) == 1


async def test_law_9_a_cancel_in_the_packet_of_its_request_finds_the_handlers_scope(no_time):
    sleeper = Sleeper()
    async with session_with_raw_peer(sleeper) as (session, peer):
        peer.send(
            *(each for n in range(1, 301) for each in (m.Request(n, "sleep", []), m.Cancel(n)))
        )
        await wait_all_tasks_blocked()
        assert sleeper.started == 300
        assert sleeper.running == 0
        assert session.statistics().calls_in == 0
        errors = await peer.read_all(m.ReplyErr, 300)
        assert sorted(each.id for each in errors) == list(range(1, 301))
        assert {each.error["code"] for each in errors} == {"cancelled"}
        assert all(each.error["started"] for each in errors)  # law 15


async def test_law_9_the_deadline_of_a_call_does_not_apply_to_the_next_one(autojump_clock):
    # One task runs the first steps of both, and the first handler ends before it ever waits.
    sleeper = Sleeper()

    class Both(Sleeper):
        @trio_rpc.method
        async def fails(self):
            raise ValueError

        @trio_rpc.method
        async def returns(self):
            pass

    sleeper = Both()
    async with session_with_raw_peer(sleeper) as (_, peer):
        peer.send(
            m.Request(1, "returns", [], {}, {"deadline": 1.0}),
            m.Request(2, "fails", [], {}, {"deadline": 1.0}),
            m.Request(3, "sleep", []),
        )
        await trio.sleep(2)
        assert sleeper.running == 1
        assert sleeper.reasons == []


# ── 10: one writer ───────────────────────────────────────────────────────────────────────────


class Watched(trio.abc.Channel[bytes]):
    """A channel with only the methods of trio.abc.Channel, which records its senders."""

    def __init__(self, inner):
        self.inner = inner
        self.senders = set()
        self.cancelled = 0

    async def send(self, value):
        self.senders.add(trio.lowlevel.current_task().name)
        try:
            await self.inner.send(value)
        except trio.Cancelled:
            self.cancelled += 1
            raise

    async def receive(self):
        return await self.inner.receive()

    async def aclose(self):
        await self.inner.aclose()


async def test_law_10_only_the_writer_touches_the_channels_send_side(
    autojump_clock,
):
    """One task writes, and a cancelled caller never leaves half a message."""
    left, right = memory_channel_pair(max_buffer=1)
    watched = Watched(left)
    async with (
        open_session_pair(Echo(), Sleeper(), channels=(watched, right)) as (a, b),
        trio.open_nursery() as nursery,
    ):
        for seconds in range(20):
            with trio.move_on_after(seconds / 10):
                nursery.start_soon(b.call, "echo", "x" * 1000)
                await a.call("sleep", "y" * 1000)
    assert watched.senders == {"trio_rpc writer"}


async def test_law_10_cancelling_a_caller_during_a_write_does_not_cut_the_write(no_time):
    left, right = memory_channel_pair(max_buffer=1)
    watched = Watched(left)
    peer = RawPeer(right)
    peer.send(HELLO, m.Welcome())
    async with open_session(watched) as session:
        await peer.read(m.Welcome)
        async with trio.open_nursery() as nursery:
            for label in ("one", "two", "three"):
                nursery.start_soon(session.call, "echo", label)
                await wait_all_tasks_blocked()
            # "one" is in the buffer, "two" is being written, "three" waits in the queue.
            nursery.cancel_scope.cancel()
            nursery.start_soon(_answer_cancels, peer)
        assert watched.cancelled == 0
        assert [each.args for each in peer.received if isinstance(each, m.Request)] == [
            ["one"],
            ["two"],
        ]
        peer.channel.close()


async def _answer_cancels(peer):
    with trio.CancelScope(shield=True):
        for _ in range(2):
            cancel = await peer.read(m.Cancel)
            peer.send(m.ReplyErr(cancel.id, {"code": "cancelled", "message": ""}))
            await wait_all_tasks_blocked()


# ── 11: the reader never waits for application code ──────────────────────────────────────────


async def test_law_11_the_reader_does_not_wait_for_handlers_even_if_all_are_stuck(no_time):
    sleeper = Sleeper()
    limits = Limits(max_calls=50)
    async with session_with_raw_peer(sleeper, limits=limits) as (session, peer):
        peer.send(*(m.Request(n, "sleep", []) for n in range(1, 51)))
        await wait_all_tasks_blocked()
        assert sleeper.running == 50
        peer.send(m.Ping(5), m.Cancel(7))
        assert await peer.read(m.Pong) == m.Pong(5)
        await wait_all_tasks_blocked()
        assert sleeper.running == 49
        await close_at_once(session)


async def test_law_11_calls_and_notifications_wait_for_credit_before_they_are_sent(no_time):
    peer_limits = Limits(max_calls=2, max_notifications=2)
    async with (
        session_with_raw_peer(peer_limits=peer_limits) as (session, peer),
        trio.open_nursery() as nursery,
    ):
        for number in range(4):
            nursery.start_soon(session.call, "work", number)
            nursery.start_soon(session.notify, "note", number)
        await wait_all_tasks_blocked()
        assert session.statistics().tasks_waiting == 4
        assert session.statistics().bytes_waiting == 0
        while len(peer.received) < 2 + 4:
            await peer.read_packet()
        peer.send(m.Reply(1, None), m.Credit(1))
        await wait_all_tasks_blocked()
        assert session.statistics().tasks_waiting == 2
        peer.send(m.Reply(2, None), m.Credit(1))
        await wait_all_tasks_blocked()
        while len(peer.received) < 2 + 8:
            await peer.read_packet()
        peer.send(m.Reply(3, None), m.Reply(4, None))
    calls = [each.args for each in peer.received if isinstance(each, m.Request)]
    notes = [each.args for each in peer.received if isinstance(each, m.Notification)]
    assert sorted(calls) == sorted(notes) == [[0], [1], [2], [3]]


async def test_law_11_control_messages_do_not_wait_behind_bulk_data(autojump_clock):
    """Control messages do not wait behind bulk data."""
    limits = Limits(send_buffer=1024)
    async with session_with_raw_peer(Echo(), limits=limits, max_buffer=1) as (session, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.call, "bulk", b"x" * 5_000_000)
            await wait_all_tasks_blocked()
            nursery.start_soon(session.call, "waits for room")
            await wait_all_tasks_blocked()
            assert session.statistics().tasks_waiting == 1
            peer.send(m.Ping(9))
            await wait_all_tasks_blocked()
            packets = 0
            while not any(isinstance(each, m.Pong) for each in peer.received):
                await peer.read_packet()
                packets += 1
            assert packets <= 4
            nursery.cancel_scope.cancel()
        await close_at_once(session)


async def test_law_11_a_call_keeps_its_slot_until_a_shielded_handler_has_ended(
    session_pair, autojump_clock
):
    # The handler shields itself for a second.
    limits = Limits(max_calls=1)
    sleeper = Sleeper()
    async with session_pair(None, sleeper, options_b={"limits": limits}) as (a, b):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.call, "stubborn", 1)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True) as shield:
                shield.deadline = trio.current_time() + 0.5
                await a.call("stubborn", 0)
            assert shield.cancelled_caught
            assert sleeper.started == 1
            assert b.statistics().calls_in == 1
        assert trio.current_time() == pytest.approx(1, abs=0.001)
        assert await a.call("stubborn", 0) == "stubborn"

"""Law 12: all sessions of a server, or of a Trio run without one, hold a bounded number of bytes."""

from __future__ import annotations

import contextlib

import pytest
import trio
from helpers.raw_peer import close_at_once, open_raw_peer, session_with_raw_peer
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc import Limits, Resume
from trio_rpc.channels import ResumableChannel, memory_channel_pair
from trio_rpc.session.shared import shared_of_this_run
from trio_rpc.wire import messages as m
from trio_rpc.wire.codec import Codec

SIZE = 10_000
TOTAL = 20 * SIZE
LIMITS = Limits(max_unsent_total=TOTAL)
OPENED = {"stream": [1_000, 1_000 * SIZE]}


class Service:
    def __init__(self):
        self.pulled = 0
        self.outcomes = []
        self.go = trio.Event()
        self.released = trio.Semaphore(0)

    @trio_rpc.stream
    async def flood(self):
        while True:
            self.pulled += 1
            yield b"x" * SIZE

    @trio_rpc.stream
    async def two(self):
        yield 1
        yield 2

    @trio_rpc.stream
    async def waits_and_floods(self):
        await trio.lowlevel.checkpoint()
        while True:
            self.pulled += 1
            yield b"x" * SIZE

    @trio_rpc.stream
    async def flood_when_told(self):
        await self.go.wait()
        while True:
            yield b"x" * SIZE

    @trio_rpc.method
    def large(self):
        return b"x" * SIZE

    @trio_rpc.method
    def small(self):
        return "small"

    @trio_rpc.method
    async def when_released(self):
        await self.released.acquire()
        return b"x" * SIZE

    @trio_rpc.method
    async def starts(self, *, task_status=trio.TASK_STATUS_IGNORED):
        await self.go.wait()
        try:
            task_status.started(b"x" * SIZE)
        except trio_rpc.Overloaded as exc:
            self.outcomes.append(exc)


def budget():
    """Return the budget of all sessions of a test, since none has a server."""
    return shared_of_this_run().unsent


def stalled(service=None, **options):
    """Open a session whose peer reads one packet and no more."""
    return session_with_raw_peer(service, max_buffer=1, limits=LIMITS, **options)


@contextlib.asynccontextmanager
async def full_budget():
    """Fill the budget with the items of other sessions, whose peers do not read."""
    async with contextlib.AsyncExitStack() as stack:
        sessions = []
        while budget().size < TOTAL:
            session, peer = await stack.enter_async_context(stalled(Service()))
            peer.send(m.Request(1, "flood", [], None, OPENED))
            sessions.append(session)
            await wait_all_tasks_blocked()
        yield
        for session in sessions:
            await close_at_once(session)


@pytest.mark.parametrize("name", ["flood", "waits_and_floods"])
async def test_law_12_items_of_streams_that_no_peer_reads_are_bounded_over_all_sessions(
    autojump_clock, name
):
    service, count = Service(), 8
    async with contextlib.AsyncExitStack() as stack:
        sessions = []
        for _ in range(count):
            session, peer = await stack.enter_async_context(stalled(service))
            peer.send(*[m.Request(n, name, [], None, OPENED) for n in range(1, 5)])
            await wait_all_tasks_blocked()
            sessions.append(session)
        assert TOTAL <= budget().size <= TOTAL + count * (SIZE + 100)
        # Each session has one packet in its channel, and each stream has one item that waits.
        assert service.pulled <= TOTAL / SIZE + count * 6
        async with session_with_raw_peer(service, limits=LIMITS) as (_, reading):
            reading.send(m.Request(1, "small", []))
            assert (await reading.read(m.Reply)).result == "small"
            reading.send(m.Request(2, "flood", [], None, OPENED))
            assert len(await reading.read_all(m.Item, 50)) == 50
        for session in sessions:
            await close_at_once(session)
    assert budget().size == 0


async def test_law_12_own_calls_and_notifications_wait_while_all_sessions_hold_too_much(
    autojump_clock,
):
    async with full_budget(), stalled() as (session, peer), trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(session.call, "method", b"x" * SIZE)
            nursery.start_soon(session.notify, "notification", b"x" * SIZE)
        await wait_all_tasks_blocked()
        assert session.statistics().bytes_waiting <= 2 * SIZE
        assert len(await peer.read_all(m.Request, 4)) == 4  # each leaves when the one before has
        nursery.cancel_scope.cancel()
        await close_at_once(session)


async def test_a_task_that_waits_goes_on_when_its_own_queue_is_written_though_others_hold_all(
    autojump_clock,
):
    service = Service()
    async with full_budget(), session_with_raw_peer(service, limits=LIMITS) as (_, peer):
        # The reader has queued a result when this stream yields its first item, and then writes the
        peer.send(m.Request(1, "large", []), m.Request(2, "two", [], None, OPENED))
        assert len(await peer.read_all(m.Item, 2)) == 2


async def test_law_12_a_started_value_beyond_the_bound_raises_overloaded(autojump_clock):
    service = Service()
    async with full_budget(), stalled(service) as (session, peer):
        peer.send(m.Request(1, "starts", [], None, {"task_status": True}))
        await wait_all_tasks_blocked()
        peer.send(*[m.Request(n, "large", []) for n in range(2, 5)])
        await wait_all_tasks_blocked()
        service.go.set()
        await wait_all_tasks_blocked()
        assert [str(each) for each in service.outcomes] == [
            "the peer does not read, and too much data waits to be sent"
        ]
        await close_at_once(session)


async def test_law_12_an_item_beyond_the_bound_waits(autojump_clock):
    service = Service()
    async with full_budget(), stalled(service) as (session, peer):
        peer.send(m.Request(1, "flood_when_told", [], None, OPENED))
        await wait_all_tasks_blocked()
        peer.send(*[m.Request(n, "large", []) for n in range(2, 5)])
        await wait_all_tasks_blocked()
        before = budget().size
        service.go.set()
        await wait_all_tasks_blocked()
        assert budget().size == before
        await close_at_once(session)


async def test_a_request_that_is_withdrawn_no_longer_counts(autojump_clock):
    async with session_with_raw_peer(max_buffer=1) as (session, _), trio.open_nursery() as nursery:

        async def call(scope):
            with scope, contextlib.suppress(trio_rpc.SessionClosed):
                await session.call("method", b"x" * 200_000)

        nursery.start_soon(call, trio.CancelScope())
        nursery.start_soon(call, trio.CancelScope())
        await wait_all_tasks_blocked()
        before = budget().size
        withdrawn = trio.CancelScope()
        nursery.start_soon(call, withdrawn)
        await wait_all_tasks_blocked()
        assert budget().size >= before + 200_000
        withdrawn.cancel()
        await wait_all_tasks_blocked()
        assert budget().size == before
        await close_at_once(session)


@contextlib.asynccontextmanager
async def resumable_session(service):
    """Open a session over a resumable channel; yield it, its peer's channel, and its carrier."""
    ours, theirs = ResumableChannel(Resume()), ResumableChannel(Resume())
    carriers = memory_channel_pair(max_packet=10**6)
    async with trio.open_nursery() as nursery:
        for channel, carrier in zip((ours, theirs), carriers, strict=True):
            nursery.start_soon(channel.run)
            nursery.start_soon(channel.carry, carrier, 0)
        nursery.start_soon(open_raw_peer, theirs, LIMITS)
        async with trio_rpc.open_session(ours, service, limits=LIMITS, on_end="keep") as session:
            await wait_all_tasks_blocked()
            yield session, theirs, carriers[0]
            theirs.fail("the test is over")
            await close_at_once(session)
        nursery.cancel_scope.cancel()


async def test_law_12_packets_that_a_resumable_channel_keeps_count_until_their_arrival_is_known(
    autojump_clock,
):
    async with resumable_session(Service()) as (session, peer, carrier):
        requests = [m.Request(n, "large", []) for n in range(1, 11)]
        await peer.send(b"".join(Codec(None, LIMITS).encode(each) for each in requests))
        await wait_all_tasks_blocked()
        kept = budget().size
        assert 10 * SIZE < kept < 11 * SIZE
        carrier.abort()
        await wait_all_tasks_blocked()
        assert budget().size == kept
        assert session.is_open
    assert budget().size == 0


async def test_law_12_a_disconnected_session_that_holds_most_is_ended_when_all_hold_too_much(
    autojump_clock,
):
    async with resumable_session(Service()) as (session, peer, carrier):
        requests = [m.Request(n, "large", []) for n in range(1, 11)]
        await peer.send(b"".join(Codec(None, LIMITS).encode(each) for each in requests))
        await wait_all_tasks_blocked()
        async with full_budget():
            assert session.is_open  # it has a connection
            carrier.abort()
            end = await session.wait_closed()
            assert "this end held too much data for its sessions" in end.reason
            assert budget().size < TOTAL


async def test_law_12_a_disconnected_session_keeps_no_second_packet_when_all_hold_too_much(
    autojump_clock,
):
    service = Service()
    async with full_budget(), resumable_session(service) as (session, peer, carrier):
        requests = [m.Request(n, "when_released", []) for n in range(1, 11)]
        await peer.send(b"".join(Codec(None, LIMITS).encode(each) for each in requests))
        await wait_all_tasks_blocked()
        carrier.abort()
        await wait_all_tasks_blocked()
        before = budget().size
        for _ in requests:
            service.released.release()
            await wait_all_tasks_blocked()
        assert session.is_open  # its share is below the average
        assert budget().size <= before + 3 * SIZE

"""What a peer that reads nothing can make this end hold is bounded, whatever it asks for (law 12)."""

from __future__ import annotations

import contextlib

import pytest
import trio
from helpers.raw_peer import close_at_once, session_with_raw_peer
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc import Fate, Limits
from trio_rpc.protocol.counters import Tally
from trio_rpc.wire import messages as m

SIZE = 10_000
LIMITS = Limits(max_unsent=5 * SIZE, max_unsent_total=20 * SIZE)
SLACK = 2 * SIZE
"""The answer that reaches the bound, and one that comes with it."""


class Large:
    def __init__(self):
        self.begun = []
        self.go = trio.Event()

    @trio_rpc.method
    def plain(self, number=0):
        self.begun.append(number)
        return b"x" * SIZE

    @trio_rpc.method
    async def at_once(self, number=0):
        return self.plain(number)

    @trio_rpc.method
    async def later(self, number=0):
        await trio.lowlevel.checkpoint()
        return self.plain(number)

    @trio_rpc.method
    async def fails(self, number=0):
        self.begun.append(number)
        raise ValueError("x" * SIZE)

    @trio_rpc.method
    def fails_plain(self, number=0):
        self.begun.append(number)
        raise ValueError("x" * SIZE)

    @trio_rpc.stream
    async def stream(self, number=0):
        self.begun.append(number)
        while True:
            yield b"x" * SIZE

    @trio_rpc.method
    async def when_told(self, number=0):
        self.begun.append(number)
        await self.go.wait()
        return b"x" * SIZE

    @trio_rpc.method
    def small(self, number=0):
        self.begun.append(number)

    @trio_rpc.notification
    def note(self, number):
        self.begun.append(number)


def unread(service, **options):
    """A session whose peer takes one packet and no more."""
    options = {"limits": LIMITS, **options}
    return session_with_raw_peer(service, max_buffer=1, **options)


@pytest.mark.parametrize(
    "name", ["plain", "at_once", "later", "fails", "fails_plain", "stream", "missing"]
)
@pytest.mark.parametrize("filters", [(), (lambda _call, proceed: proceed(),)])
async def test_law_12_what_waits_for_a_peer_that_reads_nothing_is_bounded(
    autojump_clock, name, filters
):
    service = Large()
    async with unread(service, filters=filters) as (session, peer):
        context = {"stream": [2, 2 * SIZE]} if name == "stream" else None
        requests = [
            m.Request(n, name, [n] * (name != "missing"), None, context) for n in range(1, 90)
        ]
        peer.send(*requests)
        await wait_all_tasks_blocked()
        assert session.statistics().bytes_waiting <= LIMITS.max_unsent + SLACK
        if name == "missing":
            return
        assert len(service.begun) < 50
        if name != "stream":  # as it is read, all are answered, in the order of their arrival
            kind = m.ReplyErr if name.startswith("fails") else m.Reply
            replies = await peer.read_all(kind, len(requests))
            assert sorted(each.id for each in replies) == [each.id for each in requests]
            assert service.begun == [each.id for each in requests]
        await close_at_once(session)


async def test_law_12_results_of_callbacks_are_bounded_for_a_server_that_reads_nothing(
    autojump_clock,
):
    begun = []

    def callback():
        begun.append(1)
        return b"x" * SIZE

    async with unread(None) as (session, peer), trio.open_nursery() as nursery:
        nursery.start_soon(session.call, "work", callback)
        call = (await peer.read(m.Request)).id
        context = {"parent": call, "callback": 0, "depth": 1}
        peer.send(*[m.Request(n, "", [], None, context) for n in range(1, 90)])
        await wait_all_tasks_blocked()
        assert session.statistics().bytes_waiting <= LIMITS.max_unsent + SLACK
        assert len(begun) < 20
        assert len(await peer.read_all(m.Reply, 89)) == 89
        nursery.cancel_scope.cancel()
        await close_at_once(session)


async def test_law_9_calls_and_notifications_that_wait_begin_in_the_order_of_their_arrival(
    autojump_clock,
):
    service = Large()
    async with unread(service) as (_, peer):
        peer.send(
            *[m.Request(n, "plain", [n]) for n in range(1, 31)],
            m.Notification("note", [31]),
            m.Request(31, "plain", [32]),
            m.Notification("note", [33]),
        )
        await wait_all_tasks_blocked()
        assert len(service.begun) < 20
        await peer.read_all(m.Reply, 31)
        await wait_all_tasks_blocked()
        assert service.begun == list(range(1, 34))


async def test_law_11_control_messages_pass_while_requests_wait(autojump_clock):
    service = Large()
    async with unread(service) as (session, peer), trio.open_nursery() as nursery:
        nursery.start_soon(session.call, "sleep")
        await peer.read(m.Request)
        requests = [m.Request(n, "plain", [n]) for n in range(1, 31)]
        peer.send(*requests, m.Ping(7), m.Reply(1, "done"))
        await wait_all_tasks_blocked()
        assert nursery.child_tasks == frozenset()  # the Reply behind them was acted on
        await peer.read(m.Pong)


async def test_a_request_that_waits_can_be_cancelled_and_never_begins(autojump_clock):
    service = Large()
    async with unread(service) as (_, peer):
        requests = [m.Request(n, "plain", [n]) for n in range(1, 31)]
        peer.send(*requests, m.Cancel(30, "not wanted"))
        await wait_all_tasks_blocked()
        error = (await peer.read(m.ReplyErr)).error
        assert (error["code"], error["started"]) == ("cancelled", False)
        while sum(isinstance(each, m.Reply) for each in peer.received) < 29:
            await peer.read_packet()
        assert 30 not in service.begun


async def test_a_scope_that_is_cancelled_takes_with_it_the_calls_that_wait(autojump_clock):
    service = Large()
    async with unread(service) as (_, peer):
        peer.send(
            m.Request(1, "trio_rpc.scope", []),
            *[m.Request(n, "plain", [n]) for n in range(2, 31)],
            m.Request(31, "plain", [31], None, {"scope": 1}),
            m.Cancel(1, "left"),
        )
        await wait_all_tasks_blocked()
        errors = [await peer.read(m.ReplyErr), await peer.read(m.ReplyErr)]
        assert {each.id for each in errors} == {1, 31}
        assert {each.error["code"] for each in errors} == {"cancelled"}
        assert 31 not in service.begun


async def test_law_5_a_deadline_counts_from_arrival_for_a_handler_that_begins_late(autojump_clock):
    left = []

    class Service(Large):
        @trio_rpc.method
        async def seconds_left(self):
            left.append(trio.current_effective_deadline() - trio.current_time())

    async with unread(Service()) as (_, peer):
        peer.send(
            *[m.Request(n, "plain", [n]) for n in range(1, 31)],
            m.Request(31, "seconds_left", [], None, {"deadline": 10}),
            m.Request(32, "seconds_left", [], None, {"deadline": 3}),
        )
        await wait_all_tasks_blocked()
        await trio.sleep(4)
        error = (await peer.read(m.ReplyErr)).error
        while sum(isinstance(each, m.Reply) for each in peer.received) < 31:
            await peer.read_packet()
        assert left == [6]
        assert (error["code"], error["started"]) == ("deadline", False)


async def test_law_4_requests_that_wait_are_answered_when_the_session_ends(autojump_clock):
    service = Large()
    async with unread(service) as (session, peer):
        peer.send(*[m.Request(n, "plain", [n]) for n in range(1, 31)])
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(close_at_once, session)
            await wait_all_tasks_blocked()  # else some begin while the peer makes room
            begun = len(service.begun)
            await peer.read_until_closed()
        for call in range(1, 31):
            assert peer.count(m.Reply, call) + peer.count(m.ReplyErr, call) == 1
        assert len(service.begun) == begun < 20


async def test_a_graceful_close_lets_requests_that_wait_begin_and_answers_them(autojump_clock):
    service = Large()
    async with unread(service) as (session, peer):
        peer.send(*[m.Request(n, "plain", [n]) for n in range(1, 31)])
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.aclose)
            await wait_all_tasks_blocked()
            peer.send(m.Goodbye("done", ""))
            await peer.read_until_closed()
        assert service.begun == list(range(1, 31))


async def test_law_12_answers_of_handlers_that_were_running_are_bounded_too(autojump_clock):
    service = Large()
    async with unread(service) as (session, peer):
        peer.send(*[m.Request(n, "when_told", [n]) for n in range(1, 90)])
        await wait_all_tasks_blocked()
        assert len(service.begun) == 89
        service.go.set()
        await wait_all_tasks_blocked()
        assert session.statistics().bytes_waiting <= LIMITS.max_unsent_total + SLACK
        error = (await peer.read(m.ReplyErr)).error
        assert (error["code"], error["started"]) == ("overloaded", True)
        await close_at_once(session)


async def test_law_15_an_answer_that_was_dropped_is_overloaded_and_has_the_fate_stopped(
    session_pair,
    autojump_clock,
):
    service = Large()
    limits = Limits(max_unsent=1, max_unsent_total=1)
    async with (
        session_pair(service, None, options_a={"limits": limits}) as (_, session),
        trio.open_nursery() as nursery,
    ):
        found = []

        async def call():
            try:
                found.append(await session.call("when_told"))
            except trio_rpc.Overloaded as exc:
                found.append(exc.fate)

        for _ in range(5):
            nursery.start_soon(call)
        await wait_all_tasks_blocked()
        service.go.set()
        await wait_all_tasks_blocked()
        assert found.count(Fate.STOPPED) + found.count(b"x" * SIZE) == 5
        assert Fate.STOPPED in found


async def test_law_12_the_bound_of_a_server_holds_for_many_sessions_below_their_own(autojump_clock):
    service = Large()
    sessions, count = [], 100
    shared = Tally()
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(count):
            session, peer = await stack.enter_async_context(unread(service))
            session._core.protocol._tally = shared  # as those of one server have it
            peer.send(*[m.Request(n, "plain", [n]) for n in range(1, 5)])
            await wait_all_tasks_blocked()
            sessions.append((session, peer))
        waiting = [session.statistics().bytes_waiting for session, _ in sessions]
        assert sum(waiting) <= LIMITS.max_unsent_total + count * SIZE
        assert max(waiting) <= LIMITS.max_unsent
        # A session for which nothing waits is not stopped by those that do not read.
        session, peer = await stack.enter_async_context(
            session_with_raw_peer(service, limits=LIMITS)
        )
        session._core.protocol._tally = shared
        peer.send(m.Request(1, "small", []))
        assert (await peer.read(m.Reply)).id == 1
        for session, _ in sessions:
            await close_at_once(session)
        assert shared.size == 0


async def test_the_sessions_of_a_server_share_one_count():
    async with trio_rpc.open_server(Large(), "tcp://127.0.0.1:0") as server:
        url = server.urls[0]
        async with trio_rpc.connect(url) as one, trio_rpc.connect(url) as other:
            await one.ping()
            await other.ping()
            tallies = {id(each._core.protocol._tally) for each in server.sessions}
            assert (len(server.sessions), len(tallies)) == (2, 1)

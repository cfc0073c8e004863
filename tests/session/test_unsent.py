"""Law 12: unsent data for a peer that does not read is bounded, for every kind of message."""

from __future__ import annotations

import contextlib

import pytest
import trio
from helpers.raw_peer import close_at_once, session_with_raw_peer
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc import Fate, Limits
from trio_rpc.session.shared import shared_of_this_run
from trio_rpc.wire import messages as m

SIZE = 10_000
LIMITS = Limits(max_unsent=5 * SIZE, max_unsent_total=20 * SIZE)
SLACK = 2 * SIZE
"""The answer that reaches the bound, and one that is queued with it."""


class Large:
    def __init__(self):
        self.started = []
        self.go = trio.Event()

    @trio_rpc.method
    def plain(self, number=0):
        self.started.append(number)
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
        self.started.append(number)
        raise ValueError("x" * SIZE)

    @trio_rpc.method
    def fails_plain(self, number=0):
        self.started.append(number)
        raise ValueError("x" * SIZE)

    @trio_rpc.stream
    async def stream(self, number=0):
        self.started.append(number)
        while True:
            yield b"x" * SIZE

    @trio_rpc.method
    async def when_released(self, number=0):
        self.started.append(number)
        await self.go.wait()
        return b"x" * SIZE

    @trio_rpc.method
    def small(self, number=0):
        self.started.append(number)

    @trio_rpc.notification
    def note(self, number):
        self.started.append(number)


def session_with_stalled_peer(service, **options):
    """Open a session whose peer reads one packet and no more."""
    options = {"limits": LIMITS, **options}
    return session_with_raw_peer(service, max_buffer=1, **options)


@pytest.mark.parametrize(
    "name", ["plain", "at_once", "later", "fails", "fails_plain", "stream", "missing"]
)
@pytest.mark.parametrize("filters", [(), (lambda _call, proceed: proceed(),)])
async def test_law_12_unsent_answers_for_a_peer_that_does_not_read_are_bounded(
    autojump_clock, name, filters
):
    service = Large()
    async with session_with_stalled_peer(service, filters=filters) as (session, peer):
        context = {"stream": [2, 2 * SIZE]} if name == "stream" else None
        requests = [
            m.Request(n, name, [n] * (name != "missing"), None, context) for n in range(1, 90)
        ]
        peer.send(*requests)
        await wait_all_tasks_blocked()
        assert session.statistics().bytes_waiting <= LIMITS.max_unsent + SLACK
        if name == "missing":
            return
        assert len(service.started) < 50
        if name != "stream":  # once the peer reads, all are answered in order of arrival
            kind = m.ReplyErr if name.startswith("fails") else m.Reply
            replies = await peer.read_all(kind, len(requests))
            assert sorted(each.id for each in replies) == [each.id for each in requests]
            assert service.started == [each.id for each in requests]
        await close_at_once(session)


async def test_law_12_unsent_results_of_callbacks_for_a_peer_that_does_not_read_are_bounded(
    autojump_clock,
):
    started = []

    def callback():
        started.append(1)
        return b"x" * SIZE

    async with session_with_stalled_peer(None) as (session, peer), trio.open_nursery() as nursery:
        nursery.start_soon(session.call, "work", callback)
        call = (await peer.read(m.Request)).id
        context = {"parent": call, "callback": 0, "depth": 1}
        peer.send(*[m.Request(n, "", [], None, context) for n in range(1, 90)])
        await wait_all_tasks_blocked()
        assert session.statistics().bytes_waiting <= LIMITS.max_unsent + SLACK
        assert len(started) < 20
        assert len(await peer.read_all(m.Reply, 89)) == 89
        nursery.cancel_scope.cancel()
        await close_at_once(session)


async def test_law_9_waiting_calls_and_notifications_start_in_order_of_arrival(
    autojump_clock,
):
    service = Large()
    async with session_with_stalled_peer(service) as (_, peer):
        peer.send(
            *[m.Request(n, "plain", [n]) for n in range(1, 31)],
            m.Notification("note", [31]),
            m.Request(31, "plain", [32]),
            m.Notification("note", [33]),
        )
        await wait_all_tasks_blocked()
        assert len(service.started) < 20
        await peer.read_all(m.Reply, 31)
        await wait_all_tasks_blocked()
        assert service.started == list(range(1, 34))


async def test_law_11_control_messages_are_handled_while_requests_wait(autojump_clock):
    service = Large()
    async with (
        session_with_stalled_peer(service) as (session, peer),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(session.call, "sleep")
        await peer.read(m.Request)
        requests = [m.Request(n, "plain", [n]) for n in range(1, 31)]
        peer.send(*requests, m.Ping(7), m.Reply(1, "done"))
        await wait_all_tasks_blocked()
        assert nursery.child_tasks == frozenset()  # the Reply behind them was handled
        await peer.read(m.Pong)


async def test_a_waiting_request_can_be_cancelled_and_never_starts(autojump_clock):
    service = Large()
    async with session_with_stalled_peer(service) as (_, peer):
        requests = [m.Request(n, "plain", [n]) for n in range(1, 31)]
        peer.send(*requests, m.Cancel(30, "not wanted"))
        await wait_all_tasks_blocked()
        error = (await peer.read(m.ReplyErr)).error
        assert (error["code"], error["started"]) == ("cancelled", False)
        while sum(isinstance(each, m.Reply) for each in peer.received) < 29:
            await peer.read_packet()
        assert 30 not in service.started


async def test_cancelling_a_scope_cancels_its_waiting_calls(autojump_clock):
    service = Large()
    async with session_with_stalled_peer(service) as (_, peer):
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
        assert 31 not in service.started


async def test_law_5_the_deadline_of_a_waiting_request_counts_from_its_arrival(autojump_clock):
    left = []

    class Service(Large):
        @trio_rpc.method
        async def seconds_left(self):
            left.append(trio.current_effective_deadline() - trio.current_time())

    async with session_with_stalled_peer(Service()) as (_, peer):
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


async def test_law_4_waiting_requests_are_answered_when_the_session_ends(autojump_clock):
    service = Large()
    async with session_with_stalled_peer(service) as (session, peer):
        peer.send(*[m.Request(n, "plain", [n]) for n in range(1, 31)])
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(close_at_once, session)
            await wait_all_tasks_blocked()  # otherwise some start while the peer reads
            started = len(service.started)
            await peer.read_until_closed()
        for call in range(1, 31):
            assert peer.count(m.Reply, call) + peer.count(m.ReplyErr, call) == 1
        assert len(service.started) == started < 20


async def test_a_graceful_close_lets_waiting_requests_run(autojump_clock):
    service = Large()
    async with session_with_stalled_peer(service) as (session, peer):
        peer.send(*[m.Request(n, "plain", [n]) for n in range(1, 31)])
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.aclose)
            await wait_all_tasks_blocked()
            peer.send(m.Goodbye("done", ""))
            await peer.read_until_closed()
        assert service.started == list(range(1, 31))


async def test_law_12_answers_of_running_handlers_are_bounded(autojump_clock):
    service = Large()
    async with session_with_stalled_peer(service) as (session, peer):
        peer.send(*[m.Request(n, "when_released", [n]) for n in range(1, 90)])
        await wait_all_tasks_blocked()
        assert len(service.started) == 89
        service.go.set()
        await wait_all_tasks_blocked()
        assert session.statistics().bytes_waiting <= LIMITS.max_unsent_total + SLACK
        error = (await peer.read(m.ReplyErr)).error
        assert (error["code"], error["started"]) == ("overloaded", True)
        await close_at_once(session)


async def test_law_15_a_dropped_answer_is_overloaded_with_the_fate_stopped(
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
                found.append(await session.call("when_released"))
            except trio_rpc.Overloaded as exc:
                found.append(exc.fate)

        for _ in range(5):
            nursery.start_soon(call)
        await wait_all_tasks_blocked()
        service.go.set()
        await wait_all_tasks_blocked()
        assert found.count(Fate.STOPPED) + found.count(b"x" * SIZE) == 5
        assert Fate.STOPPED in found


async def test_law_12_a_servers_bound_holds_for_many_sessions_below_their_own_bounds(
    autojump_clock,
):
    service = Large()
    sessions, count = [], 100
    shared = shared_of_this_run().unsent
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(count):
            session, peer = await stack.enter_async_context(session_with_stalled_peer(service))
            peer.send(*[m.Request(n, "plain", [n]) for n in range(1, 5)])
            await wait_all_tasks_blocked()
            sessions.append((session, peer))
        waiting = [session.statistics().bytes_waiting for session, _ in sessions]
        assert sum(waiting) <= LIMITS.max_unsent_total + count * SIZE
        assert max(waiting) <= LIMITS.max_unsent
        # Sessions with unsent data do not stop a session that has none.
        session, peer = await stack.enter_async_context(
            session_with_raw_peer(service, limits=LIMITS)
        )
        peer.send(m.Request(1, "small", []))
        assert (await peer.read(m.Reply)).id == 1
        for session, _ in sessions:
            await close_at_once(session)
        assert shared.size == 0


async def test_the_sessions_of_a_server_share_one_budget():
    async with trio_rpc.open_server(Large(), "tcp://127.0.0.1:0") as server:
        url = server.urls[0]
        async with trio_rpc.connect(url) as one, trio_rpc.connect(url) as other:
            await one.ping()
            await other.ping()
            budgets = {id(each._core.protocol.share._budget) for each in server.sessions}
            assert (len(server.sessions), len(budgets)) == (2, 1)


async def test_sessions_without_a_server_share_one_budget(session_pair, no_time):
    async with session_pair(None, None) as first, session_pair(None, None) as second:
        budgets = {id(each._core.protocol.share._budget) for each in (*first, *second)}
        assert len(budgets) == 1

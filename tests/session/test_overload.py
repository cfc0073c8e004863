"""The bounds of a server's work: handlers and queued calls in all sessions, and whose turn it is."""

from __future__ import annotations

import math
import random

import pytest
import trio
from helpers.raw_peer import open_raw_peer
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc import ServerLimits
from trio_rpc.session.core import Core
from trio_rpc.session.load import Load
from trio_rpc.session.opening import make_session, make_tables, run_in_this_task
from trio_rpc.session.options import Options
from trio_rpc.session.shared import Shared
from trio_rpc.session.watch import Watchman
from trio_rpc.testing import memory_channel_pair
from trio_rpc.wire import messages as m


class Work:
    """Methods that note when they begin, and end when the test lets them."""

    def __init__(self):
        self.begun, self.go = [], trio.Semaphore(0)

    @trio_rpc.method
    async def wait(self, name: str) -> str:
        self.begun.append(name)
        await self.go.acquire()
        return name

    @trio_rpc.method
    def plain(self, name: str) -> str:
        self.begun.append(name)
        return name

    @trio_rpc.method
    async def second(self, name: str) -> str:
        self.begun.append(name)
        await trio.sleep(1)
        return name

    @trio_rpc.method
    async def nested(self, back) -> str:
        self.begun.append("outer")
        return await back()

    @trio_rpc.notification
    async def note(self, name: str) -> None:
        self.begun.append(name)


@pytest.fixture
async def work():
    return Work()


class Server:
    """Sessions that share the load of one server, each with a peer that a test drives."""

    def __init__(self, nursery, services, limits):
        self._nursery, self._services = nursery, services
        self.shared = Shared(ServerLimits(**limits))
        self.load = self.shared.load

    async def client(self):
        ours, theirs = memory_channel_pair()
        core = Core(ours, make_tables(self._services), Options(), "client", self.shared)
        make_session(core)
        watchman = Watchman()
        self._nursery.start_soon(watchman.run)
        self._nursery.start_soon(run_in_this_task, core, watchman)
        return await open_raw_peer(theirs, trio_rpc.DEFAULT_LIMITS)


@pytest.fixture
async def serve(nursery):
    def serve(services, **limits):
        return Server(nursery, services, limits)

    yield serve
    nursery.cancel_scope.cancel()


def request(number, method="wait", name="", **context):
    return m.Request(number, method, [name or str(number)], {}, context or None)


async def test_handlers_beyond_the_bound_wait_and_begin_in_order(serve, work):
    server = serve(work, max_handlers=2)
    peer = await server.client()
    peer.send(*[request(number) for number in range(1, 6)])
    await wait_all_tasks_blocked()
    assert work.begun == ["1", "2"]
    assert (server.load.running, server.load.queued) == (2, 3)
    for count in range(3, 6):
        work.go.release()
        await wait_all_tasks_blocked()
        assert work.begun == [str(number) for number in range(1, count + 1)]
    work.go.release()
    work.go.release()
    assert sorted([(await peer.read(m.Reply)).id for _ in range(5)]) == [1, 2, 3, 4, 5]
    assert (server.load.running, server.load.queued) == (0, 0)


async def test_the_bound_holds_for_all_sessions_together(serve, work):
    server = serve(work, max_handlers=2)
    one, two = await server.client(), await server.client()
    one.send(request(1, name="a"), request(2, name="b"))
    await wait_all_tasks_blocked()
    two.send(request(1, name="c"))
    await wait_all_tasks_blocked()
    assert work.begun == ["a", "b"]
    work.go.release()
    await wait_all_tasks_blocked()
    assert work.begun == ["a", "b", "c"]
    work.go.release()
    work.go.release()
    assert (await two.read(m.Reply)).result == "c"


async def test_a_plain_handler_also_waits_for_earlier_calls(serve, work):
    server = serve(work, max_handlers=1)
    peer = await server.client()
    peer.send(request(1), request(2, "plain"), m.Notification("note", ["3"]), request(4, "plain"))
    await wait_all_tasks_blocked()
    assert work.begun == ["1"]
    work.go.release()
    await wait_all_tasks_blocked()
    assert work.begun == ["1", "2", "3", "4"]


async def test_a_cancel_is_seen_before_the_work_that_it_cancels(serve, work):
    server = serve(work, max_handlers=1)
    peer = await server.client()
    peer.send(request(1), request(2), request(3))
    await wait_all_tasks_blocked()
    peer.send(m.Cancel(2))
    error = (await peer.read(m.ReplyErr)).error
    assert (error["code"], error["started"]) == ("cancelled", False)
    work.go.release()
    await wait_all_tasks_blocked()
    assert work.begun == ["1", "3"]
    assert server.load.queued == 0
    work.go.release()


async def test_a_call_that_was_read_late_waits_until_all_has_been_read(serve, work):
    """The Cancel is in a later packet, and the server has work to do before it."""
    server = serve(work)
    peer = await server.client()
    peer.send(request(1, "plain", deadline=60, sent=100.0))
    await peer.read(m.Reply)
    late = {"deadline": 60, "sent": 99.5}
    peer.send(request(2, "plain", **late), request(3, "plain", **late))
    peer.send(m.Cancel(3))
    peer.send(request(4, "plain", **late))
    assert [(await peer.read(m.Reply)).result for _ in range(2)] == ["2", "4"]
    assert work.begun == ["1", "2", "4"]


async def test_calls_beyond_the_bound_of_the_queue_are_refused_at_once(serve, work):
    server = serve(work, max_handlers=1, max_queued=2, retry_after=7)
    one, two = await server.client(), await server.client()
    one.send(request(1), request(2), request(3), request(4))
    await wait_all_tasks_blocked()
    two.send(request(1))
    for peer, number in ((one, 4), (two, 1)):
        reply = await peer.read(m.ReplyErr)
        assert reply.id == number
        assert reply.error["code"] == "overloaded"
        assert reply.error["started"] is False
        assert reply.error["retry_after"] == 7
    assert server.load.refused == 2
    work.go.release()
    await one.read(m.Reply)
    await wait_all_tasks_blocked()
    two.send(request(2))  # there is room again
    await wait_all_tasks_blocked()
    assert server.load.queued == 2
    for _ in range(3):
        work.go.release()
    assert (await two.read(m.Reply)).id == 2


async def test_sessions_take_turns(serve, work):
    """A session that queues a hundred calls does not delay the one of another session."""
    server = serve(work, max_handlers=1)
    one, two = await server.client(), await server.client()
    one.send(*[request(number, name="a") for number in range(1, 101)])
    two.send(request(1, name="b"))
    await wait_all_tasks_blocked()
    for _ in range(3):
        work.go.release()
        await wait_all_tasks_blocked()
    assert "b" in work.begun[:3]
    for _ in range(98):
        work.go.release()


async def test_the_newest_calls_are_refused_and_the_others_are_answered_in_time(
    serve, work, autojump_clock
):
    """One handler at a time, each for a second; calls have four seconds, ten come each second."""
    server = serve(work, max_handlers=1)
    peer = await server.client()
    sent, ended = {}, {}

    async def read():
        while True:
            reply = await peer.read((m.Reply, m.ReplyErr))
            ended[reply.id] = trio.current_time(), reply

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        for number in range(1, 401):
            sent[number] = trio.current_time()
            peer.send(request(number, "second", deadline=4, sent=1000 + sent[number]))
            await trio.sleep(0.1)
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    assert sorted(ended) == sorted(sent)
    answered = {n for n, (_, reply) in ended.items() if isinstance(reply, m.Reply)}
    refused = {n for n, (_, r) in ended.items() if n not in answered and n > 50}
    assert len(answered) >= 36  # of the forty seconds
    assert all(ended[n][0] - sent[n] <= 4 for n in answered)
    assert all(ended[n][1].error["code"] == "overloaded" for n in refused)
    assert all(ended[n][0] == sent[n] for n in refused)  # at once
    assert work.begun == [str(n) for n in sorted(answered)]  # law 9


async def test_a_queued_call_whose_time_is_over_is_refused_unrun(serve, work, autojump_clock):
    server = serve(work, max_handlers=1)
    peer = await server.client()
    peer.send(request(1), request(2, deadline=1.0), request(3, deadline=60))
    await trio.sleep(2)
    work.go.release()
    error = (await peer.read(m.ReplyErr)).error
    assert (error["code"], error["started"]) == ("deadline", False)
    await wait_all_tasks_blocked()
    assert (work.begun, server.load.late) == (["1", "3"], 1)
    work.go.release()


async def test_a_call_within_a_call_does_not_wait_for_its_own_place(serve):
    """The only place of a handler is held by the handler that waits for this call."""

    class Outer:
        @trio_rpc.method
        async def run(self) -> str:
            return await trio_rpc.current_call().session.call("back")

        @trio_rpc.method
        async def inner(self) -> str:
            await trio.lowlevel.checkpoint()
            return "inner"

    server = serve(Outer(), max_handlers=1)
    peer = await server.client()
    peer.send(m.Request(1, "run", []), m.Request(2, "inner", []))
    back = await peer.read(m.Request)
    peer.send(m.Request(3, "inner", [], {}, {"parent": back.id, "depth": 2}))
    assert (await peer.read(m.Reply)).id == 3
    peer.send(m.Reply(back.id, "done"))
    assert {(await peer.read(m.Reply)).id for _ in range(2)} == {1, 2}


async def test_a_session_that_ends_leaves_nothing_queued_and_passes_its_turn_on(serve, work):
    server = serve(work, max_handlers=1)
    one, two = await server.client(), await server.client()
    one.send(request(1), request(2), request(3))
    await wait_all_tasks_blocked()
    two.send(request(1, name="b"))
    await wait_all_tasks_blocked()
    one.channel.close()
    await wait_all_tasks_blocked()
    assert work.begun == ["1", "b"]
    assert (server.load.running, server.load.queued) == (1, 0)
    work.go.release()
    assert (await two.read(m.Reply)).result == "b"
    assert server.load.is_free


@pytest.mark.parametrize("seed", range(5))
async def test_no_work_is_left_after_random_calls_and_losses(serve, work, seed, autojump_clock):
    """Calls of all kinds, cancels and lost sessions at random; then all counts are zero."""
    chance = random.Random(seed)  # noqa: S311 - a test
    server = serve(work, max_handlers=3, max_queued=20)
    peers = [await server.client() for _ in range(4)]
    numbers = dict.fromkeys(peers, 0)
    for _ in range(300):
        peer = chance.choice(peers)
        what = chance.randrange(10)
        if what < 6:
            numbers[peer] += 1
            left = chance.choice([0.0, 0.3, 2.0, 60.0])
            context = (
                {} if chance.random() < 0.3 else {"deadline": left, "sent": trio.current_time()}
            )
            method = chance.choice(["wait", "plain", "second"])
            peer.send(request(numbers[peer], method, **context))
        elif what < 8 and numbers[peer]:
            peer.send(m.Cancel(chance.randint(1, numbers[peer])))
        elif what == 8:
            work.go.release()
        elif chance.random() < 0.1:
            peer.channel.close()
            peers[peers.index(peer)] = new = await server.client()
            numbers[new] = 0
        if chance.random() < 0.5:
            await trio.sleep(chance.random() / 4)
        assert server.load.running <= 3
        assert server.load.queued <= 20
    for peer in peers:
        peer.channel.close()
    await trio.sleep(5)
    assert (server.load.running, server.load.queued) == (0, 0)
    assert server.load.is_free


async def test_calls_without_a_deadline_are_never_refused_for_their_wait():
    load = Load(ServerLimits(max_queued=10))
    load._interval = load._waited = 1e6
    assert load.admits(math.inf, 0)
    assert not load.admits(1e6, 0)
    load.queued = 10
    assert not load.admits(math.inf, 0)


async def test_after_a_long_gap_between_two_calls_none_is_refused(autojump_clock):
    """A connection is cut, and then hundreds of calls arrive that have waited only for it."""
    load = Load(ServerLimits())
    for _ in range(2):
        load.began(waited=0.5)
        await trio.sleep(0.5)
    load.queued = 500
    assert load.admits(60, 499)
    load.began(waited=10)
    assert not load.admits(60, 499)

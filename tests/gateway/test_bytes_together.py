"""The bytes that a gateway holds for all of its clients together are bounded (law 12).

The clients are ASGI connections without a network, which read only when a test asks them to.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Awaitable, Callable

import pytest
import trio
from helpers.asgi_peers import HttpPeer, WebSocketPeer
from helpers.gateway_tools import hosting
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc import Fate
from trio_rpc.gateway import Gateway, GatewayLimits, Message, outlives
from trio_rpc.gateway.server.browser import Client
from trio_rpc.gateway.server.connection import Connection
from trio_rpc.gateway.server.memory_budget import ALWAYS, MemoryBudget, MemoryShare

SIZE = 100_000
MOST = 5 * SIZE
SLACK = 2_000
"""The envelopes of the messages."""

COPIES = 3
"""A frame that is being sent exists three times: in the backlog, as text, and in the server."""


class Service:
    def __init__(self) -> None:
        self.started = 0
        self.go_on = trio.Event()
        self.called_back = 0

    @trio_rpc.method
    async def large(self, size: int = SIZE) -> str:
        self.started += 1
        await self.go_on.wait()
        return "x" * size

    @trio_rpc.method
    async def stubborn(self) -> str:
        with trio.CancelScope(shield=True):
            await self.go_on.wait()
        return "x" * SIZE

    @trio_rpc.method
    @outlives
    async def report(self, size: int = SIZE) -> str:
        self.started += 1
        return "x" * size

    @trio_rpc.method
    @outlives
    async def late_report(self) -> str:
        await self.go_on.wait()
        return "x" * SIZE

    @trio_rpc.method
    async def hold(self, data: str = "") -> int:
        self.started += 1
        await self.go_on.wait()
        return len(data)

    @trio_rpc.method
    async def flood(self, found: Callable[[str], Awaitable[None]], size: int = SIZE) -> None:
        while True:
            await found("x" * size)
            self.called_back += 1

    @trio_rpc.method
    @outlives
    async def tell(self, found: Callable[[str], Awaitable[None]]) -> str:
        await found("x" * SIZE)
        self.called_back += 1
        return "told"


class Hosted:
    """A running gateway with small limits, and its service."""

    def __init__(self, nursery: trio.Nursery, **limits: float) -> None:
        self.nursery = nursery
        self.service = Service()
        self.gateway = Gateway(self.service, limits=GatewayLimits(**{"max_unsent": MOST, **limits}))

    async def connect(self, query: str = "resumable=1") -> WebSocketPeer:
        peer = WebSocketPeer(query)
        self.nursery.start_soon(peer.run, self.gateway)
        await wait_all_tasks_blocked()
        return peer

    async def run(self, *peers: HttpPeer) -> None:
        for peer in peers:
            self.nursery.start_soon(peer.run, self.gateway)
        await wait_all_tasks_blocked()

    async def use_up(self) -> WebSocketPeer:
        """Connect a client that reads nothing, and let it use up the whole budget."""
        peer = await self.connect()
        peer.reads = trio.Event()
        await self.run(peer.post("flood"))
        assert self.gateway.unsent >= MOST
        return peer


@contextlib.asynccontextmanager
async def hosted(**limits):
    async with trio.open_nursery() as nursery:
        host = Hosted(nursery, **limits)
        async with host.gateway.run():
            yield host
            nursery.cancel_scope.cancel()
    assert host.gateway.unsent == 0
    assert host.gateway._state.bodies.size == 0


async def test_law_12_unread_direct_answers_are_bounded_in_bytes_together():
    async with hosted() as host:
        peers = [HttpPeer("/api/large") for _ in range(20)]
        await host.run(*peers)
        assert host.service.started == 20
        host.service.go_on.set()
        await wait_all_tasks_blocked()
        assert MOST <= host.gateway.unsent < MOST + SIZE + SLACK
        assert sorted(peer.status for peer in peers) == [200] * 5 + [500] * 15
        dropped = next(peer for peer in peers if peer.status == 500).answer
        assert (dropped["code"], dropped["started"]) == ("overloaded", True)
        refused = HttpPeer("/api/large", reads=True)
        await host.run(refused)
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert host.service.started == 20
        next(
            peer for peer in peers if peer.status == 200
        ).reads.set()  # its bytes are free as soon as it has read them
        again = HttpPeer("/api/large", reads=True)
        await host.run(again)
        assert (again.status, host.service.started) == (200, 21)


async def test_law_12_an_answer_is_released_when_its_client_hangs_up():
    async with hosted() as host:
        peer = HttpPeer("/api/large")
        await host.run(peer)
        peer.hang_up()
        await wait_all_tasks_blocked()
        assert host.gateway.unsent < SLACK  # the message of its cancellation, which is not read
        peer.reads.set()
        await wait_all_tasks_blocked()
        assert host.gateway.unsent == 0


async def test_law_12_an_answer_is_not_held_if_its_request_was_cancelled():
    async with hosted() as host:
        peer = HttpPeer("/api/stubborn")
        async with trio.open_nursery() as requests:
            requests.start_soon(peer.run, host.gateway)
            await wait_all_tasks_blocked()
            requests.cancel_scope.cancel()
        assert host.gateway.works == 1
        host.service.go_on.set()
        await wait_all_tasks_blocked()
        assert (host.gateway.works, host.gateway.unsent) == (0, 0)


@pytest.mark.parametrize("query", ["", "resumable=1"])
async def test_law_12_messages_to_clients_that_never_read_are_bounded_in_bytes_together(query):
    async with hosted() as host:
        peers = [await host.connect(query) for _ in range(20)]
        for peer in peers:
            peer.reads = trio.Event()
            await host.run(peer.post("large"))
        host.service.go_on.set()
        await wait_all_tasks_blocked()
        assert MOST <= host.gateway.unsent < COPIES * (MOST + SIZE + SLACK) + 20 * SLACK
        for peer in peers:
            peer.reads.set()
        await wait_all_tasks_blocked()
        ends = [peer.messages[-1] for peer in peers]
        kinds = [end.get("code", "finish") for end in ends]
        assert set(kinds) == {"finish", "overloaded"}
        assert kinds.count("finish") <= 6
        if query:
            for peer in peers:
                peer.acknowledge()
            await wait_all_tasks_blocked()
        assert host.gateway.unsent == 0


async def test_law_12_the_servers_copies_of_a_frame_count_until_it_has_accepted_the_frame(nursery):
    """This also holds if the client has ended: hypercorn's sends cannot be cancelled."""
    client, reads = Client(GatewayLimits(), resumable=False), trio.Event()

    async def send(text):
        if len(text) > SIZE:
            with trio.CancelScope(shield=True):
                await reads.wait()

    connection = Connection(client, {"type": "uuid"}, send, trio.sleep_forever)
    await nursery.start(client.run)
    nursery.start_soon(connection.run)
    client.say({"type": "finish", "payload": "x" * SIZE})
    await wait_all_tasks_blocked()
    assert COPIES * SIZE <= client.budget.size < COPIES * SIZE + SLACK
    client.end("the test")
    await wait_all_tasks_blocked()
    assert 2 * SIZE <= client.budget.size < 2 * SIZE + SLACK
    reads.set()
    await wait_all_tasks_blocked()
    assert client.budget.size == 0


async def test_law_12_callbacks_wait_while_the_budget_is_used_up_and_go_on_in_turn():
    async with hosted() as host:
        stuck = await host.use_up()
        before = host.service.called_back
        readers = [await host.connect() for _ in range(3)]
        for reader in readers:
            await host.run(reader.post("flood"))
        assert host.service.called_back == before  # all of them wait: the callbacks are large
        assert all(len(reader.messages) == 1 for reader in readers)
        stuck.says("bye")
        await wait_all_tasks_blocked()
        for _ in range(6):
            for reader in readers:
                reader.acknowledge()
            await wait_all_tasks_blocked()
            assert host.gateway.unsent < COPIES * (MOST + SIZE + SLACK)
        assert min(len(reader.messages) - 1 for reader in readers) > 3


async def test_a_client_for_which_little_is_held_goes_on_while_others_have_used_up_the_budget():
    async with hosted() as host:
        stuck = await host.use_up()
        reader = await host.connect()
        for _ in range(3):
            call = reader.post("large", {"size": ALWAYS // 2})
            host.service.go_on.set()
            await host.run(call)
            assert call.status == 200
            assert reader.messages[-1]["payload"] == "x" * (ALWAYS // 2)
            reader.acknowledge()
            await wait_all_tasks_blocked()
        flood = reader.post("flood", {"size": 1000})
        await host.run(flood)
        some = len(reader.messages)
        assert some > 10
        reader.acknowledge()
        await wait_all_tasks_blocked()
        assert len(reader.messages) > some
        refused = stuck.post("hold")
        await host.run(refused)
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")


async def test_a_handler_that_outlives_its_client_does_not_wait_for_room_for_that_client():
    async with hosted(grace=0.01) as host:
        await host.use_up()
        leaving = await host.connect()
        await host.run(leaving.post("tell"))
        before = host.service.called_back
        leaving.says("bye")
        await wait_all_tasks_blocked()
        assert host.service.called_back == before + 1


async def test_law_12_a_result_that_is_fetched_later_counts_until_it_was_read():
    async with hosted() as host:
        client = await host.connect()
        started = client.post("report")
        await host.run(started)
        client.acknowledge()
        await wait_all_tasks_blocked()
        assert host.gateway.unsent == 0
        path = f"/api/result/{started.answer['request_uuid']}"
        token = {"Trio-Rpc-Token": client.messages[0]["token"]}
        fetches = [HttpPeer(path, headers=token) for _ in range(10)]
        for fetch in fetches:
            fetch.scope["method"] = "GET"
        await host.run(*fetches)
        assert sorted(fetch.status for fetch in fetches) == [200] * 5 + [503] * 5
        assert MOST <= host.gateway.unsent < MOST + SIZE
        fetch = next(fetch for fetch in fetches if fetch.status == 200)
        fetch.reads.set()
        await wait_all_tasks_blocked()
        assert fetch.answer["payload"] == "x" * SIZE
        assert host.gateway.unsent < MOST


async def test_a_result_is_kept_for_a_client_that_has_left_while_others_have_used_up_the_budget():
    async with hosted() as host:
        client = await host.connect()
        started = client.post("late_report")
        await host.run(started)
        client.says("bye")
        await wait_all_tasks_blocked()
        await host.use_up()
        host.service.go_on.set()
        await wait_all_tasks_blocked()
        held = host.gateway._state.results.get(started.answer["request_uuid"])
        assert held is not None
        assert json.loads(held.work.outcome)["payload"] == "x" * SIZE


async def test_result_bytes_bounds_the_results_that_are_held_for_later():
    async with hosted(result_bytes=3 * SIZE + SLACK) as host:
        client = await host.connect()
        calls = [client.post("report") for _ in range(5)]
        for call in calls:
            await host.run(call)
            client.acknowledge()
            await wait_all_tasks_blocked()
        held = [host.gateway._state.results.get(call.answer["request_uuid"]) for call in calls]
        assert [each is not None for each in held] == [False, False, True, True, True]
        large = client.post("report", {"size": 10 * SIZE})
        await host.run(large)
        assert host.gateway._state.results.get(large.answer["request_uuid"]) is not None
        assert host.gateway._state.results.get(calls[-1].answer["request_uuid"]) is None


# ── bodies of requests ───────────────────────────────────────────────────────────────────────


async def test_law_12_slow_bodies_are_bounded_in_bytes_together_and_short_ones_go_on():
    async with hosted(max_bodies=MOST) as host:
        slow = [HttpPeer("/api/hold", is_whole=False, reads=True) for _ in range(20)]
        await host.run(*slow)
        for peer in slow:
            peer.sends(b" " * SIZE, more=True)
        await wait_all_tasks_blocked()
        assert sorted(peer.status for peer in slow) == [0] * 5 + [503] * 15
        assert host.gateway._state.bodies.size == MOST
        short = HttpPeer("/api/hold", {"data": "x" * 10_000}, reads=True)
        await host.run(short)
        assert host.service.started == 1
        large = HttpPeer("/api/hold", {"data": "x" * 20_000}, reads=True)
        await host.run(large)
        assert (large.status, large.headers["retry-after"]) == (503, "1")
        next(peer for peer in slow if not peer.status).hang_up()
        await wait_all_tasks_blocked()
        again = HttpPeer("/api/hold", {"data": "x" * 20_000}, reads=True)
        await host.run(again)
        assert host.service.started == 2


@pytest.mark.parametrize("has_websocket", [True, False])
async def test_a_body_counts_until_its_call_has_ended(has_websocket):
    async with hosted(max_bodies=MOST) as host:
        data = {"data": "x" * SIZE}
        client = await host.connect()
        post = client.post("hold", data) if has_websocket else HttpPeer("/api/hold", data)
        await host.run(post)
        assert SIZE <= host.gateway._state.bodies.size < SIZE + SLACK
        if has_websocket:
            assert post.status == 200  # the call is running
        host.service.go_on.set()
        await wait_all_tasks_blocked()
        assert host.gateway._state.bodies.size == 0


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/hold", b"[" + b" " * SIZE, 400),
        ("/api/hold", b'{"other":"%s"}' % (b"x" * SIZE), 422),
        ("/api/hold", b"x" * (2 << 20), 413),
    ],
)
async def test_the_body_of_a_refused_request_is_released(path, body, status):
    async with hosted() as host:
        post = HttpPeer(path, is_whole=False, reads=True)
        post.sends(body, more=False)
        await host.run(post)
        assert post.status == status
        assert host.gateway._state.bodies.size == 0


async def test_a_repeated_request_does_not_count_its_body_again():
    async with hosted() as host:
        client = await host.connect()
        for _ in range(2):
            post = client.post("hold", {"data": "x" * SIZE})
            post.scope["headers"].append((b"idempotency-key", b"same"))
            await host.run(post)
            assert post.status == 200
            assert SIZE <= host.gateway._state.bodies.size < SIZE + SLACK


# ── WebSockets ───────────────────────────────────────────────────────────────────────────────

UPGRADE = (
    b"GET /ws?%s HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def unfinished_frame(size: int) -> bytes:
    """Return the first frame of a text message that has more frames, which are never sent."""
    return b"\x01\xfe" + size.to_bytes(2, "big") + bytes(4) + b"x" * size


@pytest.mark.parametrize("query", [b"resume=1", b"resumable=1", b""])
async def test_law_12_messages_that_clients_never_finish_are_bounded_in_bytes_together(query):
    gateway = Gateway(Service(), limits=GatewayLimits(max_bodies=100_000))
    async with hosting(gateway) as url, contextlib.AsyncExitStack() as stack:
        host, _, port = url.rpartition("/")[2].partition(":")
        streams = []
        for number in range(1, 5):
            stream = await trio.open_tcp_stream(host, int(port))
            await stack.enter_async_context(stream)
            streams.append(stream)
            await stream.send_all(UPGRADE % query)
            await stream.receive_some()
            await stream.send_all(unfinished_frame(40_000))
            while gateway._state.bodies.size < 40_000 * min(number, 3):
                await wait_all_tasks_blocked(0.01)
        refused = b""
        while more := await streams[3].receive_some():
            refused += more
        assert b"\x88\x02\x03\xf1" in refused  # a Close frame with 1009
        assert gateway._state.bodies.size == 120_000
        small = await trio.open_tcp_stream(host, int(port))
        await stack.enter_async_context(small)
        await small.send_all(UPGRADE % query)
        await small.receive_some()
        await small.send_all(unfinished_frame(ALWAYS - 1_000))
        while gateway._state.bodies.size < 120_000 + ALWAYS - 1_000:
            await wait_all_tasks_blocked(0.01)
        for stream in streams:
            await stream.aclose()
        while gateway._state.bodies.size >= ALWAYS:
            await wait_all_tasks_blocked(0.01)


async def test_max_clients_bounds_the_websockets_that_have_not_sent_resume(autojump_clock):
    async with hosted(max_clients=3, handshake_timeout=10) as host:
        waiting = [await host.connect("resume=1") for _ in range(5)]
        assert [peer.status for peer in waiting] == [0, 0, 0, 503, 503]
        assert host.gateway._state.unidentified == 3
        client = await host.connect()
        assert client.messages[0]["type"] == "uuid"  # a new client is not one of them
        waiting[0].disconnect()
        await wait_all_tasks_blocked()
        assert (await host.connect("resume=1")).status == 0
        await trio.sleep(11)
        assert host.gateway._state.unidentified == 0
        assert [peer.close_code for peer in waiting[1:3]] == [4404, 4404]


async def test_law_12_the_key_of_a_request_and_the_id_of_a_ping_are_short():
    async with hosted() as host:
        client = await host.connect()
        for key, status in ((b"k" * 100, 200), (b"k" * 101, 400)):
            post = client.post("hold")
            post.scope["headers"].append((b"idempotency-key", key))
            await host.run(post)
            assert post.status == status
        assert host.service.started == 1
        for given, answered in (("a" * 100, "a" * 100), (7, 7), ("a" * 101, None), ([1], None)):
            client.says("ping", id=given)
            await wait_all_tasks_blocked()
            assert client.messages[-1] == {"type": "pong", "id": answered}


# ── errors at the callers ────────────────────────────────────────────────────────────────────


class Filler:
    """A service that uses up the budget of its gateway while a call runs."""

    def __init__(self) -> None:
        self.gateway: Gateway
        self.started = 0

    @trio_rpc.method
    async def large(self, found: Callable[[int], Awaitable[None]] | None = None) -> str:
        self.started += 1
        self.gateway._state.unsent.take(2 * MOST)
        return "x" * SIZE


@pytest.mark.parametrize("with_callback", [True, False])
async def test_law_15_a_dropped_result_is_an_overloaded_with_the_fate_stopped(with_callback):
    service = Filler()
    gateway = service.gateway = Gateway(service, limits=GatewayLimits(max_unsent=MOST))
    callbacks = {"found": print} if with_callback else None
    async with hosting(gateway) as url:
        host, _, port = url.rpartition("/")[2].partition(":")
        with pytest.raises(trio_rpc.Overloaded, match="so the outcome was dropped") as caught:
            await Message(host, int(port)).post("large", callbacks=callbacks)
        assert (caught.value.fate, service.started) == (Fate.STOPPED, 1)


async def test_law_15_a_call_that_is_refused_for_the_bytes_of_others_has_not_started():
    service = Filler()
    gateway = service.gateway = Gateway(service, limits=GatewayLimits(max_unsent=MOST))
    async with hosting(gateway) as url:
        host, _, port = url.rpartition("/")[2].partition(":")
        gateway._state.unsent.take(MOST)
        with pytest.raises(trio_rpc.Unavailable) as caught:
            await Message(host, int(port)).post("large")
        assert (caught.value.fate, service.started) == (Fate.NOT_STARTED, 0)


# ── the budget alone ─────────────────────────────────────────────────────────────────────────


def test_a_share_that_was_woken_but_needs_no_room_wakes_the_next_one():
    budget, woken = MemoryBudget(10), []

    def waker(name, has_tasks):
        def wake():
            woken.append(name)
            return has_tasks

        return wake

    holder = MemoryShare(budget)
    holder.take(10)
    shares = [
        MemoryShare(budget, waker(name, name != "none")) for name in ("none", "first", "second")
    ]
    for share in shares:
        share.wait()
    shares[1].wait()  # it keeps its place
    holder.give_back(1)
    assert woken == ["none", "first"]  # no task of the first share waited any more
    budget.pass_on()  # as the woken task does, before it takes anything
    assert woken == ["none", "first", "second"]
    budget.pass_on()
    assert len(woken) == 3


def test_a_closed_share_is_not_woken_and_holds_nothing():
    budget = MemoryBudget(10)
    woken = []
    share = MemoryShare(budget, lambda: bool(woken.append(1)))
    share.take(30_000)
    share.wait()
    share.close()
    assert (budget.size, woken) == (0, [])
    share.take(5)
    share.give_back(5)
    share.close()
    assert budget.size == 0


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-60_000, 60_000)), max_size=60))
def test_law_12_the_proof_of_the_budgets_bound(steps):
    most, largest = 100_000, 60_000
    budget = MemoryBudget(most)
    shares = [MemoryShare(budget) for _ in range(4)]
    for number, size in steps:
        share = shares[number]
        if size < 0:
            share.give_back(min(-size, share.size))
        elif share.has_room(size):
            share.take(size)
        assert budget.size == sum(each.size for each in shares)
        assert budget.size < most + largest + len(shares) * ALWAYS

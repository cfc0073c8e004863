"""The introspection service shows the sessions and calls of servers and gateways, and cancels."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable

import httpx
import pytest
import trio
from helpers.gateway_tools import hosting
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc.gateway import Gateway, Message
from trio_rpc.introspection import MOST, WHY, Introspection, Snapshot
from trio_rpc.session.inspection import Inspected, InspectedSession, ScopeNode
from trio_rpc.testing import open_session_pair

SECRET = "s3cr3t"  # noqa: S105 - no real one


class Work:
    """Handlers that run until they are cancelled."""

    def __init__(self) -> None:
        self.cancelled: list[str] = []
        self._tell, self._events = trio.open_memory_channel[str](100)

    async def event(self) -> str:
        """Return the next thing that a call of ``hold`` has done: "begun" or "cancelled"."""
        return await self._events.receive()

    @trio_rpc.method
    async def hold(self, what: str = "") -> None:
        self._tell.send_nowait("begun")
        try:
            await trio.sleep_forever()
        finally:
            self.cancelled.append(what)
            self._tell.send_nowait("cancelled")

    @trio_rpc.method
    async def ask(self, screen: Callable[[], Awaitable[None]]) -> None:
        await screen()

    @trio_rpc.notification
    async def note(self) -> None:
        await self.hold("note")

    @trio_rpc.stream
    async def ticks(self) -> AsyncGenerator[int, None]:
        yield 1
        await self.hold("ticks")


@pytest.fixture(autouse=True)
async def no_hang():
    """Bound the real time of tests over sockets."""
    with trio.fail_after(30):
        yield


class Served:
    """A server, its introspection, and a session with each of them."""

    def __init__(self, server, work, session, introspection):
        self.server = server
        self.work = work
        self.session = session
        self._proxy = introspection.proxy("introspection", Introspection)
        self.cancel = self._proxy.cancel

    async def snapshot(self, *args) -> Snapshot:
        await wait_all_tasks_blocked(0.01)
        return await self._proxy.snapshot(*args)

    async def keys(self) -> dict[str, str]:
        return {one.method: one.key for one in (await self.snapshot()).calls}


@pytest.fixture(params=[True])
async def served(request):
    introspection, work = Introspection(may_cancel=request.param), Work()
    services = {"introspection": introspection}
    async with (
        trio_rpc.open_server({"work": work}, "tcp://127.0.0.1:0") as server,
        trio_rpc.open_server(services, "tcp://127.0.0.1:0") as own,
        trio_rpc.connect(server.urls[0], credentials=SECRET) as session,
        trio_rpc.connect(own.urls[0]) as asking,
        trio.open_nursery() as nursery,
    ):
        introspection.add(server)
        yield Served(server, work, session, asking), nursery
        nursery.cancel_scope.cancel()


async def test_a_snapshot_shows_sessions_and_calls_with_their_parents(served):
    one, nursery = served
    shown, hidden = trio.Event(), trio.Event()

    async def screen() -> None:
        shown.set()
        await hidden.wait()

    nursery.start_soon(one.session.call, "work.ask", screen)
    await shown.wait()
    found = await one.snapshot()
    [session] = found.sessions
    assert (session.calls_in, session.calls_out) == (1, 1)
    assert session.peer.startswith("127.0.0.1:")
    outer, inner = found.calls
    assert (outer.method, outer.direction, outer.state) == ("work.ask", "in", "running")
    assert outer.parent is None
    assert (inner.direction, inner.parent) == ("out", outer.key)
    assert outer.age >= inner.age >= 0
    assert (outer.session, inner.session) == (session.key, session.key)
    assert (found.sessions_in_all, found.calls_in_all) == (1, 2)
    assert found.figures["sessions"] == found.figures["handlers"] == 1
    hidden.set()


async def test_each_kind_of_call_is_shown(served):
    one, nursery = served
    await one.session.notify("work.note")
    nursery.start_soon(_consume, one.session)
    found = await one.snapshot()
    assert {call.method: call.kind for call in found.calls} == {
        "work.note": "notification",
        "work.ticks": "stream",
    }
    for call in found.calls:
        assert await one.cancel(call.key)
    await wait_all_tasks_blocked(0.01)
    assert sorted(one.work.cancelled) == ["note", "ticks"]


async def _consume(session):
    with pytest.raises(trio_rpc.RemoteCancelled, match=WHY):
        async with session.stream("work.ticks") as ticks:
            async for _ in ticks:
                pass


async def test_a_snapshot_has_no_payload_and_no_credentials(served):
    one, nursery = served
    with trio_rpc.metadata(token=SECRET):
        nursery.start_soon(one.session.call, "work.hold", SECRET)
    found = await one.snapshot()
    assert found.calls
    assert SECRET not in repr(found)


async def test_a_call_is_cancelled_by_its_key_and_its_caller_learns_why(served, caplog):
    one, nursery = served
    caught = []

    async def call(what):
        try:
            await one.session.call("work.hold", what)
        except trio_rpc.RemoteCancelled as exc:
            caught.append((what, str(exc), exc.fate))

    nursery.start_soon(call, "a")
    [first] = (await one.snapshot()).calls
    nursery.start_soon(call, "b")
    await one.snapshot()
    with caplog.at_level(logging.WARNING, "trio_rpc.introspection"):
        assert await one.cancel(first.key)
    await wait_all_tasks_blocked(0.01)
    assert caught == [("a", WHY, trio_rpc.Fate.STOPPED)]
    assert one.work.cancelled == ["a"]
    assert [call.method for call in (await one.snapshot()).calls] == ["work.hold"]
    assert f"is {WHY}" in caplog.text
    assert not await one.cancel(first.key)  # it has ended


@pytest.mark.parametrize("key", ["", "1", "1-in-", "1-in-999", "999-in-1", "-", "1-out-1", "\x1b"])
async def test_a_key_without_a_call_cancels_nothing(served, key):
    one, nursery = served
    nursery.start_soon(one.session.call, "work.hold")
    await one.snapshot()
    assert not await one.cancel(key)
    assert (await one.snapshot()).calls_in_all == 1


async def test_a_call_that_the_server_makes_is_not_cancelled_by_its_key(served):
    one, nursery = served
    nursery.start_soon(one.session.call, "work.ask", trio.sleep_forever)
    keys = [call.key for call in (await one.snapshot()).calls if call.direction == "out"]
    with pytest.raises(ValueError, match="cancel its parent"):
        await one.cancel(keys[0])


@pytest.mark.parametrize("served", [False], indirect=True)
async def test_without_permission_nothing_is_cancelled(served):
    one, nursery = served
    nursery.start_soon(one.session.call, "work.hold")
    found = await one.snapshot()
    assert not found.may_cancel
    with pytest.raises(PermissionError, match="does not allow"):
        await one.cancel(found.calls[0].key)
    assert (await one.snapshot()).calls_in_all == 1


async def test_a_snapshot_is_bounded_and_says_how_much_there_is(served):
    one, nursery = served
    for _ in range(5):
        nursery.start_soon(one.session.call, "work.hold")
    found = await one.snapshot(2)
    assert (len(found.calls), found.calls_in_all) == (2, 5)
    oldest = (await one.snapshot()).calls[:2]
    assert [call.key for call in found.calls] == [call.key for call in oldest]
    found = await one.snapshot(0)
    assert (found.sessions, found.calls, found.sessions_in_all) == ([], [], 1)
    assert len((await one.snapshot(10 * MOST)).calls) == 5
    with pytest.raises(ValueError, match="most"):
        await one.snapshot(-1)


async def test_a_snapshot_leaves_out_its_own_call_and_no_other():
    introspection = Introspection()
    services = {"introspection": introspection, "work": Work()}
    async with (
        trio_rpc.open_server(services, "tcp://127.0.0.1:0") as server,
        trio_rpc.connect(server.urls[0]) as session,
        trio.open_nursery() as nursery,
    ):
        assert (await session.call("introspection.snapshot"))["sessions"] == []  # nothing is added
        introspection.add(server)
        nursery.start_soon(session.call, "work.hold")
        await wait_all_tasks_blocked(0.01)
        found = await session.call("introspection.snapshot")
        assert [call["method"] for call in found["calls"]] == ["work.hold"]
        nursery.cancel_scope.cancel()


async def test_a_session_keeps_its_key_and_no_other_gets_it(served):
    one, _ = served
    [first] = (await one.snapshot()).sessions
    async with trio_rpc.connect(one.server.urls[0]):
        both = [each.key for each in (await one.snapshot()).sessions]
    async with trio_rpc.connect(one.server.urls[0]):
        later = [each.key for each in (await one.snapshot()).sessions]
    assert both[0] == later[0] == first.key
    assert len({*both, *later}) == 3


async def test_names_are_cut_and_escaped():
    odd = "\x1b[2J\n" + "x" * 1000

    class Source:
        def inspect(self):
            node = ScopeNode(
                direction="out", id=1, method=odd, age=0.0, state="running", parent=None
            )
            session = InspectedSession(self, odd, lambda: [node], lambda *_: False)
            return Inspected({}, iter([session]))

    introspection = Introspection()
    introspection.add(Source())
    found = await introspection.snapshot()
    for name in (found.calls[0].method, found.sessions[0].peer):
        assert name.isprintable()
        assert len(name) <= 220


@pytest.mark.parametrize("source", [None, object(), "tcp://127.0.0.1:1"])
async def test_only_a_server_or_a_gateway_can_be_added(source):
    with pytest.raises(TypeError, match="can be added"):
        Introspection().add(source)


async def test_the_other_end_cannot_add():
    async with open_session_pair(None, Introspection()) as (session, _):
        with pytest.raises(trio_rpc.MethodNotFound):
            await session.call("add", None)


# ── gateways ─────────────────────────────────────────────────────────────────────────────────


async def test_the_calls_of_a_gateway_are_shown_and_cancelled():
    introspection, work = Introspection(may_cancel=True), Work()
    gateway = Gateway({"work": work, "introspection": introspection})
    introspection.add(gateway)
    async with (
        hosting(gateway) as url,
        httpx.AsyncClient(base_url=url) as http,
        trio.open_nursery() as nursery,
    ):
        host, port = url.removeprefix("http://").split(":")
        message, caught = Message(host, int(port)), []

        is_told = trio.Event()

        async def post():
            async with message.connect():
                try:
                    await message.post("work.hold", {"what": SECRET})
                except trio_rpc.RemoteCancelled as exc:
                    caught.append(str(exc))
                is_told.set()
                await trio.sleep_forever()

        nursery.start_soon(post)
        nursery.start_soon(lambda: http.post("/api/work.hold", json={"what": "direct"}))
        assert [await work.event(), await work.event()] == ["begun"] * 2
        found = await introspection.snapshot()
        named = {one.key: one.peer for one in found.sessions}
        assert sorted(named.values()) == [
            "a browser at 127.0.0.1",
            "requests without a WebSocket at 127.0.0.1",
        ]
        assert {call.method for call in found.calls} == {"work.hold"}
        assert found.figures == {"sessions": 1, "handlers": 2, "bytes_unsent": 0}
        assert message.client_id
        for hidden in (message.client_id, SECRET, *_secrets_of(gateway)):
            assert hidden not in repr(found)
        seen = await Message(host, int(port)).post("introspection.snapshot")
        assert {call["method"] for call in seen["calls"]} == {"work.hold"}  # not itself
        [key] = [c.key for c in found.calls if named[c.session].startswith("a browser")]
        assert introspection.cancel(key)
        await is_told.wait()
        assert caught == [WHY]
        assert (await work.event(), work.cancelled) == ("cancelled", [SECRET])
        [left] = (await introspection.snapshot()).calls
        assert introspection.cancel(left.key)
        assert await work.event() == "cancelled"
        await wait_all_tasks_blocked(0.01)
        assert not introspection.cancel(left.key)
        nursery.cancel_scope.cancel()


def _secrets_of(gateway):
    state = gateway._state
    return [client.token for client in state.clients.values()] + [w.uuid for w in state.works]


async def test_a_snapshot_of_many_sessions_lets_other_tasks_run(monkeypatch):
    monkeypatch.setattr("trio_rpc.introspection.TURN", 1)
    introspection, turns = Introspection(), []
    async with (
        trio_rpc.open_server(Work(), "tcp://127.0.0.1:0") as server,
        trio_rpc.connect(server.urls[0]),
        trio_rpc.connect(server.urls[0]),
        trio_rpc.connect(server.urls[0]),
        trio.open_nursery() as nursery,
    ):
        introspection.add(server)
        await wait_all_tasks_blocked(0.01)
        assert len(server.sessions) == 3

        async def count():
            while True:
                await trio.lowlevel.checkpoint()
                turns.append(1)

        nursery.start_soon(count)
        await trio.lowlevel.checkpoint()
        before = len(turns)
        await introspection.snapshot()
        assert len(turns) - before >= 3
        nursery.cancel_scope.cancel()

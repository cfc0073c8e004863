"""Filters, and the statistics, tree and repr of a session."""

from __future__ import annotations

import pytest
import trio
from helpers.handlers import Echo, Sleeper
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc import Limits


class Mixed(Echo):
    def __init__(self):
        self.notes = []

    @trio_rpc.notification
    async def note(self, text):
        self.notes.append(text)

    @trio_rpc.notification
    def inline_note(self, text):
        self.notes.append(text)


def _tracer(log, name):
    async def trace(call, proceed):
        log.append(f"{name} > {call.method}")
        try:
            return await proceed()
        finally:
            log.append(f"{name} < {call.method}")

    return trace


# ── filters ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("method", ["echo", "inline"])
async def test_filters_run_around_each_call_at_both_ends_the_first_one_outermost(
    session_pair, no_time, method
):
    log = []
    here, there = [_tracer(log, "a1"), _tracer(log, "a2")], [_tracer(log, "b1"), _tracer(log, "b2")]
    async with session_pair(
        None, Mixed(), options_a={"filters": here}, options_b={"filters": there}
    ) as (a, _):
        assert await a.call(method, 5) == 5
    names = ["a1 >", "a2 >", "b1 >", "b2 >", "b2 <", "b1 <", "a2 <", "a1 <"]
    assert log == [f"{name} {method}" for name in names]


@pytest.mark.parametrize("method", ["note", "inline_note"])
async def test_filters_run_around_notifications(session_pair, no_time, method):
    log = []
    mixed = Mixed()
    async with session_pair(
        None,
        mixed,
        options_a={"filters": [_tracer(log, "a")]},
        options_b={"filters": [_tracer(log, "b")]},
    ) as (a, _):
        await a.notify(method, "hello")
        await wait_all_tasks_blocked()
    assert mixed.notes == ["hello"]
    assert log == [f"{each} {method}" for each in ("a >", "a <", "b >", "b <")]


async def test_a_filter_sees_the_call_and_may_change_its_outcome(session_pair, no_time):
    seen = []

    async def judge(call, proceed):
        seen.append((call.method, list(call.args), dict(call.kwargs), dict(call.metadata)))
        if call.args == ["forbidden"]:
            raise PermissionError("no")
        if call.args == ["cached"]:
            return "from the cache"
        try:
            return (await proceed()).upper()
        except trio_rpc.CallError:
            return "a default"

    async with session_pair(None, {"x": Mixed()}, options_b={"filters": [judge]}) as (a, _):
        with trio_rpc.metadata(user="ann"):
            assert await a.call("x.echo", "loud") == "LOUD"
        assert await a.call("x.echo", "cached") == "from the cache"
        with pytest.raises(PermissionError):
            await a.call("x.echo", "forbidden")
        assert await a.call("x.echo", value="by name") == "BY NAME"
    assert seen[0] == ("x.echo", ["loud"], {}, {"user": "ann"})

    async with session_pair(None, Mixed(), options_a={"filters": [judge]}) as (a, _):
        assert await a.call("none") == "a default"
        assert await a.call("echo", "soft") == "SOFT"


async def test_a_filter_is_cancelled_with_its_call(session_pair, autojump_clock):
    ended = []

    async def slow(call, proceed):
        try:
            await trio.sleep_forever()
        finally:
            ended.append(call.method)

    async with session_pair(None, Echo(), options_b={"filters": [slow]}) as (a, _):
        with trio.move_on_after(1):
            await a.call("inline", 1)
        assert ended == ["inline"]


# ── statistics, tree, repr ───────────────────────────────────────────────────────────────────


async def test_statistics_count_traffic_and_calls_in_flight(session_pair, no_time):
    sleeper = Sleeper()
    async with session_pair(Echo(), sleeper) as (a, b):
        before = a.statistics()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(a.call, "sleep")
            await wait_all_tasks_blocked()
            assert (a.statistics().calls_out, a.statistics().calls_in) == (3, 0)
            assert (b.statistics().calls_out, b.statistics().calls_in) == (0, 3)
            sleeper.go.set()
        after = a.statistics()
        assert after.calls_out == b.statistics().calls_in == 0
        assert after.packets_sent > before.packets_sent
        assert after.bytes_sent - before.bytes_sent < 200
        assert after.messages_received == before.messages_received + 3
        assert after.bytes_sent == b.statistics().bytes_received
        assert after.packets_sent == b.statistics().packets_received
        assert after.state == "open"
        assert after.tasks_waiting == after.bytes_waiting == 0


async def test_calls_of_one_tick_leave_in_one_packet(session_pair, no_time):
    """A session over a channel is set up at once, and the messages of a tick share a packet."""
    async with session_pair(None, Echo()) as (a, b):
        before = a.statistics()
        async with trio.open_nursery() as nursery:
            for number in range(64):
                nursery.start_soon(a.call, "echo", number)
        after = a.statistics()
        assert after.packets_sent - before.packets_sent <= 3
        assert b.statistics().packets_sent <= 6  # Hello, Welcome, and one per run of the reader


async def test_the_tree_shows_kind_state_and_age(session_pair, autojump_clock):
    class Mine(Sleeper):
        @trio_rpc.notification
        async def note(self):
            await self.go.wait()

    sleeper = Mine()
    async with session_pair(None, {"s": sleeper}) as (a, b), trio.open_nursery() as nursery:
        await a.notify("s.note")
        await trio.sleep(1)
        with trio.CancelScope() as scope:

            async def cancel():
                await trio.sleep(2)
                scope.cancel()
                await trio.sleep(1)
                out, [note, call] = a.tree(), b.tree()
                assert [(n.direction, n.state, n.kind) for n in out] == [
                    ("out", "cancelling", "call")
                ]
                assert (note.kind, note.state, note.method) == ("notification", "running", "s.note")
                assert note.age == pytest.approx(4, abs=0.001)
                assert (call.kind, call.state, call.method) == ("call", "cancelling", "s.sleep")
                assert call.age == out[0].age == pytest.approx(3, abs=0.001)
                sleeper.go.set()

            nursery.start_soon(cancel)
            await a.call("s.sleep", "x", 5.0)


async def test_reprs_are_readable(session_pair, no_time):
    async with session_pair(None, Echo()) as (a, _):
        assert repr(a) == "<trio_rpc.Session with b, open>"
        assert "echo" in repr(a.proxy().echo)
        await a.aclose()
        assert repr(a) == "<trio_rpc.Session with b, over>"
        assert a.name == "b"
        assert a.limits is trio_rpc.DEFAULT_LIMITS


# ── calling by name and by proxy ─────────────────────────────────────────────────────────────


async def test_calls_by_name_and_by_proxy_are_equivalent(session_pair, no_time):
    """A proxy of a remote service is a cheap object, and a session keeps it."""
    mixed = Mixed()
    async with session_pair(None, {"x": mixed}) as (a, b):
        proxy = a.proxy("x", Mixed)
        assert proxy is a.proxy("x", Mixed)
        assert await proxy.echo(1) == 1
        assert await a.proxy("x").echo(1) == 1
        assert await a.call("x.echo", 1) == 1
        assert await a.call(proxy.echo, 1, abandon_on_cancel=True) == 1
        assert await a.call(proxy.echo, value=1) == 1
        await proxy.note("one")
        await a.notify("x.note", "two")
        await a.notify(proxy.note, "three")
        await a.ping()
        await wait_all_tasks_blocked()
        assert mixed.notes == ["one", "two", "three"]
        with pytest.raises(trio_rpc.LocalProtocolError, match="notify it"):
            await a.call(proxy.note, "x")
        with pytest.raises(trio_rpc.LocalProtocolError, match="call it"):
            await a.notify(proxy.echo, "x")
        with pytest.raises(ValueError, match="another session"):
            await b.call(proxy.echo, 1)
        with pytest.raises(TypeError):
            await a.call(mixed.echo, 1)


async def test_sessions_with_different_limits_respect_each_others(session_pair, no_time):
    tight = Limits(max_packet=16 * 1024, max_message=100_000, max_calls=2, max_notifications=1)
    async with session_pair(Mixed(), Mixed(), options_b={"limits": tight}) as (a, b):
        async with trio.open_nursery() as nursery:
            for session in (a, b):
                for _ in range(20):
                    nursery.start_soon(session.call, "echo", b"x" * 40_000)
                    nursery.start_soon(session.notify, "note", b"x" * 20_000)
        with pytest.raises(trio_rpc.EncodeError):
            await a.call("echo", b"x" * 200_000)
        with pytest.raises(trio_rpc.RemoteError):  # the result is too large for the caller
            await b.call("echo", b"x" * 200_000)


class AllKinds(Mixed):
    @trio_rpc.method
    async def ask(self, callback):
        return await callback()

    @trio_rpc.method
    async def pull(self, items):
        return [item async for item in items]

    @trio_rpc.stream
    async def ticks(self):
        yield 1

    @trio_rpc.duplex
    async def chat(self, channel):
        await channel.send(await channel.receive())


async def _items():
    yield 1


async def _open_scope(session):
    async with session.open_scope() as scope:
        await scope.call("echo", 1)  # it needs the scope, which an early Cancel would stop


async def _chat(session):
    async with session.duplex("chat") as channel:
        await channel.send(1)
        assert await channel.receive() == 1


async def _ticks(session):
    async with session.stream("ticks") as ticks:
        assert [item async for item in ticks] == [1]


@pytest.mark.parametrize(
    ("use", "of_caller", "of_callee"),
    [
        (lambda a: a.call("echo", 1), ["echo"], ["echo"]),
        (lambda a: a.notify("note", 1), ["note"], ["note"]),
        (_ticks, ["ticks"], ["ticks"]),
        (_chat, ["chat", "stream 0 of chat"], ["chat", "stream 0 of chat"]),
        (
            lambda a: a.call("ask", lambda: 1),
            ["ask", "callback 0 of ask"],
            ["ask", "callback 0 of ask"],
        ),
        (
            lambda a: a.call("pull", _items()),
            ["pull", "stream 0 of pull"],
            ["pull", "stream 0 of pull"],
        ),
        (_open_scope, ["echo"], ["trio_rpc.scope", "echo"]),
    ],
)
async def test_the_filters_of_each_end_see_calls_of_these_kinds(
    session_pair, no_time, use, of_caller, of_callee
):
    ours, theirs = [], []

    def watching(seen):
        async def watch(call, proceed):
            seen.append(call.method)
            return await proceed()

        return {"filters": [watch]}

    async with session_pair(
        None, AllKinds(), options_a=watching(ours), options_b=watching(theirs)
    ) as (a, _):
        await use(a)
        await a.ping()
    assert (ours, theirs) == (of_caller, of_callee)

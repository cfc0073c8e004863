"""Calls that the other end has not read, and another end that does not answer."""

from __future__ import annotations

import logging
import math

import pytest
import trio
from helpers.handlers import Echo, Sleeper
from helpers.raw_peer import session_with_raw_peer
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc import ConnectionState, Limits, Options
from trio_rpc.testing import Faults, open_faulty_pair, open_session_pair
from trio_rpc.wire import messages as m


def states_of(session):
    return [node.state for node in session.tree() if node.direction == "out"]


# ── a call that has been read ────────────────────────────────────────────────────────────────


async def test_the_tree_tells_a_call_that_was_not_read_from_one_that_runs(no_time):
    """A call that the other end has not read is told from one that runs there."""
    async with session_with_raw_peer() as (session, peer), trio.open_nursery() as nursery:
        nursery.start_soon(session.call, "first")
        await peer.read(m.Request)
        assert states_of(session) == ["waiting"]
        nursery.start_soon(session.ping)
        ping = await peer.read(m.Ping)
        nursery.start_soon(session.call, "second")
        await peer.read(m.Request)
        assert states_of(session) == ["waiting", "waiting"]
        peer.send(m.Pong(ping.number))
        await wait_all_tasks_blocked()
        assert states_of(session) == ["running", "waiting"]
        peer.send(m.Reply(1, None), m.Reply(2, None))


async def test_a_ping_shows_which_calls_run(session_pair, no_time):
    sleeper = Sleeper()
    async with session_pair(None, sleeper) as (a, _), trio.open_nursery() as nursery:
        nursery.start_soon(a.call, "sleep")
        await wait_all_tasks_blocked()
        assert states_of(a) == ["waiting"]
        await a.ping()
        assert states_of(a) == ["running"]
        sleeper.go.set()


@pytest.mark.parametrize("kind", ["started", "item", "callback"])
async def test_a_message_of_a_handler_shows_that_its_call_runs(no_time, kind):
    async def callback():
        await trio.sleep_forever()

    async with session_with_raw_peer() as (session, peer), trio.open_nursery() as nursery:
        if kind == "started":
            nursery.start_soon(nursery.start, session.proxy("s").serve)
        elif kind == "item":
            nursery.start_soon(use_stream, session)
        else:
            nursery.start_soon(session.call, "s.work", callback)
        request = await peer.read(m.Request)
        assert states_of(session) == ["waiting"]
        if kind == "started":
            peer.send(m.Started(request.id, 1))
        elif kind == "item":
            peer.send(m.Item(request.id, 1))
        else:
            peer.send(m.Request(1, "", [], None, {"parent": request.id, "callback": 0}))
        await wait_all_tasks_blocked()
        assert states_of(session) == ["running"]
        peer.send(m.Reply(request.id, None))


async def use_stream(session):
    async with session.stream("s.ticks") as ticks:
        async for _ in ticks:
            pass


async def test_a_call_that_waits_for_long_is_asked_about_while_others_are_answered(autojump_clock):
    """At most one Ping in each keepalive interval, and none for calls that end sooner."""
    sleeper = Sleeper()
    limits = {"limits": Limits(keepalive_interval=10)}
    services = {"sleeper": sleeper, "echo": Echo()}
    async with open_faulty_pair() as pair:
        channels = pair.first, pair.second
        async with (
            open_session_pair(None, services, channels=channels, options_a=limits) as (a, b),
            trio.open_nursery() as nursery,
        ):
            await trio.sleep(5)
            for _ in range(30):
                await a.call("echo.echo", 1)
                await trio.sleep(1)
            quiet = b.statistics().messages_received
            nursery.start_soon(a.call, "sleeper.sleep")
            for _ in range(25):
                await a.call("echo.echo", 1)
                await trio.sleep(1)
            assert states_of(a) == ["running"]
            assert b.statistics().messages_received == quiet + 1 + 25 + 1  # Requests, and a Ping
            sleeper.go.set()


# ── another end that does not answer ─────────────────────────────────────────────────────────


SILENT = Limits(keepalive_interval=math.inf)


class Log:
    """Collects the states of a session's connection, and the log lines about them."""

    def __init__(self, caplog):
        self.states = []
        self._caplog = caplog
        caplog.set_level(logging.INFO, "trio_rpc")

    async def watch(self, session):
        async for state in session.connection_states():
            self.states.append(state)

    @property
    def lines(self):
        return [record.getMessage() for record in self._caplog.records]


@pytest.fixture
def log(caplog):
    return Log(caplog)


async def test_an_end_that_does_not_answer_is_a_log_line_and_a_state(log, autojump_clock):
    """The other end has not answered for some seconds: a log line and an event."""
    async with (
        session_with_raw_peer(limits=SILENT, unresponsive_after=3) as (session, peer),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(log.watch, session)
        await trio.sleep(100)
        assert log.states == [ConnectionState.CONNECTED]  # no call waits
        nursery.start_soon(session.call, "work")
        request = await peer.read(m.Request)
        await trio.sleep(2.9)
        assert log.lines == []
        await trio.sleep(1.6)
        assert log.states == [ConnectionState.CONNECTED, ConnectionState.UNRESPONSIVE]
        assert log.lines == [f"{session.name} has not answered for 3 s; calls that wait for it: 1"]
        assert session.is_open
        await trio.sleep(6)
        peer.send(m.Reply(request.id, None))
        await trio.sleep(1)
        assert log.states[2:] == [ConnectionState.CONNECTED]
        assert log.lines[1:] == [f"{session.name} answers again"]
        nursery.cancel_scope.cancel()


async def test_a_handler_that_takes_long_does_not_make_its_end_unresponsive(
    session_pair, log, autojump_clock
):
    options = {"unresponsive_after": 3}
    async with (
        session_pair(None, Sleeper(), options_a=options) as (a, _),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(log.watch, a)
        nursery.start_soon(a.call, "sleep")
        await trio.sleep(100)
        assert log.states == [ConnectionState.CONNECTED]
        assert log.lines == []
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("seconds", [0.74, 0.75, 2, 3, 30])
async def test_an_end_that_was_blocked_itself_does_not_report_the_other_end(
    log, autojump_clock, seconds
):
    """There is no warning about time in which this end was blocked itself."""
    late = Faults(latency=0.1)
    options = {"unresponsive_after": 3}
    async with (
        open_faulty_pair(late) as pair,
        open_session_pair(
            None, Sleeper(), channels=(pair.first, pair.second), options_a=options
        ) as (a, _),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(log.watch, a)
        nursery.start_soon(a.call, "sleep")
        for _ in range(100):
            autojump_clock.jump(seconds)
            await trio.sleep(0.01)
        for _ in range(20):
            autojump_clock.jump(seconds)
            await trio.sleep(0.5)
        assert log.states == [ConnectionState.CONNECTED]
        assert log.lines == []
        nursery.cancel_scope.cancel()


async def test_time_in_which_both_ends_were_blocked_does_not_count(log, autojump_clock):
    """As with another end in a thread of this program, which cannot answer meanwhile."""
    async with (
        session_with_raw_peer(limits=SILENT, unresponsive_after=3) as (session, peer),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(session.call, "work")
        ping = await peer.read(m.Ping)
        for _ in range(10):
            autojump_clock.jump(2)
            for _ in range(5):
                await trio.lowlevel.checkpoint()
        peer.send(m.Pong(ping.number))
        await trio.sleep(1)
        assert log.lines == []
        peer.send(m.Reply(1, None))


async def test_an_answer_that_is_unread_at_the_last_look_counts(log, autojump_clock):
    async with (
        session_with_raw_peer(limits=SILENT, unresponsive_after=3) as (session, peer),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(session.call, "work")
        for _ in range(20):
            ping = await peer.read(m.Ping)
            await trio.sleep(2.3)
            peer.send(m.Pong(ping.number))
            autojump_clock.jump(0.72)  # the reader and the driver are woken in the same tick
        assert log.lines == []
        peer.send(m.Reply(1, None))


async def test_by_default_no_answer_is_missed(log, autojump_clock):
    """By default there is no time after which an end counts as unresponsive."""
    async with (
        session_with_raw_peer(limits=SILENT) as (session, peer),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(session.call, "work")
        await peer.read(m.Request)
        await trio.sleep(10**6)
        assert log.lines == []
        peer.send(m.Reply(1, None))


@pytest.mark.parametrize("seconds", [0, -1, math.nan])
async def test_seconds_that_are_not_positive_are_refused(seconds):
    with pytest.raises(ValueError, match="unresponsive_after must be positive"):
        Options(unresponsive_after=seconds)
    with pytest.raises(TypeError, match="unresponsive_after must be seconds"):
        trio_rpc.Options(unresponsive_after="3")

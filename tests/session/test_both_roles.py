"""Each end of a session is a client and a server, over any channel that carries packets."""

from __future__ import annotations

import math

import pytest
import trio
from helpers.handlers import Echo, Sleeper
from helpers.raw_peer import session_with_raw_peer
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc import Limits, open_session
from trio_rpc.testing import memory_channel_pair, open_session_pair
from trio_rpc.wire import messages as m


class Notes(Sleeper):
    def __init__(self):
        super().__init__()
        self.notes = []

    @trio_rpc.notification
    async def note(self, text):
        self.notes.append(text)

    @trio_rpc.method
    async def double(self, number):
        return 2 * number

    @trio_rpc.method
    async def fail(self):
        raise ValueError("as asked")


async def test_each_end_is_a_client_and_a_server(no_time):
    """As a client, an end sends Requests and Cancels, and gets Replies and ReplyErrs.

    As a server, it handles Requests, Cancels and Notifications, and answers. Messages are
    dispatched by their type, and replies find their requests by the id.
    """
    notes = Notes()
    async with session_with_raw_peer(notes) as (session, peer):
        async with trio.open_nursery() as nursery:  # as a client
            results = {}

            async def call(method):
                try:
                    results[method] = await session.call(method, 1)
                except ValueError as exc:
                    results[method] = exc

            scope = trio.CancelScope()

            async def call_and_be_cancelled():
                with scope:
                    await call("third")

            nursery.start_soon(call, "first")
            await wait_all_tasks_blocked()
            nursery.start_soon(call, "second")
            await wait_all_tasks_blocked()
            nursery.start_soon(call_and_be_cancelled)
            first, second, third = await peer.read_all(m.Request, 3)
            assert (first.method, first.args) == ("first", [1])
            scope.cancel()
            cancel = await peer.read(m.Cancel)
            assert cancel.id == third.id
            error = {
                "code": "raised",
                "type": "builtins.ValueError",
                "message": "no",
                "args": ["no"],
            }
            peer.send(
                m.ReplyErr(third.id, {"code": "cancelled", "message": ""}),
                m.ReplyErr(second.id, error),
                m.Reply(first.id, "one"),
            )
        assert results["first"] == "one"
        assert repr(results["second"]) == repr(ValueError("no"))
        assert "third" not in results
        await session.notify("event", "to the peer")
        assert await peer.read(m.Notification) == m.Notification("event", ["to the peer"])

        peer.send(  # as a server
            m.Request(1, "double", [4]),
            m.Request(2, "sleep", []),
            m.Notification("note", ["from the peer"]),
            m.Request(3, "fail", []),
        )
        assert await peer.read(m.Reply) == m.Reply(1, 8)
        assert (await peer.read(m.ReplyErr)).id == 3
        assert notes.notes == ["from the peer"]
        assert notes.running == 1
        peer.send(m.Cancel(2))
        assert (await peer.read(m.ReplyErr)).id == 2
        assert notes.running == 0


class Packets(trio.abc.Channel[bytes]):
    """A channel with the three methods of a channel, and nothing else."""

    def __init__(self, channel):
        self.channel = channel

    async def send(self, value):
        await self.channel.send(value)

    async def receive(self):
        return await self.channel.receive()

    async def aclose(self):
        await self.channel.aclose()


async def test_a_session_needs_only_the_methods_of_a_channel(no_time):
    """A session is built on a channel of packets, and needs nothing else from the transport."""
    ours, theirs = memory_channel_pair()
    channels = Packets(ours), Packets(theirs)
    async with open_session_pair(Echo(), Echo(), channels=channels) as (a, b):
        assert await a.call("echo", "there") == "there"
        assert await b.call("echo", b"x" * 1_000_000) == b"x" * 1_000_000


async def test_a_reply_of_an_old_connection_does_not_meet_a_call_of_a_new_one(no_time):
    """A reply of an old connection can never meet a new request, though both have the same id."""
    async with session_with_raw_peer() as (old, old_peer), session_with_raw_peer() as (new, peer):
        async with trio.open_nursery() as nursery:

            async def call_and_lose():
                with pytest.raises(trio_rpc.SessionClosed):
                    await old.call("work")

            nursery.start_soon(call_and_lose)
            request = await old_peer.read(m.Request)
            with trio.CancelScope() as scope:
                scope.cancel()
                await old.aclose()
        results = []

        async def call():
            results.append(await new.call("work"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            again = await peer.read(m.Request)
            assert again.id == request.id
            with pytest.raises(trio.BrokenResourceError):
                await old_peer.channel.send(old_peer.bytes_of(m.Reply(request.id, "old")))
            await wait_all_tasks_blocked()
            assert results == []
            peer.send(m.Reply(again.id, "new"))
        assert results == ["new"]


async def test_opening_a_dead_channel_is_an_error(no_time):
    """A session over a channel that this end or the other end has closed raises at once."""
    ours, theirs = memory_channel_pair()
    await ours.aclose()
    for channel in (ours, theirs):
        with pytest.raises(trio_rpc.RpcError) as caught:
            async with open_session(channel):
                raise AssertionError("it must not open")
        assert caught.value.fate is trio_rpc.Fate.NOT_STARTED


async def test_two_sessions_over_one_channel_both_end_with_an_error(no_time):
    """A channel that is opened twice is an error that says so, and both sessions end."""
    ours, theirs = memory_channel_pair()
    errors = []
    sessions = []
    try:
        async with open_session_pair(None, Echo(), channels=(ours, theirs)) as pair:
            sessions += pair
            try:
                async with open_session(ours):
                    raise AssertionError("it must not open")
            except trio.BusyResourceError as exc:
                errors.append(exc)
            await pair[0].wait_closed()
    except (trio.BusyResourceError, trio_rpc.SessionBroken) as exc:
        errors.append(exc)
    assert [str(error) for error in errors if isinstance(error, trio.BusyResourceError)] == [
        "another task is receiving from this channel"
    ]
    assert not any(session.is_open for session in sessions)


async def test_the_keepalive_can_be_turned_off(autojump_clock):
    """Signals of health can be turned off."""
    limits = Limits(keepalive_interval=math.inf)
    async with session_with_raw_peer(limits=limits) as (session, peer):
        await trio.sleep(10**6)
        assert session.is_open
        await session.notify("last")
        await peer.read(m.Notification)
        assert not any(isinstance(each, m.Ping) for each in peer.received)

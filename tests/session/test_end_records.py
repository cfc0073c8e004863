"""The end of a session: both ends can ask which end caused it, and both get its reason."""

from __future__ import annotations

import contextlib
import functools

import pytest
import trio
from helpers.handlers import Echo, Sleeper
from helpers.raw_peer import HELLO, session_with_raw_peer
from helpers.websocket_peer import BINARY, CLOSE, RawPeer, frame, request
from trio.testing import wait_all_tasks_blocked

from trio_rpc import SessionBroken, SessionClosed, SessionEnd, connect, open_server, open_session
from trio_rpc.channels import (
    ChannelBroken,
    WebSocketClose,
    open_channel,
    open_forwarding,
    open_listeners,
)
from trio_rpc.testing import memory_channel_pair
from trio_rpc.wire import messages as m
from trio_rpc.wire.codec import Codec

REASON = "the disk is full"

# ── the reason of a close ────────────────────────────────────────────────────────────────────


async def test_both_ends_are_told_the_reason_that_a_session_is_closed_with(session_pair, no_time):
    async with session_pair(Echo(), on_end="keep") as (a, b):
        assert not a.closed.is_set()
        await a.aclose(reason=REASON)
        ours, theirs = await a.closed.wait(), await b.closed.wait()
        assert a.closed.is_set()
        assert b.closed.is_set()
        assert ours == SessionEnd("us", f"this end has closed the session: {REASON}", None)
        assert (theirs.by, theirs.cause) == ("peer", None)
        assert theirs.reason == f"the other end has left: {REASON}"
        assert await b.wait_closed() == theirs
        with pytest.raises(SessionClosed, match=REASON):
            await a.call("echo", 1)
        with pytest.raises(SessionBroken, match=REASON) as caught:
            await b.call("echo", 1)
        assert caught.value.orderly


async def test_while_a_session_closes_calls_are_refused_with_the_reason(session_pair, no_time):
    service = Sleeper()
    async with session_pair(service, on_end="keep") as (a, b), trio.open_nursery() as nursery:
        nursery.start_soon(b.call, "sleep")
        await wait_all_tasks_blocked()
        nursery.start_soon(functools.partial(a.aclose, reason=REASON))
        await wait_all_tasks_blocked()
        for session, error in ((a, SessionClosed), (b, SessionBroken)):
            with pytest.raises(error, match=REASON):
                await session.call("sleep")
        service.go.set()


async def test_an_aclose_that_is_cancelled_tells_its_reason(session_pair, no_time):
    async with session_pair(Echo(), on_end="keep") as (a, b):
        with trio.CancelScope() as scope:
            scope.cancel()
            await a.aclose(reason=REASON)
        assert REASON in (await b.wait_closed()).reason
        assert REASON in (await a.wait_closed()).reason


async def test_if_a_session_is_closed_twice_the_first_reason_counts(session_pair, no_time):
    async with session_pair(Echo(), on_end="keep") as (a, b), trio.open_nursery() as nursery:
        nursery.start_soon(functools.partial(a.aclose, reason="first"))
        await trio.lowlevel.checkpoint()
        nursery.start_soon(functools.partial(a.aclose, reason="second"))
        assert "first" in (await b.wait_closed()).reason
        assert "first" in (await a.wait_closed()).reason


async def test_closing_a_session_that_was_lost_does_not_change_the_record_of_its_end(no_time):
    async with session_with_raw_peer() as (session, peer):
        peer.channel.abort()
        before = await session.wait_closed()
        assert before.by == "network"
        await session.aclose(reason=REASON)
        assert await session.wait_closed() == before


@pytest.mark.parametrize("reason", [None, b"full", 7])
async def test_a_reason_that_is_not_text_is_refused_and_the_session_goes_on(
    session_pair, no_time, reason
):
    async with (
        session_pair(Echo()) as (a, b),
        open_server(Echo(), "tcp://127.0.0.1:0") as server,
        connect(server.urls[0]) as client,
    ):
        with pytest.raises(TypeError, match="the reason must be a str"):
            await a.aclose(reason=reason)
        assert await b.call("echo", 1) == 1
        with pytest.raises(TypeError, match="the reason must be a str"):
            await server.drain(reason=reason)
        assert await client.call("echo", 1) == 1


@pytest.mark.parametrize("grace", ["soon", -1, float("nan")])
async def test_a_grace_that_is_not_a_time_is_refused_and_the_session_goes_on(
    session_pair, no_time, grace
):
    async with (
        session_pair(Echo()) as (a, b),
        open_server(Echo(), "tcp://127.0.0.1:0") as server,
        connect(server.urls[0]) as client,
    ):
        with pytest.raises((TypeError, ValueError), match="grace must"):
            await a.aclose(grace=grace)
        assert await b.call("echo", 1) == 1
        with pytest.raises((TypeError, ValueError), match="grace must"):
            await server.drain(grace=grace)
        assert await client.call("echo", 1) == 1


@pytest.mark.parametrize("reason", ["two\nlines", "a\x1b[2Jb", "\ud800", "x" * 5_000])
async def test_any_reason_becomes_one_line_that_can_be_sent(no_time, reason):
    async with session_with_raw_peer() as (session, peer), trio.open_nursery() as nursery:
        nursery.start_soon(functools.partial(session.aclose, reason=reason))
        message = (await peer.read(m.Goodbye)).message
        peer.send(m.Goodbye("done", "answering a Goodbye"))
        record = await session.wait_closed()
    assert message.isprintable()
    assert 1 < len(message) <= 1_000
    assert message in record.reason


async def test_a_goodbye_of_many_lines_is_one_line_in_the_record(no_time):
    async with session_with_raw_peer() as (session, peer):
        peer.send(m.Goodbye("done", "first\nsecond\x1b"))
        peer.channel.close()
        assert (await session.wait_closed()).reason.isprintable()


class _Failing(trio.abc.Channel[bytes]):
    """A channel whose reading end fails with a text once it is told to."""

    def __init__(self, inner, text):
        self._inner = inner
        self._text = text
        self.fails = trio.Event()

    async def send(self, packet):
        await self._inner.send(packet)

    async def receive(self):
        packet = None
        async with trio.open_nursery() as nursery:

            async def read():
                nonlocal packet
                packet = await self._inner.receive()
                nursery.cancel_scope.cancel()

            nursery.start_soon(read)
            await self.fails.wait()
            nursery.cancel_scope.cancel()
        if packet is None:
            raise trio.BrokenResourceError(self._text)
        return packet

    async def aclose(self):
        await self._inner.aclose()


async def _stay(channel):
    with contextlib.suppress(SessionBroken):
        async with open_session(channel):
            await trio.sleep_forever()


@pytest.mark.parametrize("text", ["no\x1b[2Jroute", "\u2028", "x" * 5_000, "one\ntwo", ""])
async def test_the_error_of_a_channel_is_one_short_line_in_errors_and_in_the_record(no_time, text):
    ours, theirs = memory_channel_pair()
    channel = _Failing(ours, text)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_stay, theirs)
        async with open_session(channel, on_end="keep") as session:
            channel.fails.set()
            record = await session.wait_closed()
            with pytest.raises(SessionBroken) as caught:
                await session.call("echo", 1)
    assert record.by == "network"
    for shown in (record.reason, str(caught.value)):
        assert shown.isprintable()
        assert shown.startswith("the session is over: ")
        assert len("the session is over: ") < len(shown) <= 1_050


async def test_a_session_that_is_closed_before_it_is_open_tells_its_reason(no_time):
    ours, theirs = memory_channel_pair()

    async def authenticate(session, _credentials):
        await session.aclose(reason=REASON)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_expect_orderly_end, theirs)
        with pytest.raises((SessionClosed, SessionBroken), match=REASON):
            async with open_session(ours, authenticate=authenticate):
                raise AssertionError("it must not open")


async def _expect_orderly_end(channel):
    with pytest.raises(SessionBroken, match=REASON):
        async with open_session(channel):
            raise AssertionError("it must not open")


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "the server is shutting down"), ({"reason": "moving to b"}, "moving to b")],
)
async def test_clients_are_told_why_their_server_drains(no_time, given, expected):
    async with (
        open_server(Echo(), "tcp://127.0.0.1:0") as server,
        connect(server.urls[0], on_end="keep") as client,
    ):
        await server.drain(**given)
        end = await client.wait_closed()
        assert (end.by, end.reason) == ("peer", f"the other end has left: {expected}")


# ── details of the transport ─────────────────────────────────────────────────────────────────


@contextlib.asynccontextmanager
async def websocket_session():
    """Serve a WebSocket, and open a session to it by hand; yields the frames' writer and more."""
    sessions = []

    def services(session):
        sessions.append(session)
        return Echo()

    async with (
        open_server(services, "ws://127.0.0.1:0") as server,
        await trio.open_tcp_stream("127.0.0.1", int(server.urls[0].rpartition(":")[2])) as stream,
    ):
        peer = RawPeer(stream)
        await peer.send(request())
        await peer.read_head()
        codec = Codec()
        await peer.send(frame(BINARY, codec.encode(HELLO) + codec.encode(m.Welcome())))
        while not sessions or not sessions[0].is_open:
            await wait_all_tasks_blocked()
        yield peer, sessions[0]


@pytest.mark.parametrize(
    ("code", "text"),
    [(1000, ""), (1001, "moving"), (1011, "out of luck"), (4242, "own code"), (4000, "a\nb\x1b")],
)
async def test_the_code_and_reason_of_a_websocket_are_in_the_record(no_time, code, text):
    """The end record says which side closed the channel and why, with a WebSocket's code."""
    async with websocket_session() as (peer, session):
        await peer.send(frame(CLOSE, code.to_bytes(2) + text.encode()))
        end = await session.wait_closed()
    assert (end.by, end.detail) == ("network", WebSocketClose(code, text))
    assert isinstance(end.cause, ChannelBroken)
    assert end.cause.detail == end.detail
    shown = text.replace("\n", r"\n").replace("\x1b", r"\x1b")
    assert f"the peer closed the WebSocket: {code} {shown}" in end.reason
    assert str(end.cause).endswith(f"{code} {shown}") or not text


async def test_a_connection_that_ends_without_a_close_frame_has_no_detail(no_time):
    async with websocket_session() as (peer, session):
        await peer.stream.aclose()
        end = await session.wait_closed()
    assert (end.by, end.detail) == ("network", None)


async def test_the_code_of_a_carriers_websocket_reaches_the_sessions_over_it(no_time, nursery):
    [listener] = await open_listeners("ws://127.0.0.1:0")
    ended = []

    async def serve_channel(channel):
        async with open_session(channel, Echo(), on_end="keep") as session:
            ended.append(await session.wait_closed())

    async def serve():
        connection = await listener.accept()
        async with (
            connection.prepared() as carrier,
            open_forwarding(carrier, {"echo": serve_channel}) as forwarding,
        ):
            await forwarding.wait_closed()

    nursery.start_soon(serve)
    async with open_channel(listener.url) as carrier:
        carrier._close_with = (1013, "try again later")
        async with open_forwarding(carrier, {}) as forwarding:
            channel = await forwarding.open("echo")
            async with open_session(channel, on_end="keep") as session:
                assert await session.call("echo", 1) == 1
                await carrier.aclose()
    await wait_all_tasks_blocked()
    assert [end.detail for end in ended] == [WebSocketClose(1013, "try again later")]
    await listener.aclose()


async def test_the_peer_of_a_session_without_a_child_process_has_no_process(session_pair, no_time):
    async with session_pair(Echo()) as (a, b):
        assert b.peer.name == "a"
        assert repr(b.peer) == "<trio_rpc.Peer a>"
        assert (a.peer.pid, a.peer.returncode) in ((None, None), (0, 0))  # 0: of the test's process

"""A handshake is not late because this program was blocked and could not read the peer's part."""

from __future__ import annotations

import contextlib

import pytest
import trio
from helpers.tls import make_contexts
from helpers.websocket_peer import RawPeer, answer, key_of, request
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from trio_rpc.channels import (
    ResumableSessions,
    Resume,
    memory_channel_pair,
    open_channel,
    open_forwarding,
    open_resumable,
)
from trio_rpc.channels.connection import StreamConnection
from trio_rpc.channels.forwarding.frames import Hello, encode
from trio_rpc.channels.resumable.replay import Frame, Kind
from trio_rpc.channels.resumable.replay import encode as encode_resumable
from trio_rpc.channels.urls import parse_url
from trio_rpc.channels.websocket.channel import WebSocketConnection, open_websocket
from trio_rpc.wire.limits import Limits

LIMITS = Limits(handshake_timeout=10)


@pytest.fixture
def blocked(autojump_clock, nursery):
    """Start a function once all others wait, and block the program as it does its first step."""

    def block_then_run(function, *args):
        async def run():
            await wait_all_tasks_blocked()
            autojump_clock.jump(1000)  # as time.sleep() would do it
            await trio.sleep(9)
            await function(*args)

        nursery.start_soon(run)

    return block_then_run


@pytest.fixture(scope="module")
def contexts():
    return make_contexts("example.org")


async def test_a_tls_handshake_of_a_blocked_server_is_not_late(blocked, contexts, autojump_clock):
    ours, theirs = memory_stream_pair()
    client = trio.SSLStream(theirs, contexts[1], server_hostname="example.org")
    server = trio.SSLStream(ours, contexts[0], server_side=True)
    blocked(client.do_handshake)
    async with StreamConnection(server, LIMITS, name="client").prepared():
        assert trio.current_time() >= 1009


async def test_a_tls_handshake_of_a_blocked_client_is_not_late(
    blocked, contexts, monkeypatch, autojump_clock
):
    ours, theirs = memory_stream_pair()
    server = trio.SSLStream(theirs, contexts[0], server_side=True)

    async def connect(_host, _port):
        await trio.lowlevel.checkpoint()
        return ours

    monkeypatch.setattr("trio_rpc.channels.connecting.connect_tcp", connect)
    blocked(server.do_handshake)
    async with open_channel("tls://example.org:1", ssl_context=contexts[1], limits=LIMITS):
        assert trio.current_time() >= 1009


async def test_a_websocket_handshake_of_a_blocked_server_is_not_late(blocked, autojump_clock):
    ours, theirs = memory_stream_pair()
    blocked(theirs.send_all, request())
    async with WebSocketConnection(ours, LIMITS, name="client").prepared():
        assert trio.current_time() >= 1009


async def test_a_websocket_handshake_of_a_blocked_client_is_not_late(blocked, autojump_clock):
    ours, theirs = memory_stream_pair()
    peer = RawPeer(theirs)

    async def accept():
        await peer.send(answer(key_of(await peer.read_head())))

    blocked(accept)
    async with open_websocket(ours, parse_url("ws://example.org:8000"), LIMITS):
        assert trio.current_time() >= 1009


async def test_the_first_packet_at_a_blocked_server_that_resumes_is_not_late(
    blocked, autojump_clock
):
    ours, theirs = memory_channel_pair()
    blocked(theirs.send, encode_resumable(Frame(Kind.OPEN, rest=b"\1")))
    arrival = await ResumableSessions(Resume(), handshake_timeout=10).receive(ours)
    assert arrival.is_new


async def test_the_answer_to_a_blocked_client_that_resumes_is_not_late(blocked, autojump_clock):
    ours, theirs = memory_channel_pair()

    @contextlib.asynccontextmanager
    async def carrier():
        yield ours

    blocked(theirs.send, encode_resumable(Frame(Kind.ACCEPT, rest=bytes(16))))
    async with open_resumable(carrier, Resume(), handshake_timeout=10) as channel:
        assert channel.token == bytes(16)
    await theirs.aclose()


async def test_the_hello_of_a_carrier_is_not_late_at_a_blocked_end(blocked, autojump_clock):
    ours, theirs = memory_channel_pair()
    blocked(theirs.send, encode(Hello(1, 20_000, 10)))
    async with open_forwarding(ours, limits=LIMITS) as forwarding:
        await trio.sleep(1500)
        assert forwarding._driver._core.greeted
        assert not forwarding._driver.closed.is_set()
        await theirs.aclose()

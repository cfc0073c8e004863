"""Bounds of a session whose channel never closes, or whose peer does not finish a packet."""

from __future__ import annotations

import contextlib
import socket
import sys

import pytest
import trio
import trio.testing
from helpers.channel_pairs import child_channels

import trio_rpc
from trio_rpc import Limits, SessionBroken
from trio_rpc.channels import StreamChannel
from trio_rpc.channels import process as processes
from trio_rpc.channels.process import VARIABLE
from trio_rpc.testing import memory_channel_pair

HALF = b"\0\0\0\5x"
"""The first part of a packet."""


class NeverCloses(trio.abc.Channel[bytes]):
    """A channel whose ``aclose`` never returns."""

    def __init__(self, channel):
        self._channel = channel

    async def send(self, value):
        await self._channel.send(value)

    async def receive(self):
        return await self._channel.receive()

    async def aclose(self):
        await trio.sleep_forever()


async def test_a_channel_whose_aclose_never_returns_delays_a_session_only_for_shutdown_timeout(
    autojump_clock, nursery
):
    a, b = memory_channel_pair()
    nursery.start_soon(trio_rpc.serve_session, b, None)
    async with trio_rpc.open_session(NeverCloses(a), limits=Limits(shutdown_timeout=3)) as session:
        await session.ping()
        started = trio.current_time()
    assert trio.current_time() - started == 3


async def test_packet_timeout_bounds_a_packet_that_a_server_does_not_finish(nursery):
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def drip(stream):
        await stream.send_all(HALF)
        await trio.sleep_forever()

    nursery.start_soon(trio.serve_listeners, drip, [listener])
    url = f"tcp://127.0.0.1:{listener.socket.getsockname()[1]}"
    with pytest.raises(SessionBroken, match="began a packet"), trio.fail_after(20):
        async with trio_rpc.connect(url, limits=Limits(packet_timeout=0.1, handshake_timeout=60)):
            raise AssertionError("it must not open")
    nursery.cancel_scope.cancel()


async def test_packet_timeout_bounds_a_packet_that_a_client_does_not_finish():
    limits = Limits(packet_timeout=0.1, handshake_timeout=60)
    async with trio_rpc.open_server(None, "tcp://127.0.0.1:0", limits=limits) as server:
        port = int(server.urls[0].rpartition(":")[2])
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(HALF)
            with trio.fail_after(20), contextlib.suppress(trio.BrokenResourceError):
                while await stream.receive_some():
                    pass


async def test_the_packet_timeout_of_a_users_own_stream_channel_bounds_its_session(
    autojump_clock,
):
    ours, theirs = trio.testing.memory_stream_pair()
    channel = StreamChannel(ours, packet_timeout=7)
    await theirs.send_all(HALF)
    with pytest.raises(SessionBroken, match="began a packet and took more than 7 s"):
        async with trio_rpc.open_session(channel, limits=Limits(handshake_timeout=60)):
            raise AssertionError("it must not open")
    assert trio.current_time() == 7


async def test_packet_timeout_bounds_a_packet_that_a_parent_does_not_finish(monkeypatch):
    ours, theirs = (
        trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in socket.socketpair()
    )
    monkeypatch.setattr(processes, "inherited_stream", lambda: ours)
    await theirs.send_all(HALF)
    limits = Limits(packet_timeout=0.1, handshake_timeout=60)
    with pytest.raises(SessionBroken, match="began a packet"), trio.fail_after(20):
        async with trio_rpc.open_parent(limits=limits):
            raise AssertionError("it must not open")
    await theirs.aclose()


SENDS_HALF = f"""
import os, socket
parent = socket.socket(fileno=int(os.environ["{VARIABLE}"]))
parent.sendall({HALF!r})
while parent.recv(10**6): pass
"""


async def test_packet_timeout_bounds_a_packet_that_a_real_child_process_does_not_finish():
    limits = Limits(packet_timeout=0.1, handshake_timeout=60)
    with pytest.raises(SessionBroken, match="began a packet"), trio.fail_after(20):
        async with trio_rpc.open_process([sys.executable, "-c", SENDS_HALF], limits=limits):
            raise AssertionError("it must not open")


async def test_packet_timeout_bounds_a_packet_over_a_channel_of_processes():
    limits = Limits(packet_timeout=0.1)
    parent, child = await child_channels(limits, limits)
    for ours, theirs in ((parent, child), (child, parent)):
        await theirs.stream.send_all(HALF)
        with (
            pytest.raises(trio.BrokenResourceError, match=r"began a packet|exit code 0"),
            trio.fail_after(20),
        ):
            await ours.receive()
    await trio.aclose_forcefully(parent)
    await trio.aclose_forcefully(child)

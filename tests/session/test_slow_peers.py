"""Law 12 over every transport: a peer that takes nothing loses its session; a slow peer keeps it.

Once a session is open, the test takes the peer's socket away from the peer. So the test decides how
many bytes are read, below TLS, WebSockets and forwarding. It moves the clock by hand.
"""

from __future__ import annotations

import contextlib
import os
import sys
from functools import partial

import pytest
import trio
from helpers.forwarding_pairs import Acceptor, channel_pair, open_forwarding_pair
from helpers.raw_peer import open_raw_peer
from helpers.transports import Transport
from trio.testing import MockClock, wait_all_tasks_blocked

import trio_rpc
from trio_rpc import Limits, Resume
from trio_rpc.channels import ResumableChannel
from trio_rpc.channels.resumable.server import _Begun
from trio_rpc.wire import messages as m

SOCKETS = ["tcp", "tls", "unix", "ws", "wss", "process"]
KINDS = [*SOCKETS, "forwarding", "resumable", "begun"]
QUICK = [("tcp", True), ("tls", False), ("unix", False)]
CASES = [
    pytest.param(
        kind,
        is_silent,
        marks=[] if (kind, is_silent) in QUICK else pytest.mark.slow,
        id=f"{kind}-{'silent' if is_silent else 'sends'}",
    )
    for kind in KINDS
    for is_silent in (True, False)
]
LIMITS = Limits(keepalive_interval=10, keepalive_pings=3, max_packet=1024 * 1024)
LARGE = 8 * 1024 * 1024
"""Bytes of the result: more than systems and channels hold."""

TCP_READS, UNIX_READS = 128 * 1024, 20_000
"""Bytes to read in each interval: a fraction of a packet, and of the room that makes a socket
writable.

A system notices at least every third of these reads: it frees a whole segment, or a whole buffer.
"""


@pytest.fixture
def autojump_clock():
    return MockClock()


class Large:
    def __init__(self):
        self.go = trio.Event()

    @trio_rpc.method
    async def large(self):
        await self.go.wait()
        return bytes(LARGE)


def socket_of(channel):
    """Return the socket below a channel."""
    stream = getattr(channel, "stream", None) or channel._stream._stream
    return getattr(stream, "transport_stream", stream).socket


@contextlib.asynccontextmanager
async def over(kind, ours, theirs):
    """Turn two joined channels into channels that are carried by them."""
    if kind == "forwarding":
        acceptor = Acceptor()
        forwardings = open_forwarding_pair(
            routes_b={"channel": acceptor},
            carriers=(ours, theirs),
            limits_a=LIMITS,
            limits_b=LIMITS,
        )
        async with forwardings as (a, _):
            yield await channel_pair(a, acceptor)
    elif kind == "resumable":
        ends = ResumableChannel(Resume()), ResumableChannel(Resume())
        async with trio.open_nursery() as nursery:
            for channel, carrier in zip(ends, (ours, theirs), strict=True):
                nursery.start_soon(channel.run)
                nursery.start_soon(channel.carry, carrier, 0)
            await wait_all_tasks_blocked()
            yield ends
            nursery.cancel_scope.cancel()
    elif kind == "begun":
        await theirs.send(b"first")
        begun = _Begun(ours, await ours.receive())
        await begun.receive()
        yield begun, theirs
    else:
        yield ours, theirs


async def request_large(channel):
    """Do the peer's part: open a session over its channel, and call ``large``."""
    peer = await open_raw_peer(channel, LIMITS)
    await channel.send(peer.bytes_of(m.Request(1, "large", [])))


class Peer:
    """The socket of a peer, which only the test reads."""

    def __init__(self, session, socket, *, is_silent):
        self.session = session
        self._is_silent = is_silent
        # A system need not tell the sender of room below a sixteenth of this.
        socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 2 * TCP_READS)
        self._descriptor = os.dup(socket.fileno())
        socket.close()  # wakes the tasks of the peer, which find no socket

    def read(self, size):
        """Read that many bytes, or as many as there are."""
        while size > 0:
            try:
                size -= len(os.read(self._descriptor, size))
            except BlockingIOError:
                return

    async def live(self, clock, intervals, *, reads):
        """Read that many bytes in each interval. Return how many intervals the session lasted."""
        for number in range(intervals):
            self.read(reads)
            await wait_all_tasks_blocked(0.005)
            if not self.session.is_open:
                return number
            if not self._is_silent:
                self.session._core.protocol.counters.packets_received += 1
            for _ in range(10):  # in one step, the loop would seem to have been blocked
                await wait_all_tasks_blocked()
                clock.jump(LIMITS.keepalive_interval / 10)
        return intervals

    def close(self):
        """Close the socket, so that the session ends at once."""
        os.close(self._descriptor)


@contextlib.asynccontextmanager
async def session_with_peer(nursery, tmp_path, tls, clock, kind, *, is_silent):
    """Open a session that has a large result for a peer, whose socket belongs to the test."""
    service = Large()
    base = Transport(kind if kind in SOCKETS else "unix", nursery, tmp_path, tls)
    async with (
        base.join(LIMITS, LIMITS) as carriers,
        over(kind, *carriers) as (ours, theirs),
    ):
        nursery.start_soon(request_large, theirs)
        async with trio_rpc.open_session(ours, service, limits=LIMITS, on_end="keep") as session:
            await wait_all_tasks_blocked(0.005)
            peer = Peer(session, socket_of(carriers[1]), is_silent=is_silent)
            try:
                await wait_all_tasks_blocked(0.005)
                service.go.set()
                yield peer
            finally:
                peer.close()
                session._core.lifecycle.stop()
                clock.autojump_threshold = 0.005


@pytest.fixture
def open_peer(nursery, tmp_path, server_tls, autojump_clock):
    """Return a function that opens a session with a slow peer over one kind of channel."""
    return partial(session_with_peer, nursery, tmp_path, server_tls, autojump_clock)


@pytest.mark.parametrize(("kind", "is_silent"), CASES)
async def test_law_12_a_peer_that_takes_nothing_loses_its_session_over_any_transport(
    kind, is_silent, open_peer, autojump_clock
):
    async with open_peer(kind, is_silent=is_silent) as peer:
        # The system's buffers take some at first.
        assert await peer.live(autojump_clock, 25, reads=0) < 25
        autojump_clock.autojump_threshold = 0.005
        end = await peer.session.wait_closed()
        if kind != "resumable" or not is_silent:  # that one waits for a connection first
            reason = "was silent for 40 s" if is_silent else "has taken nothing for 40 s"
            assert reason in end.reason


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell how much was read")
@pytest.mark.parametrize(("kind", "is_silent"), CASES)
async def test_law_12_a_peer_that_takes_a_little_keeps_its_session_over_any_transport(
    kind, is_silent, open_peer, autojump_clock
):
    reads = TCP_READS if kind in ("tcp", "tls", "ws", "wss") else UNIX_READS
    async with open_peer(kind, is_silent=is_silent) as peer:
        assert await peer.live(autojump_clock, 15, reads=reads) == 15

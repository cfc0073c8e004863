"""A peer without a driver, so that a test decides which message it sends, and when."""

from __future__ import annotations

import contextlib
from collections import deque

import trio

from trio_rpc import DEFAULT_LIMITS, open_session
from trio_rpc.protocol.protocol import Protocol
from trio_rpc.protocol.states import Half
from trio_rpc.testing import memory_channel_pair
from trio_rpc.wire import messages as m
from trio_rpc.wire.codec import Codec, Forms

HELLO = m.Hello(
    m.PROTOCOL_VERSION,
    {
        "calls": 100,
        "notifications": 100,
        "max_message": 10**6,
        "max_packet": 20_000,
        "max_depth": 64,
        "max_nodes": 10_000,
    },
)


class RawPeer:
    """One end of a memory channel, with a protocol state machine that a test may use."""

    def __init__(self, channel, limits=DEFAULT_LIMITS):
        self.channel = channel
        self.codec = Codec(None, limits)
        self.protocol = Protocol(Codec(None, limits), limits)
        self.received = []
        self._unread = deque()

    def flush(self):
        """Send all messages that the protocol has queued, in as few packets as possible."""
        while (packet := self.protocol.next_packet()) is not None:
            assert self.channel.send_nowait(packet)

    def send(self, *messages):
        """Send these messages in one packet, whether they are legal or not."""
        assert self.channel.send_nowait(self.bytes_of(*messages))

    def bytes_of(self, *messages):
        return b"".join(self.codec.encode(message) for message in messages)

    async def read_packet(self):
        """Receive one packet and return its messages, as they are on the wire."""
        messages = list(self.codec.decode(await self.channel.receive()))
        self.received += messages
        return messages

    async def read(self, kind):
        """Return the next message of that kind, skipping others."""
        while True:
            while self._unread:
                if isinstance(message := self._unread.popleft(), kind):
                    return message
            self._unread.extend(await self.read_packet())

    async def read_all(self, kind, count):
        """Return the next ``count`` messages of that kind, skipping others."""
        return [await self.read(kind) for _ in range(count)]

    async def read_until_closed(self):
        """Receive packets until the channel ends, and return all messages ever received."""
        with contextlib.suppress(trio.EndOfChannel, trio.BrokenResourceError):
            while True:
                await self.read_packet()
        return self.received

    async def until_open(self):
        """Receive until the other end has accepted this peer."""
        while self.protocol.theirs is not Half.OPEN:
            packet = await self.channel.receive()
            self.received += self.codec.decode(packet)
            for _ in self.protocol.receive(packet):
                pass

    def count(self, kind, call):
        return sum(isinstance(each, kind) and each.id == call for each in self.received)


async def open_raw_peer(channel, limits):
    """Do a peer's part of the handshake over its end of a channel, and return the peer."""
    peer = RawPeer(channel, limits)
    peer.protocol.hello()
    peer.protocol.welcome()
    await channel.send(peer.protocol.next_packet())
    await peer.until_open()
    return peer


@contextlib.asynccontextmanager
async def session_with_raw_peer(
    services=None,
    *,
    max_buffer=64 * 1024,
    peer_limits=DEFAULT_LIMITS,
    on_end="keep",
    **options,
):
    """Open a session whose other end is a :class:`RawPeer` that has been welcomed.

    The peer says that it has registered the types of the session, and sends their bytes by hand.

    If the peer ends the session, the body is not cancelled, so that a test can inspect the session.
    """
    ours, theirs = memory_channel_pair(max_buffer)
    peer = RawPeer(theirs, peer_limits)
    if (registry := options.get("registry")) is not None:
        peer.protocol._codec.forms = Forms(tags=registry.tags)
    peer.protocol.hello()
    peer.protocol.welcome()
    peer.flush()
    async with open_session(ours, services, on_end=on_end, **options) as session:
        await peer.until_open()
        try:
            yield session, peer
        finally:
            # This peer does not answer a Goodbye: the session must not wait for one.
            peer.channel.close()


async def close_at_once(session):
    """Close a session without waiting for its in-flight calls."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await session.aclose()
    await session.wait_closed()

"""Packets over a byte stream, each preceded by its length, as docs/protocol.md says.

Cancellation
------------
``receive`` removes a packet from its buffer only when the packet is complete and nothing can fail
any more, so a cancelled ``receive`` loses nothing. A ``send`` may be cancelled when half a packet
is on the wire. The peer would then take the next bytes for the other half. Over a socket the
channel knows the rest of the packet, keeps it, and sends it before anything else. Over other
streams (TLS) it does not know the rest, so it refuses to send from then on. In both cases the
peer never sees a garbled packet.
"""

from __future__ import annotations

import trio

from trio_rpc.channels.errors import ChannelGuard
from trio_rpc.channels.taken import waiting_in_system
from trio_rpc.channels.tls import is_shaking_hands, shake_hands
from trio_rpc.channels.transports import choose_transport
from trio_rpc.errors import DecodeError
from trio_rpc.util.places import untangled
from trio_rpc.util.time_limits import PacketTimer
from trio_rpc.wire.framing import FrameReader
from trio_rpc.wire.limits import DEFAULT_LIMITS
from trio_rpc.wire.parts import BufferList

__all__ = ["READ_SIZE", "StreamChannel"]

READ_SIZE = 64 * 1024
"""Bytes to read when the size of the next packet is not known.

Each read allocates this much memory. The C library maps and unmaps an allocation of more than
128 KiB each time. That took 20 µs at each end of a call once the heap had been in use for a while.
"""

MOST_DROPPED = 16 * 1024 * 1024
"""Bytes that a peer may send after our end of the stream before it sees a reset."""

SMALL_READ = 4096
"""Bytes to read where a small packet is expected, for instance a Hello."""

_FOREIGN = {
    b"\x16\x03": "a TLS handshake: this is not a TLS port",
    b"\x15\x03": "a TLS alert: the other end expects TLS",
    b"GE": "an HTTP request",
    b"PO": "an HTTP request",
    b"HT": "an HTTP answer",
    b"SS": "an SSH greeting",
    b"IN": "the greeting of a NATS server; its URLs begin with nats://",
}


class StreamChannel(trio.abc.Channel[bytes]):
    """A channel of whole packets over any ``trio.abc.Stream``, which it then owns.

    Two tasks may use it at once if one sends and the other receives.

    Args:
        stream: a connected stream, at its beginning or between two packets.
        max_packet: size in bytes of the largest packet that is received. A larger one is refused
            once its length has been read, before any memory is spent on it.
        packet_timeout: seconds that ``receive`` waits from the first to the last byte of one
            packet. Time in which no task receives, or this program is blocked, does not count.

    Attributes:
        stream: the stream, for its own methods: addresses, ``getpeercert()``.
        is_closed: whether the connection has been closed from this end.
        heard: how many times bytes have arrived: a sign of life, even inside a packet.
        takes_parts: whether a packet to send may be a ``BufferList``, which need not be joined.
    """

    takes_parts = True

    def __init__(
        self,
        stream: trio.abc.Stream,
        max_packet: int = DEFAULT_LIMITS.max_packet,
        *,
        packet_timeout: float = DEFAULT_LIMITS.packet_timeout,
    ) -> None:
        self.stream = stream
        self.is_closed = False
        self.heard = 0
        self._transport = choose_transport(stream)
        self._frames = FrameReader(max_packet)
        self._packet_timeout = packet_timeout
        self._timer: PacketTimer | None = None
        """The time of the packet that has begun, once a task waits for its rest."""
        self._greeting = b""
        self._guard = ChannelGuard()

    def __repr__(self) -> str:
        state = "closed " if self._guard.is_closed else ""
        return f"<{state}StreamChannel over {type(self.stream).__name__}>"

    async def prepare(self) -> None:
        """Finish the TLS handshake, if the stream uses TLS.

        A listener hands out its channels before their handshake, so that a slow client delays only
        itself. The caller bounds the time.

        Raises:
            ssl.SSLError: the handshake failed; an OSError whose text is one line.
        """
        await shake_hands(self.stream)

    async def send(self, value: bytes | BufferList) -> None:
        """Send one packet, which may be in several buffers: see ``takes_parts``.

        If cancelled, either nothing was sent, or the peer gets the whole packet later or no
        packets at all from then on (see this module's docstring).

        Args:
            value: the packet; at least one byte.

        Raises:
            ValueError: the packet is empty, or its size does not fit in the length field.
            trio.BrokenResourceError: the connection is lost, or was cut by a cancelled send.
            trio.ClosedResourceError: this end is closed, or was closed while sending.
            trio.BusyResourceError: another task is sending.
        """
        self._check_send(value)
        self._guard.begin_sending()
        try:
            await self._transport.write(value)
        finally:
            self._guard.is_sending = False

    def send_nowait(self, value: bytes | BufferList) -> bool:
        """Accept a packet if that needs no waiting, and return whether it was accepted.

        True means that the packet was sent, or that the next ``send`` or ``flush`` sends its rest
        before anything else. False means that nothing has happened, because the system has no
        room, a task is sending, the rest of a packet is waiting, or the stream cannot do this
        (TLS).

        Args:
            value: the packet; at least one byte.

        Raises:
            Exception: the same errors as :meth:`send`.
        """
        self._check_send(value)
        return not self._guard.is_sending and self._transport.write_nowait(value)

    async def flush(self) -> None:
        """Send the rest of a packet that ``send_nowait`` or a cancelled ``send`` took.

        If cancelled, the channel keeps the unsent rest.

        Raises:
            Exception: the same errors as :meth:`send`.
        """
        self._guard.check_open()
        self._guard.begin_sending()
        try:
            await self._transport.flush()
        finally:
            self._guard.is_sending = False

    @property
    def unsent(self) -> int:
        """Bytes that ``flush`` would send."""
        return self._transport.unsent

    @property
    def taken(self) -> object:
        """A value that changes when the other end reads a part of the unsent data."""
        return self._transport.unsent, waiting_in_system(self.stream)

    async def receive(self) -> bytes:
        """Return the next packet. If cancelled, no packet is lost.

        Raises:
            trio.EndOfChannel: the peer closed the stream after a whole packet.
            trio.BrokenResourceError: the connection is lost, ended inside a packet, ended without
                ``close_notify`` (over TLS), or a packet took too long.
            trio.ClosedResourceError: this end is closed, or was closed while waiting.
            trio.BusyResourceError: another task is receiving.
            DecodeError: the peer announced a packet that is empty or too large.
        """
        # 1. Between packets, no packet can be late, so no timed cancel scope is needed. One read
        #    mostly brings a whole packet. If a large packet begins, as much of it as has arrived is
        #    read next.
        # 2. If bytes are buffered, the packet may be complete already. It is removed from the
        #    buffer between the two halves of a checkpoint, so that a cancellation cannot lose it.
        # 3. Otherwise a packet has begun, and its timer bounds the wait for its rest.
        guard = self._guard
        guard.check_open()
        guard.begin_receiving()
        try:
            if not self._frames.partial:  # (1)
                packet = self._take_in(await self._transport.read(READ_SIZE))
                if packet is None and self._read_arrived():
                    packet = self._frames.next_frame()
                return packet if packet is not None else await self._receive_rest()  # (3)
            await trio.lowlevel.checkpoint_if_cancelled()  # (2)
            packet = self._frames.next_frame()
            if packet is None:
                return await self._receive_rest()  # (3)
            await trio.lowlevel.cancel_shielded_checkpoint()
            return packet
        except DecodeError as exc:
            raise self._explained(exc) from None
        finally:
            guard.is_receiving = False

    def receive_nowait(self) -> bytes:
        """Return the next packet if all of it has arrived, or raise ``trio.WouldBlock``.

        A subclass with its own ``receive`` always raises ``trio.WouldBlock``, and so does a
        TLS channel unless the packet is already buffered.

        Raises:
            trio.WouldBlock: no whole packet has arrived.
            Exception: the same errors as :meth:`receive`.
        """
        if type(self).receive is not StreamChannel.receive or self._guard.is_receiving:
            raise trio.WouldBlock
        self._guard.check_open()
        try:
            if self._frames.partial:
                packet = self._frames.next_frame()
            else:
                space = memoryview(bytearray(SMALL_READ))
                count = self._transport.read_nowait(space)
                if count is None:
                    raise trio.WouldBlock
                packet = self._take_in(bytes(space[:count]))
        except DecodeError as exc:
            raise self._explained(exc) from None
        if packet is None:
            raise trio.WouldBlock
        return packet

    def stop_receiving(self) -> None:
        """Stop receiving, and make a waiting ``receive`` raise ``trio.ClosedResourceError``.

        This includes a ``receive`` that got the first part of a packet in this very tick, and
        would now wait for the rest.
        """
        self._transport.stop_reading()

    async def linger(self) -> None:
        """Send the end of the stream, and drop incoming data until the peer's end.

        At most about ``MOST_DROPPED`` bytes are dropped.

        If a socket is closed while data arrives, the system sends a reset. The peer's system then
        discards data that the peer has not read yet, for instance a Goodbye with a reason.
        The caller bounds the time, and must still close the channel, which is otherwise unusable.
        This does nothing over a stream that cannot do it.
        """
        self._guard.is_closed = True  # no other task may begin to receive while this one reads
        if self._guard.is_receiving:
            self.stop_receiving()
        while self._guard.is_receiving:
            await trio.lowlevel.checkpoint()
        await self._transport.linger(MOST_DROPPED)

    async def aclose(self) -> None:
        """Close the connection. Packets for which ``send`` has returned are still delivered.

        This does not wait for bytes that ``flush`` would send. Over TLS it waits until
        ``close_notify`` is sent. If cancelled, it closes the connection at once.
        """
        self._guard.is_closed = self.is_closed = True
        # Sending close_notify requires a finished handshake, and that no other task is sending.
        # Without them it would wait for a peer that may never do its part.
        if self._guard.is_sending or is_shaking_hands(self.stream):
            await trio.aclose_forcefully(self.stream)
            return
        try:
            with untangled():
                await self.stream.aclose()
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            # The connection was lost before it could be closed gracefully. It is closed now.
            await trio.lowlevel.cancel_shielded_checkpoint()

    def close_nowait(self) -> bool:
        """Close the channel if that needs no waiting; return whether it was closed.

        This is not possible over TLS, which must send ``close_notify``, or in a subclass with its
        own ``aclose``.
        """
        has_more_to_do = type(self).aclose is not StreamChannel.aclose
        if has_more_to_do or not isinstance(self.stream, trio.SocketStream):
            return False
        self._guard.is_closed = self.is_closed = True
        self.stream.socket.close()
        return True

    def abort(self) -> None:
        """Close so that the other end sees a break and not an orderly end, if that is possible.

        ``aclose`` is still required. Over TLS a forceful close has this effect anyway.
        """
        self._guard.is_closed = True
        self._transport.cut()

    def _check_send(self, packet: bytes | BufferList) -> None:
        self._guard.check_open()
        if not 0 < len(packet) < 2**32:
            raise ValueError(f"a packet has 1 to 4294967295 bytes, not {len(packet)}")

    async def _receive_rest(self) -> bytes:
        """Wait for the rest of a packet that has begun, as long as its timer allows."""
        timer = self._timer = self._timer or PacketTimer(self._packet_timeout)
        packet = None
        while packet is None:
            packet = await timer.wait(self._read_packet)
        self._timer = None
        return packet

    async def _read_packet(self) -> bytes:
        packet = self._frames.next_frame()
        while packet is None:
            packet = await self._read_more()
        return packet

    async def _read_more(self) -> bytes | None:
        space = self._frames.space()
        if space is None:
            return self._take_in(await self._transport.read(READ_SIZE))
        count = await self._transport.read_into(space)
        self._frames.filled(count)
        self._count(count)
        return self._frames.next_frame()

    def _read_arrived(self) -> bool:
        """Read as much of the rest of a large packet as has arrived; return whether any had."""
        space = self._frames.space()
        count = None if space is None else self._transport.read_nowait(space)
        if not count:
            return False
        self._frames.filled(count)
        self.heard += 1
        return True

    def _take_in(self, data: bytes) -> bytes | None:
        """Add bytes that have arrived, and return the next packet if it is complete."""
        if not self._greeting:
            self._greeting = data[:2]
        if not data:
            self._count(0)
        self.heard += 1
        return self._frames.first_of(data)

    def _count(self, count: int) -> None:
        if count:
            self.heard += 1
        elif self._frames.partial:
            raise trio.BrokenResourceError("the connection ended inside a packet")
        else:
            raise trio.EndOfChannel

    def _explained(self, exc: DecodeError) -> DecodeError:
        """Add the protocol that the peer seems to speak, if its first bytes are known.

        Each of these greetings, read as a length, is beyond any limit.
        """
        meaning = _FOREIGN.get(self._greeting)
        return DecodeError(f"{exc}; it looks like {meaning}") if meaning else exc

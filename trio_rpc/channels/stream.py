"""Packets over a byte stream: each behind its length, as docs/protocol.md says.

What cancelling does
--------------------
``receive`` takes a packet only when the whole of it is there and nothing can go wrong any more,
so a cancelled one loses nothing. A ``send`` that is cancelled with half a packet on the wire is
another matter: the peer takes whatever comes next for the other half. Over a socket the rest is
known, is kept, and leaves before anything else does; over other streams (TLS) it is not, so the
channel refuses to send from then on. Either way nothing is ever garbled.
"""

from __future__ import annotations

import trio

from trio_rpc.channels.errors import ChannelGuard
from trio_rpc.channels.tls import is_shaking_hands, shake_hands
from trio_rpc.channels.transports import choose_transport
from trio_rpc.errors import DecodeError
from trio_rpc.util.packet_timer import PacketTimer
from trio_rpc.util.places import untangled
from trio_rpc.wire.framing import FrameReader
from trio_rpc.wire.limits import DEFAULT_LIMITS
from trio_rpc.wire.parts import BufferList

__all__ = ["READ_SIZE", "StreamChannel"]

READ_SIZE = 64 * 1024
"""Bytes asked for when nobody knows what comes.

Memory is reserved for them, and what is larger than 128 KiB the C library has mapped and unmapped by the system each
time: that took 20 µs at each end of a call, as soon as the heap had been in use for a while.
"""

MOST_DROPPED = 16 * 1024 * 1024
"""Bytes that a peer may send after the end of our side before it sees a reset."""

SMALL_READ = 4096
"""Bytes asked for where a small packet is expected, a Hello for instance."""

_FOREIGN = {
    b"\x16\x03": "a TLS handshake: this is not a TLS port",
    b"\x15\x03": "a TLS alert: the other end expects TLS",
    b"GE": "an HTTP request",
    b"PO": "an HTTP request",
    b"HT": "an HTTP answer",
    b"SS": "an SSH greeting",
}


class StreamChannel(trio.abc.Channel[bytes]):
    """A channel of whole packets over any ``trio.abc.Stream``, which it then owns.

    Two tasks may use it at once if one sends and the other receives.

    Args:
        stream: a connected stream, fresh or at the boundary of a packet.
        max_packet: bytes of the largest packet that is received; a larger one is refused when
            its length has been read, before any memory is spent on it.
        packet_timeout: seconds that ``receive`` waits from the first to the last byte of one
            packet. Time in which nobody receives, or this program is blocked, does not count.

    Attributes:
        stream: the stream, for what is its own: addresses, ``getpeercert()``.
        is_closed: whether ``aclose`` has been called.
        heard: how many times bytes have come: a sign of life, even inside a packet.
        takes_parts: packets to send may be ``BufferList``, which need not be joined.
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
        self._timer = PacketTimer(packet_timeout)
        self._greeting = b""
        self._guard = ChannelGuard()

    def __repr__(self) -> str:
        state = "closed " if self._guard.is_closed else ""
        return f"<{state}StreamChannel over {type(self.stream).__name__}>"

    async def prepare(self) -> None:
        """Finish the TLS handshake, if there is to be one.

        A listener hands out its channels before their handshake, so that a slow client holds up
        nobody but itself. The caller bounds the time.

        Raises:
            ssl.SSLError: the handshake failed; an OSError whose text is one line.
        """
        await shake_hands(self.stream)

    async def send(self, value: bytes | BufferList) -> None:
        """Send one packet. It need not lie in one place: see ``takes_parts``.

        Cancelled, it has sent nothing, or the channel sees to it that the peer gets the packet
        whole or no packet any more (see this module's docstring).

        Args:
            value: the packet; at least one byte.

        Raises:
            ValueError: the packet is empty or larger than a length can say.
            trio.BrokenResourceError: the connection is lost, or was cut by a cancelled send.
            trio.ClosedResourceError: this end is closed, or was while sending.
            trio.BusyResourceError: another task is sending.
        """
        self._check_send(value)
        with self._guard.sending:
            await self._transport.write(value)

    def send_nowait(self, value: bytes | BufferList) -> bool:
        """Take a packet over if that needs no waiting.

        True means that it has left, or that its rest leaves before anything else does: with the
        next ``send``, or a ``flush``. False means that nothing has happened, because the system
        has no room, a task is sending, a rest is waiting, or the stream cannot do this (TLS).

        Raises as ``send`` does.
        """
        self._check_send(value)
        return not self._guard.sending.is_held and self._transport.write_nowait(value)

    async def flush(self) -> None:
        """Send what is left of a packet that ``send_nowait`` or a cancelled ``send`` took over.

        Cancelled, it keeps what is still left. Raises as ``send`` does.
        """
        self._guard.check_open()
        with self._guard.sending:
            await self._transport.flush()

    @property
    def unsent(self) -> int:
        """Bytes that ``flush`` would send."""
        return self._transport.unsent

    async def receive(self) -> bytes:
        """Return the next packet. Cancelled, it has lost nothing.

        Raises:
            trio.EndOfChannel: the peer closed, after a whole packet.
            trio.BrokenResourceError: the connection is lost, ended inside a packet (over TLS:
                without the peer's word that this is the end), or a packet took too long.
            trio.ClosedResourceError: this end is closed, or was while waiting.
            trio.BusyResourceError: another task is receiving.
            DecodeError: the peer announced a packet that is empty or too large.
        """
        self._guard.check_open()
        with self._guard.receiving:
            try:
                return await self._receive()
            except DecodeError as exc:
                raise self._explained(exc) from None

    def receive_nowait(self) -> bytes:
        """Return the next packet if all of it has arrived, or raise ``trio.WouldBlock``.

        So it does over TLS, and in a class that has a ``receive`` of its own. Raises as ``receive`` does.
        """
        if type(self).receive is not StreamChannel.receive or self._guard.receiving.is_held:
            raise trio.WouldBlock
        self._guard.check_open()
        if not self._frames.partial:
            space = memoryview(bytearray(SMALL_READ))
            count = self._transport.read_nowait(space)
            if count is None:
                raise trio.WouldBlock
            self._take_in(bytes(space[:count]))
        try:
            packet = self._frames.next_frame()
        except DecodeError as exc:
            raise self._explained(exc) from None
        if packet is None:
            raise trio.WouldBlock
        return packet

    def stop_receiving(self) -> None:
        """Receive no more: have the ``receive`` that waits, if one does, raise ``trio.ClosedResourceError``.

        Also one that has had the first part of a packet in this very tick, and would wait for the rest.
        """
        self._transport.stop_reading()

    async def linger(self) -> None:
        """Send the end of the stream, and drop what comes until the peer's end, at most ``MOST_DROPPED`` bytes.

        A system that has a socket closed while something comes tells the peer so by a reset, on which the
        peer's system throws away what it has not read yet: a Goodbye that says why, for instance. The caller bounds the
        time, and closes the channel, which is of no more use. Nothing is done over a stream that cannot do this.
        """
        self._guard.is_closed = True  # a task that would receive now must not read beside this one
        if self._guard.receiving.is_held:
            self.stop_receiving()
        while self._guard.receiving.is_held:
            await trio.lowlevel.checkpoint()
        await self._transport.linger(MOST_DROPPED)

    async def aclose(self) -> None:
        """Close the connection; what ``send`` has returned for is still delivered.

        It does not wait for what ``flush`` would send. Over TLS it waits until the peer takes
        the last word. Cancelled, it closes at once, and just the same.
        """
        self._guard.is_closed = self.is_closed = True
        # Saying goodbye over TLS takes a finished handshake and the turn to send. Without them
        # it would wait for a peer who may never do his part.
        if self._guard.sending.is_held or is_shaking_hands(self.stream):
            await trio.aclose_forcefully(self.stream)
            return
        try:
            with untangled():
                await self.stream.aclose()
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            # The connection was lost before it could be closed politely. It is closed.
            await trio.lowlevel.cancel_shielded_checkpoint()

    def close_nowait(self) -> bool:
        """Close if that needs no waiting, and tell whether it is done.

        It is not over TLS, where there is a last word to say, nor in a class that has more to do in its ``aclose``.
        """
        has_more_to_do = type(self).aclose is not StreamChannel.aclose
        if has_more_to_do or not isinstance(self.stream, trio.SocketStream):
            return False
        self._guard.is_closed = self.is_closed = True
        self.stream.socket.close()
        return True

    def abort(self) -> None:
        """Close so that the other end sees a break, and no orderly end, as far as there is a way.

        ``aclose`` is still needed. Over TLS a forceful one has this effect anyway.
        """
        self._guard.is_closed = True
        self._transport.cut()

    def _check_send(self, packet: bytes | BufferList) -> None:
        self._guard.check_open()
        if not 0 < len(packet) < 2**32:
            raise ValueError(f"a packet has 1 to 4294967295 bytes, not {len(packet)}")

    async def _receive(self) -> bytes:
        if not self._frames.partial:
            # Nothing has begun, so nothing is late: most packets come this way, without a scope.
            self._take_in(await self._transport.read(READ_SIZE))
            packet = self._frames.next_frame()
            if packet is None and self._take_what_is_there():
                packet = self._frames.next_frame()
            return packet if packet is not None else await self._receive_rest()
        await trio.lowlevel.checkpoint_if_cancelled()
        packet = self._frames.next_frame()
        if packet is None:
            return await self._receive_rest()
        await trio.lowlevel.cancel_shielded_checkpoint()
        return packet

    async def _receive_rest(self) -> bytes:
        """Wait for the rest of a packet that has begun, as long as its timer allows."""
        packet = None
        while packet is None:
            with self._timer.bound():
                while (packet := self._frames.next_frame()) is None:
                    await self._read_more()
        self._timer.renew()
        return packet

    async def _read_more(self) -> None:
        space = self._frames.space()
        if space is None:
            self._take_in(await self._transport.read(READ_SIZE))
        else:
            count = await self._transport.read_into(space)
            self._frames.filled(count)
            self._count(count)

    def _take_what_is_there(self) -> bool:
        """Take as much of the rest of a large packet as needs no waiting; False if that is nothing."""
        space = self._frames.space()
        count = None if space is None else self._transport.read_nowait(space)
        if not count:
            return False
        self._frames.filled(count)
        self.heard += 1
        return True

    def _take_in(self, data: bytes) -> None:
        if not self._greeting:
            self._greeting = data[:2]
        self._frames.feed(data)
        self._count(len(data))

    def _count(self, count: int) -> None:
        if count:
            self.heard += 1
        elif self._frames.partial:
            raise trio.BrokenResourceError("the connection ended inside a packet")
        else:
            raise trio.EndOfChannel

    def _explained(self, exc: DecodeError) -> DecodeError:
        """Say what a stranger seems to speak; each of these would be a packet beyond any limit."""
        meaning = _FOREIGN.get(self._greeting)
        return DecodeError(f"{exc}; it looks like {meaning}") if meaning else exc

"""A channel within one process: two ends, a queue in each direction, and no copying.

It behaves like a network connection that carries packets: its buffer is bounded, the receiver sees
an orderly end after the last packet, and it sees a break at once. Nothing in it takes time, so
tests with ``trio.testing.MockClock`` are exact.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio

from trio_rpc.channels.errors import ChannelGuard, closed_error
from trio_rpc.errors import DecodeError
from trio_rpc.wire.limits import DEFAULT_LIMITS

__all__ = ["MemoryChannel", "memory_channel_pair"]


class _Pipe:
    """One direction: packets that were sent and not yet received."""

    __slots__ = ("broken", "closed", "max_buffer", "packets", "receivers", "senders", "size")

    def __init__(self, max_buffer: int) -> None:
        self.max_buffer = max_buffer
        self.packets: deque[bytes] = deque()
        self.size = 0
        self.broken = False
        self.closed = False
        """One of the ends is closed."""
        self.senders = trio.lowlevel.ParkingLot()
        self.receivers = trio.lowlevel.ParkingLot()

    def has_room(self, size: int) -> bool:
        # An empty pipe takes any packet, so one larger than the buffer also gets through.
        return not self.packets or self.size + size <= self.max_buffer

    def put(self, packet: bytes) -> None:
        self.packets.append(packet)
        self.size += len(packet)
        self.receivers.unpark_all()

    def get(self) -> bytes:
        packet = self.packets.popleft()
        self.size -= len(packet)
        self.senders.unpark_all()
        return packet

    def wake(self) -> None:
        self.receivers.unpark_all()
        self.senders.unpark_all()


class MemoryChannel(trio.abc.Channel[bytes]):
    """One end of a pair made by :func:`memory_channel_pair`.

    Attributes:
        on_send: for tests. Called with every packet that this end sends, before it is queued. Its
            result is sent instead of the packet; None drops the packet.
    """

    def __init__(self, inbox: _Pipe, outbox: _Pipe, max_packet: int) -> None:
        self.on_send: Callable[[bytes], bytes | None] | None = None
        self._inbox = inbox
        self._outbox = outbox
        self._max_packet = max_packet
        self._stopped = False
        self._guard = ChannelGuard()

    def __repr__(self) -> str:
        state = "closed " if self._guard.is_closed else ""
        return f"<{state}MemoryChannel {len(self._inbox.packets)} to receive>"

    async def send(self, value: bytes) -> None:
        """Send one packet, and wait while the buffer is full. If cancelled, nothing was sent.

        Args:
            value: the packet; at least one byte.

        Raises:
            ValueError: the packet is empty.
            trio.BrokenResourceError: the other end is closed, or the pair was broken.
            trio.ClosedResourceError: this end is closed, or was closed while waiting.
            trio.BusyResourceError: another task is sending.
        """
        self._guard.begin_sending()
        try:
            self._check_send(value)
            await trio.lowlevel.checkpoint_if_cancelled()
            waited = False
            while not self._outbox.has_room(len(value)):
                await self._outbox.senders.park()
                waited = True
                self._check_send(value)
            self._put(value)
            if not waited:
                await trio.lowlevel.cancel_shielded_checkpoint()
        finally:
            self._guard.is_sending = False

    def send_nowait(self, value: bytes) -> bool:
        """Send one packet if there is room and no task is sending; return whether it was sent.

        Args:
            value: the packet; at least one byte.

        Raises:
            Exception: the same errors as :meth:`send`.
        """
        self._check_send(value)
        if self._guard.is_sending or not self._outbox.has_room(len(value)):
            return False
        self._put(value)
        return True

    async def flush(self) -> None:
        """Execute a checkpoint only: every packet that ``send_nowait`` took has been sent."""
        await trio.lowlevel.checkpoint()
        self._guard.check_open()

    @property
    def unsent(self) -> int:
        """Always 0: every packet that ``send_nowait`` took has been sent."""
        return 0

    async def receive(self) -> bytes:
        """Return the next packet. If cancelled, no packet is lost.

        Raises:
            trio.EndOfChannel: the other end is closed, and every packet it sent has been received.
            trio.BrokenResourceError: the pair was broken.
            trio.ClosedResourceError: this end is closed, or was closed while waiting.
            trio.BusyResourceError: another task is receiving.
            DecodeError: the packet is larger than this end allows.
        """
        self._guard.begin_receiving()
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            waited = False
            while not self._can_receive():
                await self._inbox.receivers.park()
                waited = True
            packet = self._get()
            if not waited:
                await trio.lowlevel.cancel_shielded_checkpoint()
            return packet
        finally:
            self._guard.is_receiving = False

    def stop_receiving(self) -> None:
        """Make a waiting ``receive`` raise ``trio.ClosedResourceError``."""
        self._stopped = True
        self._inbox.wake()

    async def aclose(self) -> None:
        """Close this end. The other end still receives all sent packets, then the end."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Close this end without waiting. Packets that it has not received are lost."""
        self._guard.is_closed = self._inbox.closed = self._outbox.closed = True
        self._inbox.packets.clear()
        self._inbox.wake()
        self._outbox.wake()

    def abort(self) -> None:
        """Break the connection at once at both ends, as a reset does. Queued packets are lost."""
        for pipe in (self._inbox, self._outbox):
            pipe.broken = True
            pipe.packets.clear()
            pipe.wake()

    def _check_send(self, packet: bytes) -> None:
        self._guard.check_open()
        if not packet:
            raise ValueError("a packet has at least one byte")
        if self._outbox.broken or self._outbox.closed:
            raise trio.BrokenResourceError("the other end of the pair is closed or broken")

    def _put(self, packet: bytes) -> None:
        travelling = self.on_send(packet) if self.on_send is not None else packet
        if travelling is not None:
            self._outbox.put(travelling)

    def _can_receive(self) -> bool:
        """Return whether ``receive`` has a packet to return; raise if the channel has ended."""
        self._guard.check_open()
        if self._stopped:
            raise closed_error()
        if self._inbox.broken:
            raise trio.BrokenResourceError("the connection of the pair was broken")
        if self._inbox.packets:
            return True
        if self._inbox.closed:
            raise trio.EndOfChannel
        return False

    def _get(self) -> bytes:
        size = len(self._inbox.packets[0])
        if size > self._max_packet:
            raise DecodeError(f"a packet of {size} bytes; {self._max_packet} are allowed")
        return self._inbox.get()


def memory_channel_pair(
    max_buffer: int = 64 * 1024, *, max_packet: int = DEFAULT_LIMITS.max_packet
) -> tuple[MemoryChannel, MemoryChannel]:
    """Return two connected channels: each receives the packets that the other one sends.

    Args:
        max_buffer: bytes that may be queued in each direction before ``send`` waits. One packet
            always fits.
        max_packet: size in bytes of the largest packet that is received.
    """
    there, back = _Pipe(max_buffer), _Pipe(max_buffer)
    return MemoryChannel(back, there, max_packet), MemoryChannel(there, back, max_packet)

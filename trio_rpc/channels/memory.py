"""A channel within one process: two ends, a queue each way, nothing copied.

It behaves as a connection does that is given to its users as well-made packets: a bounded buffer,
an end that is seen after the last packet, a break that is seen at once. Nothing in it takes time,
so tests with ``trio.testing.MockClock`` are exact.
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
    """One direction: packets that were sent and not received."""

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
        # An empty pipe takes any packet: one larger than the buffer must get through as well.
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
        on_send: called with every packet that this end sends, before it is queued; what it
            returns travels in the packet's place, and None is lost on the way. For tests.
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
        """Send one packet; wait while the buffer is full. Cancelled, it has sent nothing.

        Raises:
            ValueError: the packet is empty.
            trio.BrokenResourceError: the other end is closed, or the pair was broken.
            trio.ClosedResourceError: this end is closed, or was while waiting.
            trio.BusyResourceError: another task is sending.
        """
        with self._guard.sending:
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

    def send_nowait(self, value: bytes) -> bool:
        """Send one packet if there is room and no task is sending; tell whether it was sent.

        Raises as ``send`` does.
        """
        self._check_send(value)
        if self._guard.sending.is_held or not self._outbox.has_room(len(value)):
            return False
        self._put(value)
        return True

    async def flush(self) -> None:
        """Do nothing but a checkpoint: a packet that was taken over has been sent."""
        await trio.lowlevel.checkpoint()
        self._guard.check_open()

    @property
    def unsent(self) -> int:
        """Always 0: a packet that was taken over has been sent."""
        return 0

    async def receive(self) -> bytes:
        """Return the next packet. Cancelled, it has lost nothing.

        Raises:
            trio.EndOfChannel: the other end is closed and all it had sent has been received.
            trio.BrokenResourceError: the pair was broken.
            trio.ClosedResourceError: this end is closed, or was while waiting.
            trio.BusyResourceError: another task is receiving.
            DecodeError: the packet is larger than this end allows.
        """
        with self._guard.receiving:
            await trio.lowlevel.checkpoint_if_cancelled()
            waited = False
            while not self._can_receive():
                await self._inbox.receivers.park()
                waited = True
            packet = self._get()
            if not waited:
                await trio.lowlevel.cancel_shielded_checkpoint()
            return packet

    def stop_receiving(self) -> None:
        """Have the ``receive`` that waits, if one does, raise ``trio.ClosedResourceError``."""
        self._stopped = True
        self._inbox.wake()

    async def aclose(self) -> None:
        """Close this end; the other one still gets what was sent, then the end."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Close this end without waiting; what it had not received is lost."""
        self._guard.is_closed = self._inbox.closed = self._outbox.closed = True
        self._inbox.packets.clear()
        self._inbox.wake()
        self._outbox.wake()

    def abort(self) -> None:
        """Break the connection, as a reset does: at once, at both ends, packets and all."""
        for pipe in (self._inbox, self._outbox):
            pipe.broken = True
            pipe.packets.clear()
            pipe.wake()

    def _check_send(self, packet: bytes) -> None:
        self._guard.check_open()
        if not packet:
            raise ValueError("a packet has at least one byte")
        if self._outbox.broken or self._outbox.closed:
            raise trio.BrokenResourceError("the other end of the pair has gone")

    def _put(self, packet: bytes) -> None:
        travelling = self.on_send(packet) if self.on_send is not None else packet
        if travelling is not None:
            self._outbox.put(travelling)

    def _can_receive(self) -> bool:
        """Tell whether ``receive`` has something to return or to raise."""
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
    """Make two channels: what one sends, the other receives.

    Args:
        max_buffer: bytes that wait in each direction before ``send`` waits too. One packet
            always fits.
        max_packet: bytes of the largest packet that is received.
    """
    there, back = _Pipe(max_buffer), _Pipe(max_buffer)
    return MemoryChannel(back, there, max_packet), MemoryChannel(there, back, max_packet)

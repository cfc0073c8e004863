"""The packet writer: one task writes a channel's packets, and callers may try to write at once.

1. A queue is the source. After adding to it, call :meth:`PacketWriter.wake`: the task writes a tick
   later, and messages queued in the meantime leave in the same packet. Or call
   :meth:`PacketWriter.write_now`, which saves the wake-up if nothing is expected to join.
2. ``write_now`` and the task use the channel's ``send_nowait``, if it has one, while that accepts
   packets. A packet that it refuses is held, and only the task waits to send it.
3. Nothing is written at once while the task has work, so nothing overtakes a held packet.
4. Only the task raises an error of the channel, since ``write_now`` may run in an abort function.

No task is needed until a packet is refused for the first time. So the owner says how to start one.
"""

from __future__ import annotations

from typing import Protocol

import trio
from trio.lowlevel import Abort

from trio_rpc.channels.optional import NowaitSend, nowait_send

__all__ = ["PacketSource", "PacketWriter", "StartsWriter"]

BURST = 512 * 1024
"""Bytes written at most in one turn of the loop. A turn costs as much as writing 64 KiB."""


class PacketSource(Protocol):
    """The queue that packets are taken from, and its owner."""

    @property
    def has_data(self) -> bool:
        """Whether a packet is queued, even if it still needs credit."""

    def next_packet(self) -> bytes | None:
        """Return the next packet, or None if no packet can be sent now."""

    def hold(self, size: int) -> None:
        """Record that ``size`` bytes of a taken packet wait for the channel; 0 if none do."""

    def progressed(self) -> None:
        """React to a packet that the channel has taken: there may be room again."""


class StartsWriter(Protocol):
    """Starts the task of a writer, when it is needed for the first time."""

    def start_writer(self) -> None:
        """Start a task for :meth:`PacketWriter.run`."""


class PacketWriter:
    """Writes the queued packets of a source, one at a time.

    Args:
        channel: the channel.
        source: the queue.
    """

    def __init__(self, channel: trio.abc.Channel[bytes], source: PacketSource) -> None:
        self._channel = channel
        self._source = source
        self._starter: StartsWriter | None = None
        self._nowait = nowait_send(channel)
        self._held: bytes | None = None
        self._is_idle = False
        """Whether the task waits to be woken, or has not been started."""
        self._is_woken = False
        """Whether the task has been woken but does not run yet."""
        self._parked: trio.lowlevel.Task | None = None
        self._drained: trio.Event | None = None
        """Set when the channel has taken the whole queue, if a task waits for that."""

    def start(self, starter: StartsWriter) -> None:
        """Allow writing; ``starter`` starts the task for :meth:`run` when it is needed.

        No task is needed while the system takes every packet at once.
        """
        self._starter = starter
        self._is_idle = True

    def stop(self) -> bool:
        """Stop writing; return whether there is a task, which the caller then cancels."""
        has_task, self._starter = self._starter is None, None
        self._is_idle = self._is_woken = False
        return has_task

    def let_go(self) -> None:
        """Drop the references to the owner. Nothing is written any more."""
        self._source = _EMPTY

    def wake(self) -> None:
        """Wake the task, which writes the queue, including messages queued in this tick."""
        if not self._is_idle:
            return
        self._is_idle, self._is_woken = False, True
        if self._parked is not None:
            task, self._parked = self._parked, None
            trio.lowlevel.reschedule(task)
        elif self._starter is not None:
            starter, self._starter = self._starter, None
            starter.start_writer()

    def write_now(self) -> None:
        """Write the queue as far as possible without blocking; the task writes the rest."""
        if not self._is_idle:
            return
        if self._nowait is None:
            if self._source.has_data:
                self.wake()
            return
        packet = self._source.next_packet()
        if packet is None:
            return
        self._held = _left_of(packet, self._nowait)
        if self._held is not None or self._nowait.unsent or self._source.has_data:
            self.wake()
        else:
            self._source.progressed()

    def write_before_the_task(self) -> None:
        """Write one packet without blocking, although the task has been woken to do so."""
        if self._nowait is not None and self._is_woken and self._held is None:
            packet = self._source.next_packet()
            if packet is not None:
                self._held = _left_of(packet, self._nowait)
                self._source.progressed()

    async def run(self) -> None:
        """Write until cancelled, or until the channel fails, whose error it raises."""
        while True:
            self._is_woken = False
            if self._nowait is None:
                packet = self._source.next_packet()
            else:
                packet = self._write_burst(self._nowait)
            if packet is not None:
                self._source.hold(len(packet))
                await self._channel.send(packet)
                self._source.hold(0)
                self._source.progressed()
            elif self._nowait is not None and self._nowait.unsent:
                self._source.hold(self._nowait.unsent)
                await self._nowait.flush()
                self._source.hold(0)
            else:
                await self._park()

    def _write_burst(self, channel: NowaitSend) -> bytes | None:
        """Write packets without blocking; return the first that would have to wait."""
        left = BURST
        while not channel.unsent:
            packet = self._held or self._source.next_packet()
            self._held = None
            if packet is None:
                return None
            left -= len(packet)
            if left < 0 or _left_of(packet, channel) is not None:
                return packet
            self._source.progressed()
        return None

    async def _park(self) -> None:
        self._parked = trio.lowlevel.current_task()
        self._is_idle = True
        if self._drained is not None:
            self._drained.set()
        await trio.lowlevel.wait_task_rescheduled(self._unpark)

    def _unpark(self, _raise_cancel: object) -> Abort:
        self._parked = None
        self._is_idle = False
        return Abort.SUCCEEDED

    @property
    def is_writing(self) -> bool:
        """Whether a packet waits for the channel to take it."""
        return not self._is_idle

    @property
    def is_done(self) -> bool:
        """Whether the channel has taken the whole queue."""
        return self._is_idle and not self._source.has_data

    async def drain(self) -> None:
        """Wait until the channel has taken the whole queue. The caller bounds the time."""
        self.wake()
        while not self.is_done:
            self._drained = trio.Event()
            await self._drained.wait()


class _Empty:
    """The source of a stopped writer: an empty queue."""

    has_data = False

    def next_packet(self) -> bytes | None:
        return None

    def hold(self, size: int) -> None:
        pass

    def progressed(self) -> None:
        pass


_EMPTY = _Empty()


def _left_of(packet: bytes, channel: NowaitSend) -> bytes | None:
    """Write a packet without blocking; return it if that is not possible."""
    try:
        return None if channel.send_nowait(packet) else packet
    except Exception:  # noqa: BLE001 - we may be inside an abort function
        # The task will get the same error, and only the task may raise it.
        return packet

"""The one task that touches the send side of the channel (law 10), once there is a need for it."""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import cast

import trio
from trio.lowlevel import Abort

from trio_rpc.channels.optional import NowaitSend, nowait_send
from trio_rpc.protocol.protocol import Protocol
from trio_rpc.session.io.pacer import Pacer
from trio_rpc.wire.parts import BufferList

__all__ = ["Watcher", "Writer"]

MANY = 64
"""Messages that leave early. Of 1,000 calls that are cancelled in one tick, the last is 6 ms later than the first."""

BURST = 512 * 1024
"""Bytes that are written in one turn of the loop, if the system takes them: a turn costs as much as 64 KiB."""


class Watcher(typing.Protocol):
    """Who is told what becomes of what was queued."""

    def sent(self) -> None:
        """Something was queued, and written as far as that was possible at once."""

    def progressed(self) -> None:
        """A packet was taken by the channel: there may be room again."""


class _Nobody:
    """The watcher of a session that is over."""

    def sent(self) -> None:
        pass

    def progressed(self) -> None:
        pass


class Writer:
    """Writes what the protocol has queued, one packet at a time.

    It is woken when something is queued and runs a tick later: whatever was queued in the
    meantime leaves in the same packet.

    Args:
        channel: where packets go.
        protocol: where they come from.
        pacer: is told when pieces have left that are followed by a Ping.
        watcher: is told what has been sent.
    """

    def __init__(
        self,
        channel: trio.abc.Channel[bytes],
        protocol: Protocol,
        pacer: Pacer,
        watcher: Watcher,
    ) -> None:
        self._channel = channel
        self._protocol = protocol
        self._watcher = watcher
        self._pacer = pacer
        self._start: Callable[[], None] | None = None
        self._nowait = nowait_send(channel)
        # Whether it takes Parts where others take bytes, so that large content need not be copied.
        self._takes_parts: bool = getattr(channel, "takes_parts", False)
        self._held: bytes | None = None
        self._is_idle = False
        """There is no task yet, or it waits to be woken."""
        self._is_woken = False
        """The task has been woken, and does not run yet."""
        self._parked: trio.lowlevel.Task | None = None
        self._drained = trio.Event()

    def start(self, task: Callable[[], None]) -> None:
        """Write from now on; ``task`` is called, once, when there is to be a task for :meth:`run`.

        A session whose packets the system takes at once never has one.
        """
        self._start = task
        self._is_idle = True

    def stop(self) -> bool:
        """Write no more; tell whether there is a task, which is to be cancelled."""
        has_task, self._start = self._start is None, None
        self._is_idle = self._is_woken = False
        return has_task

    def let_go(self) -> None:
        """Forget what knows this object: nothing is written any more."""
        self._watcher = _Nobody()

    def send(self) -> None:
        """Write what was just queued: at once if nothing can be expected to join it, else with what does."""
        protocol = self._protocol
        if len(protocol.outgoing) <= 1 and len(protocol.incoming) <= 1:
            self.write_now()
        else:
            self.wake()
        self._watcher.sent()

    def wake(self) -> None:
        """Have what is queued written, with whatever else is queued in this tick."""
        if not self._is_idle:
            return
        self._is_idle, self._is_woken = False, True
        if self._parked is not None:
            task, self._parked = self._parked, None
            trio.lowlevel.reschedule(task)
        elif self._start is not None:
            start, self._start = self._start, None
            start()

    def write_now(self) -> None:
        """Write what is queued at once as far as that cannot block; the task writes the rest.

        For a message that nothing can be expected to join: it saves the wake-up.
        """
        if not self._is_idle:
            return
        if self._nowait is None:
            if self._protocol.has_data:
                self.wake()
            return
        packet = self._next()
        if packet is None:
            return
        self._held = _left_of(packet, self._nowait)
        if self._held is not None or self._nowait.unsent or self._protocol.has_data:
            self.wake()

    def write_early(self) -> None:
        """Write what is queued, before this tick is over, if it is so much that the other end had better begin."""
        if self._protocol.messages_waiting < MANY or self._nowait is None:
            return
        if self._is_woken and self._held is None:
            packet = self._next()
            if packet is not None:
                self._held = _left_of(packet, self._nowait)
                self._watcher.progressed()

    async def run(self) -> None:
        """Write until cancelled, or until the channel fails, whose error it raises."""
        while True:
            self._is_woken = False
            packet = self._next() if self._nowait is None else self._write_burst(self._nowait)
            if packet is not None:
                await self._channel.send(packet)
                self._watcher.progressed()
            elif self._nowait is not None and self._nowait.unsent:
                await self._nowait.flush()
            else:
                await self._park()

    def _write_burst(self, channel: NowaitSend) -> bytes | None:
        """Write several packets, as far as that cannot block; return one that would have to wait."""
        left = BURST
        while not channel.unsent:
            packet = self._held or self._next()
            self._held = None
            if packet is None:
                return None
            left -= len(packet)
            if left < 0 or _left_of(packet, channel) is not None:
                return packet
            self._watcher.progressed()
        return None

    def _next(self) -> bytes | None:
        """Take the next packet; tell the pacer if a batch of pieces is complete with it."""
        was_paced = self._protocol.is_paced
        packet = self._protocol.next_packet()
        if self._protocol.is_paced and not was_paced:
            self._pacer.sent(trio.current_time())
        if isinstance(packet, BufferList) and not self._takes_parts:
            return bytes(packet)
        return cast("bytes | None", packet)

    async def _park(self) -> None:
        self._parked = trio.lowlevel.current_task()
        self._is_idle = True
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
        """Whether everything that was queued has been handed to the channel."""
        return self._is_idle and not self._protocol.has_data

    async def drain(self) -> None:
        """Wait until everything that is queued has been handed to the channel."""
        self.wake()
        while not self.is_done:
            self._drained = trio.Event()
            await self._drained.wait()


def _left_of(packet: bytes, channel: NowaitSend) -> bytes | None:
    """Write a packet if it can be had at once; else return it."""
    try:
        return None if channel.send_nowait(packet) else packet
    except Exception:  # noqa: BLE001 - we may be inside an abort function
        # The task will run into the same, and is the one whose error is listened to.
        return packet

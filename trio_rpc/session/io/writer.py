"""The writer of a session: the only task that sends on the channel (law 10), started on demand."""

from __future__ import annotations

import typing
from typing import cast

import trio

from trio_rpc.channels.packet_writer import PacketWriter
from trio_rpc.protocol.protocol import Protocol
from trio_rpc.session.io.pacer import Pacer
from trio_rpc.wire.parts import BufferList

__all__ = ["Watcher", "Writer"]

MANY = 64
"""Messages that leave early. Cancelling 1,000 calls in one tick takes 6 ms."""


class Watcher(typing.Protocol):
    """The callbacks of a writer to its session."""

    def sent(self) -> None:
        """React to queued messages, which were written as far as possible without waiting."""

    def progressed(self) -> None:
        """React to a packet that the channel has taken, so that there may be room again."""


class _NoWatcher:
    """The watcher of a session that is over."""

    def sent(self) -> None:
        pass

    def progressed(self) -> None:
        pass


_NO_WATCHER = _NoWatcher()


class Writer(PacketWriter):
    """Writes the messages that the protocol has queued.

    Args:
        channel: the channel.
        protocol: the queue.
        watcher: is notified of progress.
    """

    def __init__(
        self, channel: trio.abc.Channel[bytes], protocol: Protocol, watcher: Watcher
    ) -> None:
        super().__init__(channel, self)
        self._protocol = protocol
        self._watcher = watcher
        self._pacer: Pacer | None = None
        """Sets the size of batches, once pieces have been paced."""
        self._takes_parts: bool = getattr(channel, "takes_parts", False)
        """Whether the channel accepts a BufferList, so that large bytes need no copy."""

    def let_go(self) -> None:
        """Drop the references to this object. Nothing is written any more."""
        super().let_go()
        self._watcher = _NO_WATCHER

    def send(self) -> None:
        """Write the message just queued: at once if no other is expected, else together with it."""
        protocol = self._protocol
        if len(protocol.outgoing) <= 1 and len(protocol.incoming) <= 1:
            self.write_now()
        else:
            self.wake()
        self._watcher.sent()

    def write_early(self) -> None:
        """Write a long queue within this tick, so that the other end can begin."""
        if self._protocol.messages_waiting >= MANY:
            self.write_before_the_task()

    def answered(self) -> None:
        """Allow the next batch of pieces, since the Pong of the last one has arrived."""
        if self._pacer is not None:
            self._pacer.answered(trio.current_time())
            self.wake()

    # ── the source of packets ────────────────────────────────────────────────────────────────

    @property
    def has_data(self) -> bool:
        """Whether a message is queued."""
        return self._protocol.has_data

    def next_packet(self) -> bytes | None:
        """Return the next packet. Notify the pacer if it completes a batch of pieces."""
        was_paced = self._protocol.is_paced
        packet = self._protocol.next_packet()
        if self._protocol.is_paced and not was_paced:
            self._pacer = self._pacer or Pacer(self._protocol)
            self._pacer.sent(trio.current_time())
        if isinstance(packet, BufferList) and not self._takes_parts:
            return bytes(packet)
        return cast("bytes | None", packet)

    def hold(self, size: int) -> None:
        """Record how many bytes of a taken packet wait for the channel."""
        self._protocol.share.hold(size)

    def progressed(self) -> None:
        """Notify the session that there may be room again."""
        self._watcher.progressed()

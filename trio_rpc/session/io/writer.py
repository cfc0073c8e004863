"""The writer of a session: the one task that touches the send side of the channel (law 10), once there is a need for it."""

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
"""Messages that leave early. Of 1,000 calls that are cancelled in one tick, the last is 6 ms later than the first."""


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


class Writer(PacketWriter):
    """Writes what the protocol has queued.

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
        # Whether it takes a BufferList where others take bytes, so that large content need not be copied.
        takes_parts: bool = getattr(channel, "takes_parts", False)
        packets = _Packets(protocol, pacer, takes_parts=takes_parts)
        super().__init__(channel, packets, watcher.progressed)
        self._protocol = protocol
        self._watcher = watcher

    def let_go(self) -> None:
        """Forget what knows this object: nothing is written any more."""
        super().let_go()
        self._watcher = _Nobody()

    def send(self) -> None:
        """Write what was just queued: at once if nothing can be expected to join it, else with what does."""
        protocol = self._protocol
        if len(protocol.outgoing) <= 1 and len(protocol.incoming) <= 1:
            self.write_now()
        else:
            self.wake()
        self._watcher.sent()

    def write_early(self) -> None:
        """Write what is queued, before this tick is over, if it is so much that the other end had better begin."""
        if self._protocol.messages_waiting >= MANY:
            self.write_before_the_task()


class _Packets:
    """The packets of a protocol, as the channel takes them."""

    def __init__(self, protocol: Protocol, pacer: Pacer, *, takes_parts: bool) -> None:
        self._protocol = protocol
        self._pacer = pacer
        self._takes_parts = takes_parts

    @property
    def has_data(self) -> bool:
        return self._protocol.has_data

    def next_packet(self) -> bytes | None:
        """Take the next packet; tell the pacer if a batch of pieces is complete with it."""
        was_paced = self._protocol.is_paced
        packet = self._protocol.next_packet()
        if self._protocol.is_paced and not was_paced:
            self._pacer.sent(trio.current_time())
        if isinstance(packet, BufferList) and not self._takes_parts:
            return bytes(packet)
        return cast("bytes | None", packet)

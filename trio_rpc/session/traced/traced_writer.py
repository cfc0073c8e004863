"""The traced writer: it says when a packet is passed to the channel."""

from __future__ import annotations

import trio

from trio_rpc.channels.optional import NowaitSend
from trio_rpc.channels.packet_writer import PacketSource
from trio_rpc.protocol.protocol import Protocol
from trio_rpc.session.io.pacer import Pacer
from trio_rpc.session.io.writer import Watcher, Writer
from trio_rpc.session.traced.tracer import Tracer

__all__ = ["TracedWriter"]


class TracedWriter(Writer):
    """A writer that tells the tracer when a packet is passed to the channel."""

    def __init__(
        self,
        tracer: Tracer,
        channel: trio.abc.Channel[bytes],
        protocol: Protocol,
        pacer: Pacer,
        watcher: Watcher,
    ) -> None:
        super().__init__(channel, protocol, pacer, watcher)
        self._source = _TracedSource(tracer, self._source)
        if self._nowait is not None:
            self._nowait = _TracedNowait(tracer, self._nowait)


class _TracedNowait:
    """The channel, as it takes packets without waiting."""

    def __init__(self, tracer: Tracer, channel: NowaitSend) -> None:
        self._tracer = tracer
        self._channel = channel

    def send_nowait(self, packet: bytes) -> bool:
        is_taken = self._channel.send_nowait(packet)
        if is_taken:
            self._tracer.passed_on()
        return is_taken

    async def flush(self) -> None:
        await self._channel.flush()

    @property
    def unsent(self) -> int:
        return self._channel.unsent


class _TracedSource:
    """The queue. ``hold`` is called with a size just before a packet is passed to the channel.

    The packet counts as sent then, and not after ``send``: meanwhile the peer may have answered it.
    """

    def __init__(self, tracer: Tracer, source: PacketSource) -> None:
        self._tracer = tracer
        self._source = source

    @property
    def has_data(self) -> bool:
        return self._source.has_data

    def next_packet(self) -> bytes | None:
        return self._source.next_packet()

    def hold(self, size: int) -> None:
        self._source.hold(size)
        if size:
            self._tracer.passed_on()

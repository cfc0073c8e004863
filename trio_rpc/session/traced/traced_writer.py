"""The traced writer: it says when a packet is passed to the channel."""

from __future__ import annotations

import trio

from trio_rpc.channels.optional import NowaitSend
from trio_rpc.protocol.protocol import Protocol
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
        watcher: Watcher,
    ) -> None:
        super().__init__(channel, protocol, watcher)
        self._tracer = tracer
        if self._nowait is not None:
            self._nowait = _TracedNowait(tracer, self._nowait)

    def hold(self, size: int) -> None:
        """Record how many bytes wait; with a size, just before a packet is passed to the channel.

        The packet counts as sent then, and not after ``send``: meanwhile the peer may have answered
        it.
        """
        super().hold(size)
        if size:
            self._tracer.passed_on()


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

"""A channel to a thread or a child process that this end has started.

The socket is one end of a pair. When the channel ends, the other end may be known to have ended
only a moment later, so an error waits for that, and says how it ended.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

import trio

from trio_rpc.channels.stream import StreamChannel
from trio_rpc.util.numbers import check_not_negative
from trio_rpc.wire.limits import Limits
from trio_rpc.wire.parts import BufferList

__all__ = ["EXIT_TIME", "Ends", "Patience", "SupervisedChannel"]

EXIT_TIME = 1.0
"""Seconds to wait for the end of a process or thread after its socket has closed.

For a process, also the seconds to wait for the end of its socket after its exit.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """The seconds that a process or thread gets to end, once its channel is closed.

    Attributes:
        goodbye: to end by itself.
        terminate: to end after that, once it has been told to.
        names: the names of the two arguments of the public function.
    """

    goodbye: float
    terminate: float
    names: tuple[str, str] = ("goodbye_time", "terminate_time")

    def __post_init__(self) -> None:
        for name, seconds in zip(self.names, (self.goodbye, self.terminate), strict=True):
            check_not_negative(name, seconds)


class Ends:
    """The time limit for a process or thread to end by itself."""

    def __init__(self, patience: Patience) -> None:
        self.patience = patience
        self._scope = trio.CancelScope()

    def hurry(self, seconds: float) -> None:
        """Shorten the limit to this many seconds from now."""
        self._scope.deadline = min(self._scope.deadline, trio.current_time() + seconds)

    async def wait(self, ended: Callable[[], Awaitable[object]]) -> None:
        """Wait for ``ended``, at most until the limit."""
        self.hurry(self.patience.goodbye)
        with self._scope:
            await ended()


class SupervisedChannel(StreamChannel):
    """A channel whose errors say how its other end has ended.

    Args:
        stream: this end of the socket.
        limits: max_packet and packet_timeout apply to the channel.
        name: the name of the other end.
        explain: returns the error to raise in place of an ``EndOfChannel`` or
            ``BrokenResourceError``. It may wait up to ``EXIT_TIME``.

    Attributes:
        name: the name of the other end.
        closed: set when this end of the channel is closed.
    """

    def __init__(
        self,
        stream: trio.SocketStream,
        limits: Limits,
        *,
        name: str,
        explain: Callable[[Exception], Awaitable[Exception]],
    ) -> None:
        super().__init__(stream, limits.max_packet, packet_timeout=limits.packet_timeout)
        self.name = name
        self.closed = trio.Event()
        self._socket = stream.socket
        self._explain = explain

    async def receive(self) -> bytes:
        """Return the next packet: see :meth:`StreamChannel.receive`.

        Raises:
            trio.EndOfChannel: the other end closed its end after a whole packet. If a process has
                ended, this is a :class:`ChannelEnded`, and the exit code was 0.
            trio.BrokenResourceError: the channel broke. If a process has ended, this is a
                :class:`ChannelBroken`, whose ``detail`` is a :class:`ProcessExit`.
        """
        try:
            return await super().receive()
        except (trio.EndOfChannel, trio.BrokenResourceError) as exc:
            await self._raise_explained(exc)

    async def send(self, value: bytes | BufferList) -> None:
        """Send one packet: see :meth:`StreamChannel.send`.

        Args:
            value: the packet; at least one byte.
        """
        try:
            await super().send(value)
        except trio.BrokenResourceError as exc:
            await self._raise_explained(exc)

    async def flush(self) -> None:
        """Send the rest of a packet: see :meth:`StreamChannel.flush`."""
        try:
            await super().flush()
        except trio.BrokenResourceError as exc:
            await self._raise_explained(exc)

    async def aclose(self) -> None:
        """Close this end. Packets for which ``send`` has returned are still delivered."""
        self.closed.set()
        await super().aclose()

    def shut(self) -> None:
        """End the channel, even if something else still holds the other end of the socket."""
        with suppress(OSError):  # the connection has already ended
            self._socket.shutdown(socket.SHUT_RDWR)

    async def _raise_explained(self, exc: Exception) -> NoReturn:
        explained = await self._explain(exc)
        raise explained from (explained.__cause__ or exc)

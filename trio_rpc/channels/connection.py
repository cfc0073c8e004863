"""Blocks that own a channel: it exists only inside its block.

Some channels need background tasks. Tasks belong to a nursery and a nursery to a block, so every
channel that is opened by URL or accepted by a listener lives in a block.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol, TypeVar

import trio

from trio_rpc.channels.optional import lingers, nowait_close
from trio_rpc.channels.stream import StreamChannel
from trio_rpc.channels.tls import is_shaking_hands
from trio_rpc.util.one_exception import one_exception
from trio_rpc.util.time_limits import time_limit
from trio_rpc.wire.limits import Limits

__all__ = [
    "ChannelTask",
    "Connection",
    "StreamConnection",
    "close_forcefully",
    "linger_for",
    "owned",
    "owned_with_task",
    "peer_name",
]

C_co = TypeVar("C_co", bound=trio.abc.AsyncResource, covariant=True)


class Connection(trio.abc.AsyncResource):
    """A client that a listener has accepted, before any handshake.

    Call :meth:`prepared` once to turn it into a channel, or ``aclose`` to discard it.

    Attributes:
        name: the client's name in logs: its address, if it has one.
        host: its IP address, or "" for a Unix socket.
        shaking_hands: the scope of the transport's handshake, while that runs.
    """

    def __init__(self, name: str, host: str = "") -> None:
        self.name = name
        self.host = host
        self.shaking_hands: trio.CancelScope | None = None

    def give_up(self) -> None:
        """End the transport's handshake, if it still runs: :meth:`prepared` then raises OSError."""
        if self.shaking_hands is not None:
            self.shaking_hands.cancel(reason="newer clients need its place")

    @abstractmethod
    def prepared(self) -> AbstractAsyncContextManager[trio.abc.Channel[bytes]]:
        """Do the handshakes of the transport, and own the channel and its tasks for a block.

        The end of the block closes the channel forcefully, if it is still open. A connection that
        fails to become a channel is also closed.

        Raises:
            OSError: a handshake failed, or took longer than ``limits.handshake_timeout``
                (TimeoutError). The text is one line.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Close the connection at once, without telling the client why."""


class ChannelTask(Protocol[C_co]):
    """A function that runs a channel.

    It passes the channel to ``task_status.started``, and returns after the channel has ended.
    """

    def __call__(self, *, task_status: trio.TaskStatus[C_co]) -> Awaitable[object]:
        """Run the channel. An error before ``started`` is raised where the channel is opened."""


class StreamConnection(Connection):
    """A client on a byte stream, with TLS or without.

    Args:
        stream: the stream, before any data was read or written.
        limits: max_packet and packet_timeout of the channel, handshake_timeout of its handshake.
        name: see :class:`Connection`.
        host: see :class:`Connection`.
    """

    def __init__(
        self, stream: trio.abc.Stream, limits: Limits, *, name: str, host: str = ""
    ) -> None:
        super().__init__(name, host)
        self._stream = stream
        self._limits = limits

    def prepared(self) -> AbstractAsyncContextManager[StreamChannel]:
        """Finish the TLS handshake, if the stream uses TLS: see :meth:`Connection.prepared`."""
        limits = self._limits
        channel = StreamChannel(
            self._stream, limits.max_packet, packet_timeout=limits.packet_timeout
        )
        return owned(channel, self._shake_hands if is_shaking_hands(self._stream) else None)

    async def _shake_hands(self, channel: StreamChannel) -> None:
        self.shaking_hands = scope = trio.CancelScope()
        async with time_limit(self._limits.handshake_timeout, "no TLS handshake", scope):
            await channel.prepare()
        self.shaking_hands = None

    async def aclose(self) -> None:
        """Close the connection at once, without telling the client why."""
        await trio.aclose_forcefully(self._stream)


class owned(AbstractAsyncContextManager[StreamChannel]):  # noqa: N801 - it is used as a function
    """Own a channel that needs no tasks, and close it at the end of the block at the latest.

    This is a class, because a generator would keep a frame for each idle session.

    Args:
        channel: the channel.
        shake_hands: does its handshake, if it still has to be done.
    """

    __slots__ = ("_channel", "_shake_hands")

    def __init__(
        self,
        channel: StreamChannel,
        shake_hands: Callable[[StreamChannel], Awaitable[None]] | None = None,
    ) -> None:
        self._channel = channel
        self._shake_hands = shake_hands

    async def __aenter__(self) -> StreamChannel:
        channel = self._channel
        shake_hands, self._shake_hands = self._shake_hands, None
        if shake_hands is not None:
            try:
                await shake_hands(channel)
            except BaseException:
                await close_forcefully(channel)
                raise
        return channel

    async def __aexit__(self, *_exc: object) -> None:
        if not self._channel.is_closed:
            await close_forcefully(self._channel)


@asynccontextmanager
async def owned_with_task(task: ChannelTask[C_co]) -> AsyncIterator[C_co]:
    """Own a channel and the task that runs it: both have ended when the block is over.

    Once the channel has started, cancelling the block does not cancel the task, because a
    cancelled session still has a Goodbye to send (law 4). Leaving the block ends the task.

    An exception of the block is raised unchanged, and so is an exception of the task before the
    channel has started. After that the task must not raise: its channel reports errors.
    """
    scope = trio.CancelScope()

    async def run(*, task_status: trio.TaskStatus[C_co]) -> None:
        with scope:
            await task(task_status=task_status)

    with one_exception() as body:
        async with trio.open_nursery() as nursery:
            channel = await nursery.start(run)
            scope.shield = True
            try:
                yield channel
            except BaseException as exc:
                body.append(exc)
                raise
            finally:
                closes = nowait_close(channel)
                if closes is None or not closes.close_nowait():
                    await close_forcefully(channel)
                scope.cancel(reason="the block that owns the channel is over")


async def close_forcefully(resource: trio.abc.AsyncResource) -> None:
    """Close at once, without hiding an exception that is propagating.

    ``trio.aclose_forcefully`` would hide it, because it raises Cancelled if its caller is also
    being cancelled.
    """
    with trio.CancelScope(shield=True) as scope:
        scope.cancel()
        await resource.aclose()


async def linger_for(channel: object, seconds: float) -> None:
    """Wait, in bounded time, until a peer that still sends has read the end: see ``linger``."""
    if (lingering := lingers(channel)) is not None:
        with trio.move_on_after(seconds):
            await lingering.linger()


def peer_name(stream: trio.SocketStream, url: str) -> tuple[str, str]:
    """Return a name for a client accepted at ``url``, and its IP address, or ""."""
    try:
        peer = stream.socket.getpeername()
    except OSError:  # the client has already disconnected
        peer = ""
    if not isinstance(peer, tuple):
        return f"a client of {url}", ""
    return f"{peer[0]}:{peer[1]}", peer[0]

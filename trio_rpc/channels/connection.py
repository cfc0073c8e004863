"""Who owns a channel, and until when: blocks, before which and after which there is none.

Some channels need tasks of their own. Tasks belong to a nursery and a nursery to a block, so every
channel that is opened by its URL, and every one that a listener lets in, lives in a block.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Protocol, TypeVar

import trio

from trio_rpc.channels.stream import StreamChannel
from trio_rpc.channels.tls import is_shaking_hands
from trio_rpc.util.one_exception import one_exception
from trio_rpc.util.places import catching
from trio_rpc.wire.limits import Limits

__all__ = [
    "ChannelTask",
    "Connection",
    "StreamConnection",
    "close_forcefully",
    "owned",
    "owned_with_task",
    "peer_name",
    "time_limit",
]

C_co = TypeVar("C_co", bound=trio.abc.AsyncResource, covariant=True)


class Connection(trio.abc.AsyncResource):
    """A client that a listener has accepted, before any handshake.

    It becomes a channel by :meth:`prepared`, once; ``aclose`` is for one that never does.

    Attributes:
        name: what the client is called in logs: its address, as far as it has one.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def prepared(self) -> AbstractAsyncContextManager[trio.abc.Channel[bytes]]:
        """Do the handshakes of the transport, and own the channel and its tasks for a block.

        The channel is closed forcefully at the end of the block, if it has not been closed before.
        A connection that fails to become a channel is closed as well.

        Raises:
            OSError: a handshake failed, or took longer than ``limits.handshake_timeout``
                (TimeoutError); one line of text.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Close the connection at once, without a word."""


class ChannelTask(Protocol[C_co]):
    """What runs a channel: it calls ``task_status.started`` with it, and ends after it."""

    def __call__(self, *, task_status: trio.TaskStatus[C_co]) -> Awaitable[object]:
        """Run the channel. What it raises before the channel is there is for who opens it."""


class StreamConnection(Connection):
    """A client on a byte stream, with TLS or without.

    Args:
        stream: the stream, fresh.
        limits: max_packet and packet_timeout of the channel, handshake_timeout of its handshake.
        name: see :class:`Connection`.
    """

    def __init__(self, stream: trio.abc.Stream, limits: Limits, *, name: str) -> None:
        super().__init__(name)
        self._stream = stream
        self._limits = limits

    @asynccontextmanager
    async def prepared(self) -> AsyncIterator[StreamChannel]:
        """Finish the TLS handshake, if there is to be one: see :meth:`Connection.prepared`."""
        limits = self._limits
        channel = StreamChannel(
            self._stream, limits.max_packet, packet_timeout=limits.packet_timeout
        )
        async with owned(channel):
            if is_shaking_hands(self._stream):
                with time_limit(limits.handshake_timeout, "no TLS handshake"):
                    await channel.prepare()
            yield channel

    async def aclose(self) -> None:
        """Close the connection at once, without a word."""
        await trio.aclose_forcefully(self._stream)


class owned(AbstractAsyncContextManager[StreamChannel]):  # noqa: N801 - it is used as a function
    """Own a channel that needs no tasks: it is closed when the block is over, at the latest."""

    def __init__(self, channel: StreamChannel) -> None:
        self._channel = channel

    async def __aenter__(self) -> StreamChannel:
        return self._channel

    async def __aexit__(self, *_exc: object) -> None:
        if not self._channel.is_closed:
            await close_forcefully(self._channel)


@asynccontextmanager
async def owned_with_task(task: ChannelTask[C_co]) -> AsyncIterator[C_co]:
    """Own a channel and the task that runs it: both have ended when the block is over.

    Once the channel is there, cancelling the block does not reach the task: a session that is
    cancelled still has last words to send (law 4). Leaving the block ends it.

    What the block raises comes out as it is, and so does what the task raises before the channel
    is there. After that the task must raise nothing: its channel tells what is wrong.
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
                await close_forcefully(channel)
                scope.cancel(reason="the block that owns the channel is over")


async def close_forcefully(resource: trio.abc.AsyncResource) -> None:
    """Close at once. Unlike ``trio.aclose_forcefully`` it never hides the error on its way out.

    That one raises Cancelled if its caller is being cancelled too.
    """
    with trio.CancelScope(shield=True) as scope:
        scope.cancel()
        await resource.aclose()


@contextmanager
def time_limit(seconds: float, complaint: str) -> Iterator[None]:
    """Raise TimeoutError, an OSError, with a complaint if the block takes longer."""
    with catching(trio.move_on_after(seconds)) as scope:
        yield
    if scope.cancelled_caught:
        raise TimeoutError(f"{complaint} within {seconds:g} s")


def peer_name(stream: trio.SocketStream, url: str) -> str:
    """Name the client of a connection that was accepted at ``url``: by its address, if it has one."""
    try:
        peer = stream.socket.getpeername()
    except OSError:  # it has gone already
        peer = ""
    return f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else f"a client of {url}"

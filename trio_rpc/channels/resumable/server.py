"""The server side of resumable channels, which finds the channel of each new connection."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import trio

from trio_rpc.channels.connection import linger_for, owned_with_task
from trio_rpc.channels.optional import lingers
from trio_rpc.channels.resumable.channel import ResumableChannel
from trio_rpc.channels.resumable.replay import (
    TOKEN_BYTES,
    VERSION,
    Frame,
    Kind,
    decode,
    encode,
    is_frame,
)
from trio_rpc.channels.resumable.settings import Resume
from trio_rpc.errors import DecodeError
from trio_rpc.util.time_limits import time_limit
from trio_rpc.wire.limits import DEFAULT_LIMITS

__all__ = ["Arrival", "ResumableSessions"]

_VERSION = bytes([VERSION])
_NEVER_KNOWN = (
    "the server does not know the session: the server was restarted, the session had no "
    "connection for too long, or the server held too much data for its sessions"
)


class Arrival(NamedTuple):
    """The result of :meth:`ResumableSessions.receive`."""

    channel: trio.abc.Channel[bytes]
    """The channel of the session: a resumable one, or the connection itself if the client did not
    ask for a resumable session."""
    received: int
    """The number of the last packet that the client received; 0 for a new session."""
    is_new: bool
    """Whether this is a new session."""


class ResumableSessions:
    """The resumable channels of one server, by token.

    Args:
        options: see :class:`trio_rpc.Resume`.
        handshake_timeout: seconds that a client has for its first packet.
        shutdown_timeout: seconds that a refused client has to read the reason.
    """

    def __init__(
        self,
        options: Resume,
        *,
        handshake_timeout: float,
        shutdown_timeout: float = DEFAULT_LIMITS.shutdown_timeout,
    ) -> None:
        self._options = options
        self._timeout = handshake_timeout
        self._shutdown_timeout = shutdown_timeout
        # Bounded: channels with a connection by the connections, and the others by max_waiting.
        self._channels: dict[bytes, ResumableChannel] = {}

    async def receive(
        self, carrier: trio.abc.Channel[bytes], scope: trio.CancelScope | None = None
    ) -> Arrival:
        """Return the channel of a new connection. A resumable one must then ``accept`` the carrier.

        Args:
            carrier: the channel of a new connection that has not been used yet.
            scope: a fresh scope, whose cancellation ends the wait as if the time was over.

        Raises:
            OSError: the client sent nothing in time, asked for something that is refused, or has
                left (ConnectionError).
        """
        try:
            async with time_limit(self._timeout, "no packet from the client", scope):
                data = await carrier.receive()
                if not is_frame(data):
                    return Arrival(_Begun(carrier, data), 0, is_new=True)
                return await self._answer(carrier, decode(data))
        except (trio.EndOfChannel, trio.BrokenResourceError) as exc:
            raise ConnectionError(f"the client disconnected: {exc}") from exc
        except DecodeError as exc:
            raise ConnectionError(str(exc)) from exc

    async def _answer(self, carrier: trio.abc.Channel[bytes], frame: Frame) -> Arrival:
        if frame.kind not in (Kind.OPEN, Kind.RESUME):
            raise DecodeError(f"{frame.kind.name} is not allowed as the first frame")
        if frame.rest[:1] != _VERSION:
            await self._refuse(
                carrier, f"the server has version {VERSION} of resuming, not {frame.rest[0]}"
            )
        if frame.kind is Kind.OPEN:
            channel = ResumableChannel(self._options, secrets.token_bytes(TOKEN_BYTES))
            return Arrival(channel, frame.ack, is_new=True)
        known = self._channels.get(_key(frame.rest[1:]))
        if known is None or known.is_over:
            await self._refuse(carrier, _NEVER_KNOWN)
            raise AssertionError  # _refuse does not return
        if frame.ack < known.confirmed:
            # The client sent this Resume before it received the packets that it has since
            # acknowledged over a later connection.
            raise ConnectionError("the client has replaced this connection by a later one")
        return Arrival(known, frame.ack, is_new=False)

    async def _refuse(self, carrier: trio.abc.Channel[bytes], reason: str) -> None:
        await carrier.send(encode(Frame(Kind.REFUSE, rest=reason.encode())))
        await linger_for(carrier, self._shutdown_timeout)
        await carrier.aclose()
        raise ConnectionRefusedError(reason)

    def _make_room(self) -> None:
        """Fail the oldest channels without a connection, if there are too many of them."""
        if len(self._channels) < self._options.max_waiting:
            return
        waiting = [channel for channel in self._channels.values() if channel.is_waiting]
        for channel in waiting[: len(waiting) - self._options.max_waiting + 1]:
            channel.fail("the server has too many sessions without a connection")

    @asynccontextmanager
    async def own(self, channel: ResumableChannel) -> AsyncIterator[None]:
        """Run a new channel for a block. Clients can resume it during the block.

        Args:
            channel: the channel of an :class:`Arrival` that is new.
        """

        async def run(*, task_status: trio.TaskStatus[ResumableChannel]) -> None:
            task_status.started(channel)
            await channel.run()

        self._make_room()
        key = _key(channel.token)
        self._channels[key] = channel
        try:
            async with owned_with_task(run):
                yield
        finally:
            del self._channels[key]


class _Begun(trio.abc.Channel[bytes]):
    """A channel whose first packet has already been received."""

    def __init__(self, channel: trio.abc.Channel[bytes], packet: bytes) -> None:
        self._channel = channel
        self._first: bytes | None = packet

    @property
    def heard(self) -> object:
        """A value that changes when bytes arrive."""
        return getattr(self._channel, "heard", None)

    @property
    def taken(self) -> object:
        """A value that changes when the other end reads a part of the unsent data."""
        return getattr(self._channel, "taken", None)

    async def send(self, value: bytes) -> None:
        await self._channel.send(value)

    async def receive(self) -> bytes:
        if self._first is None:
            return await self._channel.receive()
        await trio.lowlevel.checkpoint()
        packet, self._first = self._first, None
        return packet

    async def linger(self) -> None:
        lingering = lingers(self._channel)
        if lingering is None:
            await trio.lowlevel.checkpoint()
        else:
            await lingering.linger()

    async def aclose(self) -> None:
        await self._channel.aclose()


def _key(token: bytes) -> bytes:
    """Return a hash of a token as its key, so the time of a lookup reveals no other tokens."""
    return hashlib.sha256(token).digest()

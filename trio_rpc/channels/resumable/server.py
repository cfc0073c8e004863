"""The server of resumable channels: it gives each connection to the channel that it belongs to."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import trio

from trio_rpc.channels.connection import owned_with_task, time_limit
from trio_rpc.channels.optional import lingers
from trio_rpc.channels.resumable.channel import ResumableChannel, Resume
from trio_rpc.channels.resumable.replay import (
    TOKEN_BYTES,
    VERSION,
    Frame,
    Kind,
    decode,
    encode,
    is_frame,
)
from trio_rpc.errors import DecodeError
from trio_rpc.wire.limits import DEFAULT_LIMITS

__all__ = ["Arrival", "ResumableSessions"]

_VERSION = bytes([VERSION])
_NEVER_KNOWN = "the server does not know the session: it was restarted, or had been without a connection for too long"


class Arrival(NamedTuple):
    """Who came to a :class:`ResumableSessions`.

    Attributes:
        channel: of the session: a resumable one, or the connection itself, if that is all the client wants.
        received: the last packet that the client has; 0 if the session is to be opened.
        is_new: whether the session is to be opened.
    """

    channel: trio.abc.Channel[bytes]
    received: int
    is_new: bool


class ResumableSessions:
    """The resumable channels of one server, each by its token.

    Args:
        options: see :class:`Resume`.
        handshake_timeout: seconds that a client has to say what it wants.
        shutdown_timeout: seconds that a client that is refused has to read why.
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
        self._time_to_die = shutdown_timeout
        # Bound: those with a connection by the connections, the others by max_waiting.
        self._channels: dict[bytes, ResumableChannel] = {}

    async def receive(self, carrier: trio.abc.Channel[bytes]) -> Arrival:
        """Return what a client wants, if it can be granted; a resumable channel is then to ``accept`` the carrier.

        Raises:
            OSError: it said nothing in time, or nothing that can be granted.
        """
        try:
            with time_limit(self._timeout, "no word from the client"):
                data = await carrier.receive()
                if not is_frame(data):
                    return Arrival(_Begun(carrier, data), 0, is_new=True)
                return await self._answer(carrier, decode(data))
        except (trio.EndOfChannel, trio.BrokenResourceError) as exc:
            raise ConnectionError(f"the client has left: {exc}") from exc
        except DecodeError as exc:
            raise ConnectionError(str(exc)) from exc

    async def _answer(self, carrier: trio.abc.Channel[bytes], frame: Frame) -> Arrival:
        if frame.kind not in (Kind.OPEN, Kind.RESUME):
            raise DecodeError(f"{frame.kind.name} may not come first")
        if frame.rest[:1] != _VERSION:
            await self._refuse(
                carrier, f"version {VERSION} of resuming is spoken here, not {frame.rest[0]}"
            )
        if frame.kind is Kind.OPEN:
            channel = ResumableChannel(self._options, secrets.token_bytes(TOKEN_BYTES))
            return Arrival(channel, frame.ack, is_new=True)
        known = self._channels.get(_key(frame.rest[1:]))
        if known is None or known.is_over:
            await self._refuse(carrier, _NEVER_KNOWN)
            raise AssertionError  # it does not return
        if frame.ack < known.confirmed:
            # It was sent before the client received what it has acknowledged since, over a later connection.
            raise ConnectionError("the client has given this connection up for a later one")
        return Arrival(known, frame.ack, is_new=False)

    async def _refuse(self, carrier: trio.abc.Channel[bytes], reason: str) -> None:
        await carrier.send(encode(Frame(Kind.REFUSE, rest=reason.encode())))
        if (lingering := lingers(carrier)) is not None:
            with trio.move_on_after(self._time_to_die):
                await lingering.linger()
        await carrier.aclose()
        raise ConnectionRefusedError(reason)

    def _make_room(self) -> None:
        """Give up those without a connection, longest known first, where there are too many of them."""
        if len(self._channels) < self._options.max_waiting:
            return
        waiting = [channel for channel in self._channels.values() if channel.is_waiting]
        for channel in waiting[: len(waiting) - self._options.max_waiting + 1]:
            channel.fail("too many sessions wait for their connection")

    @asynccontextmanager
    async def own(self, channel: ResumableChannel) -> AsyncIterator[None]:
        """Run a new channel for a block, in which it can be resumed."""

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
    """A channel whose first packet has been received already."""

    def __init__(self, channel: trio.abc.Channel[bytes], packet: bytes) -> None:
        self._channel = channel
        self._first: bytes | None = packet

    @property
    def heard(self) -> object:
        """What changes when bytes come."""
        return getattr(self._channel, "heard", None)

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
    """Return what a token is looked up by, so that the time this takes tells nothing of other tokens."""
    return hashlib.sha256(token).digest()

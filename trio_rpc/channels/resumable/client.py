"""Where the carriers of resumable channels come from: a client makes them, a server is given them."""

from __future__ import annotations

import functools
import hashlib
import random
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import NamedTuple, TypeAlias

import trio

from trio_rpc.channels.connection import owned_with_task, time_limit
from trio_rpc.channels.optional import lingers
from trio_rpc.channels.resumable.channel import CARRIER_ERRORS, ResumableChannel, Resume
from trio_rpc.channels.resumable.replay import (
    HEADER,
    TOKEN_BYTES,
    VERSION,
    Frame,
    Kind,
    decode,
    encode,
)
from trio_rpc.errors import DecodeError, Refused
from trio_rpc.wire.limits import DEFAULT_LIMITS, Limits

__all__ = ["Guest", "Lobby", "carrier_limits", "open_resumable"]

OpenCarrier: TypeAlias = Callable[[], AbstractAsyncContextManager[trio.abc.Channel[bytes]]]

_VERSION = bytes([VERSION])
_NEVER_KNOWN = "the server does not know the session: it was restarted, or had been without a connection for too long"


def carrier_limits(limits: Limits) -> Limits:
    """Return the limits of a carrier: its packets are a header longer than those of the session."""
    size = limits.max_packet + HEADER
    return replace(limits, max_packet=size, max_message=max(limits.max_message, size))


def open_resumable(
    open_carrier: OpenCarrier, options: Resume, *, handshake_timeout: float
) -> AbstractAsyncContextManager[ResumableChannel]:
    """Connect, and own a channel that connects again whenever it has to.

    Args:
        open_carrier: makes the block in which there is a connection; its packets may be a header longer.
        options: see :class:`Resume`.
        handshake_timeout: seconds for each handshake.

    Raises:
        OSError: the first connection could not be made, or was closed at once.
        Refused: the server does not resume sessions.
    """
    return owned_with_task(_Client(open_carrier, options, handshake_timeout).run)


class _Client:
    def __init__(self, open_carrier: OpenCarrier, options: Resume, timeout: float) -> None:
        self._open_carrier = open_carrier
        self._options = options
        self._timeout = timeout
        self._channel = ResumableChannel(options)

    async def run(self, *, task_status: trio.TaskStatus[ResumableChannel]) -> None:
        channel = self._channel
        async with trio.open_nursery() as nursery:
            await self._connect(functools.partial(self._begin, nursery, task_status))
            attempt = 0
            while not channel.is_over:
                before = channel.received + channel.confirmed
                await trio.sleep(self._delay(attempt))
                try:
                    await self._reconnect()
                except (Refused, DecodeError) as exc:
                    channel.fail(str(exc))
                except CARRIER_ERRORS:
                    pass  # there will be another attempt, until the grace time is over
                has_moved = channel.received + channel.confirmed > before
                attempt = 0 if has_moved else attempt + 1

    async def _connect(self, begin: Callable[[], object]) -> None:
        """Make the first connection, and use it as long as it lasts."""
        async with self._open_carrier() as carrier:
            try:
                answer = await self._greet(carrier, Frame(Kind.OPEN, rest=_VERSION))
            except (trio.EndOfChannel, trio.BrokenResourceError) as exc:
                raise ConnectionError(f"the server closed the connection at once: {exc}") from exc
            self._channel.token = answer.rest
            begin()
            await self._channel.carry(carrier, answer.ack)

    def _begin(self, nursery: trio.Nursery, task_status: trio.TaskStatus[ResumableChannel]) -> None:
        async def run() -> None:
            await self._channel.run()
            nursery.cancel_scope.cancel(reason="the channel is over")

        nursery.start_soon(run)
        task_status.started(self._channel)

    def _delay(self, attempt: int) -> float:
        """Choose how long to wait: anything up to a bound that doubles (full jitter)."""
        longest = min(self._options.max_delay, self._options.first_delay * 2 ** min(attempt, 30))
        return random.uniform(0, longest)  # noqa: S311 - nothing secret

    async def _reconnect(self) -> None:
        """Make one more connection, and use it as long as it lasts."""
        channel = self._channel
        async with self._open_carrier() as carrier:
            mine = Frame(Kind.RESUME, ack=channel.received, rest=_VERSION + channel.token)
            answer = await self._greet(carrier, mine)
            await channel.carry(carrier, answer.ack)

    async def _greet(self, carrier: trio.abc.Channel[bytes], frame: Frame) -> Frame:
        with time_limit(self._timeout, "no answer of a server that resumes sessions"):
            await carrier.send(encode(frame))
            data = await carrier.receive()
        if not _is_frame(data):
            raise Refused("the server does not resume sessions: its serve() lacks resume=True")
        answer = decode(data)
        if answer.kind is Kind.REFUSE:
            raise Refused(answer.rest.decode(errors="replace"))
        if answer.kind is not Kind.ACCEPT:
            raise DecodeError(f"{answer.kind.name} came where ACCEPT was due")
        return answer


class Guest(NamedTuple):
    """Who came to a :class:`Lobby`.

    Attributes:
        channel: of the session: a resumable one, or the connection itself, if that is all the client wants.
        received: the last packet that the client has; 0 if the session is to be opened.
        is_new: whether the session is to be opened.
    """

    channel: trio.abc.Channel[bytes]
    received: int
    is_new: bool


class Lobby:
    """The resumable channels of one server, each by its token.

    Args:
        options: see :class:`Resume`.
        handshake_timeout: seconds that a client has to say what it wants.
        time_to_die: seconds that a client that is refused has to read why.
    """

    def __init__(
        self,
        options: Resume,
        *,
        handshake_timeout: float,
        time_to_die: float = DEFAULT_LIMITS.time_to_die,
    ) -> None:
        self._options = options
        self._timeout = handshake_timeout
        self._time_to_die = time_to_die
        # Bound: those with a connection by the connections, the others by max_waiting.
        self._channels: dict[bytes, ResumableChannel] = {}

    async def receive(self, carrier: trio.abc.Channel[bytes]) -> Guest:
        """Return what a client wants, if it can be granted; a resumable channel is then to ``accept`` the carrier.

        Raises:
            OSError: it said nothing in time, or nothing that can be granted.
        """
        try:
            with time_limit(self._timeout, "no word from the client"):
                data = await carrier.receive()
                if not _is_frame(data):
                    return Guest(_Begun(carrier, data), 0, is_new=True)
                return await self._answer(carrier, decode(data))
        except (trio.EndOfChannel, trio.BrokenResourceError) as exc:
            raise ConnectionError(f"the client has left: {exc}") from exc
        except DecodeError as exc:
            raise ConnectionError(str(exc)) from exc

    async def _answer(self, carrier: trio.abc.Channel[bytes], frame: Frame) -> Guest:
        if frame.kind not in (Kind.OPEN, Kind.RESUME):
            raise DecodeError(f"{frame.kind.name} may not come first")
        if frame.rest[:1] != _VERSION:
            await self._refuse(
                carrier, f"version {VERSION} of resuming is spoken here, not {frame.rest[0]}"
            )
        if frame.kind is Kind.OPEN:
            channel = ResumableChannel(self._options, secrets.token_bytes(TOKEN_BYTES))
            return Guest(channel, frame.ack, is_new=True)
        known = self._channels.get(_key(frame.rest[1:]))
        if known is None or known.is_over:
            await self._refuse(carrier, _NEVER_KNOWN)
            raise AssertionError  # it does not return
        if frame.ack < known.confirmed:
            # It was sent before the client received what it has acknowledged since, over a later connection.
            raise ConnectionError("the client has given this connection up for a later one")
        return Guest(known, frame.ack, is_new=False)

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


def _is_frame(data: bytes) -> bool:
    """Tell a frame of ours from a packet of a session, which begins with an array."""
    return data[0] in Kind._value2member_map_


def _key(token: bytes) -> bytes:
    """Return what a token is looked up by, so that the time this takes tells nothing of other tokens."""
    return hashlib.sha256(token).digest()

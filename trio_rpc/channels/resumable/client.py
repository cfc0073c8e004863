"""The client side of a resumable channel, which reconnects whenever the connection is lost."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias

import trio

from trio_rpc.channels.connection import owned_with_task
from trio_rpc.channels.errors import CHANNEL_ERRORS
from trio_rpc.channels.resumable.channel import ResumableChannel
from trio_rpc.channels.resumable.replay import (
    VERSION,
    Frame,
    Kind,
    decode,
    encode,
    is_frame,
)
from trio_rpc.channels.resumable.settings import Resume
from trio_rpc.errors import DecodeError, Refused
from trio_rpc.util.reconnect import keep_connected
from trio_rpc.util.text import one_line
from trio_rpc.util.time_limits import time_limit

__all__ = ["open_resumable"]

OpenCarrier: TypeAlias = Callable[[], AbstractAsyncContextManager[trio.abc.Channel[bytes]]]

_VERSION = bytes([VERSION])


def open_resumable(
    open_carrier: OpenCarrier, options: Resume, *, handshake_timeout: float
) -> AbstractAsyncContextManager[ResumableChannel]:
    """Connect, and own a channel that reconnects whenever its connection is lost.

    Args:
        open_carrier: returns a block that owns a connection, whose packets may be longer than the
            channel's by one header.
        options: see :class:`trio_rpc.Resume`.
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
        options = self._options
        async with trio.open_nursery() as nursery:
            begin = functools.partial(self._begin, nursery, task_status)
            await keep_connected(
                functools.partial(self._connect, begin),
                first_delay=options.first_delay,
                max_delay=options.max_delay,
            )

    async def _connect(self, begin: Callable[[], object]) -> bool:
        """Make a connection, and use it as long as it lasts.

        Return whether any packet or acknowledgement arrived over it.
        """
        channel = self._channel
        if not channel.token:
            await self._open(begin)
            return True
        before = channel.received + channel.confirmed
        try:
            await self._resume()
        except (Refused, DecodeError) as exc:
            channel.fail(str(exc))
        except CHANNEL_ERRORS:
            pass  # keep_connected tries again until the grace time is over
        return channel.received + channel.confirmed > before

    async def _open(self, begin: Callable[[], object]) -> None:
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

    async def _resume(self) -> None:
        """Make one more connection, and use it as long as it lasts."""
        channel = self._channel
        async with self._open_carrier() as carrier:
            mine = Frame(Kind.RESUME, ack=channel.received, rest=_VERSION + channel.token)
            answer = await self._greet(carrier, mine)
            await channel.carry(carrier, answer.ack)

    async def _greet(self, carrier: trio.abc.Channel[bytes], frame: Frame) -> Frame:
        async with time_limit(self._timeout, "no answer from a server that resumes sessions"):
            await carrier.send(encode(frame))
            data = await carrier.receive()
        if not is_frame(data):
            raise Refused("the server does not resume sessions: its serve() lacks resume=True")
        answer = decode(data)
        if answer.kind is Kind.REFUSE:
            raise Refused(one_line(answer.rest.decode(errors="replace")))
        if answer.kind is not Kind.ACCEPT:
            raise DecodeError(f"the server answered with {answer.kind.name}, not ACCEPT or REFUSE")
        return answer

"""Protections that hypercorn lacks.

These are a configurable limit of WebSocket messages that holds, and a log that clients cannot
fill.

hypercorn also accepts ``permessage-deflate`` from every client that offers it, as browsers do, and
inflates a message before it checks the size: 254 KiB become 256 MiB in each of several buffers.
It has no setting for this, so :func:`without_deflate` removes the offer.
"""

from __future__ import annotations

import logging
import math
import sys
import traceback
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h11
import starlette
import trio
from hypercorn.config import Config
from hypercorn.logging import Logger
from hypercorn.protocol.events import StreamClosed
from hypercorn.protocol.ws_stream import FrameTooLargeError, WebsocketBuffer, WSStream
from hypercorn.utils import UnexpectedMessageError
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect
from wsproto.events import Message
from wsproto.utilities import ProtocolError

from trio_rpc.gateway.server.memory_budget import MemoryBudget, MemoryShare
from trio_rpc.gateway.server.websocket import WITHOUT_DEFLATE
from trio_rpc.util.rate_limited_log import RateLimitedLog

__all__ = ["QuietLog", "without_deflate"]

logger = logging.getLogger("trio_rpc.gateway")

BAD_ENDS = (
    ConnectionError,
    trio.BrokenResourceError,
    trio.BusyResourceError,
    trio.ClosedResourceError,
    h11.ProtocolError,
    ProtocolError,
    UnexpectedMessageError,
    ClientDisconnect,
    WebSocketDisconnect,
)
"""Errors in an application whose client disconnects or breaks the protocol at a bad moment."""

LINGER = 1.0
"""Seconds in which a client can read why its message was refused; a gateway has its own limit."""

STARLETTE = str(Path(starlette.__file__).parent)


def without_deflate(app: ASGIApp) -> ASGIApp:
    """Wrap an ASGI application so that hypercorn accepts no compression of WebSocket messages.

    Wrap the whole application, directly below hypercorn. :func:`~trio_rpc.gateway.serve` does so.

    The wrapper also replaces hypercorn's check of message sizes. A
    :class:`~trio_rpc.gateway.Gateway` sets the limit of its own WebSockets. All others have the
    limit of hypercorn, ``websocket_max_message_size``, 16 MiB by default.

    Args:
        app: the whole application.

    Raises:
        RuntimeError: (when a WebSocket opens) the wrapper is not directly below hypercorn, or this
            version of hypercorn is not supported.
    """

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            stream = getattr(send, "__self__", None)
            if not isinstance(stream, WSStream):
                raise RuntimeError("without_deflate must be directly below hypercorn")
            stream.handshake.extensions = None
            buffer = stream.buffer = _Buffer(stream, stream.config.websocket_max_message_size)
            scope[WITHOUT_DEFLATE] = buffer.limit
        await app(scope, receive, send)

    return wrapped


class _Buffer(WebsocketBuffer):
    """Buffers a message up to the limit, and soon disconnects a client that has exceeded it.

    hypercorn counts characters instead of bytes. After its Close frame it keeps accepting data, and
    waits for the client's Close without a time limit.
    """

    def __init__(self, stream: WSStream, max_length: int) -> None:
        super().__init__(max_length)
        self._stream = weakref.ref(stream)  # weak, since the stream refers to this buffer
        self._shutdown_timeout = LINGER
        self._share = MemoryShare(MemoryBudget(math.inf))
        self._is_dying = False

    def limit(self, max_message: int, shutdown_timeout: float, share: MemoryShare) -> None:
        """Set the bounds of this WebSocket's messages.

        Args:
            max_message: the most bytes of a message.
            shutdown_timeout: seconds until a sender of more is cut off.
            share: counts the bytes of a message while it arrives. If it has no room, the message
                counts as too large.
        """
        self.max_length = max_message
        self._shutdown_timeout = shutdown_timeout
        self._share = share

    def extend(self, event: Message[Any]) -> None:
        data = event.data
        size = len(data.encode()) if isinstance(data, str) and not data.isascii() else len(data)
        is_too_large = self.length + size > self.max_length or not self._share.has_room(size)
        if self._is_dying or is_too_large:
            self.clear()
            stream = self._stream()
            if not self._is_dying and stream is not None:
                self._is_dying = True
                stream.task_group.spawn(_die, stream, self._shutdown_timeout)
            raise FrameTooLargeError
        super().extend(event)
        self.length += size - len(data)
        self._share.take(size)

    def clear(self) -> None:
        """Forget the message, which has arrived or is refused."""
        super().clear()
        self._share.give_back(self._share.size)


async def _die(stream: WSStream, seconds: float) -> None:
    await trio.sleep(seconds)
    await stream.send(StreamClosed(stream_id=stream.stream_id))


class QuietLog(Logger):
    """hypercorn's log, but with at most one short line a minute for connections that end badly."""

    def __init__(self, config: Config) -> None:
        config.errorlog = logger
        super().__init__(config)
        self._bad_ends = RateLimitedLog(logger, lines=1)
        self._app_errors = RateLimitedLog(logger)

    async def exception(self, message: str, *args: Any, **kwargs: Any) -> None:
        """Log an exception of an application.

        Its own errors are logged with their tracebacks, up to a rate limit. An error that a client
        caused is logged as a bad end.
        """
        exc = sys.exc_info()[1]
        if exc is not None and all(map(_is_bad_end, _leaves(exc))):
            self.bad_end(exc)
        else:
            self._app_errors.log(logging.ERROR, message, *args, exc_info=exc)

    def bad_end(self, exc: BaseException) -> None:
        """Log that a connection ended badly, unless this was logged within the last minute."""
        leaf = next(_leaves(exc))
        text = "a connection ended badly: %s: %.200r"
        self._bad_ends.log(logging.INFO, text, type(leaf).__name__, str(leaf))


def _leaves(exc: BaseException) -> Iterator[BaseException]:
    if isinstance(exc, BaseExceptionGroup):
        for one in exc.exceptions:
            yield from _leaves(one)
    else:
        yield exc


def _is_bad_end(exc: BaseException) -> bool:
    if isinstance(exc, (*BAD_ENDS, trio.Cancelled)):
        return True
    # Starlette raises RuntimeError for a message that does not fit its WebSocket's state any more.
    frames = traceback.extract_tb(exc.__traceback__)
    return isinstance(exc, RuntimeError) and frames[-1].filename.startswith(STARLETTE)

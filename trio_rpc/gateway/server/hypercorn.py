"""What hypercorn lacks: a limit of WebSocket messages that can be set and holds, and a log that strangers cannot fill.

It also takes ``permessage-deflate`` from whoever offers it, as browsers do, and inflates what comes before it
looks at the size: 254 KiB become 256 MiB in each of several buffers. There is no setting for that, so
:func:`without_deflate` takes the offer away.
"""

from __future__ import annotations

import logging
import sys
import traceback
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

from trio_rpc.gateway.limits import GatewayLimits
from trio_rpc.gateway.server.app import WITHOUT_DEFLATE
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
"""What an application hits when its client has gone, or speaks nonsense, at the wrong moment."""

STARLETTE = str(Path(starlette.__file__).parent)


def without_deflate(app: ASGIApp) -> ASGIApp:
    """Wrap an ASGI application so that hypercorn accepts no compression of WebSocket messages.

    A :class:`~trio_rpc.gateway.Gateway` inside it also sets how large a message may be; without it, hypercorn's own
    setting holds. To go round the whole application, right below hypercorn;
    :func:`~trio_rpc.gateway.serve` does so.

    Raises (at a WebSocket) RuntimeError: it is not right below a hypercorn that is understood.
    """

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            stream = getattr(send, "__self__", None)
            if not isinstance(stream, WSStream):
                raise RuntimeError("without_deflate has to be right below hypercorn")
            stream.handshake.extensions = None
            buffer = stream.buffer = _Buffer(stream, GatewayLimits().max_message)
            scope[WITHOUT_DEFLATE] = buffer.limit
        await app(scope, receive, send)

    return wrapped


class _Buffer(WebsocketBuffer):
    """Holds no more than may come; a client that has sent more is gone soon, whatever it does.

    hypercorn counts characters, takes in what goes on coming after its Close frame, and waits for the client's own
    Close for as long as that likes.
    """

    def __init__(self, stream: WSStream, max_length: int) -> None:
        super().__init__(max_length)
        self._stream = stream
        self._time_to_die = GatewayLimits().shutdown_timeout
        self._is_dying = False

    def limit(self, max_message: int, shutdown_timeout: float) -> None:
        """Set how many bytes a message may have, and seconds until its sender is gone."""
        self.max_length = max_message
        self._time_to_die = shutdown_timeout

    def extend(self, event: Message[Any]) -> None:
        data = event.data
        size = len(data.encode()) if isinstance(data, str) and not data.isascii() else len(data)
        if self._is_dying or self.length + size > self.max_length:
            self.clear()
            if not self._is_dying:
                self._is_dying = True
                self._stream.task_group.spawn(self._die)
            raise FrameTooLargeError
        super().extend(event)
        self.length += size - len(data)

    async def _die(self) -> None:
        await trio.sleep(self._time_to_die)
        await self._stream.send(StreamClosed(stream_id=self._stream.stream_id))


class QuietLog(Logger):
    """hypercorn's log, in which connections that end at a bad moment are one short line a minute."""

    def __init__(self, config: Config) -> None:
        config.errorlog = logger
        super().__init__(config)
        self._bad_ends = RateLimitedLog(logger, lines=1)
        self._app_errors = RateLimitedLog(logger)

    async def exception(self, message: str, *args: Any, **kwargs: Any) -> None:
        """Log what an application has raised: its own errors with their traceback, so many a minute."""
        exc = sys.exc_info()[1]
        if exc is not None and all(map(_is_bad_end, _leaves(exc))):
            self.bad_end(exc)
        else:
            self._app_errors.log(logging.ERROR, message, *args, exc_info=exc)

    def bad_end(self, exc: BaseException) -> None:
        """Log that a connection has ended at a bad moment, if none did lately."""
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
    # Starlette raises it for messages that its WebSocket is in no state for any more.
    frames = traceback.extract_tb(exc.__traceback__)
    return isinstance(exc, RuntimeError) and frames[-1].filename.startswith(STARLETTE)

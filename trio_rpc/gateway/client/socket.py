"""A WebSocket that carries texts, for the Python client of a gateway."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

import trio
import trio_websocket

from trio_rpc.channels import tls
from trio_rpc.channels.connecting import connect_tcp
from trio_rpc.channels.connection import close_forcefully
from trio_rpc.channels.websocket.stream import WatchedStream
from trio_rpc.util.one_exception import one_exception
from trio_rpc.util.time_limits import time_limit

__all__ = ["TextSocket", "open_text_socket"]

MAX_MESSAGE = 64 * 1024 * 1024
"""The most bytes of one message from the gateway: results have no other bound."""


class TextSocket:
    """A connection that sends and receives texts.

    ``receive`` and ``send`` raise OSError once it has ended, for any reason.
    """

    def __init__(
        self, websocket: trio_websocket.WebSocketConnection, stream: WatchedStream
    ) -> None:
        self._websocket = websocket
        self._stream = stream

    async def send(self, text: str) -> None:
        """Send one text."""
        try:
            await self._websocket.send_message(text)
        except trio_websocket.ConnectionClosed:
            raise self._ended() from None

    async def receive(self) -> str | bytes:
        """Wait for the next text and return it."""
        try:
            message = await self._websocket.get_message()
        except trio_websocket.ConnectionClosed:
            raise self._ended() from None
        self._stream.unread = 0
        return message

    async def close(self, text: str) -> None:
        """Send one more text, then close the WebSocket."""
        with suppress(trio_websocket.ConnectionClosed):
            await self._websocket.send_message(text)
            await self._websocket.aclose()

    def _ended(self) -> OSError:
        closed = self._websocket.closed
        if closed is None or closed.code == 1006:
            return ConnectionError(
                f"the connection was lost: {self._stream.failure or 'no reason given'}"
            )
        return ConnectionError(f"the gateway closed the WebSocket: {closed.code} {closed.reason}")


@asynccontextmanager
async def open_text_socket(
    host: str,
    port: int,
    path: str,
    ssl_context: ssl.SSLContext | None,
    *,
    patience: float,
    headers: Mapping[str, str],
) -> AsyncIterator[TextSocket]:
    """Open a WebSocket for a block, and close it forcefully when the block ends.

    Args:
        host: the gateway's host.
        port: the gateway's port.
        path: the path of the URL.
        ssl_context: the context for ``wss``; None for ``ws``.
        patience: seconds that all handshakes together may take.
        headers: more headers of the request.

    Raises:
        OSError: the WebSocket cannot be opened; one line of text.
    """
    stream: trio.abc.Stream | None = None
    netloc = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    with one_exception() as body:
        try:
            async with trio.open_nursery() as nursery:
                async with time_limit(patience, "no answer"):
                    stream = await connect_tcp(host, port)
                    if ssl_context is not None:
                        stream = tls.wrap_client(stream, ssl_context, host, https_compatible=True)
                        await tls.shake_hands(stream)
                    watched = WatchedStream(stream, is_client=True, max_unread=2 * MAX_MESSAGE)
                    websocket = await _shake_hands(nursery, watched, netloc, path, headers)
                try:
                    yield TextSocket(websocket, watched)
                except BaseException as exc:
                    body.append(exc)
                    raise
                finally:
                    nursery.cancel_scope.cancel(
                        reason="the block that owns the WebSocket has ended"
                    )
        finally:
            if stream is not None:
                await close_forcefully(stream)


async def _shake_hands(
    nursery: trio.Nursery,
    watched: WatchedStream,
    netloc: str,
    path: str,
    headers: Mapping[str, str],
) -> trio_websocket.WebSocketConnection:
    try:
        websocket = await trio_websocket.wrap_client_stream(
            nursery,
            watched,  # type: ignore[arg-type]  # annotated as SocketStream, works with any
            netloc,
            path,
            extra_headers=[(name.encode(), value.encode()) for name, value in headers.items()],
            max_message_size=MAX_MESSAGE,
            receive_buffer_size=256 * 1024,
        )
    except trio_websocket.HandshakeError as exc:
        raise ConnectionError(f"the WebSocket handshake failed: {exc}") from None
    watched.opened()
    return websocket

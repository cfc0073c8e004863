"""WebSocket: each packet is one binary frame, at both ends of a trio-websocket connection.

How the library is used
-----------------------
``trio_websocket`` drives a connection with its own task, which reads all the time. That task lives
in a nursery inside the block that owns the channel. If it raises, ``send`` and ``receive`` of the
channel raise one exception that says what happened. This module and
:class:`~trio_rpc.channels.websocket.stream.WatchedStream` fill these gaps of the library:

=============================================  ====================================================
problem                                        solution
=============================================  ====================================================
a cancelled ``send_message`` leaves half a     later sends raise BrokenResourceError, including
frame, and later messages vanish               those of the reading task
the handshake waits for a peer that leaves     the stream raises, which ends the handshake at once
or answers 503
``receive_buffer_size`` is 4 KiB               we set 256 KiB
``ping`` starves when no task reads            we do not use it: a session has its own Ping, and
                                               always reads
an exception ends the nursery that the         each connection has its own nursery, which contains
library was given                              the exception
``aclose`` waits for a reading task that has   ``aclose`` stops waiting when that task has ended,
crashed, and does not close the stream if the  and we always close the stream
peer closed first
fragments without content accumulate without   the number of bytes without a packet in them is
bound                                          bounded
a message that has begun may take forever      ``Limits.packet_timeout`` bounds it
=============================================  ====================================================
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import NoReturn

import trio
import trio_websocket

from trio_rpc.channels import tls
from trio_rpc.channels.connecting import naming
from trio_rpc.channels.connection import Connection, close_forcefully, owned_with_task
from trio_rpc.channels.errors import (
    ChannelBroken,
    ChannelEnded,
    ChannelGuard,
    WebSocketClose,
    closed_error,
)
from trio_rpc.channels.urls import Address
from trio_rpc.channels.websocket.stream import WatchedStream
from trio_rpc.errors import DecodeError
from trio_rpc.util.one_exception import one_exception
from trio_rpc.util.text import one_line
from trio_rpc.util.time_limits import time_limit_in
from trio_rpc.wire.limits import Limits

__all__ = [
    "SUBPROTOCOL",
    "WebSocketChannel",
    "WebSocketConnection",
    "check_origins",
    "open_websocket",
]

SUBPROTOCOL = "trio-rpc.v1"
"""The subprotocol that both ends must name: the packets of docs/protocol.md, version 1."""

READ_SIZE = 256 * 1024
"""Bytes to read at a time, so that a large packet arrives in few pieces."""

OVERHEAD = 128 * 1024
"""Bytes of headers and control frames that may come with two packets: far more than they need."""

NORMAL, GOING_AWAY, PROTOCOL_ERROR, UNSUPPORTED = 1000, 1001, 1002, 1003
NO_STATUS, ABNORMAL, INVALID_DATA, TOO_BIG = 1005, 1006, 1007, 1009

Handshake = Callable[[trio.Nursery, WatchedStream], Awaitable[trio_websocket.WebSocketConnection]]


class WebSocketChannel(trio.abc.Channel[bytes]):
    """A channel of whole packets over a WebSocket. One task may send while another receives.

    Made by :func:`open_channel` and :meth:`Connection.prepared`, whose blocks own its tasks.
    """

    def __init__(
        self,
        websocket: trio_websocket.WebSocketConnection,
        stream: WatchedStream,
        max_packet: int,
    ) -> None:
        self._websocket = websocket
        self._stream = stream
        self._max_packet = max_packet
        self._guard = ChannelGuard()
        self._close_with = (NORMAL, "")
        self._close_handshake = trio.CancelScope()

    def __repr__(self) -> str:
        state = "closed " if self._guard.is_closed else ""
        return f"<{state}WebSocketChannel {'client' if self._websocket.is_client else 'server'}>"

    @property
    def heard(self) -> int:
        """A value that changes when a part of a packet arrives: a sign of life."""
        return self._stream.heard

    @property
    def taken(self) -> object:
        """A value that changes when the other end reads a part of the unsent data."""
        return self._stream.taken

    async def send(self, value: bytes) -> None:
        """Send one packet. If cancelled while it waits, the channel may be broken.

        Args:
            value: the packet; at least one byte.

        Raises:
            ValueError: the packet is empty.
            trio.BrokenResourceError: the peer closed, or the connection is lost, or an earlier
                send was cancelled inside its frame.
            trio.ClosedResourceError: this end is closed, or was closed while sending.
            trio.BusyResourceError: another task is sending.
        """
        self._guard.check_open()
        if not value:
            raise ValueError("a packet has at least one byte")
        self._guard.begin_sending()
        try:
            await self._websocket.send_message(value)
        except trio_websocket.ConnectionClosed:
            if self._guard.is_closed:
                raise closed_error() from None
            raise self._broken() from self._stream.failure
        finally:
            self._guard.is_sending = False

    async def receive(self) -> bytes:
        """Return the next packet. If cancelled, no packet is lost.

        Raises:
            ChannelEnded: the peer closed in an orderly way. The ``detail`` of this error and of the
                next one is a :class:`WebSocketClose` with the code and the reason.
            ChannelBroken: the peer closed because of an error.
            trio.BrokenResourceError: the connection is lost.
            trio.ClosedResourceError: this end is closed, or was closed while waiting.
            trio.BusyResourceError: another task is receiving.
            DecodeError: a packet is too large, is text, or is empty, or the frames are malformed.
        """
        self._guard.check_open()
        self._guard.begin_receiving()
        try:
            message = await self._websocket.get_message()
        except trio_websocket.ConnectionClosed as exc:
            # The library closes its queue at this end only if a message is too large.
            ours = isinstance(exc.__context__, trio.ClosedResourceError)
            raise self._end(ours=ours) from self._stream.failure
        finally:
            self._guard.is_receiving = False
        self._stream.unread = 0
        if not isinstance(message, bytes):
            self._close_with = UNSUPPORTED, "packets are binary"
            raise DecodeError("the peer sent a text frame; packets are binary frames")
        if not message:
            self._close_with = PROTOCOL_ERROR, "a packet is never empty"
            raise DecodeError("the peer sent an empty packet")
        return message

    async def aclose(self) -> None:
        """Close the WebSocket, and wait for the peer's answer. If cancelled, close at once."""
        first, self._guard.is_closed = not self._guard.is_closed, True
        try:
            # While another task sends, a Close frame would have to wait for its frame.
            if first and not self._guard.is_sending:
                with self._close_handshake:
                    await self._websocket.aclose(*self._close_with)
            elif self._stream.is_closed:
                await trio.lowlevel.checkpoint()
        finally:
            # The library does not close the stream if the peer closed first. Closing it forcefully
            # adds no wait, because the Close frames have already been exchanged.
            if not self._stream.is_closed:
                await close_forcefully(self._stream)

    def close_nowait(self) -> bool:
        """Return whether the connection is closed already. Closing an open one must wait."""
        return self._stream.is_closed

    def fail(self, reason: Exception | None) -> None:
        """Record that the library's task has ended, with its error if it had one.

        :meta private:
        """
        if reason is not None:
            self._stream.failure = self._stream.failure or reason
        self._close_handshake.cancel(reason="no task is left to read the peer's answer")

    def _end(self, *, ours: bool) -> Exception:
        """Return the error that says why no more packets arrive."""
        if self._guard.is_closed:
            return closed_error()
        code, text = self._closing()
        if code in (NORMAL, GOING_AWAY, NO_STATUS):
            return ChannelEnded(*self._closed_by_peer())
        if code in (PROTOCOL_ERROR, INVALID_DATA):
            return DecodeError(f"the WebSocket's frames are malformed: {text}")
        if code == TOO_BIG and ours:
            return DecodeError(f"the peer sent a packet of more than {self._max_packet} bytes")
        return self._broken()

    def _broken(self) -> trio.BrokenResourceError:
        if self._closing()[0] != ABNORMAL:
            return ChannelBroken(*self._closed_by_peer())
        reason = self._stream.failure or "the connection ended without a Close frame"
        return trio.BrokenResourceError(str(reason))

    def _closed_by_peer(self) -> tuple[str, WebSocketClose]:
        """Return a text about the peer's Close frame, and its content."""
        code, text = self._closing()
        closed = self._websocket.closed
        reason = (closed.reason if closed is not None else None) or ""
        return f"the peer closed the WebSocket: {code} {text}", WebSocketClose(code, reason)

    def _closing(self) -> tuple[int, str]:
        closed = self._websocket.closed
        if closed is None:
            return ABNORMAL, ""
        return closed.code, one_line(closed.reason or closed.name)


def open_websocket(
    stream: trio.abc.Stream, address: Address, limits: Limits
) -> AbstractAsyncContextManager[WebSocketChannel]:
    """Do the client's handshake on a fresh connection, and own the channel for a block.

    Args:
        stream: a connection to the server, whose TLS handshake is done.
        address: the address of the server, to which its host, port and path are sent.
        limits: max_packet and packet_timeout of the channel, handshake_timeout of the handshake.

    Raises:
        OSError: the server refused, left, or did not answer in time. The text is one line.
    """

    async def shake_hands(
        nursery: trio.Nursery, watched: WatchedStream
    ) -> trio_websocket.WebSocketConnection:
        websocket = await trio_websocket.wrap_client_stream(
            nursery,
            watched,  # type: ignore[arg-type]  # annotated as SocketStream, but takes any stream
            address.netloc,
            address.path or "/",
            subprotocols=[SUBPROTOCOL],
            max_message_size=limits.max_packet,
            receive_buffer_size=READ_SIZE,
        )
        if websocket.subprotocol != SUBPROTOCOL:
            raise ConnectionRefusedError(f"the server does not speak {SUBPROTOCOL}")
        return websocket

    watched = _watched(stream, limits, is_client=True)
    return owned_with_task(
        partial(_run, watched, shake_hands, limits, f"cannot connect to {address}")
    )


class WebSocketConnection(Connection):
    """A client that has connected to a port for WebSockets.

    Args:
        stream: the connection, before any data was read or written; with TLS, before its handshake.
        limits: max_packet and packet_timeout of the channel, handshake_timeout of all handshakes
            together.
        name: see :class:`Connection`.
        host: see :class:`Connection`.
        path: the path of the server; requests for other paths get 404.
        allowed_origins: the result of :func:`check_origins`.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        limits: Limits,
        *,
        name: str,
        host: str = "",
        path: str = "",
        allowed_origins: frozenset[str] | None = None,
    ) -> None:
        super().__init__(name, host)
        self._stream = stream
        self._limits = limits
        self._path = path
        self._allowed_origins = allowed_origins

    def prepared(self) -> AbstractAsyncContextManager[WebSocketChannel]:
        """Do the TLS and the WebSocket handshake: see :meth:`Connection.prepared`."""
        watched = _watched(self._stream, self._limits, is_client=False)
        self.shaking_hands = scope = trio.CancelScope()
        run = partial(_run, watched, self._shake_hands, self._limits, "", scope)
        return owned_with_task(run)

    async def aclose(self) -> None:
        """Close the connection at once, without telling the client why."""
        await trio.aclose_forcefully(self._stream)

    async def _shake_hands(
        self, nursery: trio.Nursery, watched: WatchedStream
    ) -> trio_websocket.WebSocketConnection:
        await tls.shake_hands(self._stream)
        request = await trio_websocket.wrap_server_stream(
            nursery,
            watched,
            max_message_size=self._limits.max_packet,
            receive_buffer_size=READ_SIZE,
        )
        refusal = self._refusal(request, watched.head)
        if refusal is not None:
            status, text = refusal
            await request.reject(status, body=f"{text}\n".encode())
            raise ConnectionRefusedError(f"refused with {status}: {text}")
        return await request.accept(subprotocol=SUBPROTOCOL)

    def _refusal(
        self, request: trio_websocket.WebSocketRequest, head: bytes
    ) -> tuple[int, str] | None:
        if request.path.partition("?")[0] != (self._path or "/"):
            return 404, f"there is nothing at {request.path[:200]!r}"
        origins = [value for name, value in request.headers if name == b"origin"]
        if not self._is_allowed(origins, head):
            return 403, f"the origin {b', '.join(origins)[:200]!r} is not allowed"
        if SUBPROTOCOL not in request.proposed_subprotocols:
            return 400, f"the subprotocol must be {SUBPROTOCOL}"
        return None

    def _is_allowed(self, origins: list[bytes], head: bytes) -> bool:
        if not origins:
            return True
        if len(origins) > 1:
            return False
        origin = origins[0].decode("latin-1").lower()
        if self._allowed_origins is not None:
            return origin in self._allowed_origins
        return origin in {f"{scheme}://{_host(head)}" for scheme in ("http", "https")}


def check_origins(allowed: Collection[str] | None) -> frozenset[str] | None:
    """Check the origins of the pages whose scripts may connect.

    Args:
        allowed: origins in the form that a browser sends, ``https://example.org``, with the port
            if it is not the scheme's default. None allows pages that were loaded from the same
            host and port. Programs other than browsers send no origin, and are always accepted.

    Raises:
        ValueError: an entry is not an origin, so no browser would ever send it.
        TypeError: ``allowed`` is a string and not a collection of strings.
    """
    if allowed is None:
        return None
    if isinstance(allowed, str):
        raise TypeError("allowed_origins must be a collection of origins, not one origin")
    for origin in allowed:
        if not re.fullmatch(r"[A-Za-z][\w+.-]*://[^/\s]+/?", origin):
            raise ValueError(f"{origin!r} is not an origin, such as https://example.org")
    return frozenset(origin.lower().rstrip("/") for origin in allowed)


def _host(head: bytes) -> str:
    """Return the Host header of a request; wsproto has checked that there is exactly one."""
    found = re.search(rb"\r\nhost:[ \t]*([^\r\n]*)", head, re.IGNORECASE)
    return found[1].strip().decode("latin-1").lower() if found else ""


def _watched(stream: trio.abc.Stream, limits: Limits, *, is_client: bool) -> WatchedStream:
    # The library reads until it has one packet in its queue and a second one that does not fit
    # there. Its last read may contain more bytes.
    most = 2 * limits.max_packet + READ_SIZE + OVERHEAD
    return WatchedStream(
        stream, is_client=is_client, max_unread=most, packet_timeout=limits.packet_timeout
    )


async def _run(
    stream: WatchedStream,
    shake_hands: Handshake,
    limits: Limits,
    action: str,
    scope: trio.CancelScope | None = None,
    *,
    task_status: trio.TaskStatus[WebSocketChannel],
) -> None:
    """Open a WebSocket and run the library's task as long as it lasts.

    ``scope`` is the scope of the handshake.
    """
    channel: WebSocketChannel | None = None
    failure: Exception | None = None
    try:
        with one_exception():
            async with trio.open_nursery() as nursery:
                timeout, complaint = limits.handshake_timeout, "no WebSocket handshake"
                with time_limit_in(nursery, timeout, complaint, scope):
                    websocket = await shake_hands(nursery, stream)
                stream.opened()
                channel = WebSocketChannel(websocket, stream, limits.max_packet)
                task_status.started(channel)
    except Exception as exc:  # noqa: BLE001 - the error of one connection must not end the others
        if channel is None:
            with naming(action) if action else nullcontext():
                _raise_os_error(exc)
        failure = exc
    finally:
        if channel is None:
            stream.opened()  # the handshake has failed; from here on, closing is not an error
            await close_forcefully(stream)
        else:
            channel.fail(failure)


def _raise_os_error(exc: Exception) -> NoReturn:
    if isinstance(exc, OSError):
        raise exc
    reason: BaseException = exc
    while reason.__context__ is not None:  # the first error came before any failed answer to it
        reason = reason.__context__
    text = str(reason) or type(reason).__name__
    raise ConnectionError(f"the WebSocket handshake failed: {text}") from exc

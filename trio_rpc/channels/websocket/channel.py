"""WebSocket: each packet is one binary frame, at both ends of a trio-websocket connection.

How the library is used
-----------------------
``trio_websocket`` drives a connection with a task of its own, which reads all the time. That task
lives in a nursery of ours within the block that owns the channel, and whatever it raises ends there:
the channel then says what has happened, in one exception, to whoever sends or receives. What the
library leaves open is settled here and in :class:`~trio_rpc.channels.websocket.stream.WatchedStream`:

=============================================  ======================================================
what happens otherwise                         what is done about it
=============================================  ======================================================
a cancelled ``send_message`` leaves half a     later sends raise BrokenResourceError, as does what
frame, and later ones vanish                   the reading task has to send
a peer that leaves, or answers 503, during     the stream raises, which ends the handshake at once
the handshake is waited for
``receive_buffer_size`` is 4 KiB               256 KiB
``ping`` starves when nobody reads             it is not used: a session has a Ping of its own, and
                                               always reads
an exception takes down the nursery that it    each connection has a nursery of its own, in which it
was given                                      ends
``aclose`` waits for a reading task that has   it stops waiting when that task has ended
crashed, and does not close the stream if the  and the stream is always closed
peer closed first
fragments without content gather without       so many bytes may come without a packet in them, and
bound                                          no more
a message that has begun may take for ever     ``Limits.packet_timeout`` bounds it
=============================================  ======================================================
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
from trio_rpc.channels.connection import (
    Connection,
    close_forcefully,
    owned_with_task,
    time_limit,
)
from trio_rpc.channels.errors import ChannelGuard, closed_error
from trio_rpc.channels.urls import Address
from trio_rpc.channels.websocket.stream import WatchedStream
from trio_rpc.errors import DecodeError
from trio_rpc.util.one_exception import one_exception
from trio_rpc.wire.limits import Limits

__all__ = [
    "SUBPROTOCOL",
    "WebSocketChannel",
    "WebSocketConnection",
    "check_origins",
    "open_websocket",
]

SUBPROTOCOL = "trio-rpc.v1"
"""What both ends have to name in the handshake: the packets of docs/protocol.md, version 1."""

READ_SIZE = 256 * 1024
"""Bytes asked for at a time: a large packet comes in few pieces."""

OVERHEAD = 128 * 1024
"""Bytes of frame headers and control frames that may come with two packets: far more than there are."""

NORMAL, GOING_AWAY, PROTOCOL_ERROR, UNSUPPORTED = 1000, 1001, 1002, 1003
NO_STATUS, ABNORMAL, INVALID_DATA, TOO_BIG = 1005, 1006, 1007, 1009

Handshake = Callable[[trio.Nursery, WatchedStream], Awaitable[trio_websocket.WebSocketConnection]]


class WebSocketChannel(trio.abc.Channel[bytes]):
    """A channel of whole packets over a WebSocket. One task may send while another receives.

    Made by :func:`open_websocket` and :class:`WebSocketConnection`, whose blocks own its tasks.
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
        self._farewell = trio.CancelScope()

    def __repr__(self) -> str:
        state = "closed " if self._guard.is_closed else ""
        return f"<{state}WebSocketChannel {'client' if self._websocket.is_client else 'server'}>"

    @property
    def heard(self) -> int:
        """What changes when a part of a packet comes: a sign of life."""
        return self._stream.heard

    async def send(self, value: bytes) -> None:
        """Send one packet. Cancelled while it waits, it may have cost the channel.

        Raises:
            ValueError: the packet is empty.
            trio.BrokenResourceError: the peer closed, or the connection is lost, or an earlier
                send was cancelled inside its frame.
            trio.ClosedResourceError: this end is closed, or was while sending.
            trio.BusyResourceError: another task is sending.
        """
        self._guard.check_open()
        if not value:
            raise ValueError("a packet has at least one byte")
        with self._guard.sending:
            try:
                await self._websocket.send_message(value)
            except trio_websocket.ConnectionClosed:
                if self._guard.is_closed:
                    raise closed_error() from None
                raise self._broken() from self._stream.failure

    async def receive(self) -> bytes:
        """Return the next packet. Cancelled, it has lost nothing.

        Raises:
            trio.EndOfChannel: the peer closed in an orderly way.
            trio.BrokenResourceError: the connection is lost, or the peer closed for an error,
                which is named with its code.
            trio.ClosedResourceError: this end is closed, or was while waiting.
            trio.BusyResourceError: another task is receiving.
            DecodeError: a packet is too large, is text, or is empty, or the frames are malformed.
        """
        self._guard.check_open()
        with self._guard.receiving:
            try:
                message = await self._websocket.get_message()
            except trio_websocket.ConnectionClosed as exc:
                # The library shuts its queue at this end if a message is too large, and only then.
                ours = isinstance(exc.__context__, trio.ClosedResourceError)
                raise self._end(ours=ours) from self._stream.failure
        self._stream.unread = 0
        if not isinstance(message, bytes):
            self._close_with = UNSUPPORTED, "packets are binary"
            raise DecodeError("the peer sent a text frame; packets are binary frames")
        if not message:
            self._close_with = PROTOCOL_ERROR, "a packet is never empty"
            raise DecodeError("the peer sent an empty packet")
        return message

    async def aclose(self) -> None:
        """Close the WebSocket, and wait for the peer's answer. Cancelled, it closes at once."""
        first, self._guard.is_closed = not self._guard.is_closed, True
        try:
            # A Close frame would have to wait for the frame that is on its way.
            if first and not self._guard.sending.is_held:
                with self._farewell:
                    await self._websocket.aclose(*self._close_with)
        finally:
            await self._close_stream()

    async def _close_stream(self) -> None:
        # The library does not if the peer closed first, and whoever waits here was heard before.
        await close_forcefully(self._stream)

    def fail(self, reason: Exception | None) -> None:
        """Take note that the library's task has ended, for a reason of its own if there is one."""
        if reason is not None:
            self._stream.failure = self._stream.failure or reason
        self._farewell.cancel(reason="nobody is left to hear the peer's answer")

    def _end(self, *, ours: bool) -> Exception:
        """Why nothing more is received."""
        if self._guard.is_closed:
            return closed_error()
        code, text = self._closing()
        if code in (NORMAL, GOING_AWAY, NO_STATUS):
            return trio.EndOfChannel()
        if code in (PROTOCOL_ERROR, INVALID_DATA):
            return DecodeError(f"the WebSocket's frames are malformed: {text}")
        if code == TOO_BIG and ours:
            return DecodeError(f"a packet of more than {self._max_packet} bytes came")
        return self._broken()

    def _broken(self) -> trio.BrokenResourceError:
        code, text = self._closing()
        if code != ABNORMAL:
            return trio.BrokenResourceError(f"the peer closed the WebSocket: {code} {text}".strip())
        reason = self._stream.failure or "the connection ended without a Close frame"
        return trio.BrokenResourceError(str(reason))

    def _closing(self) -> tuple[int, str]:
        closed = self._websocket.closed
        return (ABNORMAL, "") if closed is None else (closed.code, closed.reason or closed.name)


def open_websocket(
    stream: trio.abc.Stream, address: Address, limits: Limits
) -> AbstractAsyncContextManager[WebSocketChannel]:
    """Do the client's handshake on a fresh connection, and own the channel for a block.

    Args:
        stream: a connection to the server, whose TLS handshake is done.
        address: what it was opened with: the server is told its host, port and path.
        limits: max_packet and packet_timeout of the channel, handshake_timeout of the handshake.

    Raises:
        OSError: the server refused, left, or said nothing in time; one line of text.
    """

    async def shake_hands(
        nursery: trio.Nursery, watched: WatchedStream
    ) -> trio_websocket.WebSocketConnection:
        websocket = await trio_websocket.wrap_client_stream(
            nursery,
            watched,  # type: ignore[arg-type]  # it says SocketStream, and takes any stream
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
        stream: the connection, fresh; with TLS, before its handshake.
        limits: max_packet and packet_timeout of the channel, handshake_timeout of all handshakes
            together.
        name: see :class:`Connection`.
        path: where the server is found; every other one answers 404.
        allowed_origins: what :func:`check_origins` has returned.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        limits: Limits,
        *,
        name: str,
        path: str = "",
        allowed_origins: frozenset[str] | None = None,
    ) -> None:
        super().__init__(name)
        self._stream = stream
        self._limits = limits
        self._path = path
        self._allowed_origins = allowed_origins

    def prepared(self) -> AbstractAsyncContextManager[WebSocketChannel]:
        """Do the TLS and the WebSocket handshake: see :meth:`Connection.prepared`."""
        watched = _watched(self._stream, self._limits, is_client=False)
        return owned_with_task(partial(_run, watched, self._shake_hands, self._limits, ""))

    async def aclose(self) -> None:
        """Close the connection at once, without a word."""
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
        allowed: each as a browser names it, ``https://example.org``, with a port that is not the
            scheme's own. None: those pages that were loaded from the same host and port. Programs
            that are no browser name no origin, and are always let in.

    Raises:
        ValueError: one of them is no origin: it would never be named.
        TypeError: it is one string, and not a collection of them.
    """
    if allowed is None:
        return None
    if isinstance(allowed, str):
        raise TypeError("allowed_origins must be a collection of origins, not one origin")
    for origin in allowed:
        if not re.fullmatch(r"[A-Za-z][\w+.-]*://[^/\s]+/?", origin):
            raise ValueError(f"{origin!r} is no origin, such as https://example.org")
    return frozenset(origin.lower().rstrip("/") for origin in allowed)


def _host(head: bytes) -> str:
    """The Host that a request was for; wsproto has checked that there is one, and only one."""
    found = re.search(rb"\r\nhost:[ \t]*([^\r\n]*)", head, re.IGNORECASE)
    return found[1].strip().decode("latin-1").lower() if found else ""


def _watched(stream: trio.abc.Stream, limits: Limits, *, is_client: bool) -> WatchedStream:
    # The library reads on until it holds one packet in its queue and another one in its hand; what
    # it has read last may hold more.
    most = 2 * limits.max_packet + READ_SIZE + OVERHEAD
    return WatchedStream(
        stream, is_client=is_client, max_unread=most, packet_timeout=limits.packet_timeout
    )


async def _run(
    stream: WatchedStream,
    shake_hands: Handshake,
    limits: Limits,
    action: str,
    *,
    task_status: trio.TaskStatus[WebSocketChannel],
) -> None:
    """Open a WebSocket and run the library's task as long as it lasts."""
    channel: WebSocketChannel | None = None
    failure: Exception | None = None
    try:
        with one_exception():
            async with trio.open_nursery() as nursery:
                with time_limit(limits.handshake_timeout, "no WebSocket handshake"):
                    websocket = await shake_hands(nursery, stream)
                stream.opened()
                channel = WebSocketChannel(websocket, stream, limits.max_packet)
                task_status.started(channel)
    except Exception as exc:  # noqa: BLE001 - nothing of a connection may reach the others
        if channel is None:
            with naming(action) if action else nullcontext():
                _raise_os_error(exc)
        failure = exc
    finally:
        if channel is None:
            stream.opened()  # or failed to: from here on closing it is no error
            await close_forcefully(stream)
        else:
            channel.fail(failure)


def _raise_os_error(exc: Exception) -> NoReturn:
    if isinstance(exc, OSError):
        raise exc
    reason: BaseException = exc
    while reason.__context__ is not None:  # it has failed in the attempt to answer the first one
        reason = reason.__context__
    text = str(reason) or type(reason).__name__
    raise ConnectionError(f"the WebSocket handshake failed: {text}") from exc

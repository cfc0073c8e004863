"""One connection to a NATS server: the handshake, and reading and writing in bounded memory."""

from __future__ import annotations

import os
import ssl
import sys
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import trio

from trio_rpc.channels import connecting, tls
from trio_rpc.channels.connection import close_forcefully
from trio_rpc.channels.transports import choose_transport
from trio_rpc.errors import DecodeError, Refused
from trio_rpc.nats import parser as p
from trio_rpc.nats.addresses import Server
from trio_rpc.nats.credentials import Credentials, login_options
from trio_rpc.util.text import one_line

__all__ = ["Link", "open_link"]

READ_SIZE: Final = 64 * 1024

MAX_UNSENT: Final = 1024 * 1024
"""Bytes that wait for the server before senders wait."""

WRITE_AT_ONCE: Final = 256 * 1024
"""Bytes that are joined for one write."""

REFUSALS: Final = ("authorization", "authentication", "user authentication", "account")
"""The beginnings of complaints after which another try with the same credentials is useless."""


class Link:
    """A connection to one server.

    Writing never waits: bytes that the system does not accept are queued for :meth:`run_writer`.

    Args:
        stream: the connection, after the handshake.
        server: the address.
        info: the server's INFO.
        parser: has parsed all received bytes.

    Attributes:
        server: the address.
        info: the server's latest INFO.
        heard_at: the time when bytes have arrived last.
        local_host: the address of this machine that the server sees, or ``""``.
        room_made: called when less than half of ``MAX_UNSENT`` waits after it was full.
    """

    def __init__(
        self, stream: trio.abc.Stream, server: Server, info: Mapping[str, Any], parser: p.Parser
    ) -> None:
        self.server = server
        self.info = info
        self.heard_at = trio.current_time()
        self.local_host = _local_host(stream)
        self._stream = stream
        self._transport = choose_transport(stream)
        self._parser = parser
        # Bound: senders wait above MAX_UNSENT. A caller that does not ask has_room() is the
        # client itself, with lines whose number is bounded by subscriptions and open channels.
        self._queue: deque[bytes] = deque()
        self._unsent = 0
        self._is_writing = False
        self._wakes_writer = trio.Event()
        self._socket = _raw_socket(stream)
        self.room_made: Callable[[], None] = lambda: None
        self._was_full = False

    @property
    def max_payload(self) -> int:
        """Bytes of the largest payload that the server accepts."""
        return _number(self.info, "max_payload", 1024 * 1024)

    @property
    def has_room(self) -> bool:
        """Whether less than ``MAX_UNSENT`` bytes wait for the server."""
        if self._unsent < MAX_UNSENT:
            return True
        self._was_full = True
        return False

    def write(self, data: bytes) -> None:
        """Write without waiting; the writer's task sends the bytes that the system refuses now."""
        if self._socket is not None and not self._is_writing and not self._queue:
            try:
                sent = os.write(self._socket.fileno(), data)
            except BlockingIOError:
                sent = 0
            except OSError:
                sent = len(data)  # the reader learns of the end, and only it acts on it
            if sent == len(data):
                return
            data = data[sent:]
        self._queue.append(data)
        self._unsent += len(data)
        self._wakes_writer.set()

    async def run_writer(self) -> None:
        """Send queued bytes until cancelled, or until the connection fails."""
        while True:
            if not self._queue:
                self._wakes_writer = trio.Event()
                await self._wakes_writer.wait()
            batch: list[bytes] = []
            size = 0
            while self._queue and size < WRITE_AT_ONCE:
                batch.append(self._queue.popleft())
                size += len(batch[-1])
            self._is_writing = True
            await self._stream.send_all(b"".join(batch))
            self._is_writing = False
            self._unsent -= size
            if self._was_full and self._unsent < MAX_UNSENT // 2:
                self._was_full = False
                self.room_made()

    async def read(self) -> list[p.Event]:
        """Wait for bytes, and return the events that they complete.

        Raises:
            trio.BrokenResourceError: the connection is lost.
            DecodeError: the server does not follow the protocol.
        """
        data = await self._transport.read(READ_SIZE)
        if not data:
            raise trio.BrokenResourceError("the NATS server closed the connection")
        self.heard_at = trio.current_time()
        return self._parser.feed(data)

    def learn(self, info: Mapping[str, Any]) -> None:
        """Handle a later INFO from the server."""
        self.info = {**self.info, **info}

    async def aclose(self) -> None:
        """Close the connection at once."""
        await trio.aclose_forcefully(self._stream)


def _number(info: Mapping[str, Any], name: str, default: int) -> int:
    value = info.get(name, default)
    if not isinstance(value, int) or not 0 < value <= p.MAX_PAYLOAD:
        return default
    return value


def _raw_socket(stream: trio.abc.Stream) -> trio.socket.SocketType | None:
    if sys.platform != "win32" and isinstance(stream, trio.SocketStream):
        return stream.socket
    return None


def _local_host(stream: trio.abc.Stream) -> str:
    below = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
    try:
        return str(below.socket.getsockname()[0]) if isinstance(below, trio.SocketStream) else ""
    except OSError:
        return ""


async def open_link(
    server: Server,
    *,
    credentials: Credentials | None,
    ssl_context: ssl.SSLContext | None,
    name: str,
) -> Link:
    """Connect to a server, and do the handshake. The caller bounds the time.

    Args:
        server: the address.
        credentials: of this client, if the server wants any.
        ssl_context: insist on TLS with this context. Without one, TLS is used if the server
            requires it, and then verifies with the system's CAs.
        name: the name of this client, which an operator sees.

    Raises:
        OSError: the server does not answer, or not as a NATS server; the text is one line.
        Refused: the server does not accept the credentials.
    """
    with connecting.naming(f"cannot connect to nats://{server}"):
        stream: trio.abc.Stream = await connecting.connect_tcp(server.host, server.port)
        try:
            return await _shake_hands(stream, server, credentials, ssl_context, name)
        except BaseException as exc:
            await close_forcefully(stream)
            if isinstance(exc, (trio.BrokenResourceError, DecodeError)):
                raise ConnectionError(one_line(str(exc))) from exc
            raise


async def _shake_hands(
    stream: trio.abc.Stream,
    server: Server,
    credentials: Credentials | None,
    ssl_context: ssl.SSLContext | None,
    name: str,
) -> Link:
    parser = p.Parser()
    events = await _read(stream, parser)
    if not isinstance(events[0], p.Info):
        raise DecodeError("the server did not begin with INFO: it is not a NATS server")
    info = events[0].facts
    if ssl_context is not None or info.get("tls_required"):
        if len(events) > 1:
            raise DecodeError("the server sent more than INFO before TLS")
        stream = await _encrypt(stream, server, info, ssl_context)
        parser = p.Parser()
    if not info.get("headers"):
        raise DecodeError("the NATS server is too old: it does not support headers")
    options = {
        "verbose": False,
        "pedantic": False,
        "lang": "python-trio",
        "version": "1",
        "protocol": 1,
        "echo": True,
        "headers": True,
        "no_responders": True,
        "name": name,
        **login_options(credentials, info),
    }
    await stream.send_all(p.encode_connect(options) + p.PING)
    link = Link(stream, server, info, parser)
    await _wait_for_pong(link)
    return link


async def _encrypt(
    stream: trio.abc.Stream,
    server: Server,
    info: Mapping[str, Any],
    ssl_context: ssl.SSLContext | None,
) -> trio.abc.Stream:
    if not info.get("tls_required") and not info.get("tls_available"):
        raise Refused(f"an ssl_context was given, but the NATS server at {server} has no TLS")
    assert isinstance(stream, trio.SocketStream)  # noqa: S101 - for the type checker
    context = ssl_context or tls.client_context()
    encrypted = tls.wrap_client(stream, context, server.host, https_compatible=True)
    await tls.shake_hands(encrypted)
    return encrypted


async def _read(stream: trio.abc.Stream, parser: p.Parser) -> list[p.Event]:
    """Read at least one event."""
    while True:
        data = await stream.receive_some(READ_SIZE)
        if not data:
            raise trio.BrokenResourceError("the NATS server closed the connection")
        if events := parser.feed(bytes(data)):
            return events


async def _wait_for_pong(link: Link) -> None:
    """Wait until the server has answered the PING after CONNECT, and so accepted the CONNECT."""
    is_accepted = False
    while not is_accepted:
        for event in await link.read():
            match event:
                case p.Err(text) if text.lower().startswith(REFUSALS):
                    raise Refused(f"the NATS server at {link.server} says: {one_line(text)}")
                case p.Err(text):
                    raise ConnectionError(f"the server says: {one_line(text)}")
                case p.Info(facts):
                    link.learn(facts)
                case p.Pong():
                    is_accepted = True
                case p.Ping():
                    link.write(p.PONG)
                case _:
                    raise DecodeError("the server sent a message before any subscription")

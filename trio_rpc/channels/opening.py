"""Connect to a URL, and listen at a URL."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import trio

from trio_rpc.channels import connecting, listeners, tls
from trio_rpc.channels.connection import (
    Connection,
    StreamConnection,
    close_forcefully,
    owned,
    peer_name,
)
from trio_rpc.channels.stream import StreamChannel
from trio_rpc.channels.urls import Address, parse_url
from trio_rpc.channels.websocket.channel import WebSocketConnection, check_origins, open_websocket
from trio_rpc.util.time_limits import connect_limit, time_limit
from trio_rpc.wire.limits import DEFAULT_LIMITS, Limits

__all__ = ["open_channel", "open_listeners"]


@asynccontextmanager
async def open_channel(
    url: str,
    *,
    ssl_context: ssl.SSLContext | None = None,
    limits: Limits = DEFAULT_LIMITS,
    address: str | None = None,
) -> AsyncIterator[trio.abc.Channel[bytes]]:
    """Connect to a URL, and own the channel and all its tasks for the duration of a block.

    The channel is ready when the block begins: all handshakes of the transport are done. To close
    it gracefully, call ``aclose`` inside the block. Leaving the block closes it forcefully.

    Args:
        url: see :func:`parse_url`.
        ssl_context: for tls:// and wss:// only. Without one, the server's certificate is verified
            with the system's CAs and the host name, and TLS is 1.2 or later.
        limits: max_packet and packet_timeout apply to this channel. handshake_timeout bounds the
            time to connect (with TLS), and separately the time of a WebSocket handshake.
        address: the address to connect to, in place of looking up the URL's host. The
            certificate is still compared with the host.

    Raises:
        ValueError: the URL is bad, its port is 0, or ssl_context is given without TLS.
        OSError: the server does not answer, or not in time (TimeoutError), or the TLS handshake
            fails (ssl.SSLError), or the server does not speak WebSocket. The text is one line that
            names the URL, and the class is that of the first reason.
    """
    target = parse_url(url)
    _check_context(target, ssl_context)
    if target.scheme != "unix" and target.port == 0:
        raise ValueError(f"cannot connect to {target}: port 0 is only for listening")
    host = address or target.host
    at = f" at {address}" if address else ""
    with connecting.naming(f"cannot connect to {target}{at}"):
        stream = await _open_in_time(target, host, ssl_context, limits.handshake_timeout)
    async with _own(stream, target, limits) as channel:
        yield channel


async def open_listeners(
    url: str,
    *,
    ssl_context: ssl.SSLContext | None = None,
    limits: Limits = DEFAULT_LIMITS,
    allowed_origins: Collection[str] | None = None,
) -> list[listeners.ChannelListener]:
    """Listen at a URL, with one listener for each local address of its host.

    Args:
        url: see :func:`parse_url`. With port 0 all listeners share one free port.
        ssl_context: for tls:// and wss:// only, and required there, because a server needs a
            certificate.
        limits: max_packet, packet_timeout and handshake_timeout apply to the channels that
            clients open.
        allowed_origins: for ws:// and wss://, as in :func:`trio_rpc.open_server`.

    Raises:
        ValueError: the URL or an origin is bad, or ssl_context is missing, or is given without
            TLS.
        OSError: the address cannot be bound. The text is one line that names the URL.
    """
    address = parse_url(url)
    _check_context(address, ssl_context)
    if address.is_encrypted and ssl_context is None:
        raise ValueError(f"listening at {address} requires an ssl_context with a certificate")

    origins = check_origins(allowed_origins)

    def connection(stream: trio.SocketStream, url: str) -> Connection:
        name, host = peer_name(stream, url)
        over = _server_stream(stream, address, ssl_context)
        if not address.is_websocket:
            return StreamConnection(over, limits, name=name, host=host)
        return WebSocketConnection(
            over, limits, name=name, host=host, path=address.path, allowed_origins=origins
        )

    with connecting.naming(f"cannot listen at {address}"):
        if address.scheme == "unix":
            return [await listeners.listen_unix(address.path, str(address), connection)]
        return [
            listeners.ChannelListener(
                listener,
                url=str(Address(address.scheme, *listeners.bound_to(listener), address.path)),
                connection=connection,
            )
            for listener in await listeners.listen_tcp(address.host, address.port)
        ]


def _own(
    stream: trio.abc.Stream, address: Address, limits: Limits
) -> AbstractAsyncContextManager[trio.abc.Channel[bytes]]:
    if address.is_websocket:
        return open_websocket(stream, address, limits)
    return owned(StreamChannel(stream, limits.max_packet, packet_timeout=limits.packet_timeout))


def _check_context(address: Address, ssl_context: ssl.SSLContext | None) -> None:
    if ssl_context is not None and not address.is_encrypted:
        raise ValueError(f"{address} is not encrypted, so it does not accept an ssl_context")


async def _open_in_time(
    address: Address, host: str, ssl_context: ssl.SSLContext | None, seconds: float
) -> trio.abc.Stream:
    if address.is_encrypted:
        async with time_limit(seconds, "no answer"):
            return await _open_stream(address, host, ssl_context)
    with connect_limit(seconds, "no answer"):
        return await _open_stream(address, host, ssl_context)


async def _open_stream(
    address: Address, host: str, ssl_context: ssl.SSLContext | None
) -> trio.abc.Stream:
    """Connect, and do the TLS handshake if the URL is encrypted."""
    if address.scheme == "unix":
        return await connecting.connect_unix(address.path)
    stream = await connecting.connect_tcp(host, address.port)
    if not address.is_encrypted:
        return stream
    try:
        encrypted = tls.wrap_client(
            stream,
            ssl_context or tls.client_context(),
            address.host,
            https_compatible=address.is_websocket,
        )
        await tls.shake_hands(encrypted)
    except BaseException:
        await close_forcefully(stream)
        raise
    return encrypted


def _server_stream(
    stream: trio.SocketStream, address: Address, ssl_context: ssl.SSLContext | None
) -> trio.abc.Stream:
    if ssl_context is None:
        return stream
    return tls.wrap_server(stream, ssl_context, https_compatible=address.is_websocket)

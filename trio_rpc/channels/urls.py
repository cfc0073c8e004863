"""One front door: a URL says which transport is meant.

::

    tcp://localhost:5000        tcp://[::1]:5000       port 0: the system picks one (to listen)
    tls://example.org:5000      the same, encrypted and verified
    unix:///run/market.sock     an absolute path;  unix:market.sock  a relative one
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

import trio

from trio_rpc.channels import connecting, listeners, tls
from trio_rpc.channels.stream import StreamChannel
from trio_rpc.wire.limits import DEFAULT_LIMITS, Limits

__all__ = ["Address", "open_channel", "open_listeners", "parse_url"]

ACCEPTED = "tcp://host:port, tls://host:port, unix:///path or unix:relative/path"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a URL points to. ``str()`` gives the URL again.

    Attributes:
        scheme: "tcp", "tls" or "unix".
        host: a name or an address, without brackets; "" for a Unix socket.
        port: 0 to 65535; 0 for a Unix socket.
        path: of a Unix socket, "" otherwise.
    """

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.scheme == "unix":
            slashes = "//" if self.path.startswith("/") else ""
            return f"unix:{slashes}{quote(self.path)}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def parse_url(url: str) -> Address:
    """Read a URL. Raises ValueError that says what is wrong and what is accepted."""
    try:
        return _parse(url)
    except ValueError as exc:
        raise ValueError(f"bad URL {url[:200]!r}: {exc}; accepted are {ACCEPTED}") from None


def _parse(url: str) -> Address:
    if not url.isprintable():
        raise ValueError("it has control characters")
    parts = urlsplit(url)
    if parts.query or parts.fragment:
        raise ValueError("it has a query or a fragment")
    if parts.scheme == "unix":
        return _parse_unix(parts.netloc, unquote(parts.path))
    if parts.scheme not in ("tcp", "tls"):
        raise ValueError(f"unknown scheme {parts.scheme!r}" if parts.scheme else "no scheme")
    if parts.path not in ("", "/") or parts.username is not None:
        raise ValueError("it has more than a host and a port")
    if not parts.hostname:
        raise ValueError("no host")
    if parts.port is None:
        raise ValueError("no port")
    return Address(parts.scheme, host=_parse_host(unquote(parts.hostname)), port=parts.port)


def _parse_host(host: str) -> str:
    try:
        host.encode("idna")  # as the resolver will, where its complaint would name no URL
    except UnicodeError:
        raise ValueError("the host is no name that a host can have") from None
    if " " in host or not host.isprintable():
        raise ValueError("the host has blanks or control characters")
    return host


def _parse_unix(netloc: str, path: str) -> Address:
    if netloc:
        raise ValueError("an absolute path takes three slashes, a relative one takes none")
    if not path or path.endswith("/") or "\0" in path:
        raise ValueError("no file name")
    return Address("unix", path=path)


async def open_channel(
    url: str, *, ssl_context: ssl.SSLContext | None = None, limits: Limits = DEFAULT_LIMITS
) -> StreamChannel:
    """Connect to a URL, TLS handshake included. No time limit but the system's and yours.

    Args:
        url: see :func:`parse_url`.
        ssl_context: for tls:// only; without one the server's certificate is checked against
            the system's authorities and the host's name, and TLS is 1.2 or later.
        limits: max_packet and packet_timeout are this channel's.

    Raises:
        ValueError: the URL is bad, its port is 0, or ssl_context is given without tls://.
        OSError: nobody answers there, or (ssl.SSLError) not as TLS demands. Its text is one
            line that names the URL; its class is that of the first reason.
    """
    address = parse_url(url)
    _check_context(address, ssl_context)
    if address.scheme != "unix" and address.port == 0:
        raise ValueError(f"cannot connect to {address}: port 0 is only for listening")
    with connecting.naming(f"cannot connect to {address}"):
        stream = await _connect(address)
        try:
            channel = StreamChannel(
                _over_tls(stream, address, ssl_context),
                limits.max_packet,
                packet_timeout=limits.packet_timeout,
            )
            await channel.prepare()
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
    return channel


async def open_listeners(
    url: str, *, ssl_context: ssl.SSLContext | None = None, limits: Limits = DEFAULT_LIMITS
) -> list[listeners.ChannelListener]:
    """Listen at a URL: one listener for each address that its host has here.

    Args:
        url: see :func:`parse_url`. With port 0 all listeners get one and the same free port.
        ssl_context: for tls:// only, and needed there: a server has to have a certificate.
        limits: max_packet and packet_timeout are those of the channels that are accepted.

    Raises:
        ValueError: the URL is bad, or ssl_context is missing or out of place.
        OSError: the address cannot be had, in one line that names the URL.
    """
    address = parse_url(url)
    _check_context(address, ssl_context)
    if address.scheme == "tls" and ssl_context is None:
        raise ValueError(f"to listen at {address} takes an ssl_context with a certificate")
    with connecting.naming(f"cannot listen at {address}"):
        if address.scheme == "unix":
            return [await listeners.listen_unix(address.path, str(address), limits)]
        return [
            listeners.ChannelListener(
                listener,
                url=str(Address(address.scheme, *listeners.bound_to(listener))),
                limits=limits,
                ssl_context=ssl_context,
            )
            for listener in await listeners.listen_tcp(address.host, address.port)
        ]


def _check_context(address: Address, ssl_context: ssl.SSLContext | None) -> None:
    if ssl_context is not None and address.scheme != "tls":
        raise ValueError(f"{address} is not encrypted, so an ssl_context has no place there")


async def _connect(address: Address) -> trio.SocketStream:
    if address.scheme == "unix":
        return await connecting.connect_unix(address.path)
    return await connecting.connect_tcp(address.host, address.port)


def _over_tls(
    stream: trio.SocketStream, address: Address, ssl_context: ssl.SSLContext | None
) -> trio.abc.Stream:
    if address.scheme != "tls":
        return stream
    return tls.wrap_client(stream, ssl_context or tls.client_context(), address.host)

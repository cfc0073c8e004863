"""URLs, which name the transport and the address.

::

    tcp://localhost:5000        tcp://[::1]:5000       port 0 (listening only): any free port
    tls://example.org:5000      the same, encrypted and verified
    unix:///run/market.sock     an absolute path;  unix:market.sock  a relative one
    ws://localhost:8000/rpc     WebSocket; path and port are optional, the default port is 80
    wss://example.org/rpc       the same, encrypted and verified; the default port is 443
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

__all__ = ["Address", "parse_url"]

ACCEPTED = (
    "tcp://host:port, tls://host:port, unix:///path, unix:relative/path, ws://host:port/path "
    "and wss://host:port/path"
)

DEFAULT_PORTS = {"ws": 80, "wss": 443}
"""The default ports of the schemes that have one."""

PATH_SAFE = "/%:@!$&'()*+,;=~"
"""Characters that stay unquoted in a URL's path; "%" begins a part that is already quoted."""


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed URL. ``str()`` returns the URL again.

    Attributes:
        scheme: "tcp", "tls", "unix", "ws" or "wss".
        host: a name or an address, without brackets; "" for a Unix socket.
        port: 0 to 65535; 0 for a Unix socket.
        path: the path of a Unix socket, or the percent-encoded path of a WebSocket's URL ("" for
            "/"); "" for other schemes.
    """

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.scheme == "unix":
            slashes = "//" if self.path.startswith("/") else ""
            return f"unix:{slashes}{quote(self.path)}"
        return f"{self.scheme}://{self.netloc}{self.path}"

    @property
    def netloc(self) -> str:
        """Host and port as written in a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def is_websocket(self) -> bool:
        """Whether packets travel in WebSocket frames."""
        return self.scheme in ("ws", "wss")

    @property
    def is_encrypted(self) -> bool:
        """Whether the connection uses TLS."""
        return self.scheme in ("tls", "wss")


@functools.lru_cache(maxsize=256)  # clients connect repeatedly to the same few servers
def parse_url(url: str) -> Address:
    """Parse a URL.

    Args:
        url: ``tcp://host:port``, ``tls://host:port``, ``unix:///path``, ``unix:relative/path``,
            ``ws://host:port/path`` or ``wss://host:port/path``.

    Raises:
        ValueError: the URL is not one of these. The text names the mistake and the accepted forms.
    """
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
    if parts.scheme in ("http", "https"):
        raise ValueError(f"sessions do not use {parts.scheme}, but trio_rpc.gateway does")
    if parts.scheme not in ("tcp", "tls", *DEFAULT_PORTS):
        raise ValueError(f"unknown scheme {parts.scheme!r}" if parts.scheme else "no scheme")
    path = parts.path if parts.path != "/" else ""
    if parts.username is not None or (path and parts.scheme not in DEFAULT_PORTS):
        raise ValueError("it has more than a host and a port")
    if not parts.hostname:
        raise ValueError("no host")
    port = parts.port if parts.port is not None else DEFAULT_PORTS.get(parts.scheme)
    if port is None:
        raise ValueError("no port")
    host = _parse_host(unquote(parts.hostname))
    return Address(parts.scheme, host=host, port=port, path=quote(path, safe=PATH_SAFE))


def _parse_host(host: str) -> str:
    try:
        host.encode("idna")  # the resolver does the same, but its error would not name the URL
    except UnicodeError:
        raise ValueError("the host is not a valid host name") from None
    if " " in host or not host.isprintable():
        raise ValueError("the host has blanks or control characters")
    return host


def _parse_unix(netloc: str, path: str) -> Address:
    if netloc:
        raise ValueError("an absolute path requires three slashes, and a relative one none")
    if not path or path.endswith("/") or "\0" in path:
        raise ValueError("no file name")
    return Address("unix", path=path)

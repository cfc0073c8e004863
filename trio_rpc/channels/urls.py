"""One front door: a URL says which transport is meant.

::

    tcp://localhost:5000        tcp://[::1]:5000       port 0: the system picks one (to listen)
    tls://example.org:5000      the same, encrypted and verified
    unix:///run/market.sock     an absolute path;  unix:market.sock  a relative one
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

__all__ = ["Address", "parse_url"]

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

"""URLs of a service behind NATS: ``nats://host[:port],host[:port]/service[/instance]``.

A user and a password, or a token, may stand before the first host, as in other NATS clients:
``nats://ann:secret@10.0.0.1,10.0.0.2/market`` and ``nats://token@10.0.0.1``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

from trio_rpc.nats.credentials import Credentials, Token, UserPassword
from trio_rpc.nats.names import check_name

__all__ = ["DEFAULT_PORT", "NatsAddress", "Server", "is_nats", "parse_nats_url", "parse_server"]

SCHEME: Final = "nats://"
DEFAULT_PORT: Final = 4222
MAX_SERVERS: Final = 64
"""Servers of one cluster that a client knows, including servers that the cluster names."""

_FORM: Final = "nats://host:port,host:port/service/instance (port, further hosts and path optional)"
_HOST: Final = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::(\d{1,5}))?|([^\s\[\]:/@,]+)(?::(\d{1,5}))?")


@dataclass(frozen=True, slots=True)
class Server:
    """The address of one NATS server."""

    host: str
    port: int = DEFAULT_PORT

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class NatsAddress:
    """A parsed URL. ``str()`` returns it without the credentials.

    Attributes:
        servers: the addresses of servers of one cluster; at least one.
        service: the name of a service, or ``""``.
        instance: the name of one instance of the service, or ``""``.
        credentials: the credentials in the URL, or None.
    """

    servers: tuple[Server, ...]
    service: str = ""
    instance: str = ""
    credentials: Credentials | None = field(default=None, repr=False)

    def __str__(self) -> str:
        path = "/".join(part for part in (self.service, self.instance) if part)
        return f"{SCHEME}{','.join(map(str, self.servers))}{'/' if path else ''}{path}"


def is_nats(url: str) -> bool:
    """Return whether a URL has the scheme ``nats``."""
    return url.lower().startswith(SCHEME)


def parse_nats_url(url: str, *, needs_service: bool = False) -> NatsAddress:
    """Parse a URL.

    Args:
        url: ``nats://host:port,host:port/service/instance``.
        needs_service: whether a URL without a service is refused.

    Raises:
        ValueError: the URL has another form. The text does not show its credentials.
    """
    try:
        return _parse(url, needs_service=needs_service)
    except ValueError as exc:
        shown = re.sub(r"//.*@", "//…@", url[:200], flags=re.DOTALL)
        raise ValueError(f"bad URL {shown!r}: {exc}; the form is {_FORM}") from None


def _parse(url: str, *, needs_service: bool) -> NatsAddress:
    if not is_nats(url):
        raise ValueError("the scheme is not nats")
    if not url.isprintable() or " " in url:
        raise ValueError("it has blanks or control characters")
    if "?" in url or "#" in url:
        raise ValueError("it has a query or a fragment")
    netloc, slash, path = url[len(SCHEME) :].partition("/")
    login, _, hosts = netloc.rpartition("@")
    parts = path.split("/") if slash and path else []
    if len(parts) > 2:
        raise ValueError("the path has more than a service and an instance")
    if needs_service and not parts:
        raise ValueError("it names no service")
    names = [check_name(part, what) for part, what in zip(parts, _WHAT, strict=False)]
    servers = tuple(dict.fromkeys(parse_server(host) for host in hosts.split(",")))
    if len(servers) > MAX_SERVERS:
        raise ValueError(f"it has more than {MAX_SERVERS} servers")
    service, instance, *_ = [*names, "", ""]
    return NatsAddress(servers, service, instance, _credentials(login))


_WHAT: Final = ("a service", "an instance")


def _credentials(login: str) -> Credentials | None:
    if not login:
        return None
    user, colon, password = login.partition(":")
    return UserPassword(unquote(user), unquote(password)) if colon else Token(unquote(user))


def parse_server(text: str) -> Server:
    """Parse ``host`` or ``host:port``, with brackets around an IPv6 address.

    Raises:
        ValueError: it has another form.
    """
    found = _HOST.fullmatch(text)
    if found is None:
        raise ValueError(f"not a host with an optional port: {text[:100]!r}" if text else "no host")
    address, address_port, name, name_port = found.groups()
    port = int(address_port or name_port or DEFAULT_PORT)
    if not 0 < port < 65536:
        raise ValueError(f"not a port: {port}")
    return Server(address or name, port)

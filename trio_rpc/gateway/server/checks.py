"""Who may come in, and how much he may bring: Origin, Host, content type, size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from urllib.parse import urlsplit

import trio
from starlette.requests import ClientDisconnect, Request

__all__ = ["Refusal", "RequestChecks", "header_names", "header_seconds", "read_body"]


class Refusal(Exception):
    """An answer that refuses: a status, one line of text, and the parameter that is to blame, if one is."""

    def __init__(self, status: int, text: str, parameter: str = "") -> None:
        super().__init__(status, text)
        self.status = status
        self.text = text
        self.parameter = parameter


class RequestChecks:
    """Lets in what comes from nowhere on the web, or from this very host, or from an origin that was allowed.

    A page of another site can make a browser send requests and open WebSockets here, with all that this host
    can be reached by; the browser then tells its origin, and nothing else gives it away.
    """

    def __init__(
        self, allowed_origins: frozenset[str], allowed_hosts: Sequence[str] | None
    ) -> None:
        self._origins = allowed_origins
        self._hosts: frozenset[str] | None = None
        if allowed_hosts is not None:
            self.welcome_hosts(allowed_hosts)

    def welcome_hosts(self, names: Sequence[str]) -> None:
        """Let in requests for these hosts only; who has said so first is right."""
        if self._hosts is None:
            self._hosts = frozenset(map(str.lower, names))

    def check(self, headers: Mapping[str, str]) -> None:
        """Raise Refusal (403) unless the Host and the Origin are welcome."""
        host = headers.get("host", "").lower()
        if self._hosts is not None and _name_of(host) not in self._hosts:
            raise Refusal(403, f"this server is not known as {host!r:.200}")
        origin = headers.get("origin")
        if origin is None or origin.lower() in self._origins:
            return
        if not host or origin.lower() not in (f"http://{host}", f"https://{host}"):
            raise Refusal(403, f"pages of {origin!r:.200} may not use this server")


async def read_body(request: Request, most: int, seconds: float) -> bytes:
    """Read the body of a POST.

    Raises Refusal: 415 if it is no JSON by its content type, which other sites' forms cannot send, or is compressed; 413 if it
    is larger than ``most`` bytes; 408 if it takes longer than ``seconds``; 400 if its sender has gone.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refusal(415, "the content type must be application/json")
    if "content-encoding" in request.headers:
        coding = request.headers["content-encoding"]
        raise Refusal(
            415, f"the body must not be compressed, or encoded otherwise: {coding!r:.100}"
        )
    body = bytearray()
    try:
        with trio.fail_after(seconds):
            async with aclosing(request.stream()) as chunks:
                async for chunk in chunks:
                    body += chunk
                    if len(body) > most:
                        raise Refusal(413, f"the body is larger than {most:,} bytes")
    except trio.TooSlowError:
        raise Refusal(408, f"the body has not come within {seconds:g} s") from None
    except ClientDisconnect:
        raise Refusal(400, "the client has gone") from None
    return bytes(body)


def header_names(header: str | None) -> list[str] | None:
    """Read a header that lists names; None where there is no such header."""
    if header is None:
        return None
    return [name.strip() for name in header.split(",") if name.strip()]


def header_seconds(header: str | None) -> float:
    """Read a header that says how long something may take; infinity where there is no such header."""
    if header is None:
        return math.inf
    try:
        seconds = float(header)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise Refusal(400, "Trio-Rpc-Timeout must be a number of seconds, 0 or more")
    return seconds


def _name_of(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""

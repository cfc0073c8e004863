"""Checks of a request: Origin, Host, content type and body size."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import trio
from starlette.requests import Request
from starlette.types import Message

from trio_rpc.gateway.server.memory_budget import MemoryShare
from trio_rpc.util.time_limits import PacketTimer

__all__ = [
    "TRACE_HEADERS",
    "Refusal",
    "RequestChecks",
    "closing",
    "gone",
    "header_names",
    "header_seconds",
    "header_trace",
    "home_is_gone",
    "query_number",
    "read_body",
    "request_key",
    "used_up",
]

_NUMBER = re.compile(r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
TRACE_HEADERS = ("traceparent", "tracestate", "baggage")
"""The headers of W3C Trace Context and Baggage, by which a call joins a trace."""

MOST_TRACE = 8192
"""The most characters of each of them; a longer one is ignored."""

MOST_DIGITS = 16
"""A number in a query has fewer digits."""

KEY = 100
"""The most characters of a request's key. A client holds several keys for as long as it lives."""


class Refusal(Exception):
    """A refusing answer.

    Args:
        status: its status.
        text: one line.
        parameter: the parameter at fault, if any.
        retry_after: seconds after which the client may try again, if that is known.
    """

    def __init__(
        self, status: int, text: str, parameter: str = "", *, retry_after: int | None = None
    ) -> None:
        super().__init__(status, text)
        self.status = status
        self.text = text
        self.parameter = parameter
        self.retry_after = retry_after


def closing() -> Refusal:
    """Return the refusal of a gateway that is closing."""
    return Refusal(503, "this gateway is closing")


def used_up() -> Refusal:
    """Return the refusal while too many bytes are held for all clients."""
    return Refusal(503, "too much data is held for clients that do not read it", retry_after=1)


def gone() -> Refusal:
    """Return the refusal for a client that has ended."""
    return Refusal(410, "this client has been disconnected for too long")


def home_is_gone() -> Refusal:
    """Return the refusal for a client or a call that an unknown or dead instance holds."""
    return Refusal(410, "the instance that held it is not there any more")


class RequestChecks:
    """Accepts a request without an Origin, from this host's own origin, or from an allowed origin.

    A page of another site can make a browser send requests and open WebSockets to this host, from
    wherever the browser can reach it. Only the Origin header, which the browser adds, reveals that.
    """

    def __init__(
        self, allowed_origins: frozenset[str], allowed_hosts: Sequence[str] | None
    ) -> None:
        self._origins = allowed_origins
        self._hosts: frozenset[str] | None = None
        if allowed_hosts is not None:
            self.welcome_hosts(allowed_hosts)

    def welcome_hosts(self, names: Sequence[str]) -> None:
        """Accept requests for these hosts only. Only the first call has an effect."""
        if self._hosts is None:
            self._hosts = frozenset(map(str.lower, names))

    def check(self, headers: Mapping[str, str]) -> None:
        """Raise Refusal (403) unless the Host and the Origin are accepted."""
        host = headers.get("host", "").lower()
        if self._hosts is not None and _name_of(host) not in self._hosts:
            raise Refusal(403, f"this server does not accept the Host {host!r:.200}")
        origin = headers.get("origin")
        if origin is None or origin.lower() in self._origins:
            return
        if not host or origin.lower() not in (f"http://{host}", f"https://{host}"):
            raise Refusal(403, f"pages from {origin!r:.200} may not use this server")


async def read_body(request: Request, most: int, seconds: float, share: MemoryShare) -> bytes:
    """Read the body of a POST.

    Raises Refusal with one of these statuses:

    - 415: the content type is not JSON, which forms of other sites cannot send, or the body is
      compressed or otherwise encoded;
    - 413: the body is larger than ``most`` bytes;
    - 408: the body takes longer than ``seconds``;
    - 503: ``share``, which counts it, has no room for it;
    - 400: the client disconnected.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refusal(415, "the content type must be application/json")
    if "content-encoding" in request.headers:
        coding = request.headers["content-encoding"]
        raise Refusal(415, f"the body must not be compressed or otherwise encoded: {coding!r:.100}")
    body, timer, is_whole = bytearray(), PacketTimer(seconds), False
    while not is_whole:
        message = await _next_part(request, timer, seconds)
        if message["type"] == "http.disconnect":
            raise Refusal(400, "the client disconnected")
        chunk, is_whole = message.get("body", b""), not message.get("more_body", False)
        body += chunk
        if len(body) > most:
            raise Refusal(413, f"the body is larger than {most:,} bytes")
        if not share.has_room(len(chunk)):
            raise Refusal(503, "too many bodies of requests are held", retry_after=1)
        share.take(len(chunk))
    return bytes(body)


async def _next_part(request: Request, timer: PacketTimer, seconds: float) -> Message:
    message: Message | None = None
    try:
        while message is None:
            message = await timer.wait(request.receive)
    except trio.BrokenResourceError:
        raise Refusal(408, f"the body did not arrive within {seconds:g} s") from None
    return message


def request_key(request: Request) -> str | None:
    """Return the Idempotency-Key of a request, which is kept for its client; None if it has none.

    Raises Refusal (400) for a key of more than ``KEY`` characters.
    """
    key = request.headers.get("idempotency-key")
    if key is not None and len(key) > KEY:
        raise Refusal(400, f"the Idempotency-Key is longer than {KEY} characters")
    return key


def header_names(header: str | None) -> list[str] | None:
    """Parse a header that lists names. Returns None if the header is missing."""
    if header is None:
        return None
    return [name.strip() for name in header.split(",") if name.strip()]


def header_seconds(header: str | None) -> float:
    """Parse a header with a time limit in seconds. Returns infinity if the header is missing."""
    if header is None:
        return math.inf
    # Python's own parser also accepts "1_0", "infinity" and digits of other scripts.
    seconds = float(header) if _NUMBER.fullmatch(header) else math.inf
    if seconds == math.inf:
        raise Refusal(400, "Trio-Rpc-Timeout must be a number of seconds, 0 or more")
    return seconds


def query_number(request: Request, name: str) -> int | None:
    """Parse a whole number of the query. Returns None if it is missing."""
    text = request.query_params.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < MOST_DIGITS):
        raise Refusal(400, f"{name} must be a whole number, 0 or more")
    return int(text)


def header_trace(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that say which trace a request belongs to, as metadata of its call."""
    found = {name: headers.get(name) for name in TRACE_HEADERS}
    return {name: value for name, value in found.items() if value and len(value) <= MOST_TRACE}


def _name_of(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""

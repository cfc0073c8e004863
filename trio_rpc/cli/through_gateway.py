"""The calls of commands to a gateway, at http:// and https:// URLs."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult, urlsplit

import msgspec
import trio

from trio_rpc.channels import tls
from trio_rpc.cli.exits import GRACE, CallFailed, Unreachable, Usage, importing, naming_url
from trio_rpc.cli.terminal import safe
from trio_rpc.errors import Refused, RemoteCancelled, RpcError, SessionBroken, Unavailable
from trio_rpc.services.decorators import Kind
from trio_rpc.services.introspection import DESCRIBE
from trio_rpc.services.proxies import RemoteMethod

if TYPE_CHECKING:
    from trio_rpc.gateway.client.http import WebClient
    from trio_rpc.gateway.client.message import Message

__all__ = ["GatewayCalls", "check_call", "is_web", "through_gateway"]

PORTS: Final = {"http": 80, "https": 443}

HANDSHAKE: Final = 10.0
"""Seconds until the first answer in HTTP, as for the handshake of a session."""

CLOCKS: Final = 1.0
"""Seconds by which the two ends may differ about when a deadline has passed."""

API: Final = "/api/"
WITH_CLIENT: Final = "/{client_id}"

EXTENSION: Final = "x-trio-rpc"
"""The key of an OpenAPI operation's facts beyond the standard; see the gateway."""

OVER_SESSION: Final = "open it over a session, at a tcp://, unix:// or ws:// URL of its server"


def is_web(url: str) -> bool:
    """Return whether this is the URL of a gateway."""
    return url.startswith(("http:", "https:"))


def check_call(url: str, method: str, args: Sequence[Any], kind: Kind = Kind.METHOD) -> None:
    """Raise Usage, before anything is sent, if a gateway could not carry a call.

    Args:
        url: the URL of a gateway, or of anything else, which this allows.
        method: the name of the method.
        args: its positional arguments.
        kind: its kind.
    """
    if not is_web(url):
        return
    if kind is Kind.STREAM:
        name = f"{safe(method, 100)} is to be opened as a stream"
        raise Usage(f"{name}, which a gateway does not carry: {OVER_SESSION}")
    if args:
        text = "a gateway takes arguments by name: give an object, such as '{\"symbol\": 1}'"
        raise Usage(text)


@contextlib.asynccontextmanager
async def through_gateway(
    url: str, ssl_context: ssl.SSLContext | None, headers: Sequence[str]
) -> AsyncIterator[GatewayCalls]:
    """Make calls through a gateway for the duration of a block.

    Whether HTTP is spoken there is asked first. A call has no bound of time, so a server that never
    answers would not be noticed, and after a call it would be unknown whether its handler ran.

    Args:
        url: its URL.
        ssl_context: verifies its certificate; None for the system's authorities.
        headers: ``NAME: VALUE`` of headers of each request.

    Raises:
        Usage: the URL or a header is invalid, or the extra "gateway" is not installed.
        Unreachable: nobody answers in HTTP.
    """
    with importing("http://", "gateway"):
        from trio_rpc.gateway.client.http import WebClient  # noqa: PLC0415 - needs the extra
        from trio_rpc.gateway.client.message import Message  # noqa: PLC0415 - needs the extra
    parts = _parts(url)
    is_secure = parts.scheme == "https"
    context = (ssl_context or tls.client_context()) if is_secure else None
    host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
    sent = _headers(headers)
    try:
        message = Message(
            host,
            port,
            path=parts.path,
            secure=is_secure,
            ssl_context=context,
            cancel_grace=GRACE,
            headers=sent,
        )
    except ValueError as exc:
        raise Usage(safe(exc)) from exc
    async with WebClient(host, port, parts.path.rstrip("/"), context, sent) as web:
        await _expect_http(web, url)
        yield GatewayCalls(url, message, web)


async def _expect_http(web: WebClient, url: str) -> None:
    """Raise Unreachable if there is no answer in HTTP. Any answer counts: a call says the rest."""
    try:
        with trio.fail_after(HANDSHAKE):
            await web.ask("GET", "/healthz")
    except trio.TooSlowError as exc:
        raise Unreachable(f"{url}: no HTTP answer within {HANDSHAKE:g} s") from exc
    except (OSError, SessionBroken) as exc:
        raise Unreachable(naming_url(url, exc)) from exc
    except RpcError:
        pass


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as exc:
        raise Usage(f"{safe(url, 200)} is not a URL: {safe(exc)}") from exc
    if "@" in parts.netloc:  # the text does not repeat a password
        raise Usage("a gateway's URL has no user: give --header 'Authorization: …' instead")
    is_plain = not (parts.query or parts.fragment)
    if not (parts.hostname and is_plain and url.isprintable()):
        text = "a gateway's URL is http://host:port/path or https://host:port/path"
        raise Usage(f"{text}, not {safe(url, 200)}")
    return parts


def _headers(headers: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for each in headers:
        name, colon, value = each.partition(":")
        if not (colon and name):
            raise Usage(f"--header must be 'NAME: VALUE', not {safe(each, 60)}")
        found[name] = value.strip()
    return found


class GatewayCalls:
    """Calls through a gateway, with the methods of a session that commands use.

    Args:
        url: the gateway's URL.
        message: makes calls with callbacks, over a WebSocket.
        web: makes calls that are one request each.
    """

    def __init__(self, url: str, message: Message, web: WebClient) -> None:
        self._url = url
        self._message = message
        self._web = web

    def invoke(self, method: RemoteMethod, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call or notify a method, as :func:`check_call` allows it."""
        return self._post(method.name, kwargs)

    async def call(self, method: str) -> Any:
        """Call a method without arguments, or the one that describes the others."""
        return await (self._describe() if method == DESCRIBE else self._post(method, {}))

    async def ping(self) -> float:
        """Ask whether the gateway handles requests, and return the seconds until its answer."""
        started = trio.current_time()
        await self._ask("/healthz")
        return trio.current_time() - started

    async def readiness(self) -> str:
        """Return ``"serving"``, or ``"draining"`` if the gateway accepts nothing new."""
        try:
            await self._ask("/readyz")
        except Unavailable:
            return "draining"
        return "serving"

    async def _post(self, name: str, kwargs: dict[str, Any]) -> Any:
        from trio_rpc.gateway.client.outcomes import result_of  # noqa: PLC0415 - needs the extra

        callbacks = {key: value for key, value in kwargs.items() if callable(value)}
        data = {key: value for key, value in kwargs.items() if key not in callbacks}
        try:
            with self._reported():
                if callbacks:
                    return await self._message.post(name, data, callbacks)
                return result_of(await self._web.post_alone(name, data))
        except RemoteCancelled:
            # The gateway may notice before this end that the deadline has passed (law 5).
            left = trio.current_effective_deadline() - trio.current_time()
            if left < CLOCKS:
                await trio.sleep(max(left, 0) + CLOCKS)
            raise

    async def _ask(self, path: str) -> Any:
        with self._reported():
            return await self._web.ask("GET", path)

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except (OSError, Refused) as exc:
            raise Unreachable(naming_url(self._url, exc)) from exc

    async def _describe(self) -> list[dict[str, Any]]:
        with self._reported():
            document = await self._web.ask("GET", "/openapi.json")
        try:
            paths = msgspec.convert(document, _Document).paths
        except msgspec.ValidationError as exc:
            text = f"{self._url} describes itself in another way: {safe(exc)}"
            raise CallFailed(text) from exc
        described = {
            path.removeprefix(API).removesuffix(WITH_CLIENT): item.post
            for path, item in paths.items()
            if item.post is not None and path.startswith(API)
        }
        return [
            {
                "name": name,
                "doc": "" if one.summary == name else one.summary,
                **msgspec.to_builtins(one.more),
            }
            for name, one in sorted(described.items())
        ]


class _More(msgspec.Struct):
    """The facts of a method in a gateway's OpenAPI document that the standard does not know."""

    kind: str = "method"
    signature: str = "(...)"
    raises: list[str] = []


class _Post(msgspec.Struct):
    summary: str = ""
    more: _More = msgspec.field(name=EXTENSION, default_factory=_More)


class _Path(msgspec.Struct):
    post: _Post | None = None


class _Document(msgspec.Struct):
    paths: dict[str, _Path]

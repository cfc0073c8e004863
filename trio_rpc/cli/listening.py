"""The listeners of ``serve``: a gateway for http and https URLs, sessions for all others."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from trio_rpc.cli.connecting import reading_pem
from trio_rpc.cli.credentials_file import check_against
from trio_rpc.cli.exits import Unreachable, Usage, importing
from trio_rpc.cli.target import with_service
from trio_rpc.cli.terminal import safe
from trio_rpc.errors import Refused
from trio_rpc.introspection import Introspection
from trio_rpc.server import Server, open_server
from trio_rpc.services.tables import is_per_session
from trio_rpc.tracing import AccessLog, Trace, all_of, print_trace

if TYPE_CHECKING:
    from trio_rpc.gateway import Gateway

__all__ = ["Listening", "ServeOptions", "listening"]

INTROSPECTION = "introspection"
"""The name of the service that shows the calls, as :func:`trio_rpc.cli.top.top` expects it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """The options of ``serve``, described at :func:`trio_rpc.cli.app.serve`."""

    urls: Sequence[str]
    grace: float = 5.0
    error_detail: str = "message"
    cert: Path | None = None
    key: Path | None = None
    allowed_origins: Sequence[str] | None = None
    allowed_hosts: Sequence[str] | None = None
    pages: Path | None = None
    resume: bool = False
    credentials_file: Path | None = None
    until_stdin_closes: bool = False
    introspection: bool = False
    allow_cancel: bool = False
    access_log: bool = False
    trace: bool = False


class Listening:
    """The open server and gateways of ``serve``.

    Attributes:
        urls: the URLs it listens at.
    """

    def __init__(self) -> None:
        self.urls: list[str] = []
        self.server: Server | None = None
        self.gateway: Gateway | None = None

    @property
    def sessions(self) -> int:
        """The number of clients, including browsers."""
        sessions = 0 if self.server is None else len(self.server.sessions)
        return sessions + (0 if self.gateway is None else self.gateway.clients)

    async def drain(self, grace: float) -> None:
        """Refuse new calls, and give calls in flight ``grace`` seconds."""
        async with trio.open_nursery() as nursery:
            if self.gateway is not None:
                nursery.start_soon(self._drain_gateway, self.gateway, grace)
            if self.server is not None:
                await self.server.drain(grace=grace)

    async def _drain_gateway(self, gateway: Gateway, grace: float) -> None:
        with trio.move_on_after(grace):
            await gateway.drain()


@asynccontextmanager
async def listening(services: object, options: ServeOptions) -> AsyncIterator[Listening]:
    """Open the listeners. A wrong address ends the command with one line."""
    is_secure = any(url.startswith(("tls:", "wss:", "https:")) for url in options.urls)
    if options.cert is None and is_secure:
        raise Usage("listening at a tls://, wss:// or https:// URL requires --cert")
    if options.cert is not None and not is_secure:
        raise Usage("--cert is for tls://, wss:// and https:// URLs, but --listen has none")
    context = None
    if options.cert is not None or options.key is not None:
        context = _certified(options.cert, options.key)
    web = [url for url in options.urls if url.startswith(("http:", "https:"))]
    others = [url for url in options.urls if url not in web]
    for option, given in (("--pages", options.pages), ("--allow-host", options.allowed_hosts)):
        if given is not None and not web:
            raise Usage(f"{option} requires an http:// or https:// URL to listen at")
    if web and options.credentials_file is not None:
        raise Usage("--require-credentials-file is for sessions, not for http:// and https:// URLs")
    if options.allow_cancel and not options.introspection:
        raise Usage("--allow-cancel also requires --introspection")
    introspection = Introspection(may_cancel=options.allow_cancel)
    if options.introspection:
        services = with_service(services, INTROSPECTION, introspection)
    opened = Listening()
    async with AsyncExitStack() as stack:
        try:
            if others or not web:
                opened.server = await stack.enter_async_context(
                    _server(services, others, options, context)
                )
                opened.urls += opened.server.urls
                introspection.add(opened.server)
            if web:
                opened.gateway, server = _gateway(services, web, options, context)
                opened.urls += await stack.enter_async_context(server)
                introspection.add(opened.gateway)
        except (OSError, Refused) as exc:  # first: some are also ValueErrors
            raise Unreachable(safe(exc)) from exc
        except (ValueError, TypeError) as exc:
            raise Usage(safe(exc)) from exc
        yield opened


def _server(
    services: object,
    urls: Sequence[str],
    options: ServeOptions,
    context: ssl.SSLContext | None,
) -> AbstractAsyncContextManager[Server]:
    given: dict[str, Any] = {
        "error_detail": options.error_detail,
        "allowed_origins": options.allowed_origins,
        "resume": options.resume,
    }
    traces: list[Trace] = [print_trace] if options.trace else []
    if options.access_log:
        traces.append(AccessLog())
    if traces:
        given["trace"] = all_of(*traces)
    if options.credentials_file is not None:
        given["authenticate"] = check_against(options.credentials_file)
    if context is not None:
        given["ssl_context"] = context
    return open_server(services, *urls, **given)


def _gateway(
    services: object,
    urls: Sequence[str],
    options: ServeOptions,
    context: ssl.SSLContext | None,
) -> tuple[Gateway, AbstractAsyncContextManager[list[str]]]:
    with importing("http://", "gateway"):
        from trio_rpc.gateway import Gateway, open_http_server  # noqa: PLC0415 - needs the extra
    if is_per_session(services):
        raise Usage("http:// can serve only objects, not a function of the session")
    gateway = Gateway(
        services,
        error_detail=options.error_detail,  # type: ignore[arg-type]
        allowed_origins=options.allowed_origins or (),
        allowed_hosts=options.allowed_hosts,
        pages=options.pages,
        openapi=True,  # for describe, as each session describes itself
    )
    return gateway, open_http_server(gateway, *urls, ssl_context=context)


def _certified(cert: Path | None, key: Path | None) -> ssl.SSLContext:
    if cert is None:
        raise Usage("--key also requires --cert")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with reading_pem(f"--cert {cert}"):
        context.load_cert_chain(cert, key)
    return context

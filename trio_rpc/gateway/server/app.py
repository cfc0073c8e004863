"""The gateway as an ASGI application.

HTTP starts a call, and a WebSocket carries its callbacks and its end.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route, WebSocketRoute
from starlette.types import Receive, Scope, Send

from trio_rpc.channels.websocket.channel import check_origins
from trio_rpc.gateway.limits import GatewayLimits
from trio_rpc.gateway.server.asyncio_host import (
    AsyncioHost,
    entered_in_trio,
    is_asyncio,
    run_in_asyncio,
)
from trio_rpc.gateway.server.checks import TRACE_HEADERS, Refusal, RequestChecks
from trio_rpc.gateway.server.gateway_state import HOW_TO_RUN, AuthenticateRequest, GatewayState
from trio_rpc.gateway.server.home import Home
from trio_rpc.gateway.server.http_endpoints import HttpEndpoints
from trio_rpc.gateway.server.inspecting import inspect
from trio_rpc.gateway.server.responses import (
    SESSION_JS,
    answer_http_error,
    answer_refusal,
    pages_below,
    static_file,
)
from trio_rpc.gateway.server.serving_mistakes import refuse_all
from trio_rpc.gateway.server.websocket import WITHOUT_DEFLATE
from trio_rpc.gateway.server.websocket_endpoint import WebSocketEndpoint
from trio_rpc.services.error_maps import Detail, check_detail
from trio_rpc.session.calls.filters import check_filters
from trio_rpc.session.inspection import Inspected
from trio_rpc.session.session import Filter
from trio_rpc.util.one_exception import one_exception
from trio_rpc.util.option_checks import check_type

__all__ = ["Gateway"]

HEADERS = (
    "Content-Type",
    "Trio-Rpc-Token",
    "Trio-Rpc-Callbacks",
    "Trio-Rpc-Timeout",
    "Idempotency-Key",
    *TRACE_HEADERS,
)
"""Request headers that pages of allowed origins may send."""


class Gateway:
    """An ASGI application that offers services to browsers. It can be mounted or served alone.

    A gateway handles requests only while it runs. There are three ways to run it:

    - a server runs it through its lifespan, when the gateway is the whole application;
    - ``async with gateway.run():`` runs it, in the lifespan of the application that it is mounted
      in (which does not run the lifespan of a mounted application);
    - :func:`trio_rpc.gateway.serve` runs it.

    Args:
        services: an object with marked methods, or a mapping of names to such objects. A parameter
            that is annotated as Callable is a callback: the method gets a function that calls the
            browser.
        filters: functions that wrap each call; the first one is outermost.
        limits: the resources that clients may use.
        allowed_origins: other web origins whose pages may use the gateway, such as
            ``"https://example.org"``. Pages of the gateway's own origin always may.
        allowed_hosts: host names that clients may use for this server. None allows any name; that
            does not protect a server on loopback against DNS rebinding.
        legacy_clients: whether a client may call without a token, by its unguessable id alone.
        error_detail: how much of an undeclared exception clients see: "none", "message" or
            "traceback".
        authenticate: an async function that gets the :class:`HttpRequest` of each POST, of each
            WebSocket that opens, and of each result that is collected. It returns the identity:
            any value, which ``current_call().identity`` has. It raises :class:`trio_rpc.Refused`
            to answer with 401. It is asked anew for each request, and a running call does not
            notice that a user logs out.
        openapi: whether ``/openapi.json`` describes the POST routes as an OpenAPI 3.1 document,
            to callers that ``authenticate`` accepts.
        pages: a folder whose files browsers get unchanged; its ``index.html`` is the first page.
            Hidden files are not served, except those below ``.well-known``.
        home: the name of this instance, if a client's requests and WebSockets may reach any of
            several instances: see :func:`open_spread`. No other instance has this name. It has 1 to
            64 of the characters ``A-Z a-z 0-9 _ -``, and clients can see it.

    Raises:
        TypeError: a service, a filter or ``authenticate`` is not valid, or a browser could never
            pass one of a method's parameters: it is positional-only, or a stream, or a callback
            whose name a header cannot carry.
        ValueError: ``pages`` is not a directory, ``allowed_origins`` has an entry that is not an
            origin, ``error_detail`` is not one of the three values, or ``home`` is not a name.
    """

    def __init__(
        self,
        services: object,
        *,
        filters: Sequence[Filter] = (),
        limits: GatewayLimits | None = None,
        allowed_origins: Sequence[str] = (),
        allowed_hosts: Sequence[str] | None = None,
        legacy_clients: bool = False,
        error_detail: Detail = "message",
        authenticate: AuthenticateRequest | None = None,
        openapi: bool = False,
        pages: Path | str | None = None,
        home: str | None = None,
    ) -> None:
        check_filters(filters)
        check_detail(error_detail)
        if not (authenticate is None or callable(authenticate)):
            raise TypeError(f"authenticate must be an async function or None: {authenticate!r}")
        check_type("limits", limits, GatewayLimits | None, "a GatewayLimits or None")
        self.limits = limits or GatewayLimits()
        self._checks = RequestChecks(check_origins(allowed_origins) or frozenset(), allowed_hosts)
        self._state = GatewayState(
            services,
            filters=filters,
            limits=self.limits,
            checks=self._checks,
            legacy_clients=legacy_clients,
            error_detail=error_detail,
            authenticate=authenticate,
            home=Home(home),
        )
        self._http, self._websocket = HttpEndpoints(self._state), WebSocketEndpoint(self._state)
        self._host: AsyncioHost | None = None
        self._app = self._make_app(allowed_origins, pages, openapi=openapi)

    def _make_app(
        self, allowed_origins: Sequence[str], pages: Path | str | None, *, openapi: bool
    ) -> Starlette:
        cors = Middleware(
            CORSMiddleware,
            allow_origins=[origin.rstrip("/") for origin in allowed_origins],
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=HEADERS,
            allow_private_network=True,
        )
        http, websocket = self._http, self._websocket
        api: list[tuple[str, Any, str]] = [
            ("/api/result/{uuid}", http.collect, "GET"),
            ("/api/result/{uuid}", http.collect, "DELETE"),
            ("/api/{method}/{client_id}", http.post, "POST"),
            ("/api/{method}", http.post_alone, "POST"),
            ("/healthz", http.health, "GET"),
            ("/readyz", http.readiness, "GET"),
            ("/message.js", static_file("message.js", "text/javascript"), "GET"),
            ("/message.d.ts", static_file("message.d.ts", "text/plain"), "GET"),
            ("/session.js", static_file("served/session.js", "text/javascript", SESSION_JS), "GET"),
            (
                "/resumable.js",
                static_file("served/resumable.js", "text/javascript", SESSION_JS),
                "GET",
            ),
            ("/session.d.ts", static_file("session.d.ts", "text/plain", SESSION_JS), "GET"),
        ]
        if openapi:
            api.append(("/openapi.json", http.describing(), "GET"))
        # Each path also works with a trailing slash. Starlette would redirect it instead, to
        # http:// and the name in the Host header.
        both = ("", "/")
        app = Starlette(
            routes=[
                *(
                    Route(f"{path}{end}", to, methods=[verb])
                    for end in both
                    for path, to, verb in api
                ),
                *(WebSocketRoute(f"/ws{end}", websocket.connect) for end in both),
                *pages_below(pages),
            ],
            middleware=[cors] if allowed_origins else [],
            exception_handlers={Refusal: answer_refusal, HTTPException: answer_http_error},
            lifespan=self._lifespan,
        )
        app.router.redirect_slashes = False
        return app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection, on Trio or in the event loop of a host on asyncio."""
        if scope["type"] == "lifespan" or trio.lowlevel.in_trio_task():
            await self._app(scope, receive, send)
        elif self._host is None:
            self._state.complain(HOW_TO_RUN)
            await refuse_all(scope, receive, send, HOW_TO_RUN)
        else:
            await self._host.run_in_trio(
                self._app,
                {WITHOUT_DEFLATE: lambda *_: None, **scope},  # the server has a limit of its own
                lambda: run_in_asyncio(receive),
                lambda message: run_in_asyncio(send, message),
            )

    # ── running ──────────────────────────────────────────────────────────────────────────────

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Run the gateway while the block lasts.

        Leaving the block cancels all calls, closes all connections, and waits until both are done.

        In an application on asyncio, such as FastAPI under uvicorn, the calls run on Trio all the
        same: the first gateway that is run starts a guest run of Trio in the host's event loop.

        Raises:
            RuntimeError: the gateway is already running.
        """
        if self._state.nursery is not None or self._host is not None:
            raise RuntimeError("this gateway is already running")
        if not is_asyncio():
            async with self._run_on_trio():
                yield
            return
        async with entered_in_trio(self._run_on_trio) as host:
            self._host = host
            try:
                yield
            finally:
                self._host = None

    @contextlib.asynccontextmanager
    async def _run_on_trio(self) -> AsyncIterator[None]:
        with one_exception() as body:
            async with trio.open_nursery() as nursery:
                self._state.start(nursery)
                try:
                    yield
                except BaseException as exc:
                    body.append(exc)
                    raise
                finally:
                    self._state.stop()

    async def drain(self) -> None:
        """Refuse new calls and new clients, and wait until all running calls have ended.

        Raises:
            RuntimeError: the gateway runs in another Trio run.
        """
        if self._host is not None and is_asyncio():
            await self._host.run_in_trio(self._state.drain)
        else:
            await self._state.drain()

    def known_as(self, *names: str) -> None:
        """Refuse requests for other host names. Has no effect if ``allowed_hosts`` was given.

        :meta private:
        """
        self._checks.welcome_hosts(names)

    def inspect(self) -> Inspected:
        """Return the figures, and the clients with their calls, for an Introspection.

        :meta private:
        """
        return inspect(self._state)

    @property
    def clients(self) -> int:
        """The number of clients, including disconnected ones."""
        return len(self._state.clients)

    @property
    def works(self) -> int:
        """The number of running calls."""
        return len(self._state.works)

    @property
    def unsent(self) -> int:
        """The bytes that are held for all clients together; ``max_unsent`` bounds them."""
        return self._state.unsent.size

    @contextlib.asynccontextmanager
    async def _lifespan(self, _app: object) -> AsyncIterator[None]:
        if self._state.nursery is not None:  # the host application runs it already
            yield
        else:
            async with self.run():
                yield

"""The gateway as an ASGI application.

HTTP starts a call, and a WebSocket carries its callbacks and its end.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from trio_rpc.channels.websocket.channel import check_origins
from trio_rpc.errors import InvalidArguments
from trio_rpc.gateway.json_messages import encode, from_json, from_json_exactly
from trio_rpc.gateway.limits import GatewayLimits
from trio_rpc.gateway.server.browser import Client
from trio_rpc.gateway.server.call import CallSettings, GatewayCall
from trio_rpc.gateway.server.checks import (
    Refusal,
    RequestChecks,
    closing,
    gone,
    header_names,
    header_seconds,
    read_body,
    request_key,
    used_up,
)
from trio_rpc.gateway.server.connection import Connection, End
from trio_rpc.gateway.server.direct import DirectCaller, HeldResponse
from trio_rpc.gateway.server.forms import Forms
from trio_rpc.gateway.server.memory_budget import MemoryBudget, MemoryShare
from trio_rpc.gateway.server.responses import (
    answer_http_error,
    answer_refusal,
    json_response,
    pages_below,
    static_file,
)
from trio_rpc.gateway.server.results import Results, is_outliving
from trio_rpc.gateway.server.trio_check import check_trio, refuse_without_trio
from trio_rpc.gateway.server.websocket import WITHOUT_DEFLATE, receiving, sending
from trio_rpc.services.error_maps import Detail, check_detail
from trio_rpc.services.tables import BoundMethod, build_table, missing
from trio_rpc.session.calls.filters import check_filters
from trio_rpc.session.owner import Owner
from trio_rpc.session.session import Filter
from trio_rpc.util.one_exception import one_exception
from trio_rpc.util.time_limits import time_limit

__all__ = ["Gateway"]

logger = logging.getLogger("trio_rpc.gateway")

EXPIRED = 10_000
"""Ids of past clients to remember: a client that returns too late gets 410, an unknown one 403."""

HEADERS = (
    "Content-Type",
    "Trio-Rpc-Token",
    "Trio-Rpc-Callbacks",
    "Trio-Rpc-Timeout",
    "Idempotency-Key",
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
        pages: a folder whose files browsers get unchanged; its ``index.html`` is the first page.

    Raises:
        TypeError: a service or a filter is not valid, or a browser could never pass one of a
            method's parameters: it is positional-only, or a stream, or a callback whose name a
            header cannot carry.
        ValueError: ``pages`` is not a directory, ``allowed_origins`` has an entry that is not an
            origin, or ``error_detail`` is not one of the three values.
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
        pages: Path | str | None = None,
    ) -> None:
        check_filters(filters)
        check_detail(error_detail)
        self.limits = limits or GatewayLimits()
        self._table = build_table(services)
        self._forms = {
            name: Forms(method) for name, method in self._table.items() if not method.kind.is_opened
        }
        self._settings = CallSettings(tuple(filters), error_detail, most=self.limits.max_nodes)
        self._legacy_clients = legacy_clients
        self._checks = RequestChecks(check_origins(allowed_origins) or frozenset(), allowed_hosts)
        self._nursery: trio.Nursery | None = None
        self._owner: Owner
        self._is_draining = False
        self._complaints: set[str] = set()
        self._clients: dict[str, Client] = {}
        self._expired: OrderedDict[str, None] = OrderedDict()
        self._results = Results(self.limits)
        self._unsent = MemoryBudget(self.limits.max_unsent)
        self._bodies = MemoryBudget(self.limits.max_bodies)
        # Bound: max_works for each of max_clients clients, plus max_results, plus max_direct.
        self._works: set[GatewayCall] = set()
        self._direct = 0
        self._unidentified = 0
        self._idle = trio.Event()
        self._app = self._make_app(allowed_origins, pages)

    def _make_app(self, allowed_origins: Sequence[str], pages: Path | str | None) -> Starlette:
        cors = Middleware(
            CORSMiddleware,
            allow_origins=[origin.rstrip("/") for origin in allowed_origins],
            allow_methods=["GET", "POST"],
            allow_headers=HEADERS,
            allow_private_network=True,
        )
        api: list[tuple[str, Any, str]] = [
            ("/api/result/{uuid}", self._collect, "GET"),
            ("/api/{method}/{client_id}", self._post, "POST"),
            ("/api/{method}", self._post_alone, "POST"),
            ("/message.js", static_file("message.js", "text/javascript"), "GET"),
            ("/message.d.ts", static_file("message.d.ts", "text/plain"), "GET"),
        ]
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
                *(WebSocketRoute(f"/ws{end}", self._websocket) for end in both),
                *pages_below(pages),
            ],
            middleware=[cors] if allowed_origins else [],
            exception_handlers={Refusal: answer_refusal, HTTPException: answer_http_error},
            lifespan=self._lifespan,
        )
        app.router.redirect_slashes = False
        return app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection, or refuse it if the server does not run on Trio."""
        if trio.lowlevel.in_trio_run():
            await self._app(scope, receive, send)
        else:
            await refuse_without_trio(scope, receive, send)

    # ── running ──────────────────────────────────────────────────────────────────────────────

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Run the gateway while the block lasts.

        Leaving the block cancels all calls, closes all connections, and waits until both are done.

        Raises:
            RuntimeError: the gateway is already running, or this is not a Trio program.
        """
        check_trio()
        if self._nursery is not None:
            raise RuntimeError("this gateway is already running")
        with one_exception() as body:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self._owner = Owner("this gateway, while it runs,")
                self._is_draining = False
                try:
                    yield
                except BaseException as exc:
                    body.append(exc)
                    raise
                finally:
                    self._nursery = None
                    self._is_draining = True
                    nursery.cancel_scope.cancel(reason="the gateway is closing")

    async def drain(self) -> None:
        """Refuse new calls and new clients, and wait until all running calls have ended.

        Raises:
            RuntimeError: another Trio run than this one runs the gateway.
        """
        if self._nursery is not None:
            self._owner.check()
        self._is_draining = True
        await trio.lowlevel.checkpoint()
        while self._works:
            self._idle = trio.Event()
            await self._idle.wait()

    def known_as(self, *names: str) -> None:
        """Refuse requests for other host names. Has no effect if ``allowed_hosts`` was given.

        :meta private:
        """
        self._checks.welcome_hosts(names)

    @property
    def clients(self) -> int:
        """The number of clients, including disconnected ones."""
        return len(self._clients)

    @property
    def works(self) -> int:
        """The number of running calls."""
        return len(self._works)

    @property
    def unsent(self) -> int:
        """The bytes that are held for all clients together; ``max_unsent`` bounds them."""
        return self._unsent.size

    @contextlib.asynccontextmanager
    async def _lifespan(self, _app: object) -> AsyncIterator[None]:
        if self._nursery is not None:  # the host application runs it already
            yield
        else:
            async with self.run():
                yield

    def _running(self) -> trio.Nursery:
        if self._nursery is None:
            if self._is_draining:  # a connection may outlive the gateway for a moment
                raise closing()
            how = (
                "this gateway is not running: enter `async with gateway.run():`"
                " in its host's lifespan"
            )
            self._complain(how)
            raise Refusal(503, how)
        self._owner.check()  # a server in another run would wake this one's tasks
        return self._nursery

    def _complain(self, of: str) -> None:
        """Log a mistake in how the gateway is hosted. Log it once, because requests repeat it."""
        if of not in self._complaints:
            self._complaints.add(of)
            logger.error(of)

    def _accepting(self) -> trio.Nursery:
        nursery = self._running()
        if self._is_draining:
            raise closing()
        return nursery

    # ── HTTP ─────────────────────────────────────────────────────────────────────────────────

    async def _post(self, request: Request) -> Response:
        """Start a call that sends its callbacks and its end over the client's WebSocket."""
        self._accepting()
        self._checks.check(request.headers)
        client = self._client_of(request)
        method = self._method(request.path_params["method"])
        with contextlib.ExitStack() as stack:
            body = stack.enter_context(contextlib.closing(MemoryShare(self._bodies)))
            data = await self._read_arguments(request, body)
            # There is no checkpoint from here on, so all that is checked now still holds when the
            # call starts.
            nursery = self._accepting()
            key = request_key(request)
            started = client.started_with(key)
            if started is None:
                work = self._make_work(request, method, data, body)
                self._start(client, method, work, key, nursery)
                started = work.uuid
                stack.pop_all()  # the call holds its body until it has ended
        answer = {
            "type": "start",
            "request_uuid": started,
            "message": f"{method.name} has been started",
            "callbacks": list(method.signature.callbacks),
        }
        return json_response(200, answer)

    def _start(
        self,
        client: Client,
        method: BoundMethod,
        work: GatewayCall,
        key: str | None,
        nursery: trio.Nursery,
    ) -> None:
        if client.is_over:
            raise gone()
        if len(client.works) >= self.limits.max_works:
            raise Refusal(429, f"this client already has {self.limits.max_works} running calls")
        if client.backlog.is_full:
            raise Refusal(429, "this client's backlog is full; acknowledge messages first")
        if not client.has_room_for_calls:
            raise used_up()
        elsewhere = None
        if is_outliving(method.function):
            if not self._results.make_room():
                raise Refusal(
                    503,
                    f"{self.limits.max_results} calls that may outlive their clients are running",
                )
            self._results.hold(work, client)
            elsewhere = nursery
        self._works.add(work)
        client.start(work, key=key, elsewhere=elsewhere)

    async def _post_alone(self, request: Request) -> Response:
        """Run a method without required callbacks within its request; no WebSocket is needed."""
        self._accepting()
        self._checks.check(request.headers)
        method = self._method(request.path_params["method"])
        if any(method.signature.callbacks.values()):
            raise Refusal(422, f"{method.name} has required callbacks: call it over a WebSocket")
        with contextlib.ExitStack() as stack:
            body = stack.enter_context(contextlib.closing(MemoryShare(self._bodies)))
            data = await self._read_arguments(request, body)
            nursery = self._accepting()
            if self._direct >= self.limits.max_direct:
                text = f"{self.limits.max_direct} calls without a WebSocket are running"
                raise Refusal(503, text)
            if self._unsent.is_used_up:
                raise used_up()
            work = self._make_work(request, method, data, body, names=())
            stack.pop_all()
        caller = DirectCaller(self._unsent)
        self._works.add(work)
        self._direct += 1
        try:
            nursery.start_soon(work.run, caller, name=work.name)
            return await caller.answer(request, work)
        finally:
            self._direct -= 1

    async def _collect(self, request: Request) -> Response:
        """Answer with the result of a call that may outlive its client."""
        self._running()
        self._checks.check(request.headers)
        held = self._results.get(request.path_params["uuid"])
        if held is None:
            raise Refusal(404, "there is no such call, or its result is no longer held")
        self._check_token(request, held.client)
        outcome = held.work.outcome
        if outcome is None:
            return json_response(202, {"type": "running", "request_uuid": held.work.uuid})
        share = MemoryShare(self._unsent)
        if not share.has_room(len(outcome)):
            raise used_up()
        share.take(len(outcome))
        return HeldResponse(200, outcome, share)

    def _client_of(self, request: Request) -> Client:
        name = request.path_params["client_id"]
        client = self._clients.get(name)
        if client is None:
            raise gone() if name in self._expired else Refusal(403, "there is no such client")
        self._check_token(request, client)
        return client

    def _check_token(self, request: Request, client: Client) -> None:
        token = request.headers.get("trio-rpc-token")
        if token is None:
            if not self._legacy_clients:
                raise Refusal(401, "the header Trio-Rpc-Token is missing")
        elif not client.owns(token):
            raise Refusal(403, "this token does not belong to that client")

    def _method(self, name: str) -> BoundMethod:
        method = self._table.get(name)
        if method is None or method.kind.is_opened:
            raise Refusal(404, str(missing(self._table, name)))
        return method

    async def _read_arguments(self, request: Request, body: MemoryShare) -> dict[str, Any]:
        limits = self.limits
        text = await read_body(request, limits.max_body, limits.body_timeout, body)
        try:
            data = from_json_exactly(text or b"{}")
        except ValueError as exc:
            raise Refusal(400, f"the body is not JSON that can be read exactly: {exc}") from None
        if type(data) is not dict:
            raise Refusal(422, "the body must be an object: the method's arguments by name")
        return data

    def _make_work(
        self,
        request: Request,
        method: BoundMethod,
        data: dict[str, Any],
        body: MemoryShare,
        names: Sequence[str] | None = None,
    ) -> GatewayCall:
        if names is None:
            names = header_names(request.headers.get("trio-rpc-callbacks"))
        declared = method.signature.callbacks
        for name in names or ():
            if name not in declared:
                raise Refusal(422, f"{method.name} has no callback {name!r:.100}", name)
        for name in declared:
            if name in data:
                raise Refusal(422, f"{name!r} is a callback, not an argument", name)
        timeout = header_seconds(request.headers.get("trio-rpc-timeout"))
        try:
            return GatewayCall(
                method,
                data,
                names,
                timeout,
                self._settings,
                functools.partial(self._ended, body),
                self._forms[method.name],
            )
        except InvalidArguments as exc:
            raise Refusal(422, str(exc), exc.parameter) from None

    def _ended(self, body: MemoryShare, work: GatewayCall) -> None:
        body.close()
        self._results.ended(work)
        self._works.discard(work)
        if not self._works:
            self._idle.set()

    # ── the WebSocket ────────────────────────────────────────────────────────────────────────

    async def _websocket(self, websocket: WebSocket) -> None:
        with contextlib.closing(MemoryShare(self._bodies)) as share:
            await self._carry(websocket, share)

    async def _carry(self, websocket: WebSocket, share: MemoryShare) -> None:
        is_new = "resume" not in websocket.query_params
        try:
            nursery = self._admit(websocket, share, is_new=is_new)
        except Refusal as exc:
            await websocket.send_denial_response(await answer_refusal(websocket, exc))
            return
        await websocket.accept()
        end = await (self._welcome(websocket, nursery) if is_new else self._resume(websocket))
        if end is not End.GONE:
            with contextlib.suppress(WebSocketDisconnect):
                await websocket.close(*end.value)

    def _admit(self, websocket: WebSocket, share: MemoryShare, *, is_new: bool) -> trio.Nursery:
        nursery = self._accepting() if is_new else self._running()
        self._checks.check(websocket.headers)
        limit = websocket.scope.get(WITHOUT_DEFLATE)
        if limit is not None:
            limit(self.limits.max_message, self.limits.shutdown_timeout, share)
        elif "sec-websocket-extensions" in websocket.headers:
            self._complain(
                "this server may accept compressed WebSocket messages, which can take a thousand"
                " times their size in memory: see Security in docs/gateway.md"
            )
        if is_new and len(self._clients) >= self.limits.max_clients and not self._make_room():
            raise Refusal(503, "there are too many clients")
        if not is_new and self._unidentified >= self.limits.max_clients:
            raise Refusal(503, "too many clients are reconnecting", retry_after=1)
        return nursery

    def _make_room(self) -> bool:
        """End the longest-disconnected client without running calls; return whether there was one.

        This prevents clients that connect and leave from using up ``max_clients``.
        """
        idle = [
            client
            for client in self._clients.values()
            if client.is_disconnected and not client.works
        ]
        if not idle:
            return False
        longest = min(idle, key=lambda client: client.deadline)
        longest.end("a new client needed its place")
        self._forget(longest)
        return True

    def _forget(self, client: Client) -> None:
        if self._clients.pop(client.id, None) is not None:
            self._expired[client.id] = None
            if len(self._expired) > EXPIRED:
                self._expired.popitem(last=False)

    async def _welcome(self, websocket: WebSocket, nursery: trio.Nursery) -> End:
        client = Client(
            self.limits,
            resumable="resumable" in websocket.query_params,
            pieces="pieces" in websocket.query_params,
            complaints=self._settings.complaints,
            budget=self._unsent,
        )
        hello = {
            "type": "uuid",
            "uuid": client.id,
            "token": client.token,
            "grace": _finite(self.limits.grace),
            "keepalive": _finite(self.limits.keepalive),
            "window": _finite(self.limits.callbacks_ahead),
        }
        connection = _connection(client, hello, websocket)
        self._clients[client.id] = client
        await nursery.start(self._keep, client)
        return await connection.run()

    async def _keep(self, client: Client, task_status: trio.TaskStatus[None]) -> None:
        try:
            await client.run(task_status)
        finally:
            self._forget(client)

    async def _resume(self, websocket: WebSocket) -> End:
        text: str | None = ""
        self._unidentified += 1
        try:
            async with time_limit(self.limits.handshake_timeout, "no first message"):
                text = await receiving(websocket)()
        except TimeoutError:
            pass
        finally:
            self._unidentified -= 1
        if text is None:
            return End.GONE
        client = self._returning(text)
        if client is None:
            lost = {"type": "lost", "reason": "the gateway no longer knows this session"}
            await sending(websocket)(encode(lost).decode())
            return End.LOST
        return await _connection(client, {"type": "resumed", "uuid": client.id}, websocket).run()

    def _returning(self, text: str) -> Client | None:
        """Return the client of a resume message, ready to receive the messages that it missed.

        None if the message does not prove an identity, if the client has ended, or if the backlog
        no longer holds everything that it missed.
        """
        try:
            message = from_json(text)
        except ValueError:
            return None
        if type(message) is not dict or message.get("type") != "resume":
            return None
        client, seen = self._clients.get(str(message.get("uuid"))), message.get("seq")
        if client is None or type(seen) is not int or not client.owns(str(message.get("token"))):
            return None
        if client.is_over or not client.backlog.rewind(seen):
            return None
        client.made_room()
        return client


def _finite(limit: float) -> float | None:
    return None if limit == math.inf else limit


def _connection(client: Client, first: dict[str, Any], websocket: WebSocket) -> Connection:
    return Connection(client, first, sending(websocket), receiving(websocket))

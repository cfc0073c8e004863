"""The gateway as an ASGI application: HTTP starts the work, a WebSocket carries its callbacks."""

from __future__ import annotations

import contextlib
import logging
import math
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from importlib import resources
from typing import Any

import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from trio_rpc.errors import InvalidArguments
from trio_rpc.gateway.checks import Door, Refusal, read_body
from trio_rpc.gateway.clients import LOST, REPLACED, Client
from trio_rpc.gateway.limits import GatewayLimits
from trio_rpc.gateway.texts import RESERVED, from_json, to_json
from trio_rpc.gateway.work import Work
from trio_rpc.services.decorators import Kind
from trio_rpc.services.faults import Detail
from trio_rpc.services.tables import BoundMethod, Table, build_table, missing
from trio_rpc.session.filters import Filter

__all__ = ["Gateway", "outlives"]

logger = logging.getLogger("trio_rpc.gateway")

_OUTLIVES = "__trio_rpc_outlives__"
EXPIRED = 10_000
"""Ids of clients that are remembered as having been, to tell a late one from a stranger."""


def outlives(function: Any) -> Any:
    """Mark a method, below ``@method``, to go on when its client is gone: its result can be collected later."""
    setattr(function, _OUTLIVES, True)
    return function


class Gateway:
    """Services for browsers: an ASGI application, to be mounted or to be served alone.

    It needs to be run: by ``Starlette(lifespan=gateway.lifespan)``, or ``async with gateway.run():`` in the
    lifespan of the application that it is mounted in, or by :func:`trio_rpc.gateway.serve`.

    Args:
        services: as :func:`trio_rpc.open_session` takes them, but no function of a session. Methods whose
            parameters include callbacks (annotated as Callable) get functions that call the browser.
        filters: run round each call, the first one outermost.
        limits: what clients may cost.
        allowed_origins: web origins besides its own, such as ``"https://example.org"``, whose pages may use it.
        allowed_hosts: names that clients may call this host by; None for any, which is no protection against
            DNS rebinding for a server on loopback.
        legacy_clients: whether a client that sends no token may call all the same, by its unguessable id alone.
        error_detail: how much of an undeclared exception clients are told: "none", "message" or "traceback".

    Raises:
        TypeError: a service is none, or a callback has a name that messages need themselves.
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
    ) -> None:
        self.limits = limits or GatewayLimits()
        self._table = _checked(build_table(services))
        self._filters = tuple(filters)
        self._detail: Detail = error_detail
        self._legacy_clients = legacy_clients
        self._door = Door(allowed_origins, allowed_hosts)
        self._nursery: trio.Nursery | None = None
        self._clients: dict[str, Client] = {}
        self._expired: OrderedDict[str, None] = OrderedDict()
        # Bound: limits.max_results; each is forgotten after limits.result_ttl.
        self._results: OrderedDict[str, tuple[Work, Client, float]] = OrderedDict()
        self._app = Starlette(
            routes=[
                Route("/api/result/{uuid}", self._collect, methods=["GET"]),
                Route("/api/{method}/{client_id}", self._post, methods=["POST"]),
                Route("/api/{method}", self._post_alone, methods=["POST"]),
                Route("/message.js", _file("message.js", "text/javascript"), methods=["GET"]),
                Route("/message.d.ts", _file("message.d.ts", "text/plain"), methods=["GET"]),
                WebSocketRoute("/ws", self._websocket),
            ],
            exception_handlers={Refusal: _refused},
            lifespan=self.lifespan,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Be an ASGI application."""
        await self._app(scope, receive, send)

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Run it while the block lasts; leaving it ends all work and all connections."""
        if self._nursery is not None:
            raise RuntimeError("this gateway is running already")
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                yield
            finally:
                self._nursery = None
                nursery.cancel_scope.cancel(reason="the gateway is closing")

    @contextlib.asynccontextmanager
    async def lifespan(self, _app: object = None) -> AsyncIterator[None]:
        """Do the same, with the signature that Starlette's ``lifespan`` wants."""
        async with self.run():
            yield

    # ── HTTP ─────────────────────────────────────────────────────────────────────────────────

    async def _post(self, request: Request) -> Response:
        nursery = self._running()
        self._door.check(request.headers)
        client = self._client_of(request)
        method = self._method(request.path_params["method"])
        work = await self._make_work(request, method)
        if client.is_over:
            raise Refusal(410, "this client has been away for too long")
        if len(client.works) >= self.limits.max_works:
            raise Refusal(429, f"more than {self.limits.max_works} calls at once")
        stays = getattr(method.function, _OUTLIVES, False)
        if stays:
            self._remember(work, client)
        await client.start(work, grace_free=nursery if stays else None)
        answer = {
            "type": "start",
            "request_uuid": work.uuid,
            "message": f"{method.name} has been started",
            "callbacks": list(method.signature.callbacks),
        }
        return _json(200, answer)

    async def _post_alone(self, request: Request) -> Response:
        """Run a method without callbacks inside the request, for those who have no WebSocket (A43)."""
        self._running()
        self._door.check(request.headers)
        method = self._method(request.path_params["method"])
        if method.signature.callbacks:
            raise Refusal(422, f"{method.name} has callbacks: it needs a WebSocket")
        work = await self._make_work(request, method)
        client = Client(self.limits, resumable=False)
        client.works[work.uuid] = work
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_watch, request, nursery)
            await work.run(client)
            nursery.cancel_scope.cancel(reason="the work is done")
        if work.outcome is None:
            raise Refusal(499, "the client has gone")
        return _json(200 if work.outcome["type"] == "finish" else 500, work.outcome)

    async def _collect(self, request: Request) -> Response:
        """Hand out the result of work that was to outlive its client (F26)."""
        self._running()
        self._door.check(request.headers)
        self._forget_results()
        work, client, _ = self._results.get(request.path_params["uuid"], (None, None, 0.0))
        if work is None or client is None:
            raise Refusal(404, "there is no such work, or its result has been forgotten")
        self._check_token(request, client)
        if work.outcome is None:
            return _json(202, {"type": "running", "request_uuid": work.uuid})
        return _json(200, work.outcome)

    def _running(self) -> trio.Nursery:
        if self._nursery is None:
            how = "this gateway is not running: enter `async with gateway.run()` in the lifespan of its host"
            logger.error(how)
            raise Refusal(503, how)
        return self._nursery

    def _client_of(self, request: Request) -> Client:
        name = request.path_params["client_id"]
        client = self._clients.get(name)
        if client is None:
            if name in self._expired:
                raise Refusal(410, "this client has been away for too long")
            raise Refusal(403, "there is no such client")
        self._check_token(request, client)
        return client

    def _check_token(self, request: Request, client: Client) -> None:
        token = request.headers.get("trio-rpc-token")
        if token is None:
            if not self._legacy_clients:
                raise Refusal(401, "the header Trio-Rpc-Token is missing")
        elif not client.owns(token):
            raise Refusal(403, "this token is not that client's")

    def _method(self, name: str) -> BoundMethod:
        method = self._table.get(name)
        if method is None or method.kind.is_opened:
            raise Refusal(404, str(missing(self._table, name)))
        return method

    async def _make_work(self, request: Request, method: BoundMethod) -> Work:
        text = await read_body(request, self.limits.max_body)
        try:
            data = from_json(text or b"{}")
        except ValueError as exc:
            raise Refusal(400, f"the body is no JSON: {exc}") from None
        if type(data) is not dict:
            raise Refusal(422, "the body must be an object: the method's arguments by name")
        names = _names(request.headers.get("trio-rpc-callbacks"))
        declared = method.signature.callbacks
        for name in names or ():
            if name not in declared:
                raise Refusal(422, f"{method.name} has no callback {name!r:.100}", parameter=name)
        for name in declared:
            if name in data:
                raise Refusal(422, f"{name!r} is a callback, and no argument", parameter=name)
        try:
            timeout = _seconds(request.headers.get("trio-rpc-timeout"))
            return Work(method, data, names, timeout, self._filters, self._detail)
        except InvalidArguments as exc:
            raise Refusal(422, str(exc), parameter=exc.parameter) from None

    # ── work that outlives its client ────────────────────────────────────────────────────────

    def _remember(self, work: Work, client: Client) -> None:
        self._forget_results()
        self._results[work.uuid] = (work, client, math.inf)
        while len(self._results) > self.limits.max_results:
            self._results.popitem(last=False)

    def _forget_results(self) -> None:
        now = trio.current_time()
        for name, (work, client, until) in list(self._results.items()):
            if work.outcome is not None and math.isinf(until):
                self._results[name] = (work, client, now + self.limits.result_ttl)
            elif until <= now:
                del self._results[name]

    # ── the WebSocket ────────────────────────────────────────────────────────────────────────

    async def _websocket(self, websocket: WebSocket) -> None:
        try:
            nursery = self._running()
            self._door.check(websocket.headers)
            self._check_room()
        except Refusal as exc:
            await websocket.send_denial_response(_json(exc.status, {"error": exc.text}))
            return
        await websocket.accept()
        with contextlib.suppress(WebSocketDisconnect):
            if "resume" in websocket.query_params:
                await self._resume(websocket)
            else:
                await self._welcome(websocket, nursery)

    def _check_room(self) -> None:
        if len(self._clients) >= self.limits.max_clients:
            raise Refusal(503, "there are too many clients")

    async def _welcome(self, websocket: WebSocket, nursery: trio.Nursery) -> None:
        client = Client(self.limits, resumable="resumable" in websocket.query_params)
        self._clients[client.id] = client
        await nursery.start(self._keep, client)
        hello = {
            "type": "uuid",
            "uuid": client.id,
            "token": client.token,
            "grace": self.limits.grace,
        }
        await self._converse(websocket, client, hello)

    async def _keep(self, client: Client, task_status: trio.TaskStatus[None]) -> None:
        try:
            await client.run(task_status)
        finally:
            del self._clients[client.id]
            self._expired[client.id] = None
            while len(self._expired) > EXPIRED:
                self._expired.popitem(last=False)

    async def _resume(self, websocket: WebSocket) -> None:
        client = None
        with trio.move_on_after(self.limits.handshake_timeout):
            client = self._returning(await websocket.receive_text())
        if client is None:
            await websocket.send_text(
                '{"type":"lost","error":"this session is not known any more"}'
            )
            await websocket.close(LOST, "session lost")
            return
        await self._converse(websocket, client, {"type": "resumed", "uuid": client.id})

    def _returning(self, text: str) -> Client | None:
        """Find the client that a resume message proves to be; None if it is nobody, or has missed too much."""
        try:
            message = from_json(text)
        except ValueError:
            return None
        if type(message) is not dict or message.get("type") != "resume":
            return None
        client, seen = self._clients.get(str(message.get("uuid"))), message.get("seq")
        if client is None or type(seen) is not int or not client.owns(str(message.get("token"))):
            return None
        return client if client.rewind(seen) else None

    async def _converse(self, websocket: WebSocket, client: Client, first: dict[str, Any]) -> None:
        async def receive() -> str | None:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                return None
            return message.get("text") or ""

        await websocket.send_text(to_json(first).decode())
        if not await client.serve(websocket.send_text, receive):
            await websocket.close(REPLACED, "a newer connection has taken over")


async def _watch(request: Request, nursery: trio.Nursery) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    nursery.cancel_scope.cancel(reason="the client has gone")


def _checked(table: Table) -> Table:
    for method in table.values():
        for name in method.signature.callbacks:
            if name in RESERVED or method.kind is not Kind.METHOD:
                raise TypeError(f"{method.name}: {name!r} cannot be the name of a callback")
    return table


def _names(header: str | None) -> list[str] | None:
    if header is None:
        return None
    return [name.strip() for name in header.split(",") if name.strip()]


def _seconds(header: str | None) -> float:
    if header is None:
        return math.inf
    try:
        seconds = float(header)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise Refusal(400, "Trio-Rpc-Timeout must be seconds, not negative")
    return seconds


def _file(name: str, kind: str) -> Any:
    async def send(_request: Request) -> Response:
        text = resources.files("trio_rpc.gateway").joinpath("static", name).read_text("utf-8")
        return Response(text, media_type=kind)

    return send


async def _refused(_request: Request, exc: Exception) -> Response:
    assert isinstance(exc, Refusal)  # noqa: S101 - registered for nothing else
    body = {"error": exc.text, **({"parameter": exc.parameter} if exc.parameter else {})}
    return _json(exc.status, body)


def _json(status: int, value: Mapping[str, Any]) -> Response:
    return Response(to_json(value), status, media_type="application/json")

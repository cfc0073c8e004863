"""The gateway's HTTP endpoints: start a call, run one in its request, collect a result."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio
from starlette.requests import Request
from starlette.responses import Response

from trio_rpc.errors import InvalidArguments
from trio_rpc.gateway.json_messages import encode, from_json_exactly
from trio_rpc.gateway.openapi import table_openapi
from trio_rpc.gateway.server.browser import Client
from trio_rpc.gateway.server.call import GatewayCall
from trio_rpc.gateway.server.checks import (
    Refusal,
    gone,
    header_names,
    header_seconds,
    read_body,
    request_key,
    used_up,
)
from trio_rpc.gateway.server.direct import DirectCaller, HeldResponse
from trio_rpc.gateway.server.gateway_state import GatewayState
from trio_rpc.gateway.server.memory_budget import MemoryShare
from trio_rpc.gateway.server.responses import json_response
from trio_rpc.gateway.server.results import is_outliving
from trio_rpc.services.tables import BoundMethod
from trio_rpc.session.http_request import HttpRequest

__all__ = ["HttpEndpoints"]


class HttpEndpoints:
    """The endpoints of a gateway's HTTP routes.

    Args:
        state: the gateway's clients and calls.
    """

    def __init__(self, state: GatewayState) -> None:
        self._state = state
        self._limits = state.limits

    async def post(self, request: Request) -> Response:
        """Start a call that sends its callbacks and its end over the client's WebSocket."""
        self._state.accepting()
        self._state.checks.check(request.headers)
        seen = await self._state.authenticate(request)
        client = self._client_of(request)
        method = self._state.method(request.path_params["method"])
        with contextlib.ExitStack() as stack:
            body = stack.enter_context(contextlib.closing(MemoryShare(self._state.bodies)))
            data = await self._read_arguments(request, body)
            # There is no checkpoint from here on, so all that is checked now still holds when the
            # call starts.
            nursery = self._state.accepting()
            key = request_key(request)
            started = client.started_with(key)
            if started is None:
                work = self._make_work(request, seen, method, data, body)
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
        if len(client.works) >= self._limits.max_works:
            raise Refusal(429, f"this client already has {self._limits.max_works} running calls")
        if client.backlog.is_full:
            raise Refusal(429, "this client's backlog is full; acknowledge messages first")
        if not client.has_room_for_calls:
            raise used_up()
        elsewhere = None
        if is_outliving(method.function):
            if not self._state.results.make_room():
                raise Refusal(
                    503,
                    f"{self._limits.max_results} calls that may outlive their clients are running",
                )
            self._state.results.hold(work, client)
            elsewhere = nursery
        self._state.works.add(work)
        client.start(work, key=key, elsewhere=elsewhere)

    async def post_alone(self, request: Request) -> Response:
        """Run a method without required callbacks within its request; no WebSocket is needed."""
        self._state.accepting()
        self._state.checks.check(request.headers)
        seen = await self._state.authenticate(request)
        method = self._state.method(request.path_params["method"])
        if any(method.signature.callbacks.values()):
            raise Refusal(422, f"{method.name} has required callbacks: call it over a WebSocket")
        with contextlib.ExitStack() as stack:
            body = stack.enter_context(contextlib.closing(MemoryShare(self._state.bodies)))
            data = await self._read_arguments(request, body)
            nursery = self._state.accepting()
            if self._state.direct >= self._limits.max_direct:
                text = f"{self._limits.max_direct} calls without a WebSocket are running"
                raise Refusal(503, text)
            if self._state.unsent.is_used_up:
                raise used_up()
            work = self._make_work(request, seen, method, data, body, names=())
            stack.pop_all()
        caller = DirectCaller(self._state.unsent)
        self._state.works.add(work)
        self._state.direct += 1
        try:
            nursery.start_soon(work.run, caller, name=work.name)
            return await caller.answer(request, work)
        finally:
            self._state.direct -= 1

    async def collect(self, request: Request) -> Response:
        """Answer with the result of a call that may outlive its client."""
        self._state.running()
        self._state.checks.check(request.headers)
        await self._state.authenticate(request)
        held = self._state.results.get(request.path_params["uuid"])
        if held is None:
            raise Refusal(404, "there is no such call, or its result is no longer held")
        self._check_token(request, held.client)
        outcome = held.work.outcome
        if outcome is None:
            return json_response(202, {"type": "running", "request_uuid": held.work.uuid})
        share = MemoryShare(self._state.unsent)
        if not share.has_room(len(outcome)):
            raise used_up()
        share.take(len(outcome))
        return HeldResponse(200, outcome, share)

    async def health(self, _request: Request) -> Response:
        """Answer that this program handles requests. It is the same for every caller."""
        return json_response(200, {"status": "ok"})

    async def readiness(self, _request: Request) -> Response:
        """Answer whether new calls are accepted, for a load balancer."""
        if self._state.is_ready:
            return json_response(200, {"status": "ready"})
        return json_response(503, {"error": "this gateway is closing"})

    def describing(self) -> Callable[[Request], Awaitable[Response]]:
        """Return the endpoint that sends the OpenAPI document of the POST routes."""
        document = encode(table_openapi(self._state.table, title="Services", version="1"))

        async def send(request: Request) -> Response:
            self._state.running()
            self._state.checks.check(request.headers)
            await self._state.authenticate(request)
            return Response(document, media_type="application/json")

        return send

    def _client_of(self, request: Request) -> Client:
        name = request.path_params["client_id"]
        client = self._state.clients.get(name)
        if client is None:
            raise (
                gone() if self._state.has_expired(name) else Refusal(403, "there is no such client")
            )
        self._check_token(request, client)
        return client

    def _check_token(self, request: Request, client: Client) -> None:
        token = request.headers.get("trio-rpc-token")
        if token is None:
            if not self._state.legacy_clients:
                raise Refusal(401, "the header Trio-Rpc-Token is missing")
        elif not client.owns(token):
            raise Refusal(403, "this token does not belong to that client")

    async def _read_arguments(self, request: Request, body: MemoryShare) -> dict[str, Any]:
        limits = self._limits
        text = await read_body(request, limits.max_body, limits.body_timeout, body)
        try:
            data = from_json_exactly(text or b"{}")
        except ValueError as exc:
            raise Refusal(400, f"the body is not JSON that can be read exactly: {exc}") from None
        if type(data) is not dict:
            raise Refusal(422, "the body must be an object: the method's arguments by name")
        return data

    def _make_work(  # noqa: PLR0917 - made in two places
        self,
        request: Request,
        seen: HttpRequest,
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
                self._state.settings,
                functools.partial(self._state.ended, body),
                self._state.forms[method.name],
                seen,
            )
        except InvalidArguments as exc:
            raise Refusal(422, str(exc), exc.parameter) from None

"""The gateway's HTTP endpoints: start a call or a job, run one in its request, collect a result."""

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
    home_is_gone,
    query_number,
    read_body,
    request_key,
    used_up,
)
from trio_rpc.gateway.server.direct import DirectCaller, HeldResponse, until_hung_up
from trio_rpc.gateway.server.elsewhere import Route
from trio_rpc.gateway.server.gateway_state import GatewayState
from trio_rpc.gateway.server.job_caller import JobCaller
from trio_rpc.gateway.server.memory_budget import MemoryShare
from trio_rpc.gateway.server.responses import json_response
from trio_rpc.gateway.server.results import Held
from trio_rpc.services.outliving import is_outliving
from trio_rpc.services.tables import BoundMethod
from trio_rpc.session.http_request import HttpRequest

__all__ = ["HttpEndpoints"]

LEAST_KEY = 16
"""The fewest characters of a job's idempotency key, which must be hard to guess."""

LONGEST_WAIT = 30
"""The longest time, in seconds, that a request waits for news of a call.

Proxies commonly end a request that is silent for a minute.
"""


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
        return await self._at_home(request, "client_id", "post")

    async def collect(self, request: Request) -> Response:
        """Answer with the result of a call that may outlive its client, or with its progress.

        A DELETE cancels the call first.
        """
        return await self._at_home(request, "uuid", "collect")

    async def _at_home(self, request: Request, key: str, route: Route) -> Response:
        """Answer here, or at the instance that holds the client or the call."""
        self._state.running()
        self._state.checks.check(request.headers)
        home = self._state.home.of(request.path_params[key])
        if home is None:
            return await self.carried(request, route)
        await self._state.authenticate(request)  # before its body is read, and again at its home
        if self._state.elsewhere is None:
            raise home_is_gone()
        return await self._state.elsewhere.request(home, request, route)

    async def carried(self, request: Request, route: Route) -> Response:
        """Answer a request whose Host and Origin this instance or another one has checked.

        Its path parameters are those of the route.
        """
        if route == "collect":
            self._state.running()
            await self._state.authenticate(request)
            return await self._collect(request)
        self._state.accepting()
        seen = await self._state.authenticate(request)
        return await self._post(request, seen)

    async def _post(self, request: Request, seen: HttpRequest) -> Response:
        client = self._client_of(request)
        method = self._state.method(request.path_params["method"])
        with contextlib.ExitStack() as stack:
            body = stack.enter_context(contextlib.closing(MemoryShare(self._state.bodies)))
            data = await self._read_arguments(request, body)
            # There is no checkpoint from here on, so all these checks still hold when the
            # call starts.
            nursery = self._state.accepting()
            key = request_key(request)
            started = client.started_with(key)
            if started is None:
                work = self._make_work(request, seen, method, data, body)
                self._start(client, method, work, key, nursery)
                started = work.uuid
                stack.pop_all()  # the call holds its body until it has ended
        return json_response(200, _start_answer(method, started))

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
            self._hold(Held(work, client))
            elsewhere = nursery
        self._state.works.add(work)
        client.start(work, key=key, elsewhere=elsewhere)

    def _hold(self, held: Held) -> None:
        if not self._state.results.make_room():
            most = self._limits.max_results
            raise Refusal(503, f"{most} calls that may outlive their clients are running")
        self._state.results.hold(held)

    async def post_alone(self, request: Request) -> Response:
        """Run a method without a WebSocket: within its request, or as a job."""
        self._state.accepting()
        self._state.checks.check(request.headers)
        seen = await self._state.authenticate(request)
        method = self._state.method(request.path_params["method"])
        if request.query_params.get("job") == "1":
            return await self._start_job(request, seen, method)
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

    async def _start_job(
        self, request: Request, seen: HttpRequest, method: BoundMethod
    ) -> Response:
        """Start a call that belongs to no client, and answer with its id and its token."""
        if not is_outliving(method.function):
            raise Refusal(422, f"{method.name} is not marked with @outlives, so it cannot be a job")
        with contextlib.ExitStack() as stack:
            body = stack.enter_context(contextlib.closing(MemoryShare(self._state.bodies)))
            data = await self._read_arguments(request, body)
            nursery = self._state.accepting()
            key = request_key(request)
            if key is not None and len(key) < LEAST_KEY:
                text = f"the Idempotency-Key of a job needs {LEAST_KEY} characters or more"
                raise Refusal(400, f"{text}: a repeated request with it gets the job's token")
            held = self._state.results.started_with(key)
            if held is None:
                if self._state.unsent.is_used_up:
                    raise used_up()
                work = self._make_work(request, seen, method, data, body)
                held = Held(work, JobCaller(self._state.unsent), key)
                self._hold(held)
                self._state.works.add(work)
                nursery.start_soon(work.run, held.owner, name=work.name)
                stack.pop_all()
        answer = _start_answer(method, held.work.uuid)
        return json_response(202, {**answer, "token": held.owner.token})

    async def _collect(self, request: Request) -> Response:
        held = self._state.results.get(request.path_params["uuid"])
        if held is None:
            raise Refusal(404, "there is no such call, or its result is no longer held")
        self._check_token(request, held.owner)
        after = query_number(request, "after")
        seconds = min(query_number(request, "wait") or 0, LONGEST_WAIT)
        if request.method == "DELETE":
            held.work.cancel("cancelled by the client")
        if seconds:
            await self._wait_for_news(request, held, after, seconds)
        return self._state_of(held, after)

    async def _wait_for_news(
        self, request: Request, held: Held, after: int | None, seconds: float
    ) -> None:
        """Wait until there is something new to answer, or the time is up, or the client hangs up.

        Does not wait if too many requests wait already.
        """
        if self._state.waiting >= self._limits.max_waiting:
            return
        self._state.waiting += 1
        try:
            with trio.move_on_after(seconds):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(until_hung_up, request, nursery.cancel_scope.cancel)
                    while not held.has_news(after):
                        await held.wait_changed()
                    nursery.cancel_scope.cancel(reason="there is an answer")
        finally:
            self._state.waiting -= 1

    def _state_of(self, held: Held, after: int | None) -> Response:
        outcome = held.work.outcome
        if outcome is None or held.has_progress(after):
            progress = held.owner.since(after or 0) if isinstance(held.owner, JobCaller) else {}
            running = {"type": "running", "request_uuid": held.work.uuid}
            return json_response(202, {**running, **progress})
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
            is_lost = self._state.has_expired(name) or self._state.home.has_made(name)
            raise gone() if is_lost else Refusal(403, "there is no such client")
        self._check_token(request, client)
        return client

    def _check_token(self, request: Request, owner: Client | JobCaller) -> None:
        token = request.headers.get("trio-rpc-token")
        if token is None:
            if isinstance(owner, JobCaller) or not self._state.legacy_clients:
                raise Refusal(401, "the header Trio-Rpc-Token is missing")
        elif not owner.owns(token):
            of = "job" if isinstance(owner, JobCaller) else "client"
            raise Refusal(403, f"this token does not belong to that {of}")

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


def _start_answer(method: BoundMethod, uuid: str) -> dict[str, Any]:
    return {
        "type": "start",
        "request_uuid": uuid,
        "message": f"{method.name} has been started",
        "callbacks": list(method.signature.callbacks),
    }

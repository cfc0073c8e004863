"""Carry requests and WebSockets to the instance that holds their client."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Final, cast

import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive as AsgiReceive
from starlette.types import Scope
from starlette.types import Send as AsgiSend

from trio_rpc.errors import Fate, RpcError, Unavailable
from trio_rpc.gateway.server.checks import Refusal, closing, read_body
from trio_rpc.gateway.server.connection import End, Receive, Send
from trio_rpc.gateway.server.direct import until_hung_up
from trio_rpc.gateway.server.elsewhere import Route
from trio_rpc.gateway.server.gateway_state import GatewayState
from trio_rpc.gateway.server.memory_budget import MemoryShare
from trio_rpc.gateway.server.responses import answer_refusal
from trio_rpc.gateway.server.websocket_endpoint import lost
from trio_rpc.gateway.spread.instance_service import (
    SERVICE,
    Answer,
    CarriedRequest,
    InstanceService,
    Text,
)
from trio_rpc.gateway.spread.links import LINK_ERRORS, Links
from trio_rpc.session.streams.open import DuplexChannel
from trio_rpc.util.one_exception import one_exception

__all__ = ["Carrier"]

ATTEMPTS: Final = 3
"""The most attempts to carry a request, if the session with its home is lost meanwhile."""

GONE: Final = 410

_NO_SCOPE: Final = {"type": "http"}

_END_OF = {end.value[0]: end for end in End}


class Carrier:
    """Carries the requests and WebSockets of clients that other instances hold.

    Args:
        state: the state of this instance's gateway.
        links: the sessions with the other instances.
    """

    def __init__(self, state: GatewayState, links: Links) -> None:
        self._state = state
        self._links = links
        # Bound: max_clients WebSockets, and the requests, which the server and max_bodies bound.
        self._running: set[trio.CancelScope] = set()
        self._websockets = 0
        self._idle = trio.Event()

    async def request(self, home: str, request: Request, route: Route) -> Response:
        """Carry a request; see ``Elsewhere``."""
        limits = self._state.limits
        with contextlib.ExitStack() as stack:
            share = stack.enter_context(contextlib.closing(MemoryShare(self._state.bodies)))
            await self._links.find(home)  # before the body of a request that leads nowhere
            body = b""
            if route == "post":
                body = await read_body(request, limits.max_body, limits.body_timeout, share)
            stack.pop_all()
        carried = CarriedRequest(
            home=home,
            route=route,
            parameters=dict(request.path_params),
            method=request.method,
            path=request.scope["path"].removeprefix(request.scope.get("root_path", "")),
            query=request.scope["query_string"],
            headers=request.headers.raw,
            address=None if request.client is None else (request.client.host, request.client.port),
        )
        return _CarriedResponse(self, carried, body, share)

    async def resume(self, home: str, first: str, send: Send, receive: Receive) -> End:
        """Carry a WebSocket; see ``Elsewhere``."""
        limits = self._state.limits
        if len(first.encode(errors="replace")) > limits.max_message:
            return End.TOO_LARGE
        if self._websockets >= limits.max_clients:
            return End.AWAY
        self._websockets += 1
        end = End.OVER
        try:
            with self._carrying():
                end = await self._resume(home, first, send, receive)
        finally:
            self._websockets -= 1
        return end

    async def _resume(self, home: str, first: str, send: Send, receive: Receive) -> End:
        try:
            link = await self._links.find(home)
        except Refusal as exc:
            return await lost(send) if exc.status == GONE else End.AWAY
        far = link.proxy(SERVICE, InstanceService)
        try:
            with one_exception():
                async with far.websocket(home, first) as channel:
                    return await _CarriedWebSocket(self._state, channel, send, receive).run()
        except LINK_ERRORS as exc:
            self.complain("a WebSocket", home, exc)
            return End.AWAY

    def stop(self) -> None:
        """End everything that is carried now."""
        for scope in self._running:
            scope.cancel(reason="the gateway is closing")

    async def wait_idle(self) -> None:
        """Wait until nothing is carried."""
        while self._running:
            self._idle = trio.Event()
            await self._idle.wait()

    @contextlib.contextmanager
    def _carrying(self) -> Iterator[trio.CancelScope]:
        with trio.CancelScope() as scope:
            self._running.add(scope)
            try:
                yield scope
            finally:
                self._running.discard(scope)
                if not self._running:
                    self._idle.set()

    def complain(self, what: str, home: str, exc: Exception) -> None:
        """Log that something could not be carried."""
        text = "%s could not be carried to the instance %r: %s"
        self._state.settings.complaints.log(logging.INFO, text, what, home, exc)

    # ── one request ──────────────────────────────────────────────────────────────────────────

    async def answer(
        self, request: CarriedRequest, body: bytes, receive: AsgiReceive, send: AsgiSend
    ) -> Refusal | None:
        """Ask the home of a request for its answer, and send that to the client.

        A client that hangs up cancels the far request. Returns a refusal if there is no answer.
        """
        refusal: Refusal | None = closing()
        answer = _AnswerSender(send, self._state)
        with one_exception(), self._carrying(), trio.CancelScope() as waiting:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(until_hung_up, Request(_NO_SCOPE, receive), waiting.cancel)
                refusal = await self._attempt(request, body, answer)
                nursery.cancel_scope.cancel(reason="the answer was sent")
        return None if answer.has_begun or waiting.cancel_called else refusal

    async def _attempt(
        self, request: CarriedRequest, body: bytes, answer: _AnswerSender
    ) -> Refusal | None:
        is_repeatable = request.route == "collect" or any(
            name == b"idempotency-key" for name, _ in request.headers
        )
        for _ in range(ATTEMPTS):
            try:
                link = await self._links.find(request.home)
            except Refusal as exc:
                return exc
            try:
                far = link.proxy(SERVICE, InstanceService)
                async with far.request(request, body) as parts:
                    async for part in parts:
                        await answer.send(part)
                await answer.end()
            except LINK_ERRORS as exc:
                self.complain("a request", request.home, exc)
                has_begun = not isinstance(exc, Unavailable) and (
                    not isinstance(exc, RpcError) or exc.fate is not Fate.NOT_STARTED
                )
                if answer.has_begun:
                    return None  # the server cuts an answer that is not complete
                if has_begun and not is_repeatable:
                    return Refusal(502, "it is unknown whether the client's instance has done it")
            else:
                return None
        return Refusal(503, "the client's instance cannot be reached now", retry_after=1)


class _CarriedResponse(Response):
    """The answer of another instance, which is asked for it when the server sends it."""

    def __init__(
        self, carrier: Carrier, request: CarriedRequest, body: bytes, share: MemoryShare
    ) -> None:
        super().__init__()
        self._carrier = carrier
        self._request = request
        self._body = body
        self._share = share

    async def __call__(self, scope: Scope, receive: AsgiReceive, send: AsgiSend) -> None:
        """Ask for the answer, and send it."""
        with contextlib.closing(self._share):
            refusal = await self._carrier.answer(self._request, self._body, receive, send)
        if refusal is not None:
            response = await answer_refusal(Request(scope), refusal)
            await response(scope, receive, send)


class _AnswerSender:
    """Sends the parts of an answer to a client, and counts each until it was accepted."""

    def __init__(self, send: AsgiSend, state: GatewayState) -> None:
        self.has_begun = False
        self._send = send
        self._budget = state.unsent

    async def send(self, part: Answer | bytes) -> None:
        """Send a part."""
        if isinstance(part, Answer):
            self.has_begun = True
            await self._send(
                {"type": "http.response.start", "status": part.status, "headers": part.headers}
            )
            part = part.body
        self._budget.take(len(part))
        try:
            await self._send({"type": "http.response.body", "body": part, "more_body": True})
        finally:
            self._budget.give_back(len(part))

    async def end(self) -> None:
        """Send the end. Raises EndOfChannel if the home has answered nothing."""
        if not self.has_begun:
            raise trio.EndOfChannel
        await self._send({"type": "http.response.body", "body": b""})


class _CarriedWebSocket:
    """A WebSocket at this instance of a client that another instance holds."""

    def __init__(
        self, state: GatewayState, channel: trio.abc.Channel[Text], send: Send, receive: Receive
    ) -> None:
        self._limit = state.limits.max_message
        self._budget = state.unsent
        self._channel = channel
        self._send = send
        self._receive = receive
        self._sending = trio.CancelScope()
        """The text that is being sent to the client now."""
        self._has_left = False
        self._end: End | None = None

    async def run(self) -> End:
        """Carry texts in both directions until either end ends it; return how it ended."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._to_home)
            end = await self._to_client()
            nursery.cancel_scope.cancel(reason="the WebSocket has ended")
        return self._end or end

    async def _to_home(self) -> None:
        while (text := await self._receive()) is not None:
            if len(text.encode(errors="replace")) > self._limit:
                self._end = End.TOO_LARGE
                break
            try:
                await self._channel.send(text)
            except trio.BrokenResourceError:
                return  # the home has ended the WebSocket, and says how
        # The home reads all earlier messages, and then ends the WebSocket.
        self._has_left = True
        self._sending.cancel(reason="the client has left")
        await cast("DuplexChannel", self._channel).send_eof()

    async def _to_client(self) -> End:
        parts: list[str] = []
        size = 0
        try:
            async for item in self._channel:
                if isinstance(item, int):
                    return _END_OF.get(item, End.OVER)
                if item is not None:
                    parts.append(item)
                    size += len(item)
                    self._budget.take(len(item))
                    continue
                if not self._has_left:
                    with trio.CancelScope() as self._sending:
                        await self._send("".join(parts))
                parts.clear()
                self._budget.give_back(size)
                size = 0
                await self._accepted()
        finally:
            self._budget.give_back(size)
        return End.AWAY

    async def _accepted(self) -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._channel.send(None)

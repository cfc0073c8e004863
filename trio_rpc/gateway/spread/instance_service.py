"""The service of each instance of a gateway for the others: its own clients and calls."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from typing import Any, Final

import trio
from starlette.requests import Request

from trio_rpc.errors import Unavailable
from trio_rpc.gateway.json_messages import pieces_of
from trio_rpc.gateway.server.checks import Refusal
from trio_rpc.gateway.server.connection import End
from trio_rpc.gateway.server.direct import HeldResponse
from trio_rpc.gateway.server.elsewhere import Route
from trio_rpc.gateway.server.gateway_state import GatewayState
from trio_rpc.gateway.server.http_endpoints import HttpEndpoints
from trio_rpc.gateway.server.responses import answer_refusal
from trio_rpc.gateway.server.websocket_endpoint import WebSocketEndpoint
from trio_rpc.gateway.spread.links import LINK_ERRORS, PART
from trio_rpc.services.decorators import duplex, stream

__all__ = ["SERVICE", "Answer", "CarriedRequest", "InstanceService", "Text"]

SERVICE: Final = "gateway"
"""The name of the service in the sessions between instances."""

FREE: Final = 4 * 1024
"""Bytes of texts on their way to a client for which its writer does not wait.

So a callback and the end of its call, which follow each other closely, cost one way and not two.
They may be held uncounted by the other instance: less than each client may always hold.
"""

Text = str | int | None
"""One item of a carried WebSocket.

From the home: a part of a text; None after its last part; the code with which it closes the
WebSocket. From the other end: a text of the client; None when the client has accepted a text.
"""


@dataclass(frozen=True, slots=True)
class CarriedRequest:
    """A request, without its body.

    Attributes:
        home: the instance that it is for.
        route: the route.
        parameters: the parameters in its path.
        method: its method.
        path: its path.
        query: the rest of its URL, after the ``?``.
        headers: its headers.
        address: the host and the port of the client, if they are known.
    """

    home: str
    route: Route
    parameters: dict[str, str]
    method: str
    path: str
    query: bytes
    headers: list[tuple[bytes, bytes]]
    address: tuple[str, int] | None


@dataclass(frozen=True, slots=True)
class Answer:
    """The beginning of an answer; the rest of its body follows in parts.

    Attributes:
        status: the status.
        headers: the headers.
        body: the first part of the body.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class InstanceService:
    """The service of one instance, which only the other instances may call.

    Args:
        state: the gateway's clients and calls.
        http: the endpoints of its HTTP routes.
        websocket: the endpoint of its WebSocket route.
    """

    def __init__(
        self, state: GatewayState, http: HttpEndpoints, websocket: WebSocketEndpoint
    ) -> None:
        self._state = state
        self._http = http
        self._websocket = websocket

    @stream(raises=(Unavailable,))
    async def request(
        self, request: CarriedRequest, body: bytes
    ) -> AsyncGenerator[Answer | bytes, None]:
        """Answer a request for a client or a call that this instance holds."""
        self._check(request.home)
        carried = _asgi_request(request, body)
        try:
            response = await self._http.carried(carried, request.route)
        except Refusal as exc:
            response = await answer_refusal(carried, exc)
        try:
            parts = _parts(bytes(response.body))
            yield Answer(response.status_code, response.raw_headers, next(parts, b""))
            for part in parts:
                yield part
        finally:
            if isinstance(response, HeldResponse):
                response.close()

    @duplex(raises=(Unavailable,))
    async def websocket(self, channel: trio.abc.Channel[Text], home: str, first: str) -> None:
        """Carry the WebSocket of a client that this instance holds, until it ends."""
        self._check(home)
        carried = _CarriedWebSocket(channel)
        end = End.OVER
        if self._state.nursery is not None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(carried.hear)
                end = await self._websocket.resume(first, carried.send, carried.receive)
                nursery.cancel_scope.cancel(reason="the WebSocket has ended")
        with contextlib.suppress(*LINK_ERRORS):
            await channel.send(end.value[0])

    def _check(self, home: str) -> None:
        if home != self._state.home.name:
            raise Unavailable(f"this is the instance {self._state.home.name!r}, not {home!r:.100}")


def _parts(body: bytes) -> Iterator[bytes]:
    return (body[start : start + PART] for start in range(0, len(body), PART))


def _asgi_request(request: CarriedRequest, body: bytes) -> Request:
    """Return the request as the server of the other instance has made it."""
    rest: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if not rest:
            await trio.sleep_forever()  # a client that hangs up cancels this whole call
        await trio.lowlevel.checkpoint()
        return rest.pop()

    scope = {
        "type": "http",
        "method": request.method,
        "path": request.path,
        "root_path": "",
        "query_string": request.query,
        "headers": request.headers,
        "client": request.address,
        "path_params": request.parameters,
    }
    return Request(scope, receive)


class _CarriedWebSocket:
    """A WebSocket of a client that is at another instance.

    That end says when the client has accepted a text. While more than ``FREE`` bytes are on their
    way, the last text counts as held for the client, as it does without another instance, and no
    other is sent.
    """

    def __init__(self, channel: trio.abc.Channel[Text]) -> None:
        self._channel = channel
        self._accepted = trio.Event()
        # The sizes of the texts that are on their way, and their sum.
        self._sizes: deque[int] = deque()
        self._size = 0
        self._heard, self._texts = trio.open_memory_channel[str](0)

    async def hear(self) -> None:
        """Pass on the texts of the client, until there are no more."""
        async with self._heard:
            await self._hear()

    async def _hear(self) -> None:
        with contextlib.suppress(*LINK_ERRORS):  # the client's next connection gets the rest
            async for item in self._channel:
                if item is None and self._sizes:
                    self._size -= self._sizes.popleft()
                    self._accepted.set()
                elif isinstance(item, str):
                    await self._heard.send(item)

    async def receive(self) -> str | None:
        """Wait for a text of the client; return None at the end."""
        try:
            return await self._texts.receive()
        except trio.EndOfChannel:
            return None

    async def send(self, text: str) -> None:
        """Send a text, and wait until at most ``FREE`` bytes are on their way to the client.

        If the other end has left, this waits until it is cancelled: ``receive`` has told the end.
        """
        data = text.encode()
        self._sizes.append(len(data))  # before it is sent, since the answer may be quick
        self._size += len(data)
        with contextlib.suppress(*LINK_ERRORS):
            for part in pieces_of(data, PART):
                await self._channel.send(part)
            await self._channel.send(None)
        while self._size > FREE:
            self._accepted = trio.Event()
            await self._accepted.wait()

"""Serve a gateway on loopback, and send and receive its messages as a browser would."""

from __future__ import annotations

import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from helpers.asyncio_hosts import host_loop, serving_with_uvicorn
from trio_rpc import RemoteError
from trio_rpc.gateway import open_http_server

TIME_LIMIT = 120
"""Seconds that a test may take, on a busy machine."""


@contextlib.asynccontextmanager
async def hosting(app: Any) -> AsyncIterator[str]:
    """Serve an ASGI application during the block, and yield its URL.

    It is served with hypercorn on Trio; or with uvicorn, if this Trio run is a guest of asyncio.
    """
    with trio.fail_after(TIME_LIMIT):
        serving = hosting_on_trio if host_loop() is None else serving_with_uvicorn
        async with serving(app) as url:
            yield url


@contextlib.asynccontextmanager
async def hosting_on_trio(app: Any) -> AsyncIterator[str]:
    """Serve an ASGI application that needs Trio itself, such as a gateway that a test fakes."""
    with trio.fail_after(TIME_LIMIT):
        async with open_http_server(app, "http://127.0.0.1:0") as urls:
            yield urls[0]


async def until_it_fails(found: Callable[[int], Awaitable[None]]) -> str:
    """Call a callback until it fails at the client, and return the text of that error."""
    while True:
        try:
            await found(1)
        except RemoteError as exc:
            return str(exc)


class Browser:
    """One client: a WebSocket and an HTTP client."""

    def __init__(self, url: str, ws: WebSocketConnection, http: httpx.AsyncClient) -> None:
        self.url = url
        self.ws = ws
        self.http = http
        self.id = ""
        self.token = ""
        self.seen = 0
        self._queue: deque[dict[str, Any]] = deque()

    async def next(self) -> dict[str, Any]:
        """Return the next message, whether it came alone or joined with others."""
        while not self._queue:
            got = json.loads(await self.ws.get_message())
            self._queue.extend(got if isinstance(got, list) else [got])
        message = self._queue.popleft()
        self.seen = message.get("seq", self.seen)
        return message

    async def send(self, kind: str, **rest: Any) -> None:
        await self.ws.send_message(json.dumps({"type": kind, **rest}))

    async def post(
        self, method: str, /, *, headers: dict[str, str] | None = None, **data: Any
    ) -> httpx.Response:
        headers = {"Trio-Rpc-Token": self.token, **(headers or {})}
        return await self.http.post(f"/api/{method}/{self.id}", json=data, headers=headers)

    async def start(self, method: str, /, **data: Any) -> str:
        """Start a call, and return its request_uuid."""
        answer = await self.post(method, **data)
        assert answer.status_code == 200, answer.text
        return answer.json()["request_uuid"]

    async def until_end(self, request: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Return the callbacks of a call and the message that ends it."""
        callbacks = []
        while True:
            message = await self.next()
            assert message["request_uuid"] == request
            if message["type"] != "callback":
                return callbacks, message
            callbacks.append(message)

    def cut(self) -> None:
        """Break the connection without a closing handshake."""
        self.ws._stream.socket.close()


@contextlib.asynccontextmanager
async def websocket(
    url: str, query: str = "resumable=1", headers: list[tuple[str, str]] | None = None
) -> AsyncIterator[WebSocketConnection]:
    """Open a WebSocket to a gateway.

    The library does not close its stream if the server closes first.
    """
    address = httpx.URL(url)
    stream = await trio.open_tcp_stream(address.host, address.port)
    try:
        async with trio.open_nursery() as nursery:
            path = f"{address.path.rstrip('/')}/ws?{query}"
            host = f"{address.host}:{address.port}"
            yield await wrap_client_stream(nursery, stream, host, path, extra_headers=headers)
            nursery.cancel_scope.cancel()
    finally:
        await trio.aclose_forcefully(stream)


@contextlib.asynccontextmanager
async def browsing(url: str, query: str = "resumable=1") -> AsyncIterator[Browser]:
    """Connect as a client, read the first message, and yield the client."""
    async with (
        httpx.AsyncClient(base_url=url, trust_env=False) as http,
        websocket(url, query) as ws,
    ):
        browser = Browser(url, ws, http)
        hello = await browser.next()
        assert hello["type"] == "uuid"
        browser.id, browser.token = hello["uuid"], hello["token"]
        yield browser


@contextlib.asynccontextmanager
async def resuming(browser: Browser, **changes: Any) -> AsyncIterator[dict[str, Any]]:
    """Resume the client's session over a new WebSocket, and yield the first message."""
    async with websocket(browser.url, "resume=1") as browser.ws:
        browser._queue.clear()
        resume_fields = {"uuid": browser.id, "token": browser.token, "seq": browser.seen, **changes}
        await browser.send("resume", **resume_fields)
        yield await browser.next()


async def closed_with(ws: WebSocketConnection) -> int:
    """Wait until a WebSocket closes, and return its code."""
    try:
        while True:
            await ws.get_message()
    except ConnectionClosed as exc:
        return exc.reason.code if exc.reason is not None else 1006

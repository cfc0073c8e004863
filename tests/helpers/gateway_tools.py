"""A gateway on loopback, and browsers that speak its messages one by one."""

from __future__ import annotations

import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from trio_rpc import RemoteError
from trio_rpc.gateway import open_http_server

PATIENCE = 120
"""Seconds that a test may take on a machine that is busy with other things."""


@contextlib.asynccontextmanager
async def hosting(app: Any) -> AsyncIterator[str]:
    """Serve an ASGI application with hypercorn while the block lasts; give its URL."""
    with trio.fail_after(PATIENCE):
        async with open_http_server(app, "http://127.0.0.1:0") as urls:
            yield urls[0]


async def until_it_fails(found: Callable[[int], Awaitable[None]]) -> str:
    """Call a callback again and again until it has failed in the client; return that error's text."""
    while True:
        try:
            await found(1)
        except RemoteError as exc:
            return str(exc)


class Browser:
    """One client: a WebSocket, and an HTTP client beside it."""

    def __init__(self, url: str, ws: WebSocketConnection, http: httpx.AsyncClient) -> None:
        self.url = url
        self.ws = ws
        self.http = http
        self.id = ""
        self.token = ""
        self.seen = 0
        self._queue: deque[dict[str, Any]] = deque()

    async def next(self) -> dict[str, Any]:
        """Return the next message, joined or not."""
        while not self._queue:
            got = json.loads(await self.ws.get_message())
            self._queue.extend(got if isinstance(got, list) else [got])
        message = self._queue.popleft()
        self.seen = message.get("seq", self.seen)
        return message

    async def say(self, kind: str, **rest: Any) -> None:
        await self.ws.send_message(json.dumps({"type": kind, **rest}))

    async def post(
        self, method: str, /, *, headers: dict[str, str] | None = None, **data: Any
    ) -> httpx.Response:
        headers = {"Trio-Rpc-Token": self.token, **(headers or {})}
        return await self.http.post(f"/api/{method}/{self.id}", json=data, headers=headers)

    async def start(self, method: str, /, **data: Any) -> str:
        """Start a call; return its request_uuid."""
        answer = await self.post(method, **data)
        assert answer.status_code == 200, answer.text
        return answer.json()["request_uuid"]

    async def until_end(self, request: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Return the callbacks of a call, and the message that ends it."""
        callbacks = []
        while True:
            message = await self.next()
            assert message["request_uuid"] == request
            if message["type"] != "callback":
                return callbacks, message
            callbacks.append(message)

    def cut(self) -> None:
        """Break the connection, without a word."""
        self.ws._stream.socket.close()


@contextlib.asynccontextmanager
async def websocket(
    url: str, query: str = "resumable=1", headers: list[tuple[str, str]] | None = None
) -> AsyncIterator[WebSocketConnection]:
    """Open a WebSocket to a gateway; the library does not close its stream if the server closes first."""
    place = httpx.URL(url)
    stream = await trio.open_tcp_stream(place.host, place.port)
    try:
        async with trio.open_nursery() as nursery:
            path = f"{place.path.rstrip('/')}/ws?{query}"
            host = f"{place.host}:{place.port}"
            yield await wrap_client_stream(nursery, stream, host, path, extra_headers=headers)
            nursery.cancel_scope.cancel()
    finally:
        await trio.aclose_forcefully(stream)


@contextlib.asynccontextmanager
async def browsing(url: str, query: str = "resumable=1") -> AsyncIterator[Browser]:
    """Connect, and read the first message."""
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
    """Come back over a new WebSocket; give the first answer."""
    async with websocket(browser.url, "resume=1") as browser.ws:
        browser._queue.clear()
        told = {"uuid": browser.id, "token": browser.token, "seq": browser.seen, **changes}
        await browser.say("resume", **told)
        yield await browser.next()


async def closed_with(ws: WebSocketConnection) -> int:
    """Wait for the end of a WebSocket; return its code."""
    try:
        while True:
            await ws.get_message()
    except ConnectionClosed as exc:
        return exc.reason.code if exc.reason is not None else 1006

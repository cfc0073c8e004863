"""A gateway under a server on asyncio says in one clear sentence that it needs Trio."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

import trio_rpc
from trio_rpc.gateway import Gateway, open_http_server
from trio_rpc.gateway.server import trio_check

SENTENCE = "a trio_rpc gateway needs Trio"


class Service:
    @trio_rpc.method
    async def add(self, a: int, b: int) -> int:
        return a + b


@pytest.fixture
def gateway(monkeypatch) -> Gateway:
    monkeypatch.setattr(trio_check, "_complaints", set())
    return Gateway(Service())


async def exchange(
    app: Any, scope: dict[str, Any], *messages: dict[str, Any]
) -> list[dict[str, Any]]:
    """Send messages to an application as a server would, and return the messages it sends."""
    incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    for message in messages:
        incoming.put_nowait(message)
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await asyncio.wait_for(app({"asgi": {"version": "3.0"}, **scope}, incoming.get, send), 10)
    return sent


def test_the_lifespan_fails_with_the_sentence_and_the_remedy(gateway):
    [sent] = asyncio.run(exchange(gateway, {"type": "lifespan"}, {"type": "lifespan.startup"}))
    assert sent["type"] == "lifespan.startup.failed"
    assert sent["message"].startswith(SENTENCE)
    assert "hypercorn --worker-class trio" in sent["message"]


def test_the_lifespan_of_its_host_raises_the_sentence(gateway):
    app = Starlette(routes=[Mount("/rpc", gateway)], lifespan=lambda _: gateway.run())
    scope = {"type": "lifespan", "state": {}}
    with pytest.raises(RuntimeError, match=SENTENCE):
        asyncio.run(exchange(app, scope, {"type": "lifespan.startup"}))


@pytest.mark.parametrize("path", ["/api/add", "/rpc/api/add", "/message.js"])
@pytest.mark.parametrize("is_mounted", [False, True])
def test_a_request_is_answered_with_the_sentence(gateway, caplog, is_mounted, path):
    app = Starlette(routes=[Mount("/", gateway)]) if is_mounted else gateway

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return [await client.post(path, json={"a": 1, "b": 2}) for _ in range(3)]

    for answer in asyncio.run(ask()):
        assert answer.status_code == 503
        assert answer.json()["error"].startswith(SENTENCE)
    assert caplog.text.count(SENTENCE) == 1


@pytest.mark.parametrize("can_deny", [False, True])
def test_a_websocket_is_refused_with_the_sentence(gateway, can_deny):
    scope = {"type": "websocket", "path": "/ws", "query_string": b"", "headers": []}
    if can_deny:
        scope["extensions"] = {"websocket.http.response": {}}
    sent = asyncio.run(exchange(gateway, scope, {"type": "websocket.connect"}))
    if can_deny:
        assert sent[0]["status"] == 503
        assert SENTENCE in sent[1]["body"].decode()
    else:
        assert (sent[0]["type"], sent[0]["code"]) == ("websocket.close", 1011)
        assert sent[0]["reason"].startswith(SENTENCE)
        assert len(sent[0]["reason"].encode()) <= 123


def test_serving_and_running_raise_the_sentence(gateway):
    async def serve() -> None:
        async with open_http_server(gateway, "http://127.0.0.1:0"):
            pass

    async def run() -> None:
        async with gateway.run():
            pass

    for function in (serve, run):
        with pytest.raises(RuntimeError, match=SENTENCE):
            asyncio.run(function())


def test_a_host_like_fastapi_under_a_server_like_uvicorn_raises_the_sentence(gateway):
    """As with FastAPI, the host's lifespan is a generator around the gateway's lifespan."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[dict[str, object]]:
        async with gateway.run():
            yield {"db": object()}

    app = Starlette(routes=[Mount("/rpc", gateway)], lifespan=lifespan)
    with pytest.raises(RuntimeError, match=SENTENCE):
        asyncio.run(exchange(app, {"type": "lifespan", "state": {}}, {"type": "lifespan.startup"}))

"""A gateway under a server on asyncio: one clear sentence, wherever somebody asks."""

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
from trio_rpc.gateway.server import surroundings

SENTENCE = "a trio_rpc gateway needs Trio"


class Service:
    @trio_rpc.method
    async def add(self, a: int, b: int) -> int:
        return a + b


@pytest.fixture
def gateway(monkeypatch) -> Gateway:
    monkeypatch.setattr(surroundings, "_complaints", set())
    return Gateway(Service())


async def talk(app: Any, scope: dict[str, Any], *told: dict[str, Any]) -> list[dict[str, Any]]:
    """Say something to an application as a server would; return what it says."""
    incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    for message in told:
        incoming.put_nowait(message)
    said: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        said.append(message)

    await asyncio.wait_for(app({"asgi": {"version": "3.0"}, **scope}, incoming.get, send), 10)
    return said


def test_at_its_start_it_says_what_to_do(gateway):
    [said] = asyncio.run(talk(gateway, {"type": "lifespan"}, {"type": "lifespan.startup"}))
    assert said["type"] == "lifespan.startup.failed"
    assert said["message"].startswith(SENTENCE)
    assert "hypercorn --worker-class trio" in said["message"]


def test_in_the_lifespan_of_its_host_it_says_so(gateway):
    app = Starlette(routes=[Mount("/rpc", gateway)], lifespan=lambda _: gateway.run())
    scope = {"type": "lifespan", "state": {}}
    with pytest.raises(RuntimeError, match=SENTENCE):
        asyncio.run(talk(app, scope, {"type": "lifespan.startup"}))


@pytest.mark.parametrize("path", ["/api/add", "/rpc/api/add", "/message.js"])
@pytest.mark.parametrize("is_mounted", [False, True])
def test_a_request_is_answered_with_it(gateway, caplog, is_mounted, path):
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
def test_a_websocket_is_refused_with_it(gateway, can_deny):
    scope = {"type": "websocket", "path": "/ws", "query_string": b"", "headers": []}
    if can_deny:
        scope["extensions"] = {"websocket.http.response": {}}
    said = asyncio.run(talk(gateway, scope, {"type": "websocket.connect"}))
    if can_deny:
        assert said[0]["status"] == 503
        assert SENTENCE in said[1]["body"].decode()
    else:
        assert (said[0]["type"], said[0]["code"]) == ("websocket.close", 1011)
        assert said[0]["reason"].startswith(SENTENCE)
        assert len(said[0]["reason"].encode()) <= 123


def test_who_serves_it_there_is_told_too(gateway):
    async def serve() -> None:
        async with open_http_server(gateway, "http://127.0.0.1:0"):
            pass

    async def run() -> None:
        async with gateway.run():
            pass

    for function in (serve, run):
        with pytest.raises(RuntimeError, match=SENTENCE):
            asyncio.run(function())


def test_an_application_of_fastapis_kind_under_uvicorns_kind_of_server(gateway):
    """The lifespan of the host wraps other things, as FastAPI's does, and is a generator of its own."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[dict[str, object]]:
        async with gateway.run():
            yield {"db": object()}

    app = Starlette(routes=[Mount("/rpc", gateway)], lifespan=lifespan)
    with pytest.raises(RuntimeError, match=SENTENCE):
        asyncio.run(talk(app, {"type": "lifespan", "state": {}}, {"type": "lifespan.startup"}))

"""/healthz and /readyz, and the refusal of a stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import httpx
import pytest
import trio
from helpers.gateway_tools import hosting

import trio_rpc
from trio_rpc.gateway import Gateway


class Service:
    def __init__(self) -> None:
        self.started = trio.Event()
        self.release = trio.Event()

    @trio_rpc.method
    async def hold(self) -> None:
        self.started.set()
        await self.release.wait()

    @trio_rpc.stream
    async def ticks(self, symbol: str) -> AsyncGenerator[int, None]:
        yield 1

    @trio_rpc.duplex
    async def chat(self, channel: trio.abc.Channel[str]) -> None: ...


async def nobody(_: object) -> None:
    raise trio_rpc.Refused("log in first")


async def test_a_gateway_is_healthy_and_ready_for_any_caller():
    gateway = Gateway(Service(), authenticate=nobody, allowed_hosts=["example.org"])
    async with hosting(gateway) as url, httpx.AsyncClient(base_url=url) as http:
        answers = [await http.get(path) for path in ("/healthz", "/readyz", "/readyz/")]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert [answer.json()["status"] for answer in answers] == ["ok", "ready", "ready"]


async def test_a_gateway_that_drains_is_healthy_and_not_ready():
    service = Service()
    gateway = Gateway(service)
    async with hosting(gateway) as url, httpx.AsyncClient(base_url=url) as http:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_hold, http)
            await service.started.wait()
            nursery.start_soon(gateway.drain)
            await trio.testing.wait_all_tasks_blocked()
            assert (await http.get("/healthz")).status_code == 200
            answer = await http.get("/readyz")
            assert (answer.status_code, answer.json()["error"]) == (503, "this gateway is closing")
            service.release.set()


async def _hold(http: httpx.AsyncClient) -> None:
    assert (await http.post("/api/hold", json={})).status_code == 200


@pytest.mark.parametrize(("method", "kind"), [("ticks", "stream"), ("chat", "duplex")])
async def test_a_stream_is_refused_by_a_gateway_with_an_alternative(method, kind):
    async with hosting(Gateway(Service())) as url, httpx.AsyncClient(base_url=url) as http:
        answer = await http.post(f"/api/{method}", json={})
    assert answer.status_code == 404
    assert answer.json()["error"] == (
        f"{method} is a {kind}, which a gateway does not carry: open it over a session, with"
        " session.js in a browser or with trio_rpc.connect"
    )

"""The gateway for browsers: calls over HTTP, with callbacks and ends over a WebSocket.

The floor does the same work with the same server and the same HTTP client: an ASGI application that
answers a POST and sends two or more texts, without ids, tokens, tasks or checks.
"""

from __future__ import annotations

import json
import ssl
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import httpx
import trio
import trio_websocket
from starlette.types import Receive, Scope, Send

import trio_rpc
from benchmarks.adapter import Adapter
from benchmarks.interface import Ready, Target, Turns
from benchmarks.machine import raise_open_files, resident_bytes
from benchmarks.meter import Meter
from benchmarks.parts import Load
from trio_rpc.gateway import Gateway, Message, open_http_server

__all__ = ["ADAPTERS", "Scanner", "serve"]

UNUSED = ssl.create_default_context()
"""The TLS context of all httpx clients. Making one takes longer than a call."""

AT_ONCE = 50
"""Clients that are opened at the same time."""


class Scanner:
    """The service."""

    @trio_rpc.method
    async def scan(self, count: int, found: Callable[[int], Awaitable[None]]) -> int:
        """Count, and call back with each number."""
        for number in range(count):
            await found(number)
        return count

    @trio_rpc.method
    async def stamp(self, count: int, found: Callable[[float], Awaitable[None]]) -> None:
        """Call back repeatedly with the time in milliseconds."""
        for _ in range(count):
            await found(time.time() * 1e3)
            await trio.sleep(0.002)

    @trio_rpc.method
    async def hold(self, found: Callable[[int], Awaitable[None]]) -> None:
        """Start, and never return."""
        await found(0)
        await trio.sleep_forever()


class Floor:
    """One WebSocket, and POSTs that send texts over it."""

    def __init__(self) -> None:
        self._send: Send

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for step in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{step}.complete"})
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            self._send = send
            while (await receive())["type"] != "websocket.disconnect":
                pass
        else:
            count = json.loads((await receive())["body"])["count"]
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b'{"type":"start"}'})
            for number in range(count + 1):
                await self._send({"type": "websocket.send", "text": json.dumps({"found": number})})


async def serve(make: Callable[[], Any], hosts: Sequence[str], ready: Ready) -> None:
    raise_open_files(8_000)
    async with open_http_server(make(), *(f"http://{host}:0" for host in hosts)) as urls:
        ready(urls)
        await trio.sleep_forever()


Scan = Callable[[int], Awaitable[None]]


@asynccontextmanager
async def open_message(url: str) -> AsyncIterator[Scan]:
    place = httpx.URL(url)
    message = Message(place.host, place.port or 0)

    async def scan(count: int) -> None:
        found: list[int] = []
        assert await message.post("scan", {"count": count}, {"found": found.append}) == count
        assert found == list(range(count))

    async with message.connect():
        yield scan


@asynccontextmanager
async def open_floor(url: str) -> AsyncIterator[Scan]:
    async with (
        httpx.AsyncClient(base_url=url, trust_env=False) as http,
        trio_websocket.open_websocket_url(f"ws{url.removeprefix('http')}/ws") as ws,
    ):
        lock = trio.Lock()  # its texts do not name their call

        async def scan(count: int) -> None:
            async with lock:
                await http.post("/", json={"count": count})
                found = [json.loads(await ws.get_message())["found"] for _ in range(count + 1)]
            assert found == list(range(count + 1))

        yield scan


@dataclass
class Client:
    """The client's side of a measurement."""

    open: Callable[[str], Any]
    target: Target
    load: Load
    turns: Turns

    async def next(self) -> bool:
        return await trio.to_thread.run_sync(self.turns.wait)

    async def calls(self) -> None:
        async with self.open(self.target.urls[0]) as scan:
            while await self.next():
                for _ in range(self.load.warm_up):
                    await scan(1)
                samples = []
                meter = Meter(self.target.pid)
                for _ in range(self.load.count):
                    start = perf_counter()
                    await scan(1)
                    samples.append(perf_counter() - start)
                used = meter.stop(self.load.count)
                self.turns.report(
                    {
                        "p50": statistics.median(samples) * 1e3,
                        "p99": statistics.quantiles(samples, n=100)[98] * 1e3,
                        "rate": await self._rate(scan),
                        **used,
                    }
                )

    async def _rate(self, scan: Scan) -> float:
        callers = self.load.callers

        async def loop() -> None:
            for _ in range(self.load.count // callers):
                await scan(1)

        start = perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(callers):
                nursery.start_soon(loop)
        return self.load.count // callers * callers / (perf_counter() - start)

    async def callbacks(self) -> None:
        async with self.open(self.target.urls[0]) as scan:
            while await self.next():
                await scan(self.load.warm_up)
                count, meter = self.load.count, Meter(self.target.pid)
                await scan(count)
                self.turns.report({"rate": count / meter.seconds(), **meter.stop(count)})

    async def clients(self) -> None:
        """Measure the server's memory for each client that has a running call."""
        raise_open_files(8_000)
        async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
            await self._hold(stack, nursery, self.load.warm_up)
            while await self.next():
                before = resident_bytes(self.target.pid)
                await self._hold(stack, nursery, self.load.count)
                grown = resident_bytes(self.target.pid) - before
                self.turns.report(
                    {"kib": grown / 1024 / self.load.count, "count": float(self.load.count)}
                )
            nursery.cancel_scope.cancel()

    async def _hold(self, stack: AsyncExitStack, nursery: trio.Nursery, count: int) -> None:
        limiter = trio.CapacityLimiter(AT_ONCE)
        url = self.target.urls[0]

        async def hold(task_status: trio.TaskStatus[None]) -> None:
            async with limiter:
                http = await stack.enter_async_context(
                    httpx.AsyncClient(base_url=url, trust_env=False, verify=UNUSED)
                )
                ws = await nursery.start(stay_connected, url)
                hello = json.loads(await ws.get_message())
                headers = {"Trio-Rpc-Token": hello["token"], "Connection": "close"}
                answer = await http.post(f"/api/hold/{hello['uuid']}", json={}, headers=headers)
                assert answer.status_code == 200
                assert json.loads(await ws.get_message())["found"] == 0
                task_status.started()

        async with trio.open_nursery() as opening:
            for _ in range(count):
                opening.start_soon(opening.start, hold)


async def stay_connected(url: str, task_status: trio.TaskStatus[Any]) -> None:
    async with trio_websocket.open_websocket_url(f"ws{url[4:]}/ws?resumable=1") as ws:
        task_status.started(ws)
        await trio.sleep_forever()


WORK = {"web": Client.calls, "web-callbacks": Client.callbacks, "web-clients": Client.clients}


def drive(
    open_client: Callable[[str], Any], part: str, target: Target, load: Load, turns: Turns
) -> None:
    trio.run(WORK[part], Client(open_client, target, load, turns))


def adapter(
    name: str, title: str, parts: str, make: Callable[[], Any], open_client: Any
) -> Adapter:
    def serve_app(hosts: Sequence[str], ready: Ready) -> None:
        trio.run(serve, make, hosts, ready)

    return Adapter(
        name=name,
        title=title,
        parts=frozenset(parts.split()),
        serve=serve_app,
        drive=partial(drive, open_client),
    )


ADAPTERS = (
    adapter(
        "web-floor",
        "floor: two texts over the same server, nothing checked",
        "web web-callbacks",
        Floor,
        open_floor,
    ),
    adapter(
        "trio_rpc-web",
        "trio_rpc's gateway and its Python client",
        "web web-callbacks web-clients",
        lambda: Gateway(Scanner()),
        open_message,
    ),
)

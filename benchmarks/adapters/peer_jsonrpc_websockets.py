"""JSON-RPC 2.0 made by hand on `websockets` and asyncio, with the standard library's json.

The server starts a task for each request, as a handler may wait, and a reader at the client resolves
the future of each reply. A cancelled caller sends a notification that cancels the handler's task, and
does not wait for it. Bytes are sent as base64, and dataclasses as objects.
"""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode, b64encode
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websockets

from benchmarks.adapter import peer
from benchmarks.interface import Calls, Ready
from benchmarks.loops import ASYNCIO
from benchmarks.payloads import Order, Quote, plain

__all__ = ["ADAPTERS"]

OPTIONS: dict[str, Any] = {"compression": None, "max_size": None}


class Bench:
    """The service. It counts the running handlers."""

    def __init__(self) -> None:
        self._running = 0

    async def echo(self, value: Any) -> Any:
        return value

    async def quote(self, value: dict[str, Any]) -> dict[str, Any]:
        quote = Quote(**value)
        return plain(quote)

    async def orders(self, value: list[dict[str, Any]]) -> list[dict[str, Any]]:
        orders = [Order(**one) for one in value]
        return [plain(one) for one in orders]

    async def hang(self) -> None:
        self._running += 1
        try:
            await asyncio.Event().wait()
        finally:
            self._running -= 1

    async def running(self) -> int:
        return self._running


BENCH = Bench()
METHODS = {name: getattr(BENCH, name) for name in ("echo", "quote", "orders", "hang", "running")}


async def handle(websocket: ServerConnection) -> None:
    tasks: dict[int, asyncio.Task[None]] = {}

    async def answer(request: dict[str, Any]) -> None:
        try:
            result = await METHODS[request["method"]](*request["params"])
            reply = {"jsonrpc": "2.0", "id": request["id"], "result": result}
            await websocket.send(json.dumps(reply))
        finally:
            del tasks[request["id"]]

    async for text in websocket:
        request = json.loads(text)
        if "id" in request:
            tasks[request["id"]] = asyncio.create_task(answer(request))
        elif task := tasks.get(request["params"][0]):
            task.cancel()


async def serve(hosts: Sequence[str], ready: Ready) -> None:
    async with serve_websockets(handle, list(hosts), 0, backlog=1024, **OPTIONS) as server:
        names = [listener.getsockname() for listener in server.sockets]
        ready([f"ws://{host}:{port}" for host, port in names])
        await server.serve_forever()


@asynccontextmanager
async def open_client(url: str) -> AsyncGenerator[Calls]:
    async with connect(url, proxy=None, **OPTIONS) as websocket:
        loop = asyncio.get_running_loop()
        waiting: dict[int, asyncio.Future[Any]] = {}
        number = 0

        async def read() -> None:
            async for text in websocket:
                reply = json.loads(text)
                if future := waiting.pop(reply["id"], None):
                    future.set_result(reply["result"])

        async def call(method: str, *params: Any) -> Any:
            nonlocal number
            number += 1
            mine = number
            waiting[mine] = reply = loop.create_future()
            request = {"jsonrpc": "2.0", "id": mine, "method": method, "params": params}
            await websocket.send(json.dumps(request))
            try:
                return await reply
            except asyncio.CancelledError:
                del waiting[mine]
                cancel = {"jsonrpc": "2.0", "method": "cancel", "params": [mine]}
                await websocket.send(json.dumps(cancel))
                raise

        async def echo(value: Any) -> Any:
            return await call("echo", value)

        async def large(value: bytes) -> bytes:
            return b64decode(await call("echo", b64encode(value).decode()))

        async def quote(value: Quote) -> Quote:
            return Quote(**await call("quote", plain(value)))

        async def orders(value: list[Order]) -> list[Order]:
            return [Order(**one) for one in await call("orders", [plain(one) for one in value])]

        async def hang() -> None:
            await call("hang")

        async def running() -> int:
            count: int = await call("running")
            return count

        reading = asyncio.create_task(read())
        yield Calls(
            echo=echo,
            large=large,
            value=echo,
            quote=quote,
            orders=orders,
            hang=hang,
            running=running,
        )
        reading.cancel()


ADAPTERS = (
    peer(
        ASYNCIO,
        "jsonrpc-websockets",
        "JSON-RPC by hand on websockets (asyncio)",
        "one structures flights sizes sessions cancel beside websockets",
        serve=serve,
        open_client=open_client,
    ),
)

"""trio-jsonrpc: JSON-RPC on Trio, over trio-websocket.

Its client is opened as its documentation shows. A server takes the requests of a connection from its
iterator, and starts a task for each. Dataclasses travel as objects, and bytes as base64. Its client
takes messages of at most 1 MiB, and a handler does not learn that its caller has given up. It has no
function that serves, so the adapter uses the one that makes a connection from a transport.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio_websocket
from trio_jsonrpc import open_jsonrpc_ws
from trio_jsonrpc.main import jsonrpc_server
from trio_jsonrpc.transport import TransportClosed
from trio_jsonrpc.transport.ws import WebSocketTransport

from benchmarks.adapter import peer
from benchmarks.adapters.peer_jsonrpc_websockets import Bench
from benchmarks.interface import Calls, Ready
from benchmarks.loops import TRIO
from benchmarks.payloads import Order, Quote, plain

__all__ = ["ADAPTERS"]

BENCH = Bench()
METHODS = {name: getattr(BENCH, name) for name in ("echo", "quote", "orders")}


async def handle(request: trio_websocket.WebSocketRequest) -> None:
    websocket = await request.accept()
    async with trio.open_nursery() as nursery:
        connection = jsonrpc_server(WebSocketTransport(websocket), nursery)

        async def answer(call: Any) -> None:
            try:
                result = await METHODS[call.method](*call.params)
                await connection.respond_with_result(call, result)
            except TransportClosed:
                pass  # the client has disconnected

        async for call in connection.iter_requests():
            nursery.start_soon(answer, call)


async def serve(hosts: Sequence[str], ready: Ready) -> None:
    async with trio.open_nursery() as nursery:
        urls = []
        for host in hosts:
            server = await nursery.start(trio_websocket.serve_websocket, handle, host, 0, None)
            urls.append(f"ws://{host}:{server.port}")
        ready(urls)


@asynccontextmanager
async def open_client(url: str) -> AsyncGenerator[Calls]:
    async with open_jsonrpc_ws(url) as connection:

        async def echo(value: Any) -> Any:
            return await connection.request("echo", [value])

        async def large(value: bytes) -> bytes:
            return b64decode(await echo(b64encode(value).decode()))

        async def quote(value: Quote) -> Quote:
            return Quote(**await connection.request("quote", [plain(value)]))

        async def orders(value: list[Order]) -> list[Order]:
            objects = [plain(one) for one in value]
            return [Order(**one) for one in await connection.request("orders", [objects])]

        yield Calls(echo=echo, large=large, value=echo, quote=quote, orders=orders)


ADAPTERS = (
    peer(
        TRIO,
        "trio-jsonrpc",
        "trio-jsonrpc (JSON, WebSocket)",
        "one structures flights large-16k large-256k sessions websockets",
        not_cancelled=True,
        lacks={"large": "at most 1 MiB a message", "large-15m": "at most 1 MiB a message"},
        serve=serve,
        open_client=open_client,
    ),
)

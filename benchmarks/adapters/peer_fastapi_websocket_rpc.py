"""fastapi-websocket-rpc: JSON over a WebSocket, served by uvicorn. Both ends may call.

Bytes are sent as base64. It handles one request after the other on each connection, so a handler
calls back from a separate task, as its documentation shows, and reports its end.
"""

from __future__ import annotations

import asyncio
import socket
from base64 import b64decode, b64encode
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi_websocket_rpc import RpcMethodsBase, WebSocketRpcClient, WebsocketRPCEndpoint
from fastapi_websocket_rpc.logger import LoggingModes, logging_config

from benchmarks.adapter import peer
from benchmarks.interface import Calls, Ready
from benchmarks.loops import ASYNCIO
from benchmarks.payloads import Order, Quote, plain

__all__ = ["ADAPTERS"]

LARGEST = 64 * 1024 * 1024
"""The largest WebSocket message, in bytes."""

logging_config.set_mode(LoggingModes.NO_LOGS)


class Bench(RpcMethodsBase):  # type: ignore[misc] # it has no types
    """The service."""

    def __init__(self) -> None:
        super().__init__()
        self._tasks: set[asyncio.Task[None]] = set()

    async def echo(self, value: str) -> str:
        return value

    # Results are validated by these annotations, which may only name built-in types.
    async def value(self, value: Any) -> dict | list:  # type: ignore[type-arg]
        found: dict[str, Any] = value
        return found

    async def quote(self, value: dict[str, Any]) -> dict:  # type: ignore[type-arg]
        quote = Quote(**value)
        return plain(quote)

    async def orders(self, value: list[dict[str, Any]]) -> list:  # type: ignore[type-arg]
        orders = [Order(**one) for one in value]
        return [plain(one) for one in orders]

    async def call_back(self, count: int, callers: int) -> str:
        async def loop() -> None:
            for _ in range(count // callers):
                await self.channel.other.function(value="0123456789abcdef")

        async def loops() -> None:
            await asyncio.gather(*(loop() for _ in range(callers)))
            await self.channel.other.through()

        task = asyncio.create_task(loops())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return "begun"


class Callbacks(RpcMethodsBase):  # type: ignore[misc] # likewise
    """The functions that are called back."""

    on_call: Callable[[str], Awaitable[str]]

    def __init__(self) -> None:
        super().__init__()
        self.done = asyncio.Event()

    async def function(self, value: str) -> str:
        return await self.on_call(value)

    async def through(self) -> str:
        self.done.set()
        return "thanks"


async def serve(hosts: Sequence[str], ready: Ready) -> None:
    app = FastAPI()
    WebsocketRPCEndpoint(Bench()).register_route(app, "/ws")
    config = uvicorn.Config(
        app, log_level="warning", ws_per_message_deflate=False, ws_max_size=LARGEST
    )
    listeners = [socket.create_server((host, 0), backlog=1024) for host in hosts]
    names = [listener.getsockname() for listener in listeners]
    ready([f"ws://{host}:{port}/ws" for host, port in names])
    await uvicorn.Server(config).serve(listeners)


@asynccontextmanager
async def open_client(url: str) -> AsyncGenerator[Calls]:
    callbacks = Callbacks()
    async with WebSocketRpcClient(url, callbacks, max_size=LARGEST, compression=None) as client:

        async def echo(value: str) -> Any:
            return (await client.call("echo", {"value": value})).result

        async def value(value: Any) -> Any:
            return (await client.call("value", {"value": value})).result

        async def quote(value: Quote) -> Quote:
            return Quote(**(await client.call("quote", {"value": plain(value)})).result)

        async def orders(value: list[Order]) -> list[Order]:
            objects = [plain(one) for one in value]
            reply = await client.call("orders", {"value": objects})
            return [Order(**one) for one in reply.result]

        async def large(value: bytes) -> bytes:
            return b64decode(await echo(b64encode(value).decode()))

        async def call_back(
            function: Callable[[str], Awaitable[str]], count: int, callers: int
        ) -> None:
            mine = client.channel.methods  # the channel has copied the object
            mine.on_call = function
            mine.done.clear()
            await client.call("call_back", {"count": count, "callers": callers})
            await mine.done.wait()

        yield Calls(
            echo=echo, value=value, quote=quote, orders=orders, large=large, call_back=call_back
        )


ADAPTERS = (
    peer(
        ASYNCIO,
        "fastapi-websocket-rpc",
        "fastapi-websocket-rpc (JSON)",
        "one structures websockets flights sizes sessions callbacks beside",
        not_cancelled=True,
        serve=serve,
        open_client=open_client,
    ),
)

"""aiorpcX: JSON-RPC on asyncio, with a line for each message. Both ends may call.

Bytes are sent as base64, because JSON has no bytes, and dataclasses as objects. The limits that protect a public server are
lifted: its cost accounting, the size of a line, and the number of concurrent requests.
"""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import aiorpcx

from benchmarks.adapter import peer
from benchmarks.interface import Calls, Ready
from benchmarks.loops import ASYNCIO
from benchmarks.payloads import Order, Quote, plain

__all__ = ["ADAPTERS"]


class Session(aiorpcx.RPCSession):  # type: ignore[misc] # it has no types
    """One end, without the limits."""

    cost_hard_limit = 0
    initial_concurrent = 10_000

    def default_framer(self) -> Any:
        return aiorpcx.NewlineFramer(max_size=0)


class Bench(Session):
    """The service."""

    async def handle_request(self, request: Any) -> Any:
        handlers = {
            "echo": self.echo,
            "quote": self.quote,
            "orders": self.orders,
            "call_back": self.call_back,
        }
        return await aiorpcx.handler_invocation(handlers.get(request.method), request)()

    async def echo(self, value: str) -> str:
        return value

    async def quote(self, value: dict[str, Any]) -> dict[str, Any]:
        quote = Quote(**value)
        return plain(quote)

    async def orders(self, value: list[dict[str, Any]]) -> list[dict[str, Any]]:
        orders = [Order(**one) for one in value]
        return [plain(one) for one in orders]

    async def call_back(self, count: int, callers: int) -> None:
        async def loop() -> None:
            for _ in range(count // callers):
                await self.send_request("function", ["0123456789abcdef"])

        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(loop())


class Client(Session):
    """The client's end, with the function that is called back."""

    function: Callable[[str], Awaitable[str]] | None = None

    async def handle_request(self, request: Any) -> Any:
        handlers = {"function": self.function}
        return await aiorpcx.handler_invocation(handlers.get(request.method), request)()


async def serve(hosts: Sequence[str], ready: Ready) -> None:
    servers = [await aiorpcx.serve_rs(Bench, host, 0, backlog=1024) for host in hosts]
    names = [server.sockets[0].getsockname() for server in servers]
    ready([f"tcp://{host}:{port}" for host, port in names])
    await asyncio.Event().wait()


@asynccontextmanager
async def open_client(url: str) -> AsyncGenerator[Calls]:
    parts = urlsplit(url)
    async with aiorpcx.connect_rs(parts.hostname, parts.port, session_factory=Client) as session:

        async def echo(value: str) -> Any:
            return await session.send_request("echo", [value])

        async def large(value: bytes) -> bytes:
            return b64decode(await session.send_request("echo", [b64encode(value).decode()]))

        async def quote(value: Quote) -> Quote:
            return Quote(**await session.send_request("quote", [plain(value)]))

        async def orders(value: list[Order]) -> list[Order]:
            objects = [plain(one) for one in value]
            return [Order(**one) for one in await session.send_request("orders", [objects])]

        async def call_back(
            function: Callable[[str], Awaitable[str]], count: int, callers: int
        ) -> None:
            session.function = function
            await session.send_request("call_back", [count, callers])

        yield Calls(
            echo=echo, value=echo, quote=quote, orders=orders, large=large, call_back=call_back
        )


ADAPTERS = (
    peer(
        ASYNCIO,
        "aiorpcx",
        "aiorpcX (JSON)",
        "one structures flights sizes sessions callbacks beside",
        not_cancelled=True,
        serve=serve,
        open_client=open_client,
    ),
)

"""grpcio with its asyncio API, and with generic handlers instead of generated code.

Serializers do as little as possible: strings as UTF-8, bytes unchanged, numbers as eight bytes.
Each client gets its own connection. The server cannot call its client. Dataclasses travel as Protocol
Buffers, and dicts as JSON.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import grpc
import grpc.aio

from benchmarks.adapter import peer
from benchmarks.adapters import protobuf_messages as protobuf
from benchmarks.interface import Calls, Exchange, Ready
from benchmarks.loops import ASYNCIO

__all__ = ["ADAPTERS"]

OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.so_reuseport", 0),
    ("grpc.server.max_pending_requests", 10_000),  # of 2,000 at once, it refuses some by default
    ("grpc.server.max_pending_requests_hard_limit", 10_000),
)


def to_text(data: bytes) -> str:
    return str(data, "utf-8")


def from_text(text: str | bytes) -> bytes:
    # Some versions have already encoded a str from a handler at this point.
    return text if isinstance(text, bytes) else text.encode()


def from_number(number: int) -> bytes:
    return number.to_bytes(8, "big")


def to_number(data: bytes) -> int:
    return int.from_bytes(data, "big")


def from_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def same(data: bytes) -> bytes:
    return data


class Bench:
    """The service. It counts the running handlers."""

    def __init__(self) -> None:
        self._running = 0

    async def echo(self, value: Any, context: object) -> Any:
        return value

    async def hang(self, value: bytes, context: object) -> bytes:
        self._running += 1
        try:
            await asyncio.Event().wait()
        finally:
            self._running -= 1
        return value

    async def running(self, value: bytes, context: object) -> int:
        return self._running

    async def items(self, count: int, context: object) -> AsyncGenerator[int]:
        for number in range(count):
            yield number

    async def exchange(self, numbers: AsyncIterator[int], context: object) -> AsyncGenerator[int]:
        async for number in numbers:
            yield number

    async def get(self, size: int, context: object) -> bytes:
        return bytes(size)

    def handlers(self) -> Any:
        unary = grpc.unary_unary_rpc_method_handler
        return grpc.method_handlers_generic_handler(
            "Bench",
            {
                "echo": unary(self.echo, to_text, from_text),
                "value": unary(self.echo, json.loads, from_json),
                "quote": unary(self.echo, protobuf.to_quote, protobuf.from_quote),
                "orders": unary(self.echo, protobuf.to_orders, protobuf.from_orders),
                "large": unary(self.echo, same, same),
                "hang": unary(self.hang, same, same),
                "running": unary(self.running, same, from_number),
                "items": grpc.unary_stream_rpc_method_handler(self.items, to_number, from_number),
                "exchange": grpc.stream_stream_rpc_method_handler(
                    self.exchange, to_number, from_number
                ),
                "get": unary(self.get, to_number, same),
            },
        )


async def serve(hosts: Sequence[str], ready: Ready) -> None:
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((Bench().handlers(),))
    ports = [server.add_insecure_port(f"{host}:0") for host in hosts]
    await server.start()
    ready([f"grpc://{host}:{port}" for host, port in zip(hosts, ports, strict=True)])
    await server.wait_for_termination()


@asynccontextmanager
async def open_client(url: str) -> AsyncGenerator[Calls]:
    async with grpc.aio.insecure_channel(urlsplit(url).netloc, options=OPTIONS) as channel:
        hang = channel.unary_unary("/Bench/hang", same, same)
        running = channel.unary_unary("/Bench/running", same, to_number)
        stream = channel.unary_stream("/Bench/items", from_number, to_number)

        both_ways = channel.stream_stream("/Bench/exchange", from_number, to_number)

        async def hang_once() -> None:
            await hang(b"")

        async def count() -> int:
            number: int = await running(b"")
            return number

        @asynccontextmanager
        async def items(count: int, _size: int) -> AsyncGenerator[AsyncIterator[Any]]:
            call = stream(count)
            try:
                yield aiter(call)
            finally:
                call.cancel()

        @asynccontextmanager
        async def exchange() -> AsyncGenerator[Exchange]:
            call = both_ways()

            async def there_and_back(number: int) -> Any:
                await call.write(number)
                return await call.read()

            yield there_and_back
            await call.done_writing()
            await call.code()

        yield Calls(
            echo=channel.unary_unary("/Bench/echo", str.encode, to_text),
            value=channel.unary_unary("/Bench/value", from_json, json.loads),
            quote=channel.unary_unary("/Bench/quote", protobuf.from_quote, protobuf.to_quote),
            orders=channel.unary_unary("/Bench/orders", protobuf.from_orders, protobuf.to_orders),
            large=channel.unary_unary("/Bench/large", same, same),
            hang=hang_once,
            running=count,
            items=items,
            exchange=exchange,
            get=channel.unary_unary("/Bench/get", from_number, same),
        )


ADAPTERS = (
    peer(
        ASYNCIO,
        "grpcio",
        "grpcio (asyncio)",
        "one structures flights sizes sessions cancel stream exchange mixed beside",
        serve=serve,
        open_client=open_client,
    ),
)

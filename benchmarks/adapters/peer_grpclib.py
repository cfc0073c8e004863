"""grpclib: gRPC in Python on asyncio, with a small codec instead of generated code.

Its codec does as little as possible: strings as UTF-8, bytes unchanged, numbers as eight bytes, dicts
as JSON and dataclasses as Protocol Buffers.
The server cannot call its client. A connection has at most 100 streams at once, which no setting
changes. Further callers wait.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from grpclib.client import Channel, StreamStreamMethod, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.const import Cardinality, Handler
from grpclib.encoding.base import CodecBase
from grpclib.server import Server

from benchmarks.adapter import peer
from benchmarks.adapters import protobuf_messages as protobuf
from benchmarks.interface import Calls, Exchange, Ready
from benchmarks.loops import ASYNCIO
from benchmarks.payloads import Order, Quote

__all__ = ["ADAPTERS"]


FROM: dict[Any, Callable[[Any], bytes]] = {
    int: lambda number: number.to_bytes(8, "big"),
    dict: lambda value: json.dumps(value).encode(),
    Quote: protobuf.from_quote,
    Order: protobuf.from_orders,
}
TO: dict[Any, Callable[[bytes], Any]] = {
    int: lambda data: int.from_bytes(data, "big"),
    dict: json.loads,
    Quote: protobuf.to_quote,
    Order: protobuf.to_orders,
}


class Codec(CodecBase):  # type: ignore[misc] # its base has no types if it is not installed
    """Strings, bytes and numbers, by the type that the method declares."""

    __content_subtype__ = "bench"

    def encode(self, message: Any, message_type: Any) -> bytes:
        if message_type is str:
            return str.encode(message)
        if message_type is bytes:
            raw: bytes = message
            return raw
        return FROM[message_type](message)

    def decode(self, data: bytes, message_type: Any) -> Any:
        if message_type is str:
            return str(data, "utf-8")
        return data if message_type is bytes else TO[message_type](data)


class Bench:
    """The service."""

    async def echo(self, stream: Any) -> None:
        await stream.send_message(await stream.recv_message())

    async def items(self, stream: Any) -> None:
        for number in range(await stream.recv_message()):
            await stream.send_message(number)

    async def exchange(self, stream: Any) -> None:
        async for number in stream:
            await stream.send_message(number)

    async def get(self, stream: Any) -> None:
        await stream.send_message(bytes(await stream.recv_message()))

    def __mapping__(self) -> dict[str, Any]:
        unary, stream = Cardinality.UNARY_UNARY, Cardinality.UNARY_STREAM
        return {
            "/Bench/echo": Handler(self.echo, unary, str, str),
            "/Bench/value": Handler(self.echo, unary, dict, dict),
            "/Bench/quote": Handler(self.echo, unary, Quote, Quote),
            "/Bench/orders": Handler(self.echo, unary, Order, Order),
            "/Bench/large": Handler(self.echo, unary, bytes, bytes),
            "/Bench/items": Handler(self.items, stream, int, int),
            "/Bench/exchange": Handler(self.exchange, Cardinality.STREAM_STREAM, int, int),
            "/Bench/get": Handler(self.get, unary, int, bytes),
        }


async def serve(hosts: Sequence[str], ready: Ready) -> None:
    bench, urls = Bench(), []
    servers = [Server([bench], codec=Codec()) for _ in hosts]
    for server, host in zip(servers, hosts, strict=True):
        await server.start(host, 0, backlog=1024)
        [socket] = server._server.sockets  # there is no public way to get the port # noqa: SLF001
        urls.append(f"grpc://{host}:{socket.getsockname()[1]}")
    ready(urls)
    await asyncio.gather(*(server.wait_closed() for server in servers))


@asynccontextmanager
async def open_client(url: str) -> AsyncGenerator[Calls]:
    parts = urlsplit(url)
    async with Channel(parts.hostname, parts.port, codec=Codec()) as channel:
        stream = UnaryStreamMethod(channel, "/Bench/items", int, int)

        both_ways = StreamStreamMethod(channel, "/Bench/exchange", int, int)

        @asynccontextmanager
        async def items(count: int, _size: int) -> AsyncGenerator[AsyncIterator[Any]]:
            async with stream.open() as call:
                await call.send_message(count, end=True)
                yield aiter(call)

        @asynccontextmanager
        async def exchange() -> AsyncGenerator[Exchange]:
            async with both_ways.open() as call:

                async def there_and_back(number: int) -> Any:
                    await call.send_message(number)
                    return await call.recv_message()

                yield there_and_back
                await call.end()

        yield Calls(
            echo=UnaryUnaryMethod(channel, "/Bench/echo", str, str),
            value=UnaryUnaryMethod(channel, "/Bench/value", dict, dict),
            quote=UnaryUnaryMethod(channel, "/Bench/quote", Quote, Quote),
            orders=UnaryUnaryMethod(channel, "/Bench/orders", Order, Order),
            large=UnaryUnaryMethod(channel, "/Bench/large", bytes, bytes),
            items=items,
            exchange=exchange,
            get=UnaryUnaryMethod(channel, "/Bench/get", int, bytes),
        )


ADAPTERS = (
    peer(
        ASYNCIO,
        "grpclib",
        "grpclib",
        "one structures flights sizes sessions stream exchange mixed beside",
        lacks={"cancel": "at most 100 calls at once"},
        serve=serve,
        open_client=open_client,
    ),
)

"""The floor of asyncio, with its streams and its event loop.

The server answers each request inline. At the client, a reader wakes the callers, and each caller
writes at once. With one caller, that is one wake-up more than in the bare Trio echo.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import msgpack

from benchmarks.adapter import adapter
from benchmarks.adapters.floor_wire import packed
from benchmarks.interface import Calls, Ready
from benchmarks.loops import ASYNCIO

__all__ = ["ADAPTERS"]

BUFFER = 4 * 1024 * 1024
"""Bytes that a reader may buffer. With asyncio's 64 KiB, it pauses after each such piece."""


async def receive(reader: asyncio.StreamReader) -> Any:
    size = int.from_bytes(await reader.readexactly(4), "big")
    return msgpack.unpackb(await reader.readexactly(size))


async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    pack = msgpack.Packer().pack
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            message = await receive(reader)
            writer.write(packed(pack([3, message[1], message[3][0]])))
            await writer.drain()
    writer.close()


async def serve(hosts: Sequence[str], ready: Ready) -> None:
    server = await asyncio.start_server(handle, hosts, 0, limit=BUFFER, backlog=1024)
    names = [listener.getsockname() for listener in server.sockets]
    ready([f"tcp://{host}:{port}" for host, port in names])
    await server.serve_forever()


@asynccontextmanager
async def open_client(url: str) -> AsyncGenerator[Calls]:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=BUFFER)
    loop = asyncio.get_running_loop()
    pack = msgpack.Packer().pack
    waiting: dict[int, asyncio.Future[Any]] = {}
    number = 0

    async def read() -> None:
        while True:
            message = await receive(reader)
            waiting.pop(message[1]).set_result(message[2])

    async def echo(value: Any) -> Any:
        nonlocal number
        number += 1
        waiting[number] = reply = loop.create_future()
        writer.write(packed(pack([1, number, "bench.echo", [value]])))
        await writer.drain()
        return await reply

    reading = asyncio.create_task(read())
    try:
        yield Calls(echo=echo, large=echo)
    finally:
        reading.cancel()
        await asyncio.wait([reading])
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


ADAPTERS = (
    adapter(
        ASYNCIO,
        "asyncio",
        "floor: asyncio streams",
        "one flights sizes sessions",
        serve=serve,
        open_client=open_client,
    ),
)

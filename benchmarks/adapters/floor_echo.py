"""The floor of one call: request, decode, encode, reply, in one loop at each end.

There are no tasks and no wake-ups except those of the two sockets. Only one packet is in flight at
a time, so received data is always the beginning of a packet, and most often all of it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import msgpack
import trio

from benchmarks.adapter import trio_adapter
from benchmarks.adapters.floor_wire import open_stream, packed, serve_streams
from benchmarks.interface import Calls, Exchange

__all__ = ["ADAPTERS"]


async def receive(stream: trio.SocketStream) -> Any:
    """Return the next message, or None at the end. Only one packet is in flight at a time."""
    data = await stream.receive_some()
    if len(data) >= 4 and len(data) == 4 + int.from_bytes(data[:4], "big"):
        return msgpack.unpackb(data[4:])
    buffer = bytearray(data)
    while data and len(buffer) < 4:
        buffer += (data := await stream.receive_some())
    end = 4 + int.from_bytes(buffer[:4], "big")
    # Asking the socket for all missing bytes gives 1 MiB in few pieces: this is 1.5 to 2.5 times as
    # fast as the default of 64 KiB each.
    while data and len(buffer) < end:
        buffer += (data := await stream.receive_some(end - len(buffer)))
    return msgpack.unpackb(memoryview(buffer)[4:]) if data else None


async def handle(stream: trio.SocketStream) -> None:
    pack = msgpack.Packer().pack
    while message := await receive(stream):
        await stream.send_all(packed(pack([3, message[1], message[3][0]])))


@asynccontextmanager
async def open_client(url: str) -> AsyncGenerator[Calls]:
    async with await open_stream(url) as stream:
        pack = msgpack.Packer().pack
        number = 0

        async def echo(value: Any) -> Any:
            nonlocal number
            number += 1
            await stream.send_all(packed(pack([1, number, "bench.echo", [value]])))
            return (await receive(stream))[2]

        @asynccontextmanager
        async def exchange() -> AsyncGenerator[Exchange]:
            yield echo

        yield Calls(echo=echo, large=echo, exchange=exchange)


ADAPTERS = (
    trio_adapter(
        "echo",
        "floor: bare trio echo",
        "one sizes sessions exchange",
        serve=serve_streams(handle),
        open_client=open_client,
    ),
)

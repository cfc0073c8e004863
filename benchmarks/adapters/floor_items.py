"""The floor of streams: MessagePack items one way, joined into packets, without credit.

The client sends the number and the size of the items. The server packs each as a separate message,
and only TCP slows it down. The client unpacks with one streaming Unpacker and yields the items one
by one, with a checkpoint for each, as an async iterator under Trio must. In the second row, it yields
a list of all items that have arrived.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgpack
import trio

from benchmarks.adapter import trio_adapter
from benchmarks.adapters.floor_wire import Packets, open_stream, packed, serve_streams
from benchmarks.interface import Calls

__all__ = ["ADAPTERS"]

PACKET = 16 * 1024
"""The number of bytes after which a packet is sent."""


async def handle(stream: trio.SocketStream) -> None:
    packets = Packets()
    packer = msgpack.Packer(autoreset=False)
    while data := await stream.receive_some():
        for count, size in packets.feed(data):
            block = bytes(size)
            for number in range(count):
                packer.pack([20, 1, block if size else number])
                if packer.getbuffer().nbytes >= PACKET:
                    await stream.send_all(packed(packer.bytes()))
                    packer.reset()
            await stream.send_all(packed(packer.bytes()))
            packer.reset()


@asynccontextmanager
async def open_client(url: str) -> AsyncGenerator[Calls]:
    async with await open_stream(url) as stream:

        @asynccontextmanager
        async def items(count: int, size: int) -> AsyncGenerator[AsyncIterator[Any]]:
            await stream.send_all(packed(msgpack.packb([count, size])))

            async def receive() -> AsyncGenerator[Any]:
                packets, left = Packets(), count
                while left:
                    for message in packets.feed(await stream.receive_some(READ)):
                        left -= 1
                        await trio.lowlevel.checkpoint()
                        yield message[2]

            received = receive()
            try:
                yield received
            finally:
                await received.aclose()

        yield Calls(echo=_nothing, items=items)


@asynccontextmanager
async def open_batches(url: str) -> AsyncGenerator[Calls]:
    async with await open_stream(url) as stream:

        @asynccontextmanager
        async def batches(count: int, size: int) -> AsyncGenerator[AsyncIterator[list[Any]]]:
            await stream.send_all(packed(msgpack.packb([count, size])))

            async def receive() -> AsyncGenerator[list[Any]]:
                packets, left = Packets(), count
                while left:
                    data = await stream.receive_some(READ)
                    if batch := [message[2] for message in packets.feed(data)]:
                        left -= len(batch)
                        yield batch

            received = receive()
            try:
                yield received
            finally:
                await received.aclose()

        yield Calls(echo=_nothing, batches=batches)


READ = 256 * 1024


async def _nothing(value: Any) -> Any:
    return value


ADAPTERS = (
    trio_adapter(
        "items",
        "floor: frames one way, without credit",
        "stream batches bulk",
        serve=serve_streams(handle),
        open_client=open_client,
    ),
    trio_adapter(
        "items-batches",
        "floor: the same, a list for each packet",
        "batches",
        serve=serve_streams(handle),
        open_client=open_batches,
    ),
)

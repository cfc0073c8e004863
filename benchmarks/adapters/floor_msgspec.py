"""The floor of structured data: a bare Trio echo with msgspec, which decodes each message in one go.

Both ends know the type of the value, so msgspec builds dataclasses directly from the bytes. As in
`floor_echo`, there are no tasks and no wake-ups except those of the two sockets. The first element
of a request tells the server which of four decoders to use. Each type has its own connection.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec
import trio

from benchmarks.adapter import trio_adapter
from benchmarks.adapters.floor_wire import open_stream, packed, serve_streams
from benchmarks.interface import Calls
from benchmarks.payloads import Order, Quote

__all__ = ["ADAPTERS"]

TYPES: dict[bytes, Any] = {b"s": str, b"v": Any, b"q": Quote, b"o": list[Order]}
"""The type of the echoed value, by the byte that a client sends first."""


async def receive(stream: trio.SocketStream, decoder: Any) -> Any:
    """Return the next message, or None at the end. Only one packet is in flight at a time."""
    data = await stream.receive_some()
    if len(data) >= 4 and len(data) == 4 + int.from_bytes(data[:4], "big"):
        return decoder.decode(memoryview(data)[4:])
    buffer = bytearray(data)
    while data and len(buffer) < 4:
        buffer += (data := await stream.receive_some())
    end = 4 + int.from_bytes(buffer[:4], "big")
    while data and len(buffer) < end:
        buffer += (data := await stream.receive_some(end - len(buffer)))
    return decoder.decode(memoryview(buffer)[4:]) if data else None


async def handle(stream: trio.SocketStream) -> None:
    kind = TYPES[bytes(await stream.receive_some(1))]
    decoder: Any = msgspec.msgpack.Decoder(tuple[int, int, str, tuple[kind]])
    encode = msgspec.msgpack.Encoder().encode
    while message := await receive(stream, decoder):
        await stream.send_all(packed(encode((3, message[1], message[3][0]))))


class Echo:
    """The client's end for one type, which connects with the first call."""

    def __init__(self, url: str, kind: bytes, stack: AsyncExitStack) -> None:
        self._url, self._kind, self._stack = url, kind, stack
        self._stream: trio.SocketStream | None = None
        self._decoder: Any = msgspec.msgpack.Decoder(tuple[int, int, TYPES[kind]])
        self._encode = msgspec.msgpack.Encoder().encode
        self._number = 0

    async def __call__(self, value: Any) -> Any:
        if self._stream is None:
            self._stream = await self._stack.enter_async_context(await open_stream(self._url))
            await self._stream.send_all(self._kind)
        self._number += 1
        await self._stream.send_all(packed(self._encode((1, self._number, "bench.echo", (value,)))))
        return (await receive(self._stream, self._decoder))[2]


@asynccontextmanager
async def open_client(url: str) -> AsyncGenerator[Calls]:
    async with AsyncExitStack() as stack:
        text, value, quote, orders = (Echo(url, kind, stack) for kind in TYPES)
        yield Calls(echo=text, value=value, quote=quote, orders=orders)


ADAPTERS = (
    trio_adapter(
        "msgspec",
        "floor: bare trio echo with msgspec",
        "one structures",
        serve=serve_streams(handle),
        open_client=open_client,
    ),
)

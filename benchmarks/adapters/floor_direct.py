"""The floor of one call that is written at once, without a writer task to wake first.

As in the nursery floor, a reader wakes the callers, and each request gets a task (none in the second
row). But each sender writes its message to the socket itself. At this load, that never blocks.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgpack
import outcome
import trio

from benchmarks.adapter import trio_adapter
from benchmarks.adapters.floor_wire import (
    Packets,
    end_wait,
    open_stream,
    packed,
    serve_streams,
)
from benchmarks.interface import Calls

__all__ = ["ADAPTERS"]


async def echo(value: Any) -> Any:
    return value


METHODS: dict[str, Callable[..., Awaitable[Any]]] = {"bench.echo": echo}
INLINE_METHODS: dict[str, Callable[..., Any]] = {"bench.echo": lambda value: value}


class DirectWriter:
    """Writes to a stream's non-blocking socket, for loads that never fill its buffer."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._descriptor = stream.socket.fileno()
        self._pack = msgpack.Packer().pack

    def put(self, message: list[Any]) -> None:
        """Send a whole message."""
        packet = packed(self._pack(message))
        assert os.write(self._descriptor, packet) == len(packet)


async def answer(writer: DirectWriter, message: list[Any]) -> None:
    writer.put([3, message[1], await METHODS[message[2]](*message[3])])


async def handle(stream: trio.SocketStream) -> None:
    packets = Packets()
    writer = DirectWriter(stream)
    async with trio.open_nursery() as nursery:
        while data := await stream.receive_some():
            for message in packets.feed(data):
                nursery.start_soon(answer, writer, message)


async def handle_inline(stream: trio.SocketStream) -> None:
    packets = Packets()
    writer = DirectWriter(stream)
    while data := await stream.receive_some():
        for message in packets.feed(data):
            writer.put([3, message[1], INLINE_METHODS[message[2]](*message[3])])


@asynccontextmanager
async def open_client(url: str) -> AsyncGenerator[Calls]:
    waiting: dict[int, trio.lowlevel.Task] = {}
    number = 0
    async with await open_stream(url) as stream, trio.open_nursery() as nursery:
        writer = DirectWriter(stream)

        async def read() -> None:
            packets = Packets()
            while data := await stream.receive_some():
                for message in packets.feed(data):
                    task = waiting.pop(message[1])
                    trio.lowlevel.reschedule(task, outcome.Value(message[2]))

        async def call(value: str) -> Any:
            nonlocal number
            number += 1
            writer.put([1, number, "bench.echo", [value]])
            waiting[number] = trio.lowlevel.current_task()
            return await trio.lowlevel.wait_task_rescheduled(end_wait)

        nursery.start_soon(read)
        yield Calls(echo=call)
        nursery.cancel_scope.cancel()


ADAPTERS = (
    trio_adapter(
        "direct",
        "floor: a task per request, written at once",
        "one",
        serve=serve_streams(handle),
        open_client=open_client,
    ),
    trio_adapter(
        "direct-inline",
        "floor: no task, written at once",
        "one",
        serve=serve_streams(handle_inline),
        open_client=open_client,
    ),
)

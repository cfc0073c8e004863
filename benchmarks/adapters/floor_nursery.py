"""The floor of many calls: a nursery task for each request, and writers that join messages.

Client: a reader that wakes the caller of each reply, a writer that joins the queued requests.
Server: a reader that starts a task for each request, a writer that joins the replies. Callers are
woken by `reschedule`. An Event for each call was also measured, and is slower (see README.md).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import outcome
import trio

from benchmarks.adapter import trio_adapter
from benchmarks.adapters.floor_wire import (
    JoiningWriter,
    Packets,
    end_wait,
    open_stream,
    serve_streams,
)
from benchmarks.interface import Calls

__all__ = ["ADAPTERS", "Caller"]


async def echo(value: Any) -> Any:
    return value


METHODS: dict[str, Callable[..., Awaitable[Any]]] = {"bench.echo": echo}


async def answer(writer: JoiningWriter, message: list[Any]) -> None:
    writer.put([3, message[1], await METHODS[message[2]](*message[3])])


async def handle(stream: trio.SocketStream) -> None:
    packets = Packets()
    writer = JoiningWriter(stream)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        while data := await stream.receive_some():
            for message in packets.feed(data):
                nursery.start_soon(answer, writer, message)
        nursery.cancel_scope.cancel()


class Caller:
    """The client's end: the waiting task of each call."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._writer = JoiningWriter(stream)
        self._waiting: dict[int, trio.lowlevel.Task] = {}
        self._number = 0

    async def _read(self) -> None:
        packets = Packets()
        while data := await self._stream.receive_some():
            for message in packets.feed(data):
                task = self._waiting.pop(message[1])
                trio.lowlevel.reschedule(task, outcome.Value(message[2]))

    async def echo(self, value: Any) -> Any:
        """Send a request, and sleep until the reader has received its reply."""
        self._number += 1
        self._writer.put([1, self._number, "bench.echo", [value]])
        self._waiting[self._number] = trio.lowlevel.current_task()
        return await trio.lowlevel.wait_task_rescheduled(end_wait)

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncGenerator[Calls]:
        """Connect, and run the reader and the writer during the block."""
        async with await open_stream(url) as stream, trio.open_nursery() as nursery:
            caller = cls(stream)
            nursery.start_soon(caller._read)
            nursery.start_soon(caller._writer.run)
            yield Calls(echo=caller.echo, value=caller.echo)
            nursery.cancel_scope.cancel()


ADAPTERS = (
    trio_adapter(
        "nursery",
        "floor: a nursery task per request",
        "one one-dict values flights sessions",
        serve=serve_streams(handle),
        open_client=Caller.open,
    ),
)

"""The floor of WebSockets: plain trio-websocket, one message for each call.

The server answers each message before it reads the next one, without a task. At the client, a
reader wakes the callers, and each caller sends its own message. With one call at a time, a caller
can also receive its own reply, which is the first row.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgpack
import outcome
import trio
import trio_websocket

from benchmarks.adapter import trio_adapter
from benchmarks.adapters.floor_wire import end_wait
from benchmarks.interface import Calls, Ready

__all__ = ["ADAPTERS"]


async def handle(request: trio_websocket.WebSocketRequest) -> None:
    websocket = await request.accept()
    pack = msgpack.Packer().pack
    try:
        while True:
            message = msgpack.unpackb(await websocket.get_message())
            await websocket.send_message(pack([3, message[1], message[3][0]]))
    except trio_websocket.ConnectionClosed:
        pass


async def serve(hosts: Sequence[str], ready: Ready) -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(trio_websocket.serve_websocket, handle, hosts[0], 0, None)
        ready([f"ws://{hosts[0]}:{server.port}"])


class Caller:
    """The client's end: the waiting task of each call."""

    def __init__(self, websocket: trio_websocket.WebSocketConnection) -> None:
        self._websocket = websocket
        self._pack = msgpack.Packer().pack
        self._waiting: dict[int, trio.lowlevel.Task] = {}
        self._number = 0

    async def read(self) -> None:
        while True:
            message = msgpack.unpackb(await self._websocket.get_message())
            task = self._waiting.pop(message[1])
            trio.lowlevel.reschedule(task, outcome.Value(message[2]))

    async def echo(self, value: Any) -> Any:
        self._number += 1
        self._waiting[self._number] = trio.lowlevel.current_task()
        await self._websocket.send_message(self._pack([1, self._number, "bench.echo", [value]]))
        return await trio.lowlevel.wait_task_rescheduled(end_wait)


@asynccontextmanager
async def open_client(url: str) -> AsyncGenerator[Calls]:
    async with (
        trio_websocket.open_websocket_url(url) as websocket,
        trio.open_nursery() as nursery,
    ):
        caller = Caller(websocket)
        nursery.start_soon(caller.read)
        yield Calls(echo=caller.echo)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_bare_client(url: str) -> AsyncGenerator[Calls]:
    """Make one call at a time: the caller receives the reply by itself."""
    async with trio_websocket.open_websocket_url(url) as websocket:
        pack = msgpack.Packer().pack
        number = 0

        async def echo(value: Any) -> Any:
            nonlocal number
            number += 1
            await websocket.send_message(pack([1, number, "bench.echo", [value]]))
            return msgpack.unpackb(await websocket.get_message())[2]

        yield Calls(echo=echo)


ADAPTERS = (
    trio_adapter(
        "ws-bare",
        "floor: bare trio-websocket echo, without a reader",
        "ws-one",
        serve=serve,
        open_client=open_bare_client,
    ),
    trio_adapter(
        "ws-echo",
        "floor: bare trio-websocket echo, a message per call",
        "websockets",
        serve=serve,
        open_client=open_client,
    ),
)

"""The floor of cancelling: the nursery floor, with a cancel scope for each request.

A cancelled caller sends Cancel and waits for its reply. The server cancels that request's scope and
replies when the handler has ended. Deadlines, reasons, errors and lost connections are not handled.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import outcome
import trio

from benchmarks.adapter import trio_adapter
from benchmarks.adapters.floor_wire import JoiningWriter, Packets, open_stream, serve_streams
from benchmarks.interface import Calls

__all__ = ["ADAPTERS"]

REQUEST, REPLY, CANCEL = 1, 3, 5


class Service:
    """The service. It counts the running handlers."""

    def __init__(self) -> None:
        self._running = 0
        self.methods: dict[str, Callable[..., Awaitable[Any]]] = {
            "bench.echo": self.echo,
            "bench.hang": self.hang,
            "bench.running": self.running,
        }

    async def echo(self, value: Any) -> Any:
        return value

    async def hang(self) -> None:
        self._running += 1
        try:
            await trio.sleep_forever()
        finally:
            self._running -= 1

    async def running(self) -> int:
        return self._running


async def handle(stream: trio.SocketStream) -> None:
    packets = Packets()
    writer = JoiningWriter(stream)
    service = Service()
    scopes: dict[int, trio.CancelScope] = {}

    async def answer(number: int, method: str, arguments: list[Any]) -> None:
        result = None
        with scopes[number]:
            result = await service.methods[method](*arguments)
        del scopes[number]
        writer.put([REPLY, number, result])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        while data := await stream.receive_some():
            for kind, *rest in packets.feed(data):
                if kind == REQUEST:
                    scopes[rest[0]] = trio.CancelScope()
                    nursery.start_soon(answer, *rest)
                elif rest[0] in scopes:
                    scopes[rest[0]].cancel()
        nursery.cancel_scope.cancel()


class Caller:
    """The client's end: a caller, cancelled or not, returns when its reply has arrived."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._writer = JoiningWriter(stream)
        self._waiting: dict[int, trio.lowlevel.Task] = {}
        self._cancelled: dict[int, Callable[[], Any]] = {}
        self._number = 0

    async def _read(self) -> None:
        packets = Packets()
        while data := await self._stream.receive_some():
            for _, number, result in packets.feed(data):
                raise_cancel = self._cancelled.pop(number, None)
                value = outcome.capture(raise_cancel) if raise_cancel else outcome.Value(result)
                trio.lowlevel.reschedule(self._waiting.pop(number), value)

    async def _call(self, method: str, *arguments: object) -> Any:
        self._number += 1
        number = self._number
        self._writer.put([REQUEST, number, method, arguments])
        self._waiting[number] = trio.lowlevel.current_task()

        def abort(raise_cancel: Callable[[], Any]) -> trio.lowlevel.Abort:
            self._cancelled[number] = raise_cancel
            self._writer.put([CANCEL, number])
            return trio.lowlevel.Abort.FAILED

        return await trio.lowlevel.wait_task_rescheduled(abort)

    async def echo(self, value: Any) -> Any:
        return await self._call("bench.echo", value)

    async def hang(self) -> None:
        await self._call("bench.hang")

    async def running(self) -> Any:
        return await self._call("bench.running")

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncGenerator[Calls]:
        async with await open_stream(url) as stream, trio.open_nursery() as nursery:
            caller = cls(stream)
            nursery.start_soon(caller._read)
            nursery.start_soon(caller._writer.run)
            yield Calls(echo=caller.echo, hang=caller.hang, running=caller.running)
            nursery.cancel_scope.cancel()


ADAPTERS = (
    trio_adapter(
        "scopes",
        "floor: a task and a scope per request",
        "flight cancel",
        serve=serve_streams(handle),
        open_client=Caller.open,
    ),
)

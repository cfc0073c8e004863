"""pycapnp: Cap'n Proto's RPC in C++ under asyncio. Its schema is in this folder.

A stream is a capability that the caller passes and into which the server pushes, with Cap'n Proto's
own flow control. Both ends may call. A cancelled call drops its promise, which cancels the handler.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import capnp

from benchmarks.adapter import peer
from benchmarks.interface import Calls, Ready
from benchmarks.loops import ASYNCIO, Work
from benchmarks.payloads import Order, Quote

__all__ = ["ADAPTERS"]

PARENT = Path(capnp.__file__).parent.parent
SCHEMA: Any = capnp.load(str(Path(__file__).with_suffix(".capnp")), imports=[str(PARENT)])

UNREAD = 1000
"""The most items that a stream buffers for its reader."""


def fill(struct: Any, value: Quote | Order) -> None:
    """Write a dataclass into a struct of the message, whose text may be missing."""
    for name, field in vars(value).items():
        if field is not None:
            setattr(struct, name.replace("is_open", "isOpen"), field)


def fill_all(structs: Any, orders: list[Order]) -> None:
    for number, order in enumerate(orders):
        fill(structs[number], order)


def to_order(one: Any) -> Order:
    return Order(
        one.number,
        one.symbol,
        one.side,
        one.quantity,
        one.price,
        one.isOpen,
        one.account,
        one.filled,
        one.average,
        one.note if one._has("note") else None,  # noqa: SLF001 - its public name for structs
    )


class Bench(SCHEMA.Bench.Server):  # type: ignore[misc] # made at run time
    """The service. It counts the running handlers."""

    def __init__(self) -> None:
        self._running = 0

    async def echo(self, value: str, **_: Any) -> str:
        return value

    async def large(self, value: bytes, **_: Any) -> bytes:
        return value

    async def quote(self, value: Any, _context: Any, **_: Any) -> None:
        fill(_context.results.init("value"), Quote(value.symbol, value.price))

    async def orders(self, value: Any, _context: Any, **_: Any) -> None:
        orders = [to_order(one) for one in value]
        fill_all(_context.results.init("value", len(orders)), orders)

    async def hang(self, **_: Any) -> None:
        self._running += 1
        try:
            await asyncio.Event().wait()
        finally:
            self._running -= 1

    async def running(self, **_: Any) -> int:
        return self._running

    async def items(self, sink: Any, count: int, **_: Any) -> None:
        for number in range(count):
            await sink.push(number)

    async def callBack(  # noqa: N802 - required by the schema language
        self, function: Any, count: int, callers: int, **_others: Any
    ) -> None:
        async def loop() -> None:
            for _ in range(count // callers):
                await function.call("0123456789abcdef")

        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(loop())


class Sink(SCHEMA.Sink.Server):  # type: ignore[misc] # likewise
    """The client's end of a stream."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[int] = asyncio.Queue(UNREAD)

    async def push(self, number: int, **_: Any) -> None:
        await self.queue.put(number)


class Function(SCHEMA.Function.Server):  # type: ignore[misc] # likewise
    """A function that is called back."""

    def __init__(self, function: Callable[[str], Awaitable[str]]) -> None:
        self._function = function

    async def call(self, value: str, **_: Any) -> str:
        return await self._function(value)


async def serve(hosts: Sequence[str], ready: Ready) -> None:
    bench = Bench()

    async def handle(stream: Any) -> None:
        await capnp.TwoPartyServer(stream, bootstrap=bench).on_disconnect()

    create = capnp.AsyncIoStream.create_server
    servers = [await create(handle, host, 0, backlog=1024) for host in hosts]
    names = [server.sockets[0].getsockname() for server in servers]
    ready([f"capnp://{host}:{port}" for host, port in names])
    await asyncio.Event().wait()


@asynccontextmanager
async def open_client(url: str) -> AsyncGenerator[Calls]:
    parts = urlsplit(url)
    stream = await capnp.AsyncIoStream.create_connection(parts.hostname, parts.port)
    client = capnp.TwoPartyClient(stream)
    bench = client.bootstrap().cast_as(SCHEMA.Bench)

    async def echo(value: str) -> Any:
        return (await bench.echo(value)).value

    async def large(value: bytes) -> Any:
        return (await bench.large(value)).value

    async def quote(value: Quote) -> Quote:
        request = bench.quote_request()
        fill(request.init("value"), value)
        found = (await request.send()).value
        return Quote(found.symbol, found.price)

    async def orders(value: list[Order]) -> list[Order]:
        request = bench.orders_request()
        fill_all(request.init("value", len(value)), value)
        return [to_order(one) for one in (await request.send()).value]

    async def hang() -> None:
        await bench.hang()

    async def running() -> Any:
        return (await bench.running()).count

    @asynccontextmanager
    async def items(count: int, _size: int) -> AsyncGenerator[AsyncIterator[Any]]:
        sink = Sink()

        async def take() -> AsyncGenerator[Any]:
            for _ in range(count):
                yield await sink.queue.get()

        pushing = asyncio.ensure_future(_call(bench.items, sink, count))
        try:
            yield take()
            await pushing
        finally:
            pushing.cancel()

    async def call_back(
        function: Callable[[str], Awaitable[str]], count: int, callers: int
    ) -> None:
        await bench.callBack(Function(function), count, callers)

    try:
        yield Calls(
            echo=echo,
            quote=quote,
            orders=orders,
            large=large,
            hang=hang,
            running=running,
            items=items,
            call_back=call_back,
        )
    finally:
        client.close()
        stream.close()


async def _call(method: Any, *arguments: Any) -> Any:
    return await method(*arguments)


def _run(function: Work, *arguments: Any) -> None:
    async def in_kj_loop() -> None:
        async with capnp.kj_loop():
            await function(*arguments)

    asyncio.run(in_kj_loop())


ADAPTERS = (
    peer(
        replace(ASYNCIO, run=_run),
        "pycapnp",
        "pycapnp",
        "one one-dataclass dataclasses flights sizes sessions cancel stream callbacks beside",
        serve=serve,
        open_client=open_client,
    ),
)

"""trio_rpc, used as its documentation says: a typed proxy, checked arguments, default limits.

There are two rows: `async def` handlers, and plain `def` handlers, which do not get a task.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio

import trio_rpc
from benchmarks.adapter import trio_adapter
from benchmarks.interface import Calls, Exchange, Ready
from benchmarks.payloads import Order, Quote
from trio_rpc import Limits, connect, duplex, method, serve, stream

__all__ = ["ADAPTERS", "many_sessions"]


SESSIONS = 20_000
"""The sessions that a server allows, so that more clients than by default can be idle."""

LIMITS = Limits(max_message=128 * 1024 * 1024)
"""Limits for results of 64 MiB. The other limits are the defaults."""


class Bench:
    """The service. It counts the running handlers."""

    def __init__(self) -> None:
        self._running = 0

    @method
    async def echo(self, value: str) -> str:
        return value

    @method
    def echo_inline(self, value: str) -> str:
        return value

    @method
    async def value(self, value: Any) -> Any:
        return value

    @method
    def value_inline(self, value: Any) -> Any:
        return value

    @method
    async def quote(self, value: Quote) -> Quote:
        return value

    @method
    def quote_inline(self, value: Quote) -> Quote:
        return value

    @method
    async def orders(self, value: list[Order]) -> list[Order]:
        return value

    @method
    def orders_inline(self, value: list[Order]) -> list[Order]:
        return value

    @method
    async def large(self, value: bytes) -> bytes:
        return value

    @method
    def large_inline(self, value: bytes) -> bytes:
        return value

    @method
    async def hang(self) -> None:
        self._running += 1
        try:
            await trio.sleep_forever()
        finally:
            self._running -= 1

    @stream
    async def items(self, count: int, size: int) -> AsyncGenerator[Any, None]:
        block = bytes(size)
        for number in range(count):
            yield block if size else number

    @method
    async def call_back(
        self, function: Callable[[str], Awaitable[str]], count: int, callers: int
    ) -> None:
        async def loop() -> None:
            for _ in range(count // callers):
                await function("0123456789abcdef")

        async with trio.open_nursery() as nursery:
            for _ in range(callers):
                nursery.start_soon(loop)

    @duplex
    async def exchange(self, channel: trio.abc.Channel[int]) -> None:
        async for number in channel:
            await channel.send(number)

    @method
    async def get(self, size: int) -> bytes:
        return bytes(size)

    @method
    async def running(self) -> int:
        return self._running


async def serve_bench(hosts: Sequence[str], ready: Ready) -> None:
    async with trio.open_nursery() as nursery:
        urls = [f"tcp://{host}:0" for host in hosts]
        ready(await nursery.start(partial(serve, {"bench": Bench()}, *urls, **many_sessions())))


def many_sessions() -> dict[str, Any]:
    """Return the options for more sessions than by default. Older revisions have no such limit."""
    make = getattr(trio_rpc, "ServerLimits", None)
    if make is None:
        return {}
    return {"server_limits": make(max_sessions=SESSIONS, max_sessions_per_address=SESSIONS)}


@asynccontextmanager
async def open_client(url: str) -> AsyncGenerator[Calls]:
    async with connect(url, limits=LIMITS) as session:
        bench = session.proxy("bench", Bench)

        @asynccontextmanager
        async def exchange() -> AsyncGenerator[Exchange]:
            async with bench.exchange() as channel:

                async def there_and_back(number: int) -> int:
                    await channel.send(number)
                    return await channel.receive()

                yield there_and_back

        @asynccontextmanager
        async def batches(count: int, size: int) -> AsyncGenerator[AsyncIterator[list[Any]]]:
            async with bench.items(count, size) as items:
                yield items.batches()

        yield Calls(
            echo=bench.echo,
            value=bench.value,
            quote=bench.quote,
            orders=bench.orders,
            large=bench.large,
            hang=bench.hang,
            running=bench.running,
            items=bench.items,
            batches=batches,
            exchange=exchange,
            call_back=bench.call_back,
            get=bench.get,
        )


@asynccontextmanager
async def open_inline_client(url: str) -> AsyncGenerator[Calls]:
    async with connect(url) as session:
        bench: Any = session.proxy(
            "bench", Bench
        )  # a plain def at the server is awaited by its caller
        yield Calls(
            echo=bench.echo_inline,
            value=bench.value_inline,
            quote=bench.quote_inline,
            orders=bench.orders_inline,
            large=bench.large_inline,
        )


ADAPTERS = (
    trio_adapter(
        "trio_rpc",
        "trio_rpc, async def handler",
        "one structures flights sizes sessions cancel stream batches exchange callbacks bulk fairness mixed"
        " beside",
        serve=serve_bench,
        open_client=open_client,
    ),
    trio_adapter(
        "trio_rpc-inline",
        "trio_rpc, plain def handler",
        "one structures flights sizes",
        serve=serve_bench,
        open_client=open_inline_client,
    ),
)

"""zerorpc: MessagePack over ZeroMQ, on gevent, with a greenlet for each caller.

Its server cannot call its client, and a handler does not learn that its caller has given up. The
memory of idle sessions is not measured: all clients share one socket of the server, and an open
client has a connection of ZeroMQ there, but no session.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import gevent
import gevent.pool
import zerorpc

from benchmarks.adapter import peer
from benchmarks.interface import Calls, Ready
from benchmarks.loops import BLOCKING, Group, Work, run_blocking
from benchmarks.payloads import Order, Quote, plain

__all__ = ["ADAPTERS"]


class Greenlets:
    """Greenlets that end before their block does."""

    def __init__(self) -> None:
        self.pool = gevent.pool.Pool()

    def start_soon(self, function: Work, *arguments: Any) -> None:
        self.pool.spawn(run_blocking, function, *arguments)

    def cancel(self) -> None:
        self.pool.kill()


@asynccontextmanager
async def _greenlets() -> AsyncGenerator[Group]:
    group = Greenlets()
    yield group
    group.pool.join(raise_error=True)


async def _in_thread(function: Callable[[], Any]) -> Any:
    return gevent.get_hub().threadpool.apply(function)


async def _sleep(seconds: float) -> None:
    gevent.sleep(seconds)


GEVENT = replace(BLOCKING, in_thread=_in_thread, sleep=_sleep, group=_greenlets)


class Bench:
    """The service."""

    def echo(self, value: Any) -> Any:
        return value

    def quote(self, value: dict[str, Any]) -> dict[str, Any]:
        quote = Quote(**value)
        return plain(quote)

    def orders(self, value: list[dict[str, Any]]) -> list[dict[str, Any]]:
        orders = [Order(**one) for one in value]
        return [plain(one) for one in orders]

    @zerorpc.stream  # type: ignore[untyped-decorator] # it has no types
    def items(self, count: int) -> Iterator[int]:
        return iter(range(count))


async def serve(hosts: Sequence[str], ready: Ready) -> None:
    server = zerorpc.Server(Bench())
    server.bind(f"tcp://{hosts[0]}:*")
    socket = server._events._socket  # there is no public way to get the port # noqa: SLF001
    ready([socket.last_endpoint.decode()])
    server.run()


@asynccontextmanager
async def open_client(url: str) -> AsyncGenerator[Calls]:
    client = zerorpc.Client(url)

    async def echo(value: Any) -> Any:
        return client.echo(value)

    async def quote(value: Quote) -> Quote:
        return Quote(**client.quote(plain(value)))

    async def orders(value: list[Order]) -> list[Order]:
        return [Order(**one) for one in client.orders([plain(one) for one in value])]

    @asynccontextmanager
    async def items(count: int, _size: int) -> AsyncGenerator[AsyncIterator[Any]]:
        async def take() -> AsyncGenerator[Any]:
            for item in client.items(count):
                yield item

        yield take()

    try:
        yield Calls(echo=echo, value=echo, quote=quote, orders=orders, large=echo, items=items)
    finally:
        client.close()


ADAPTERS = (
    peer(
        GEVENT,
        "zerorpc",
        "zerorpc (gevent)",
        "one structures flights sizes connect stream beside",
        not_cancelled=True,
        serve=serve,
        open_client=open_client,
    ),
)

"""Pyro5 with its msgpack serializer, and its multiplex server, which runs in one thread.

Its proxies make one call at a time, so there are two more rows for many calls: a thread and a
connection for each caller, as its documentation recommends, and batches, where one request contains
all calls and none returns before the last. A stream is an iterator, with a call for each item. For
callbacks, a client runs its own daemon, to which the server connects. A handler does not learn that
its caller has given up.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import Pyro5.api
from Pyro5 import config

from benchmarks.adapter import adapter, peer
from benchmarks.interface import Calls, Ready
from benchmarks.loops import BLOCKING, run_blocking
from benchmarks.payloads import Order, Quote

__all__ = ["ADAPTERS"]

config.SERIALIZER = "msgpack"
config.SERVERTYPE = "multiplex"


def register(kind: type[Quote | Order]) -> None:
    """Register a dataclass, so that Pyro5 sends it as a dict that names its class."""
    name = kind.__name__
    Pyro5.api.register_class_to_dict(kind, lambda value: {"__class__": name, **vars(value)})

    def rebuild(_: str, value: dict[str, Any]) -> Any:
        del value["__class__"]
        return kind(**value)

    Pyro5.api.register_dict_to_class(name, rebuild)


register(Quote)
register(Order)


def call_many(proxy: Any, method: str, value: str, count: int, callers: int) -> list[str]:
    """Make ``count`` calls, in batches of ``callers``."""
    results: list[str] = []
    batch = Pyro5.api.BatchProxy(proxy)
    for _ in range(count // callers):
        call = getattr(batch, method)
        for _ in range(callers):
            call(value)
        results += batch()
    return results


@Pyro5.api.expose
class Bench:
    """The service."""

    def echo(self, value: Any) -> Any:
        return value

    def quote(self, value: Quote) -> Quote:
        return value

    def orders(self, value: list[Order]) -> list[Order]:
        return value

    def items(self, count: int) -> Iterator[int]:
        yield from range(count)

    def call_back(self, uri: str, count: int, callers: int) -> None:
        with Pyro5.api.Proxy(uri) as proxy:
            if callers > 1:
                call_many(proxy, "call", "0123456789abcdef", count, callers)
                return
            for _ in range(count):
                proxy.call("0123456789abcdef")


@Pyro5.api.expose
class Callback:
    """The object that is called back."""

    def __init__(self, function: Callable[[str], Coroutine[Any, Any, str]]) -> None:
        self._function = function

    def call(self, value: str) -> Any:
        return run_blocking(self._function, value)


async def serve(hosts: Sequence[str], ready: Ready) -> None:
    daemons = [Pyro5.api.Daemon(host=host, port=0) for host in hosts]
    for daemon in daemons:
        daemon.register(Bench(), "bench")
    for daemon in daemons[1:]:
        threading.Thread(target=daemon.requestLoop, daemon=True).start()
    ready([f"pyro://{daemon.locationStr}" for daemon in daemons])
    daemons[0].requestLoop()


@asynccontextmanager
async def open_client(url: str) -> AsyncGenerator[Calls]:
    with Pyro5.api.Proxy(f"PYRO:bench@{urlsplit(url).netloc}") as proxy:

        async def echo(value: Any) -> Any:
            return proxy.echo(value)

        async def quote(value: Quote) -> Any:
            return proxy.quote(value)

        async def orders(value: list[Order]) -> Any:
            return proxy.orders(value)

        @asynccontextmanager
        async def items(count: int, _size: int) -> AsyncGenerator[AsyncIterator[Any]]:
            async def take() -> AsyncGenerator[Any]:
                for item in proxy.items(count):
                    yield item

            yield take()

        async def call_back(
            function: Callable[[str], Coroutine[Any, Any, str]], count: int, callers: int
        ) -> None:
            with Pyro5.api.Daemon(host="127.0.0.1", port=0) as daemon:
                uri = daemon.register(Callback(function))
                thread = threading.Thread(target=daemon.requestLoop, daemon=True)
                thread.start()
                proxy.call_back(str(uri), count, callers)
                daemon.shutdown()
                thread.join()

        yield Calls(
            echo=echo,
            value=echo,
            quote=quote,
            orders=orders,
            large=echo,
            items=items,
            call_back=call_back,
        )


@asynccontextmanager
async def open_batches(url: str) -> AsyncGenerator[Calls]:
    async with open_client(url) as client:
        with Pyro5.api.Proxy(f"PYRO:bench@{urlsplit(url).netloc}") as proxy:

            async def many(value: str, count: int, callers: int) -> list[str]:
                return call_many(proxy, "echo", value, count, callers)

            yield Calls(echo=client.echo, many=many)


@asynccontextmanager
async def open_threads(url: str) -> AsyncGenerator[Calls]:
    mine = threading.local()

    async def echo(value: Any) -> Any:
        if not hasattr(mine, "proxy"):
            mine.proxy = Pyro5.api.Proxy(f"PYRO:bench@{urlsplit(url).netloc}")
        return mine.proxy.echo(value)

    yield Calls(echo=echo)


ADAPTERS = (
    peer(
        BLOCKING,
        "pyro5",
        "Pyro5 (msgpack)",
        "one structures sizes sessions stream callbacks",
        not_cancelled=True,
        lacks={"flights": "see below"},
        serve=serve,
        open_client=open_client,
    ),
    adapter(
        BLOCKING,
        "pyro5-threads",
        "Pyro5 (msgpack), a connection for each caller",
        "flights",
        serve=serve,
        open_client=open_threads,
    ),
    adapter(
        BLOCKING,
        "pyro5-batches",
        "Pyro5 (msgpack), all in one request",
        "flights",
        serve=serve,
        open_client=open_batches,
    ),
)

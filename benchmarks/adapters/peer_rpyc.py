"""RPyC: a thread for each connection. Remote functions are looked up once, as its tutorial says.

Many calls at once use its asynchronous proxies from one thread, and a stream is its buffered
iterator. Both ends may call, but a handler does not learn that its caller has given up.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import rpyc
from rpyc.core.stream import SocketStream
from rpyc.utils.helpers import buffiter
from rpyc.utils.server import ThreadedServer

from benchmarks.adapter import peer
from benchmarks.interface import Calls, Ready
from benchmarks.loops import BLOCKING, run_blocking

__all__ = ["ADAPTERS"]

CONFIG = {"sync_request_timeout": None}


def call_many(function: Any, value: str, count: int, callers: int) -> list[str]:
    """Make ``count`` calls, of which at most ``callers`` are in flight."""
    call = rpyc.async_(function)
    under_way: deque[Any] = deque()
    results = []
    for _ in range(count):
        if len(under_way) == callers:
            results.append(under_way.popleft().value)
        under_way.append(call(value))
    return results + [one.value for one in under_way]


class Bench(rpyc.Service):  # type: ignore[misc] # it has no types
    """The service."""

    def exposed_echo(self, value: Any) -> Any:
        return value

    def exposed_items(self, count: int) -> Iterator[int]:
        return iter(range(count))

    def exposed_call_back(self, function: Any, count: int, callers: int) -> None:
        if callers > 1:
            call_many(function, "0123456789abcdef", count, callers)
            return
        for _ in range(count):
            function("0123456789abcdef")


async def serve(hosts: Sequence[str], ready: Ready) -> None:
    servers = [
        ThreadedServer(Bench, hostname=host, port=0, backlog=1024, protocol_config=dict(CONFIG))
        for host in hosts
    ]
    for server in servers:  # accepted sockets inherit it; without it, small replies are delayed
        server.listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for server in servers[1:]:
        threading.Thread(target=server.start, daemon=True).start()
    ready([f"tcp://{server.host}:{server.port}" for server in servers])
    servers[0].start()


@asynccontextmanager
async def open_client(url: str) -> AsyncGenerator[Calls]:
    parts = urlsplit(url)
    stream = SocketStream.connect(parts.hostname, parts.port, nodelay=True)
    connection = rpyc.connect_stream(stream, config=CONFIG)
    remote_echo = connection.root.echo

    async def echo(value: Any) -> Any:
        return remote_echo(value)

    async def many(value: str, count: int, callers: int) -> list[str]:
        return call_many(remote_echo, value, count, callers)

    @asynccontextmanager
    async def items(count: int, _size: int) -> AsyncGenerator[AsyncIterator[Any]]:
        async def take() -> AsyncGenerator[Any]:
            for item in buffiter(connection.root.items(count), chunk=1000):
                yield item

        yield take()

    async def call_back(
        function: Callable[[str], Coroutine[Any, Any, str]], count: int, callers: int
    ) -> None:
        connection.root.call_back(lambda value: run_blocking(function, value), count, callers)

    try:
        yield Calls(echo=echo, large=echo, many=many, items=items, call_back=call_back)
    finally:
        connection.close()


ADAPTERS = (
    peer(
        BLOCKING,
        "rpyc",
        "RPyC",
        "one flights sizes sessions stream callbacks",
        not_cancelled=True,
        lacks={"structures": "sent by reference"},
        serve=serve,
        open_client=open_client,
    ),
)

"""multiprocessing.connection of the standard library: pickles over blocking sockets.

The server has a thread for each connection. A connection carries one call at a time, so calls in
flight are threads with a connection each. Pickle sends dataclasses as they are, and can run any code
at the receiver: it is only for ends that trust each other.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from multiprocessing.connection import Client, Connection, Listener
from typing import Any
from urllib.parse import urlsplit

from benchmarks.adapter import adapter, peer
from benchmarks.interface import Calls, Exchange, Ready
from benchmarks.loops import BLOCKING

__all__ = ["ADAPTERS"]


def echo(value: Any) -> Any:
    return value


METHODS = {"echo": echo}


def handle(connection: Connection[Any, Any]) -> None:
    try:
        with connection:
            while True:
                method, arguments = connection.recv()
                if method == "items":
                    for number in range(*arguments):
                        connection.send(number)
                else:
                    connection.send(METHODS[method](*arguments))
    except (EOFError, ConnectionError):
        pass  # the client has disconnected


def listen(listener: Listener) -> None:
    while True:
        threading.Thread(target=handle, args=[listener.accept()], daemon=True).start()


async def serve(hosts: Sequence[str], ready: Ready) -> None:
    listeners = [Listener((host, 0), backlog=1024) for host in hosts]
    for listener in listeners[1:]:
        threading.Thread(target=listen, args=[listener], daemon=True).start()
    names: list[Any] = [listener.address for listener in listeners]
    ready([f"tcp://{host}:{port}" for host, port in names])
    listen(listeners[0])


def connect(url: str) -> Connection[Any, Any]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return Client((parts.hostname, parts.port))


@asynccontextmanager
async def open_client(url: str) -> AsyncGenerator[Calls]:
    with connect(url) as connection:

        async def echo(value: Any) -> Any:
            connection.send(("echo", (value,)))
            return connection.recv()

        @asynccontextmanager
        async def items(count: int, _size: int) -> AsyncGenerator[AsyncIterator[Any]]:
            connection.send(("items", (count,)))

            async def take() -> AsyncGenerator[Any]:
                for _ in range(count):
                    yield connection.recv()

            yield take()

        @asynccontextmanager
        async def exchange() -> AsyncGenerator[Exchange]:
            yield echo

        yield Calls(
            echo=echo,
            large=echo,
            value=echo,
            quote=echo,
            orders=echo,
            items=items,
            exchange=exchange,
        )


@asynccontextmanager
async def open_threads(url: str) -> AsyncGenerator[Calls]:
    mine = threading.local()

    async def echo(value: Any) -> Any:
        if not hasattr(mine, "connection"):
            mine.connection = connect(url)
        mine.connection.send(("echo", (value,)))
        return mine.connection.recv()

    yield Calls(echo=echo)


ADAPTERS = (
    peer(
        BLOCKING,
        "multiprocessing",
        "multiprocessing.connection (pickle)",
        "one structures sizes sessions stream exchange",
        not_cancelled=True,
        lacks={"flights": "see below"},
        serve=serve,
        open_client=open_client,
    ),
    adapter(
        BLOCKING,
        "multiprocessing-threads",
        "multiprocessing.connection (pickle), a connection for each caller",
        "flights",
        serve=serve,
        open_client=open_threads,
    ),
)

"""The floor without an event loop: blocking sockets, MessagePack, and a thread per connection.

Concurrent requests are sent at once, in one packet, and the replies are read in order.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import msgpack

from benchmarks.adapter import adapter
from benchmarks.adapters.floor_wire import Packets, packed
from benchmarks.interface import Calls, Ready
from benchmarks.loops import BLOCKING

__all__ = ["ADAPTERS"]

READ = 64 * 1024


def receive(connection: socket.socket) -> Any:
    """Return the next message, or None at the end. Only one packet is in flight at a time."""
    data = connection.recv(READ)
    if len(data) >= 4 and len(data) == 4 + int.from_bytes(data[:4], "big"):
        return msgpack.unpackb(data[4:])
    while data and len(data) < 4:
        more = connection.recv(READ)
        data = data + more if more else b""
    if not data:
        return None
    body = bytearray(int.from_bytes(data[:4], "big"))
    filled = len(data) - 4
    body[:filled] = data[4:]
    view = memoryview(body)
    while filled < len(body):
        count = connection.recv_into(view[filled:])
        if not count:
            return None
        filled += count
    return msgpack.unpackb(body)


def handle(connection: socket.socket) -> None:
    pack = msgpack.Packer().pack
    with connection:
        while message := receive(connection):
            if message[0] == 1:
                connection.sendall(packed(pack([3, message[1], message[3][0]])))
            else:  # many requests at once
                replies = [[3, number, arguments[0]] for _, number, _, arguments in message[1]]
                connection.sendall(packed(b"".join(map(pack, replies))))


def listen(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=handle, args=[connection], daemon=True).start()


async def serve(hosts: Sequence[str], ready: Ready) -> None:
    listeners = [socket.create_server((host, 0), backlog=1024) for host in hosts]
    for listener in listeners[1:]:
        threading.Thread(target=listen, args=[listener], daemon=True).start()
    names = [listener.getsockname() for listener in listeners]
    ready([f"tcp://{host}:{port}" for host, port in names])
    listen(listeners[0])


@asynccontextmanager
async def open_client(url: str) -> AsyncGenerator[Calls]:
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pack = msgpack.Packer().pack
        number = 0

        async def echo(value: Any) -> Any:
            nonlocal number
            number += 1
            connection.sendall(packed(pack([1, number, "bench.echo", [value]])))
            return receive(connection)[2]

        async def many(value: str, count: int, callers: int) -> list[str]:
            results: list[str] = []
            packets = Packets()
            for _ in range(count // callers):
                requests = [[1, number, "bench.echo", [value]] for number in range(callers)]
                connection.sendall(packed(pack([2, requests])))
                enough = len(results) + callers
                while len(results) < enough:
                    results += [reply[2] for reply in packets.feed(connection.recv(READ))]
            return results

        yield Calls(echo=echo, large=echo, many=many)


ADAPTERS = (
    adapter(
        BLOCKING,
        "sockets",
        "floor: blocking sockets (at once: in one packet)",
        "one flights sizes sessions",
        serve=serve,
        open_client=open_client,
    ),
)

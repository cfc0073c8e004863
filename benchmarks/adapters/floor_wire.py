"""What the floors share: packets with a length prefix, a writer that joins, and listening.

A packet is a 4-byte big-endian length and one or more messages. The messages are those of a
minimal RPC: [1, id, method, [argument]] and [3, id, result]. Nothing is checked, nothing is
bounded, no error is handled: a floor is what the network, Trio and MessagePack cost.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

import msgpack
import trio

from benchmarks.interface import Ready

__all__ = ["JoiningWriter", "Packets", "never_aborts", "open_stream", "serve_streams"]


def packed(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


class Packets:
    """Messages out of a byte stream, by one streaming Unpacker."""

    def __init__(self) -> None:
        self._buffer = b""
        self._unpacker = msgpack.Unpacker()

    def feed(self, data: bytes) -> Iterable[Any]:
        """Take what was received; return the messages of the packets that it completes."""
        if self._buffer:
            data = self._buffer + data
        start, stop = 0, len(data)
        while stop - start >= 4:
            end = start + 4 + int.from_bytes(data[start : start + 4], "big")
            if end > stop:
                break
            self._unpacker.feed(data[start + 4 : end])
            start = end
        self._buffer = data[start:]
        messages: Iterable[Any] = self._unpacker
        return messages


def never_aborts(_: object) -> trio.lowlevel.Abort:
    """For waits that end only with the connection, when whoever waits is forgotten too."""
    return trio.lowlevel.Abort.SUCCEEDED


class JoiningWriter:
    """One task that sends, in one packet, all that was queued since it last ran."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._packer = msgpack.Packer(autoreset=False)
        self._parked: trio.lowlevel.Task | None = None
        self._empty = True

    def put(self, message: list[Any]) -> None:
        """Queue a message."""
        self._packer.pack(message)
        self._empty = False
        if self._parked is not None:
            trio.lowlevel.reschedule(self._parked)
            self._parked = None

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            if self._empty:
                self._parked = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(never_aborts)
            body = self._packer.bytes()
            self._packer.reset()
            self._empty = True
            await self._stream.send_all(packed(body))


async def open_stream(url: str) -> trio.SocketStream:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return await trio.open_tcp_stream(parts.hostname, parts.port)


def serve_streams(
    handle: Callable[[trio.SocketStream], Awaitable[None]],
) -> Callable[[Sequence[str], Ready], Awaitable[None]]:
    """Make an adapter's `serve` of a function that serves one stream until it ends."""

    async def handle_and_close(stream: trio.SocketStream) -> None:
        try:
            async with stream:
                await handle(stream)
        except* trio.BrokenResourceError:
            pass  # the client has gone

    async def serve(hosts: Sequence[str], ready: Ready) -> None:
        listeners = []
        for host in hosts:
            listeners += await trio.open_tcp_listeners(0, host=host)
        names = [listener.socket.getsockname() for listener in listeners]
        ready([f"tcp://{host}:{port}" for host, port, *_ in names])
        await trio.serve_listeners(handle_and_close, listeners)

    return serve

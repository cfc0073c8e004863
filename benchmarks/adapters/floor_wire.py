"""Shared parts of the floors: packets with a length prefix, a joining writer, and listening.

A packet is a 4-byte big-endian length and one or more messages. The messages are those of a
minimal RPC: [1, id, method, [argument]] and [3, id, result]. There are no checks, no limits and no
error handling: a floor is the cost of the network, Trio and MessagePack.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

import msgpack
import trio

from benchmarks.interface import Ready

__all__ = ["JoiningWriter", "Packets", "end_wait", "open_stream", "serve_streams"]


def packed(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


class Packets:
    """Splits a byte stream into messages with one streaming Unpacker."""

    def __init__(self) -> None:
        self._buffer = b""
        self._unpacker = msgpack.Unpacker()

    def feed(self, data: bytes) -> Iterable[Any]:
        """Feed received bytes, and return the messages of the packets that they complete."""
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


def end_wait(_: object) -> trio.lowlevel.Abort:
    """End a wait that is cancelled, which happens only when the connection ends."""
    return trio.lowlevel.Abort.SUCCEEDED


class JoiningWriter:
    """One task that sends all messages queued since it last ran, in one packet."""

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
                await trio.lowlevel.wait_task_rescheduled(end_wait)
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
    """Make an adapter's `serve` from a function that serves one stream until its end."""

    async def handle_and_close(stream: trio.SocketStream) -> None:
        try:
            async with stream:
                await handle(stream)
        except* trio.BrokenResourceError:
            pass  # the client has disconnected

    async def serve(hosts: Sequence[str], ready: Ready) -> None:
        listeners = []
        for host in hosts:
            listeners += await trio.open_tcp_listeners(0, host=host)
        names = [listener.socket.getsockname() for listener in listeners]
        ready([f"tcp://{host}:{port}" for host, port, *_ in names])
        await trio.serve_listeners(handle_and_close, listeners)

    return serve

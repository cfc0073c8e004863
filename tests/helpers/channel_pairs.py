"""Make connected pairs of channels."""

from __future__ import annotations

import os
import socket
import ssl
from dataclasses import dataclass

import trio
import trustme

from trio_rpc.channels import ProcessChannel, StreamChannel, open_channel, open_listeners
from trio_rpc.channels.thread import Thread, ThreadChannel
from trio_rpc.wire.limits import DEFAULT_LIMITS, Limits

Pair = tuple[trio.abc.Channel[bytes], trio.abc.Channel[bytes]]


@dataclass
class Certificates:
    """The TLS contexts of a server and of a client that trusts its authority."""

    ca: trustme.CA
    server: ssl.SSLContext
    client: ssl.SSLContext


class Held:
    """A block that owns a channel, entered in a task of a nursery that outlives the caller."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._leave = trio.Event()
        self._left: trio.Event | None = None

    async def enter(self, block) -> trio.abc.Channel[bytes]:
        self._left = trio.Event()
        return await self._nursery.start(self._own, block)

    async def leave(self) -> None:
        self._leave.set()
        if self._left is not None:
            await self._left.wait()

    async def _own(self, block, *, task_status) -> None:
        try:
            async with block as channel:
                task_status.started(channel)
                await self._leave.wait()
        finally:
            self._left.set()


async def fails_to_open(url: str, **options) -> None:
    """Open a channel that cannot be opened, so that the caller can check the error."""
    async with open_channel(url, **options):
        raise AssertionError("it must not open")


async def connected(
    nursery: trio.Nursery,
    url: str,
    server_context: ssl.SSLContext | None = None,
    client_context: ssl.SSLContext | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Pair:
    """Open a listener, a client and the server's end, which live in ``nursery``."""
    held = Held(nursery), Held(nursery)
    return await connected_by(held, url, server_context, client_context, (limits, limits))


async def connected_by(
    held: tuple[Held, Held],
    url: str,
    server_context: ssl.SSLContext | None,
    client_context: ssl.SSLContext | None,
    limits: tuple[Limits, Limits],
) -> Pair:
    """Open a listener, a client and the server's end, each held by one of ``held``."""
    listeners = await open_listeners(url, ssl_context=server_context, limits=limits[1])
    accepted: list[trio.abc.Channel[bytes]] = []

    async def accept() -> None:
        connection = await listeners[0].accept()
        accepted.append(await held[1].enter(connection.prepared()))

    try:
        async with trio.open_nursery() as accepting:
            accepting.start_soon(accept)
            opened = await held[0].enter(
                open_channel(listeners[0].url, ssl_context=client_context, limits=limits[0])
            )
    finally:
        for listener in listeners:
            await listener.aclose()
    return opened, accepted[0]


async def child_channels(*limits: Limits) -> Pair:
    """Make both ends of the channel between a parent and its child, in one process.

    The child's exit code is always 0. tests/session/test_processes.py starts real child processes.
    """

    ours, theirs = (
        trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in socket.socketpair()
    )
    child = StreamChannel(theirs, limits[1].max_packet, packet_timeout=limits[1].packet_timeout)
    return ProcessChannel(ours, Ended(), limits[0], name="child process 0"), child


async def thread_channels(*limits: Limits) -> Pair:
    """Make both ends of the channel between two threads, in one thread.

    tests/channels/test_thread.py and tests/session/test_threads.py start real threads.
    """
    ours, theirs = socket.socketpair()
    thread = Thread(trio.sleep, theirs, limits[0], "thread 0")
    thread.ended.set()
    stream, other = (
        trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in (ours, theirs)
    )
    end = StreamChannel(other, limits[1].max_packet, packet_timeout=limits[1].packet_timeout)
    return ThreadChannel(stream, thread, limits[0]), end


class Ended:
    """A process that has ended with exit code 0."""

    pid = 0
    returncode = 0

    async def wait(self) -> int:
        await trio.lowlevel.checkpoint()
        return 0


def open_descriptors() -> set[str]:
    return set(os.listdir("/dev/fd"))  # noqa: PTH208 - only names are needed

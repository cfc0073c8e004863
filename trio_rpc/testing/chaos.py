"""A proxy between real sockets that delays, cuts and damages connections as networks do."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import trio

from trio_rpc.channels.urls import Address, parse_url
from trio_rpc.testing.faults import NO_FAULTS, Faults, Link
from trio_rpc.util.one_exception import one_exception

__all__ = ["ChaosProxy", "open_chaos_proxy"]

MAX_WAITING = 4096
"""Connections that wait to be accepted."""


class ChaosProxy:
    """The proxy that :func:`open_chaos_proxy` opens.

    Attributes:
        url: the URL that clients connect to, in place of the target's.
        target: the URL that new connections are forwarded to.
        forth: the faults of new connections, on the way from client to server.
        back: the faults of new connections, on the way back.
        is_refusing: whether new connections are reset at once, as if there were no server.
        links: the open connections.
        accepted: the number of connections so far.
    """

    def __init__(self, target: str, forth: Faults, back: Faults, seed: int) -> None:
        self.url = ""
        self.target = target
        self.forth = forth
        self.back = back
        self.is_refusing = False
        self.links: list[Link] = []
        self.accepted = 0
        self._seed = seed

    def cut(self) -> None:
        """Cut all connections that are open."""
        for link in list(self.links):
            link.cut()

    def reset(self) -> None:
        """Reset all connections that are open."""
        for link in list(self.links):
            link.reset()

    async def lead(self, client: trio.SocketStream) -> None:
        """Join one client to the target, until either or a fault ends it.

        :meta private:
        """
        self.accepted += 1
        try:
            server = None if self.is_refusing else await _open_stream(parse_url(self.target))
        except OSError:
            server = None
        if server is None:
            await _reset(client)
            await trio.aclose_forcefully(client)
            return
        link = Link(
            client,
            server,
            forth=self.forth,
            back=self.back,
            reset=_reset,
            seed=self._seed + self.accepted,
        )
        self.links.append(link)
        try:
            await link.run()
        finally:
            self.links.remove(link)


@asynccontextmanager
async def open_chaos_proxy(
    target: str, *, forth: Faults = NO_FAULTS, back: Faults = NO_FAULTS, seed: int = 0
) -> AsyncIterator[ChaosProxy]:
    """Listen at a free loopback port, and forward connections to ``target`` with faults.

    Args:
        target: the URL of a server, of any transport; the proxy passes bytes as they are.
        forth: the faults on the way from a client to the server.
        back: the faults on the way back.
        seed: the seed of the random generator.

    Raises:
        ValueError: the target is not a URL.
    """
    proxy = ChaosProxy(target, forth, back, seed)
    address = parse_url(target)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=MAX_WAITING)
    port = listener.socket.getsockname()[1]
    if address.scheme == "unix":
        address = Address("tcp")
    host = address.host if address.host == "localhost" else "127.0.0.1"  # TLS checks this name
    proxy.url = str(replace(address, host=host, port=port))
    with one_exception() as body:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, proxy.lead, [listener])
            try:
                yield proxy
            except BaseException as exc:
                body.append(exc)
                raise
            finally:
                nursery.cancel_scope.cancel()


async def _open_stream(address: Address) -> trio.SocketStream:
    if address.scheme == "unix":
        return await trio.open_unix_socket(address.path)
    return await trio.open_tcp_stream(address.host, address.port)


async def _reset(stream: trio.abc.Stream) -> None:
    """Make closing the socket a reset, which discards undelivered bytes."""
    assert isinstance(stream, trio.SocketStream)  # noqa: S101 - we have made it
    with suppress(OSError):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await trio.lowlevel.checkpoint()

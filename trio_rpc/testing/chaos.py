"""A proxy between real sockets that does to a connection what networks do."""

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
    """What :func:`open_chaos_proxy` opens.

    Attributes:
        url: where clients connect to, in place of the target's.
        target: where connections are led to from now on.
        forth: faults of connections to come, on the way from client to server.
        back: the same on the way back.
        is_refusing: whether connections to come are reset at once, as if there were no server.
        links: the connections that are open.
        accepted: how many there have been.
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
        """Join one client to the target, until either or a fault ends it."""
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
    """Listen at a free loopback port and lead what comes to ``target``, with faults.

    Args:
        target: the URL of a server, of any transport; bytes are passed as they are.
        forth: what goes wrong on the way from a client to the server.
        back: what goes wrong on the way back.
        seed: of all chance.

    Raises:
        ValueError: the target is no URL.
    """
    proxy = ChaosProxy(target, forth, back, seed)
    address = parse_url(target)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=MAX_WAITING)
    port = listener.socket.getsockname()[1]
    if address.scheme == "unix":
        address = Address("tcp")
    host = address.host if address.host == "localhost" else "127.0.0.1"  # TLS asks for its name
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
    """Make closing the socket a reset: what it has not delivered is thrown away."""
    assert isinstance(stream, trio.SocketStream)  # noqa: S101 - we have made it
    with suppress(OSError):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await trio.lowlevel.checkpoint()

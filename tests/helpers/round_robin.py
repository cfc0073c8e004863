"""A load balancer that knows nothing about clients: each request goes to the next instance."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import AsyncIterator, Iterator

import httpx
import trio

__all__ = ["RoundRobin", "open_round_robin"]

MOST_CONNECTIONS = 200
MOST_HEAD = 64 * 1024
PART = 64 * 1024
CONNECTION = re.compile(rb"\r\nconnection:[^\r]*", re.IGNORECASE)


class RoundRobin:
    """The balancer that :func:`open_round_robin` opens.

    Each request gets a connection of its own, so that no connection stays at one instance. An
    instance that does not listen is passed over.

    Attributes:
        url: the URL that clients connect to.
        requests: the number of requests that each instance got, by its URL.
        websockets: the number of WebSockets that each instance got, by its URL.
    """

    def __init__(self, urls: tuple[str, ...]) -> None:
        self.url = ""
        self.requests = dict.fromkeys(urls, 0)
        self.websockets = dict.fromkeys(urls, 0)
        self._urls = urls
        # Requests and WebSockets take turns apart: they often alternate.
        self._turns = itertools.cycle(urls), itertools.cycle(urls)
        self._websockets: set[trio.CancelScope] = set()
        self._places = trio.CapacityLimiter(MOST_CONNECTIONS)

    def cut(self) -> None:
        """Cut all WebSockets."""
        for scope in self._websockets:
            scope.cancel()

    async def serve(self, client: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            async with self._places, client:
                await self._carry(client)

    async def _carry(self, client: trio.SocketStream) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            part = await client.receive_some(PART)
            data += part
            if not part or len(data) > MOST_HEAD:
                return
        head, end, rest = data.partition(b"\r\n\r\n")
        is_websocket = b"\r\nupgrade: websocket" in head.lower()
        if not is_websocket:
            head = CONNECTION.sub(b"", head) + b"\r\nConnection: close"
        counts = self.websockets if is_websocket else self.requests
        server = await self._next(self._turns[is_websocket], counts)
        with trio.CancelScope() as scope:
            if is_websocket:
                self._websockets.add(scope)
            async with server, trio.open_nursery() as nursery:
                await server.send_all(head + end + rest)
                nursery.start_soon(_copy, client, server)
                await _copy(server, client)
                nursery.cancel_scope.cancel()
        self._websockets.discard(scope)

    async def _next(self, turns: Iterator[str], counts: dict[str, int]) -> trio.SocketStream:
        for _ in self._urls:
            url = next(turns)
            place = httpx.URL(url)
            with contextlib.suppress(OSError):
                server = await trio.open_tcp_stream(place.host, place.port)
                counts[url] += 1
                return server
        raise OSError("no instance listens")


async def _copy(source: trio.SocketStream, sink: trio.SocketStream) -> None:
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        async for part in source:
            await sink.send_all(part)
        await sink.send_eof()


@contextlib.asynccontextmanager
async def open_round_robin(*urls: str) -> AsyncIterator[RoundRobin]:
    """Balance requests among ``http`` URLs on loopback, for a block."""
    balancer = RoundRobin(urls)
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        balancer.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.start_soon(trio.serve_listeners, balancer.serve, listeners)
        yield balancer
        nursery.cancel_scope.cancel()

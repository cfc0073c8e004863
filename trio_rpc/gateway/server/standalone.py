"""An HTTP server for an ASGI application on Trio: hypercorn's protocol code in our own accept loop.

hypercorn's own loop is one nursery. A connection whose bytes crash its protocol code (a few bytes
after an Upgrade request are enough) ends the whole server, and a client that does not read delays
the end of the server. Here an error ends only its own connection, and the server closes the
remaining connections forcefully when it ends.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import trio
from hypercorn.config import Config
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState
from hypercorn.utils import wrap_app
from starlette.types import ASGIApp

from trio_rpc.channels.connecting import naming
from trio_rpc.channels.connection import close_forcefully
from trio_rpc.channels.listeners import bound_to, listen_tcp
from trio_rpc.gateway.server.app import Gateway
from trio_rpc.gateway.server.hypercorn import QuietLog, without_deflate
from trio_rpc.gateway.server.serving_mistakes import check_trio
from trio_rpc.util.one_exception import one_exception
from trio_rpc.util.option_checks import check_ssl_context

__all__ = ["open_http_server", "serve", "without_deflate"]

HEAD_TIMEOUT = 10
"""Seconds in which the head of a request must arrive, and for which a connection may be idle."""

UNSENT_TIMEOUT = 30
"""Seconds after which the system drops a client that does not accept the data sent to it."""

PROBE = 20
"""Seconds of silence after which the system probes whether the client is still there.

hypercorn's own Pings are not used: they would keep each connection for as long after its end.
"""

GOODBYE_TIMEOUT = 1
"""Seconds that connections have to end by themselves when the server ends."""

SECURE = "https"
DEFAULT_PORTS = {"http": 80, SECURE: 443}


@contextlib.asynccontextmanager
async def open_http_server(
    app: ASGIApp, *urls: str, ssl_context: ssl.SSLContext | None = None
) -> AsyncIterator[list[str]]:
    """Listen at ``urls`` and serve while the block lasts; leaving it closes all connections.

    The server runs the application's lifespan. That runs a :class:`Gateway`, and also a mounted one
    if the lifespan of the application runs it.

    Args:
        app: a :class:`Gateway`, or any other ASGI application. If all ``urls`` are at loopback
            addresses, a Gateway that was given no ``allowed_hosts`` accepts loopback names only.
        *urls: ``http://host:port`` or ``https://host:port``; port 0 is any free port.
        ssl_context: the server's certificate, for ``https``.

    Yields the URLs that are bound.

    Raises:
        ValueError: no URL was given, or one is not valid, or ``https`` lacks an ``ssl_context``.
        OSError: an address cannot be bound.
        RuntimeError: the caller does not run on Trio.
    """
    check_trio()
    if not urls:
        raise ValueError("a server needs a URL to listen at, such as http://127.0.0.1:8000")
    places = [_parse(url) for url in urls]
    check_ssl_context(ssl_context)
    if any(scheme == SECURE for scheme, _, _ in places) and ssl_context is None:
        raise ValueError("https:// requires an ssl_context")
    server = _Server(app)
    async with contextlib.AsyncExitStack() as stack:
        bound: list[str] = []
        for (scheme, host, port), url in zip(places, urls, strict=True):
            with naming(f"cannot listen at {url}"):
                listeners = await listen_tcp(host, port)
            for listener in listeners:
                stack.push_async_callback(close_forcefully, listener)
                bound.append(_url(scheme, listener))
                server.listeners.append(
                    listener
                    if scheme != SECURE or ssl_context is None
                    else trio.SSLListener(listener, ssl_context, https_compatible=True)
                )
        if isinstance(app, Gateway) and all(_is_loopback(host) for _, host, _ in places):
            app.known_as("localhost", "127.0.0.1", "::1", *(host for _, host, _ in places))
        with one_exception() as body:
            async with server.running():
                try:
                    yield bound
                except BaseException as exc:
                    body.append(exc)
                    raise


async def serve(
    app: ASGIApp,
    *urls: str,
    ssl_context: ssl.SSLContext | None = None,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve at ``urls`` until cancelled, like :func:`open_http_server`.

    Args:
        app: as in :func:`open_http_server`.
        *urls: as in :func:`open_http_server`.
        ssl_context: as in :func:`open_http_server`.
        task_status: gets the URLs that are bound once clients can connect.

    Raises:
        Exception: the same errors as :func:`open_http_server`.
    """
    async with open_http_server(app, *urls, ssl_context=ssl_context) as bound:
        task_status.started(bound)
        await trio.sleep_forever()


class _Server:
    """Accepts connections and runs hypercorn's protocol code for each, in a separate task."""

    def __init__(self, app: ASGIApp) -> None:
        self.listeners: list[trio.abc.Listener[Any]] = []
        self._app: AppWrapper = wrap_app(without_deflate(app), 0, "asgi")  # type: ignore[arg-type]
        self._config = _config()
        self._log = QuietLog(self._config)
        self._config._log = self._log  # noqa: SLF001 - otherwise it makes its own
        self._context = WorkerContext(None)
        self._state: dict[str, Any] = {}
        # Bound: file descriptors. A silent connection ends after HEAD_TIMEOUT.
        self._streams: set[trio.abc.Stream] = set()
        self._one_left = trio.Event()
        self._stop = trio.Event()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve while the block lasts. A cancellation of the block ends it in the same order."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._run)
            try:
                yield
            finally:
                self._stop.set()

    async def _run(self, task_status: trio.TaskStatus[None]) -> None:
        """Serve until the application stops, then end everything in order.

        Shielded once the application has started: a cancellation of the block would otherwise cut
        the connections before the application can close its WebSockets. The end takes as long as
        the application's shutdown, plus ``GOODBYE_TIMEOUT`` seconds.
        """
        lifespan = Lifespan(self._app, self._config, self._state)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as outer:
                await outer.start(lifespan.handle_lifespan)
                await lifespan.wait_for_startup()
                scope.shield = True
                async with trio.open_nursery() as connections:
                    connections.start_soon(trio.serve_listeners, self._serve, self.listeners)
                    task_status.started()
                    await self._stop.wait()
                    # End the application first: it closes its WebSockets with a reason for each.
                    try:
                        await lifespan.wait_for_shutdown()
                        await self._context.terminated.set()
                        await self._let_them_leave()
                    finally:
                        connections.cancel_scope.cancel(reason="the server is closing")
                        for stream in tuple(self._streams):  # one may hang in a shielded send
                            await close_forcefully(stream)
                outer.cancel_scope.cancel()

    async def _let_them_leave(self) -> None:
        with trio.move_on_after(GOODBYE_TIMEOUT):
            while self._streams:
                self._one_left = trio.Event()
                await self._one_left.wait()

    async def _serve(self, stream: trio.abc.Stream) -> None:
        self._streams.add(stream)
        try:
            _detect_dead_clients(stream)
            await _Connection(
                self._app,
                self._config,
                self._context,
                ConnectionState(self._state.copy()),
                stream,  # type: ignore[arg-type]
            )
        except Exception as exc:  # noqa: BLE001 - it ends this connection only (law 14)
            self._log.bad_end(exc)
        finally:
            self._streams.discard(stream)
            self._one_left.set()
            await close_forcefully(stream)


class _Connection(TCPServer):
    """One connection, for HTTP/1.1 and WebSockets only.

    hypercorn itself would switch any client that asks to HTTP/2 without TLS, and would then never
    end a connection that sends invalid data. It would also keep the connection of a client that has
    left until the time for its next request is over.
    """

    async def run(self) -> None:
        try:
            await super().run()
        finally:
            # They refer to each other: only the garbage collector would free them.
            vars(self).pop("protocol", None)

    async def _read_data(self) -> None:
        http: Any = self.protocol.protocol
        http._check_protocol = _stay_with_it  # noqa: SLF001 - there is no setting for it
        await super()._read_data()
        await self.idle_task.stop()


async def _stay_with_it(_request: object) -> None:
    """Ignore a request to switch protocols, as a server may."""


def _config() -> Config:
    config = Config()
    config.keep_alive_timeout = HEAD_TIMEOUT
    config.ssl_handshake_timeout = HEAD_TIMEOUT
    config.include_server_header = False
    return config


def _detect_dead_clients(stream: trio.abc.Stream) -> None:
    """Make the system end a connection whose client does not answer probes or accepts no data."""
    if isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    if not isinstance(stream, trio.SocketStream):
        return
    sock = stream.socket
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", PROBE),
        ("TCP_KEEPINTVL", PROBE),
        ("TCP_USER_TIMEOUT", UNSENT_TIMEOUT * 1000),
    ):
        if hasattr(socket, option):  # some systems lack these
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _parse(url: str) -> tuple[str, str, int]:
    """Return the scheme, host and port of a URL."""
    accepted = "accepted are http://host:port and https://host:port"
    try:
        parts = urlsplit(url)
        default = DEFAULT_PORTS[parts.scheme]
        port = default if parts.port is None else parts.port
    except (ValueError, KeyError):
        raise ValueError(f"bad URL {url[:200]!r}: {accepted}") from None
    if not parts.hostname or parts.path not in ("", "/") or parts.query or parts.username:
        raise ValueError(f"bad URL {url[:200]!r}: {accepted}")
    return parts.scheme, parts.hostname, port


def _url(scheme: str, listener: trio.SocketListener) -> str:
    host, port = bound_to(listener)
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

"""Forwarding between a client and a server at URLs, with connections that may be resumed."""

from __future__ import annotations

import functools
import logging
import ssl
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager

import trio

from trio_rpc.channels.carriers import CarrierServer, listening, open_carrier, resume_settings
from trio_rpc.channels.clients import Client, Clients
from trio_rpc.channels.forwarding.channel import Forwarding, open_forwarding
from trio_rpc.channels.forwarding.routes import ChannelHandler, Router
from trio_rpc.channels.opening import open_channel
from trio_rpc.channels.resumable.settings import Resume
from trio_rpc.util.one_exception import one_exception
from trio_rpc.util.option_checks import check_type
from trio_rpc.util.rate_limited_log import RateLimitedLog
from trio_rpc.wire.limits import DEFAULT_LIMITS, DEFAULT_SERVER_LIMITS, Limits, ServerLimits

__all__ = ["connect_forwarding", "serve_forwarding"]

logger = logging.getLogger("trio_rpc")


@asynccontextmanager
async def connect_forwarding(
    url: str,
    routes: Mapping[str, ChannelHandler] | None = None,
    *,
    ssl_context: ssl.SSLContext | None = None,
    resume: bool | Resume = False,
    limits: Limits = DEFAULT_LIMITS,
) -> AsyncIterator[Forwarding]:
    """Connect to a server that calls :func:`serve_forwarding`, and own the channels for a block.

    Args:
        url: as in :func:`open_channel`.
        routes: the channels that the server may open, as in :func:`open_forwarding`.
        ssl_context: as in :func:`open_channel`.
        resume: connect again when the connection is lost, so that the channels, and the sessions
            over them, go on. True means the defaults of :class:`trio_rpc.Resume`. The server must
            also allow this.
        limits: the limits of this end, as in :func:`open_forwarding`. ``handshake_timeout`` also
            bounds the time to connect.

    Raises:
        ValueError: the URL or a pattern is not valid.
        OSError: the connection could not be made.
        Refused: ``resume`` is given, and the server does not resume.

    Example:
        >>> async def main() -> None:
        ...     url = "ws://localhost:8000"
        ...     async with trio_rpc.channels.connect_forwarding(url, resume=True) as forwarding:
        ...         async with trio_rpc.open_session(await forwarding.open("market")) as session:
        ...             print(await session.call("price", "BTC"))
    """
    Router(routes or {})  # a bad pattern raises before anything is opened
    check_type("limits", limits, Limits, "a trio_rpc.Limits")
    async with (
        open_carrier(
            functools.partial(open_channel, url),
            ssl_context=ssl_context,
            limits=limits,
            resume=resume_settings(resume),
        ) as carrier,
        open_forwarding(carrier, routes, limits=limits) as forwarding,
    ):
        yield forwarding


async def serve_forwarding(
    routes: Mapping[str, ChannelHandler],
    *urls: str,
    ssl_context: ssl.SSLContext | None = None,
    allowed_origins: Collection[str] | None = None,
    resume: bool | Resume = False,
    limits: Limits = DEFAULT_LIMITS,
    server_limits: ServerLimits = DEFAULT_SERVER_LIMITS,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the channels that clients open by name, until cancelled.

    Each client has one connection for all of its channels. A cancellation cancels the handlers, and
    sessions in them still say Goodbye, within ``limits.shutdown_timeout``.

    Args:
        routes: handlers by pattern, as in :func:`open_forwarding`.
        *urls: the addresses to listen at, as in :func:`trio_rpc.open_server`.
        ssl_context: as in :func:`trio_rpc.open_server`.
        allowed_origins: as in :func:`trio_rpc.open_server`.
        resume: allow clients to continue after a lost connection, with all channels. True means the
            defaults of :class:`trio_rpc.Resume`. Clients that do not ask for it are also served.
        limits: the limits of this end for each client, as in :func:`open_forwarding`.
        server_limits: ``max_handshakes`` and ``accept_rate`` apply.
        task_status: gets the bound addresses once clients can connect.

    Raises:
        ValueError: a pattern or a URL is not valid, or no URL is given.
        OSError: an address cannot be bound.

    Example:
        >>> async def serve_market(channel: trio.abc.Channel[bytes]) -> None:
        ...     await trio_rpc.serve_session(channel, market)
        >>> async def main() -> None:
        ...     routes = {"market": serve_market}
        ...     url = "ws://127.0.0.1:8000"
        ...     await trio_rpc.channels.serve_forwarding(routes, url, resume=True)
    """
    Router(routes)  # a bad pattern raises before anything is opened
    resumption = resume_settings(resume)
    check_type("limits", limits, Limits, "a trio_rpc.Limits")
    check_type("server_limits", server_limits, ServerLimits, "a trio_rpc.ServerLimits")
    async with listening(
        urls,
        ssl_context=ssl_context,
        allowed_origins=allowed_origins,
        limits=limits,
        resume=resumption,
    ) as listeners:
        server = CarrierServer(
            listeners,
            functools.partial(_forward, routes, limits),
            label="forwarding",
            complaints=RateLimitedLog(logger),
            limits=limits,
            resume=resumption,
            clients=Clients(server_limits.max_handshakes, server_limits.accept_rate),
        )
        with one_exception():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.accept, trio.CancelScope(), nursery)
                task_status.started([listener.url for listener in listeners])


async def _forward(
    routes: Mapping[str, ChannelHandler],
    limits: Limits,
    carrier: trio.abc.Channel[bytes],
    client: Client,
) -> None:
    client.finish()  # a forwarding has no handshake of its own
    async with open_forwarding(carrier, routes, limits=limits) as forwarding:
        await forwarding.wait_closed()

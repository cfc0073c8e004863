"""The channel of a client or a server at URLs: one connection, or a resumable channel over several.

A client calls :func:`open_carrier`. A server calls :func:`listening`, and runs a
:class:`CarrierServer`. Sessions and forwarding both run over such channels.
"""

from __future__ import annotations

import functools
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol, TypeAlias

import trio

from trio_rpc.channels.clients import Client, Clients, address_of
from trio_rpc.channels.connection import Connection, close_forcefully
from trio_rpc.channels.opening import open_listeners
from trio_rpc.channels.resumable.channel import ResumableChannel
from trio_rpc.channels.resumable.client import open_resumable
from trio_rpc.channels.resumable.replay import carrier_limits
from trio_rpc.channels.resumable.server import ResumableSessions
from trio_rpc.channels.resumable.settings import Resume
from trio_rpc.channels.urls import parse_url
from trio_rpc.errors import Refused, RemoteProtocolError, SessionBroken, SessionClosed
from trio_rpc.util.option_checks import check_type
from trio_rpc.util.raised import text_of
from trio_rpc.util.rate_limited_log import RateLimitedLog
from trio_rpc.util.text import one_line
from trio_rpc.wire.limits import Limits

__all__ = [
    "CarrierServer",
    "Listener",
    "OpenChannel",
    "carrying",
    "context_for",
    "listening",
    "open_carrier",
    "resume_settings",
]


ServeChannel: TypeAlias = Callable[[trio.abc.Channel[bytes], Client], Awaitable[None]]
"""Serves a channel until it ends, and says when the client's handshake is finished."""


def resume_settings(resume: bool | Resume) -> Resume | None:  # noqa: FBT001 - a user's argument
    """Return the settings that the argument ``resume`` of a public function stands for.

    Raises TypeError for an argument of another type.
    """
    check_type("resume", resume, bool | Resume | None, "True, False or a trio_rpc.Resume")
    return (Resume() if resume is True else resume) or None


class OpenChannel(Protocol):
    """Opens a channel to a server that was chosen before, each time that it is called."""

    def __call__(
        self, *, ssl_context: ssl.SSLContext | None, limits: Limits
    ) -> AbstractAsyncContextManager[trio.abc.Channel[bytes]]:
        """Open a channel, and own it for a block: see :func:`open_channel`."""


class Listener(Protocol):
    """Accepts clients; a :class:`ChannelListener` of a socket, or another one."""

    @property
    def url(self) -> str:
        """The URL where it listens."""

    async def accept(self) -> Connection:
        """Wait for a client. Raises trio.ClosedResourceError once this listener is closed."""

    async def aclose(self) -> None:
        """Stop listening. Accepted connections stay open."""


def open_carrier(
    open_channel: OpenChannel,
    *,
    ssl_context: ssl.SSLContext | None,
    limits: Limits,
    resume: Resume | None,
) -> AbstractAsyncContextManager[trio.abc.Channel[bytes]]:
    """Connect to a server, and own the channel for a block.

    Args:
        open_channel: opens a channel to the server.
        ssl_context: as in :func:`open_channel`.
        limits: the limits of the channel's user.
        resume: settings of a channel that reconnects, or None.

    Raises:
        Exception: the same errors as :func:`open_channel` and :func:`open_resumable`.
    """
    if resume is None:
        return open_channel(ssl_context=ssl_context, limits=limits)
    reconnect = functools.partial(
        open_channel, ssl_context=ssl_context, limits=carrier_limits(limits)
    )
    return open_resumable(reconnect, resume, handshake_timeout=limits.handshake_timeout)


def carrying(limits: Limits, resume: Resume | None) -> Limits:
    """Return the limits of the channels that carry those of the user."""
    return limits if resume is None else carrier_limits(limits)


@asynccontextmanager
async def listening(
    urls: Sequence[str],
    *,
    ssl_context: ssl.SSLContext | None,
    allowed_origins: Collection[str] | None,
    limits: Limits,
    resume: Resume | None,
) -> AsyncIterator[list[Listener]]:
    """Listen at URLs for a block.

    Args:
        urls: at least one.
        ssl_context: as in :func:`open_listeners`.
        allowed_origins: as in :func:`open_listeners`.
        limits: the limits of the user of the channels.
        resume: settings of channels that clients may resume, or None.

    Raises:
        ValueError: no URL is given, or a URL or an origin is bad, or an ``ssl_context`` is given
            though no URL is encrypted.
        OSError: an address cannot be bound.
    """
    if not urls:
        raise ValueError("a server needs a URL to listen at, such as tcp://127.0.0.1:0")
    limits = carrying(limits, resume)
    listeners: list[Listener] = []
    try:
        for url in urls:
            listeners += await open_listeners(
                url,
                ssl_context=context_for(url, urls, ssl_context),
                limits=limits,
                allowed_origins=allowed_origins,
            )
        yield listeners
    finally:
        with trio.CancelScope(shield=True):
            await _close_all(listeners)


def context_for(
    url: str, urls: Iterable[str], ssl_context: ssl.SSLContext | None
) -> ssl.SSLContext | None:
    """Return the context for one of a server's URLs; None for a plain URL beside encrypted ones.

    If no URL is encrypted, the context stays, and :func:`open_listeners` refuses it.

    Raises:
        ValueError: a URL is bad.
    """
    is_for_others = any(parse_url(each).is_encrypted for each in urls)
    return None if is_for_others and not parse_url(url).is_encrypted else ssl_context


class CarrierServer:
    """Accepts clients, and serves the channel of each in a task of its own.

    An error of one client is logged, and ends no other client (law 14).

    Args:
        listeners: accept connections.
        serve: serves a channel.
        label: the noun for a served channel in the log, such as "session".
        complaints: logs errors of clients.
        limits: for ``handshake_timeout`` and ``shutdown_timeout``.
        resume: settings of channels that clients may resume, or None.
        clients: bounds the unfinished handshakes.
    """

    def __init__(
        self,
        listeners: Sequence[Listener],
        serve: ServeChannel,
        *,
        label: str,
        complaints: RateLimitedLog,
        limits: Limits,
        resume: Resume | None,
        clients: Clients,
    ) -> None:
        self._listeners = listeners
        self._clients = clients
        self._serve = serve
        self._label = label
        self._complaints = complaints
        self._resumable: ResumableSessions | None = None
        if resume is not None:
            self._resumable = ResumableSessions(
                resume,
                handshake_timeout=limits.handshake_timeout,
                shutdown_timeout=limits.shutdown_timeout,
            )

    async def accept(self, accepting: trio.CancelScope, nursery: trio.Nursery) -> None:
        """Accept clients until ``accepting`` is cancelled, then close the listeners.

        Args:
            accepting: a scope that nothing else uses.
            nursery: runs the tasks of the clients.
        """
        with accepting:
            async with trio.open_nursery() as acceptors:
                for listener in self._listeners:
                    acceptors.start_soon(self._accept, listener, nursery)
        await _close_all(self._listeners)

    async def _accept(self, listener: Listener, nursery: trio.Nursery) -> None:
        while True:
            await self._clients.pace()
            connection = await listener.accept()
            nursery.start_soon(self._connected, connection, nursery)

    async def _connected(self, connection: Connection, nursery: trio.Nursery) -> None:
        """Own a connection: as a channel, or as one of the connections of a resumable channel."""
        name = connection.name
        client = self._clients.add(name, address_of(connection.host), connection.give_up)
        try:
            async with connection.prepared() as carrier:
                if self._resumable is None:
                    await self._serve(carrier, client)
                else:
                    await self._carry(carrier, client, self._resumable, nursery)
        except Exception as exc:  # noqa: BLE001 - the error of one client ends no other (law 14)
            self._log(exc, name)
        finally:
            client.finish()

    async def _carry(
        self,
        carrier: trio.abc.Channel[bytes],
        client: Client,
        sessions: ResumableSessions,
        nursery: trio.Nursery,
    ) -> None:
        scope = trio.CancelScope()
        client.give_up = functools.partial(scope.cancel, reason="newer clients need its place")
        arrival = await sessions.receive(carrier, scope)
        if not isinstance(arrival.channel, ResumableChannel):
            await self._serve(arrival.channel, client)
            return
        if arrival.is_new:
            nursery.start_soon(self._serve_resumable, arrival.channel, client, sessions)
        else:
            client.finish()
        # The session, which is cancelled with the server, still has a Goodbye to send over this
        # carrier, and closes it afterwards.
        with trio.CancelScope(shield=True):
            await arrival.channel.accept(carrier, arrival.received)

    async def _serve_resumable(
        self, channel: ResumableChannel, client: Client, sessions: ResumableSessions
    ) -> None:
        try:
            try:
                async with sessions.own(channel):
                    await self._serve(channel, client)
            finally:
                await close_forcefully(channel)
        except Exception as exc:  # noqa: BLE001 - the error of one client ends no other (law 14)
            self._log(exc, client.name)

    def _log(self, exc: Exception, name: str) -> None:
        """Log the error of one client, which ends no other client."""
        if isinstance(exc, OSError):
            text = "the connection of %s did not become a %s: %s"
            self._complaints.log(logging.INFO, text, name, self._label, exc)
        elif isinstance(exc, Refused | RemoteProtocolError | SessionBroken | SessionClosed):
            text = "the %s with %s was not opened: %s"
            # A text of the application may contain data of its client.
            why = one_line(text_of(exc))
            self._complaints.log(logging.INFO, text, self._label, name, why)
        else:
            text = "the %s with %s failed"
            self._complaints.log(logging.ERROR, text, self._label, name, exc_info=exc)


async def _close_all(listeners: Sequence[Listener]) -> None:
    for listener in listeners:
        await listener.aclose()

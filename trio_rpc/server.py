"""The entry points of a server, which open a session for each client that connects."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import random
import ssl
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from dataclasses import asdict
from typing import Final, Unpack
from weakref import WeakSet

import trio

from trio_rpc.channels import Resume
from trio_rpc.channels.carriers import CarrierServer, Listener, resume_settings
from trio_rpc.channels.clients import Client, Clients
from trio_rpc.errors import Refused, SessionClosed
from trio_rpc.nats.any_url import listen_at
from trio_rpc.nats.nats_options import NatsOptions
from trio_rpc.session.calls.context import handled_call
from trio_rpc.session.core import Core
from trio_rpc.session.draining import announce
from trio_rpc.session.end import check_reason
from trio_rpc.session.held_services import held_services
from trio_rpc.session.inspection import (
    Inspected,
    InspectedSession,
    ScopeNode,
    ServerStatistics,
    cancel_handler,
)
from trio_rpc.session.live_services import MakeServices
from trio_rpc.session.opening import make_session, make_shared_tables, run_in_this_task
from trio_rpc.session.options import Options, SessionOptions, check_options, make_options
from trio_rpc.session.session import Session
from trio_rpc.session.session_events import SessionEvent, SessionEvents
from trio_rpc.session.session_places import SessionPlaces
from trio_rpc.session.shared import Shared
from trio_rpc.session.watch import Watchman
from trio_rpc.util.numbers import check_not_negative
from trio_rpc.util.one_exception import one_exception
from trio_rpc.util.option_checks import check_type
from trio_rpc.util.owner import Owner
from trio_rpc.util.rate_limited_log import RateLimitedLog
from trio_rpc.wire.limits import DEFAULT_SERVER_LIMITS, ServerLimits

__all__ = ["Server", "open_server", "serve"]

logger = logging.getLogger("trio_rpc")

ANNOUNCING: Final = 1.0
"""Seconds in which clients may read that the server drains, before it says Goodbye."""


class Server:
    """Listeners and the sessions of their clients; made by :func:`open_server`.

    Attributes:
        urls: the bound addresses, with the ports that the system has chosen.
        sessions: the sessions that are open now.
    """

    def __init__(
        self,
        listeners: list[Listener],
        tables: MakeServices,
        options: Options,
        resume: Resume | None,
        limits: ServerLimits = DEFAULT_SERVER_LIMITS,
        *,
        max_session_age: float = math.inf,
    ) -> None:
        self.urls = [listener.url for listener in listeners]
        self.sessions: set[Session] = set()
        self._cores: dict[Session, Core] = {}
        self._opening: set[Core] = set()
        self._max_age = max_session_age
        self._tables = tables
        self._options = options
        self._limits = limits
        self._shared = Shared(limits)
        self._clients = Clients(limits.max_handshakes, limits.accept_rate)
        self._places = SessionPlaces(limits, self._clients)
        self._carriers = CarrierServer(
            listeners,
            self._serve,
            label="session",
            complaints=self._shared.complaints,
            limits=options.limits,
            resume=resume,
            clients=self._clients,
        )
        self._owner = Owner("this server")
        self._watchman = Watchman()
        self._accepting = trio.CancelScope()
        self._drain_reason = ""
        self._readers: WeakSet[SessionEvents] = WeakSet()
        """The iterators over the events of the sessions, while references to them exist."""
        self._is_over = False

    def __repr__(self) -> str:
        return f"<trio_rpc.Server at {', '.join(self.urls)}, {len(self.sessions)} sessions>"

    async def drain(
        self, *, reason: str = "the server is shutting down", grace: float | None = None
    ) -> None:
        """Stop listening, say Goodbye on all sessions, and wait for the in-flight calls.

        Before the Goodbye, each client is told that this server drains, and has a second at most to
        read that. So a client that has another instance, such as a pool, makes its calls there, and
        none of them crosses the Goodbye.

        A client that has been accepted may already be calling, so its session opens first, even if
        the client has not finished the handshake. A client that has not been accepted yet is
        refused: it gets SessionBroken, which is ``orderly``.

        If cancelled, all sessions end at once.

        Args:
            reason: why, for people; the clients get it, as :meth:`Session.aclose` says.
            grace: seconds that in-flight calls get to finish; ``limits.close_grace`` by default.

        Raises:
            TypeError: ``reason`` is not a str, or ``grace`` is not a number.
            ValueError: ``grace`` is negative. In both cases the server goes on.
        """
        self._owner.check()
        check_reason(reason)
        if grace is not None:
            check_not_negative("grace", grace)
        self._drain_reason = reason
        self._accepting.cancel(reason="the server is draining")
        await trio.lowlevel.checkpoint()
        try:
            await self._announce(self._options.limits.close_grace if grace is None else grace)
        finally:  # a cancellation ends the sessions at once
            async with trio.open_nursery() as nursery:
                for session in tuple(self.sessions):
                    close = functools.partial(session.aclose, reason=reason, grace=grace)
                    nursery.start_soon(close)
                for core in tuple(self._opening):
                    core.lifecycle.end_unwelcomed(SessionClosed(reason))
                    nursery.start_soon(
                        functools.partial(core.lifecycle.aclose, reason=reason, grace=grace)
                    )

    async def _announce(self, grace: float) -> None:
        """Tell the clients that this server drains, and let them read that."""
        with trio.move_on_after(min(ANNOUNCING, grace)):
            async with trio.open_nursery() as nursery:
                for session, core in tuple(self._cores.items()):
                    nursery.start_soon(announce, core, session)

    def statistics(self) -> ServerStatistics:
        """Return the numbers of sessions, handshakes and refusals, and the size of the queues.

        Example:
            >>> def is_busy(server: trio_rpc.Server) -> bool:
            ...     return server.statistics().sessions_refused > 0
        """
        return ServerStatistics(
            sessions=len(self.sessions),
            opening=len(self._clients),
            sessions_refused=self._places.refused,
            handshakes_given_up=self._clients.given_up,
            handlers=self._shared.load.running,
            calls_queued=self._shared.load.queued,
            calls_refused=self._shared.load.refused,
            calls_too_late=self._shared.load.late,
            bytes_unsent=self._shared.unsent.size,
        )

    def inspect(self) -> Inspected:
        """Return the figures, and the sessions with their calls, for an Introspection.

        :meta private:
        """
        return Inspected(asdict(self.statistics()), self._inspected())

    def _inspected(self) -> Iterator[InspectedSession]:
        for session, core in tuple(self._cores.items()):
            if not core.lifecycle.is_over:  # it may have ended since the iteration began
                yield InspectedSession(
                    session,
                    session.name,
                    functools.partial(_tree_without_this_call, session),
                    functools.partial(cancel_handler, core.incoming),
                )

    def session_events(self) -> AsyncIterator[SessionEvent]:
        """Iterate over the sessions: all open ones, then each session that opens or is over.

        The iteration ends with the server. A slow reader misses sessions that have opened and ended
        before it reads, but gets the end of each session whose opening it has read.

        Example:
            >>> async def show(server: trio_rpc.Server) -> None:
            ...     async for event in server.session_events():
            ...         print(event.session.name, event.kind, event.end and event.end.reason)
        """
        self._owner.check()
        reader = SessionEvents(self.sessions, is_over=self._is_over)
        self._readers.add(reader)
        return reader

    def _end(self) -> None:
        """End the iterations, since all sessions are over."""
        self._is_over = True
        self._tell(SessionEvents.server_is_over)

    def _tell(self, event: Callable[[SessionEvents], None]) -> None:
        """Pass an event to the iterators over the events of the sessions."""
        if self._readers:  # most servers have none, and iterating over weak references takes longer
            for reader in self._readers:
                event(reader)

    def _give_up(self, core: Core) -> None:
        """End the handshake of a session, whose place a newer client needs."""
        text = "its handshake was not finished when newer clients needed its place"
        core.lifecycle.end_unopened(Refused(text, retry_after=self._limits.retry_after))

    @contextlib.asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        """Accept clients, and own their sessions, while the block lasts."""
        with one_exception() as body:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._run, nursery)
                try:
                    yield
                except BaseException as exc:
                    body.append(exc)
                    raise
                nursery.cancel_scope.cancel(reason="the server is closing")

    async def _run(self, nursery: trio.Nursery) -> None:
        """Accept clients until :meth:`drain`; their sessions run in ``nursery``."""
        nursery.start_soon(self._watchman.run, name="trio_rpc watch")
        await self._carriers.accept(self._accepting, nursery)

    async def _serve(self, channel: trio.abc.Channel[bytes], client: Client) -> None:
        core = Core(channel, self._tables, self._options, client.name, self._shared)
        session = make_session(core)
        refusal = self._places.take(client)
        core.lifecycle.when_open = functools.partial(self._opened, core, session, client)
        self._opening.add(core)
        client.give_up = functools.partial(self._give_up, core)
        if refusal is not None:
            core.lifecycle.end_unwelcomed(refusal)
        elif self._accepting.cancel_called:  # it connected just before drain() began
            core.lifecycle.end_unwelcomed(SessionClosed(self._drain_reason))
        try:
            if self._max_age < math.inf:
                await self._run_until_old(core, session)
            else:
                await run_in_this_task(core, self._watchman)
        finally:
            self._opening.discard(core)
            if refusal is None:
                self._places.leave(client)
            if session in self.sessions:
                self.sessions.discard(session)
                del self._cores[session]
                self._closed(core, session)

    def _opened(self, core: Core, session: Session, client: Client) -> None:
        self._places.opened(client)
        self._opening.discard(core)
        self.sessions.add(session)
        self._cores[session] = core
        self._tell(lambda reader: reader.opened(session))

    def _closed(self, core: Core, session: Session) -> None:
        self._tell(lambda reader: reader.closed(session, core.lifecycle.record()))

    async def _run_until_old(self, core: Core, session: Session) -> None:
        """Run a session, and drain it when it is old."""

        async def drain() -> None:
            age = self._max_age * random.uniform(0.9, 1.1)  # noqa: S311 - it is not a secret
            await trio.sleep(age)
            with trio.move_on_after(ANNOUNCING):
                await announce(core, session)
            await session.aclose(reason="the session has reached its age", grace=math.inf)

        with one_exception():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(drain)
                await run_in_this_task(core, self._watchman)
                nursery.cancel_scope.cancel(reason="the session is over")


@contextlib.asynccontextmanager
async def open_server(
    services: object,
    *urls: str,
    ssl_context: ssl.SSLContext | None = None,
    allowed_origins: Collection[str] | None = None,
    resume: bool | Resume = False,
    server_limits: ServerLimits = DEFAULT_SERVER_LIMITS,
    nats: NatsOptions | None = None,
    max_session_age: float = math.inf,
    **options: Unpack[SessionOptions],
) -> AsyncIterator[Server]:
    """Listen at ``urls`` and serve for the duration of a block.

    Leaving the block ends all sessions at once.

    Args:
        services: the services that clients may call, as in :func:`open_session`. Async
            context managers that all sessions share are entered before the server listens, and left
            when all sessions are over.
        *urls: ``tcp://host:port`` (port 0: any free port), ``tls://host:port``,
            ``unix:///path``, ``ws://host:port/path``, ``wss://host:port/path``,
            ``nats://host,host/service`` or ``nats://host,host/service/instance``.
        ssl_context: the context with the server's certificate, for the URLs with ``tls`` or
            ``wss``.
        allowed_origins: for ``ws`` and ``wss``: the origins of pages whose scripts may connect,
            each in the form that a browser sends, ``https://example.org``. By default, pages that
            were loaded from the same host and port. Programs other than browsers send no origin,
            and are accepted.
        resume: allow clients that ask for it to resume their session after a lost connection.
            True means the defaults of :class:`Resume`.
        server_limits: the bounds for all sessions together.
        nats: settings for ``nats``: credentials, and when a client counts as gone.
        max_session_age: seconds after which a session is drained, more or less by up to a tenth.
            Its calls in flight may end. Pools open another session, so that load evens out after
            instances were added behind one address.
        **options: as in :func:`open_session`, for each session.

    Raises:
        ValueError: no URL is given, or a URL is not one of these; or ``max_session_age``
            is not positive.
        OSError: an address cannot be bound.
        TypeError: an option does not exist, or ``services`` has an object that is not a service.

    Example:
        >>> async def main(services: object, stop: trio.Event) -> None:
        ...     async with trio_rpc.open_server(services, "tcp://127.0.0.1:5000") as server:
        ...         await stop.wait()
        ...         await server.drain(grace=30)  # no new calls; running ones get 30 seconds
    """
    chosen = make_options(open_server, options)
    _check_age(max_session_age)
    tables, shared_services = make_shared_tables(services, chosen.registry)
    resumption = resume_settings(resume)
    check_type("server_limits", server_limits, ServerLimits, "a trio_rpc.ServerLimits")
    patience, complaints = chosen.limits.shutdown_timeout, RateLimitedLog(logger)
    async with (
        held_services(shared_services, patience, complaints),
        listen_at(
            urls,
            ssl_context=ssl_context,
            allowed_origins=allowed_origins,
            limits=chosen.limits,
            resume=resumption,
            options=nats,
        ) as listeners,
    ):
        server = Server(
            listeners,
            tables,
            chosen,
            resumption,
            server_limits,
            max_session_age=max_session_age,
        )
        try:
            async with server._running():  # noqa: SLF001 - only run here
                yield server
        finally:
            server._end()  # noqa: SLF001 - and ended here


async def serve(
    services: object,
    *urls: str,
    ssl_context: ssl.SSLContext | None = None,
    allowed_origins: Collection[str] | None = None,
    resume: bool | Resume = False,
    server_limits: ServerLimits = DEFAULT_SERVER_LIMITS,
    nats: NatsOptions | None = None,
    max_session_age: float = math.inf,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
    **options: Unpack[SessionOptions],
) -> None:
    """Serve at ``urls`` until cancelled, which ends all sessions at once.

    For a graceful end, use :func:`open_server` and :meth:`Server.drain`.

    Args:
        services: the services that clients may call, as in :func:`open_session`.
        *urls: as in :func:`open_server`.
        ssl_context: as in :func:`open_server`.
        allowed_origins: as in :func:`open_server`.
        resume: as in :func:`open_server`.
        server_limits: as in :func:`open_server`.
        nats: as in :func:`open_server`.
        max_session_age: seconds, as in :func:`open_server`.
        task_status: gets the bound addresses once clients can connect.
        **options: as in :func:`open_session`, for each session.

    Raises:
        Exception: the same errors as :func:`open_server`.

    Example:
        >>> class Clock:
        ...     @trio_rpc.method
        ...     async def now(self) -> float:
        ...         return 12.5
        >>> async def main() -> None:
        ...     async with trio.open_nursery() as nursery:
        ...         urls = await nursery.start(trio_rpc.serve, Clock(), "tcp://127.0.0.1:0")
        ...         async with trio_rpc.connect(urls[0]) as session:
        ...             print(await session.proxy("", Clock).now())
        ...         nursery.cancel_scope.cancel()
        >>> trio.run(main)
        12.5
    """
    check_options(serve, options)
    async with open_server(
        services,
        *urls,
        ssl_context=ssl_context,
        allowed_origins=allowed_origins,
        resume=resume,
        server_limits=server_limits,
        nats=nats,
        max_session_age=max_session_age,
        **options,
    ) as server:
        task_status.started(server.urls)
        await trio.sleep_forever()


def _tree_without_this_call(session: Session) -> list[ScopeNode]:
    own = handled_call.get()
    number = None if own is None or own.session is not session else own.id
    return [node for node in session.tree() if node.direction == "out" or node.id != number]


def _check_age(max_session_age: object) -> None:
    check_not_negative("max_session_age", max_session_age)
    if max_session_age == 0:
        raise ValueError("max_session_age must be positive")

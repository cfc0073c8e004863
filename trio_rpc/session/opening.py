"""Sessions over a channel that is there already."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator
from typing import Any

import trio

from trio_rpc.channels.one_exception import one_exception
from trio_rpc.services.introspection import with_introspection
from trio_rpc.services.tables import Table, build_table, is_per_session, resolve
from trio_rpc.session.core import Core, Options, Tables
from trio_rpc.session.driver import run, start
from trio_rpc.session.scopes import SCOPE, scope_method
from trio_rpc.session.session import Session

__all__ = [
    "make_session",
    "make_tables",
    "open_session",
    "run_in_this_task",
    "run_session",
    "serve_session",
]


@contextlib.asynccontextmanager
async def open_session(
    channel: trio.abc.Channel[bytes], services: object = None, *, name: str = "", **options: Any
) -> AsyncIterator[Session]:
    """Open a session over ``channel``, and own it until the block is left.

    Leaving the block closes the session gracefully, as :meth:`Session.aclose` does; leaving it by an
    exception or a cancellation closes it at once. Either way no task, call or handler of the session is
    left when the block is over (law 6).

    Args:
        channel: a fresh channel of whole packets, which the session then owns.
        services: what the other end may call: a mapping of names to objects, one object (the service ""),
            a function of the new session that returns either, or None.
        name: what the other end is called in logs and errors.
        **options: the fields of :class:`trio_rpc.Options`: ``limits``, ``registry``, ``filters``,
            ``credentials``, ``authenticate``, ``error_detail``.

    Raises:
        Refused: the other end would not open the session, or this one would not.
        RemoteProtocolError: the other end does not speak the protocol.
        SessionBroken: the connection was lost before the session was open.
        TypeError: an option or a service is not one.
        ValueError: likewise.
    """
    core = Core(channel, make_tables(services), Options(**options), name or repr(channel))
    async with run_session(core) as session:
        yield session


async def serve_session(
    channel: trio.abc.Channel[bytes], services: object = None, *, name: str = "", **options: Any
) -> None:
    """Open a session over ``channel`` and serve until it is over; arguments as :func:`open_session`.

    Raises:
        Refused: this end would not open the session, or the other one.
        RemoteProtocolError: the other end does not speak the protocol.
        SessionBroken: the connection was lost before the session was open.
    """
    async with open_session(channel, services, name=name, **options) as session:
        await session.wait_closed()


def make_tables(services: object) -> Tables:
    """Return the function that makes the method table of each session.

    One table serves all sessions unless ``services`` is a function of the session.
    """
    if services is None:
        return _nothing
    if not is_per_session(services):
        table = _complete(services)
        return lambda _session: table
    return lambda session: _complete(resolve(services, session))


def _nothing(_session: object) -> Table:
    return _table_of_nothing()


@functools.cache
def _table_of_nothing() -> Table:
    return _complete(None)


def _complete(services: object) -> Table:
    """Make the table of services, and of what every session can do besides."""
    return {**with_introspection(build_table(services)), SCOPE: scope_method()}


def make_session(core: Core) -> Session:
    """Make what users see of a session."""
    session = core.incoming.session = core.outgoing.session = Session(core)
    return session


@contextlib.asynccontextmanager
async def run_session(core: Core, *, wait_until_open: bool = True) -> AsyncIterator[Session]:
    """Run a session while the block lasts; entered when it is open, or at once."""
    session = make_session(core)
    with one_exception() as body:
        async with trio.open_nursery() as nursery:
            try:
                start(core, nursery)
                if wait_until_open:
                    await core.opened()
                yield session
            except BaseException as exc:
                body.append(exc)
                core.stop()
                raise
            core.leave()


async def run_in_this_task(core: Core) -> None:
    """Run a session until it is over; for a task that has nothing else to do meanwhile.

    Cancelled, it ends the session. Raises as :func:`open_session` does.
    """
    with one_exception():
        async with trio.open_nursery() as nursery:
            await run(core, nursery)
    if not core.life.was_open:
        raise core.life.opening_error()

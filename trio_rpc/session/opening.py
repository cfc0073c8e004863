"""Sessions over a channel that is there already."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import trio

from trio_rpc.services.tables import build_table, resolve
from trio_rpc.session.core import Core, Options, Tables
from trio_rpc.session.driver import run
from trio_rpc.session.session import Session

__all__ = ["make_tables", "open_session", "run_session", "serve_session"]


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
    if services is None or resolve(services, _NO_SESSION) is services:
        table = build_table(services)
        return lambda _session: table
    return lambda session: build_table(resolve(services, session))


@contextlib.asynccontextmanager
async def run_session(core: Core, *, wait_until_open: bool = True) -> AsyncIterator[Session]:
    """Run a session while the block lasts; entered when it is open, or at once."""
    session = core.incoming.session = Session(core)
    with _one_exception() as body:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, core, nursery, name="trio_rpc reader")
            try:
                if wait_until_open:
                    await core.opened()
                yield session
                await core.aclose()
            except BaseException as exc:
                body.append(exc)
                raise
            finally:
                core.stop()


@contextlib.contextmanager
def _one_exception() -> Iterator[list[BaseException]]:
    """Raise one exception where a nursery would raise a group of ours (law 16).

    The block's own exception (put into the list) is what its user expects. Only what no handler
    may raise without ending the program goes before it.
    """
    body: list[BaseException] = []
    try:
        yield body
    except BaseException as exc:  # noqa: BLE001 - one of its parts is raised again
        failure = _choose(exc, body)
    else:
        return
    raise failure


def _choose(exc: BaseException, body: list[BaseException]) -> BaseException:
    leaves = list(_leaves(exc, body))
    fatal = [leaf for leaf in leaves if leaf not in body and not _is_cancelled(leaf)]
    return next(iter(fatal + body + leaves))


def _leaves(exc: BaseException, body: list[BaseException]) -> Iterator[BaseException]:
    if isinstance(exc, BaseExceptionGroup) and exc not in body:
        for each in exc.exceptions:
            yield from _leaves(each, body)
    else:
        yield exc


def _is_cancelled(exc: BaseException) -> bool:
    return isinstance(exc, trio.Cancelled)


_NO_SESSION: Any = None

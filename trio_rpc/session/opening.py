"""Sessions over a channel that is there already."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Iterator
from typing import Literal, TypeAlias, Unpack

import trio

from trio_rpc.errors import Fate
from trio_rpc.services.introspection import with_introspection
from trio_rpc.services.tables import Table, build_table, is_per_session, resolve
from trio_rpc.session.core import Core, Tables
from trio_rpc.session.driver import run, start
from trio_rpc.session.options import Options, SessionOptions
from trio_rpc.session.session import Session
from trio_rpc.session.streams.scopes import SCOPE, scope_method
from trio_rpc.util.one_exception import one_exception
from trio_rpc.util.places import catching

__all__ = [
    "OnEnd",
    "cancelled_at_end",
    "check_on_end",
    "make_session",
    "make_tables",
    "open_session",
    "run_in_this_task",
    "run_session",
    "serve_session",
]


OnEnd: TypeAlias = Literal["cancel", "keep"]


@contextlib.asynccontextmanager
async def open_session(
    channel: trio.abc.Channel[bytes],
    services: object = None,
    *,
    name: str = "",
    on_end: OnEnd = "cancel",
    **options: Unpack[SessionOptions],
) -> AsyncIterator[Session]:
    """Open a session over ``channel``, and own it until the block is left.

    Leaving the block closes the session gracefully, as :meth:`Session.aclose` does; leaving it by an
    exception or a cancellation closes it at once. Either way no task, call or handler of the session is
    left when the block is over (law 6).

    When the session ends and this end has not closed it, the block's body is cancelled, and the block raises
    SessionBroken (law 17), unless the body raises something of its own, such as the error of a call.

    Args:
        channel: a fresh channel of whole packets, which the session then owns.
        services: what the other end may call: a mapping of names to objects, one object (the service ""),
            a function of the new session that returns either, or None.
        name: what the other end is called in logs and errors.
        on_end: ``"keep"`` leaves the body alone when the session ends; calls still raise, and
            :meth:`Session.wait_closed` still returns.
        **options: see :class:`trio_rpc.Options`.

    Raises:
        Refused: the other end would not open the session, or this one would not.
        RemoteProtocolError: the other end does not speak the protocol.
        SessionBroken: the connection was lost before the session was open; or, while the body was running, the
            other end or the network ended the session.
        TypeError: an option or a service is not one.
        ValueError: likewise.
    """
    check_on_end(on_end)
    core = Core(channel, make_tables(services), Options(**options), name or repr(channel))
    async with run_session(core, on_end=on_end) as session:
        yield session


async def serve_session(
    channel: trio.abc.Channel[bytes],
    services: object = None,
    *,
    name: str = "",
    **options: Unpack[SessionOptions],
) -> None:
    """Open a session over ``channel`` and serve until it is over; arguments as :func:`open_session`.

    Raises:
        Refused: this end would not open the session, or the other one.
        RemoteProtocolError: the other end does not speak the protocol.
        SessionBroken: the connection was lost before the session was open.
    """
    core = Core(channel, make_tables(services), Options(**options), name or repr(channel))
    async with run_session(core, on_end="keep") as session:
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
    session = core.incoming.session = core.outgoing.session = Session(core, core.options.filters)
    return session


def check_on_end(on_end: object) -> None:
    """Raise ValueError unless ``on_end`` says what is to become of a block whose session ends."""
    if on_end not in ("cancel", "keep"):
        raise ValueError(f'on_end must be "cancel" or "keep", not {on_end!r:.200}')


@contextlib.contextmanager
def cancelled_at_end(*cores: Core) -> Iterator[None]:
    """Cancel the block when one of these sessions has ended and this program has closed none of them (law 17).

    The block then raises SessionBroken. What it raises by itself, and a cancellation from outside, go before that; a
    block that is over by then raises nothing.
    """
    body = trio.CancelScope()

    def ended() -> None:
        if not any(core.lifecycle.stage.is_closed_by_us for core in cores):
            body.cancel(reason="the session of this block is over")

    for core in cores:
        core.lifecycle.when_closed = ended
    try:
        if any(core.lifecycle.closed.is_set() for core in cores):
            ended()
        with catching(body):
            yield
    finally:
        for core in cores:
            core.lifecycle.when_closed = None
    if body.cancelled_caught:
        error = next(
            core.lifecycle.error(Fate.UNKNOWN) for core in cores if core.lifecycle.closed.is_set()
        )
        try:
            raise error from error.__cause__  # and not from the Cancelled, which was ours
        finally:
            del error  # its traceback holds this frame


@contextlib.asynccontextmanager
async def run_session(
    core: Core, *, on_end: OnEnd, wait_until_open: bool = True
) -> AsyncIterator[Session]:
    """Run a session while the block lasts; entered when it is open, or at once."""
    session = make_session(core)
    with one_exception() as body:
        async with trio.open_nursery() as nursery:
            try:
                start(core, nursery)
                if wait_until_open:
                    await core.opened()
                with cancelled_at_end(core) if on_end == "cancel" else contextlib.nullcontext():
                    yield session
            except BaseException as exc:
                body.append(exc)
                core.lifecycle.stop()
                raise
            core.lifecycle.leave()


async def run_in_this_task(core: Core) -> None:
    """Run a session until it is over; for a task that has nothing else to do meanwhile.

    Cancelled, it ends the session. Raises as :func:`open_session` does.
    """
    with one_exception():
        async with trio.open_nursery() as nursery:
            await run(core, nursery)
    if not core.lifecycle.stage.was_open:
        raise core.lifecycle.opening_error()

"""Open and serve sessions over an existing channel."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Literal, TypeAlias, Unpack

import trio

from trio_rpc.errors import Fate
from trio_rpc.services.registration import Services
from trio_rpc.services.tables import check_maker, is_per_session, resolve
from trio_rpc.session.core import Core
from trio_rpc.session.driver import run, start
from trio_rpc.session.live_services import MakeServices
from trio_rpc.session.options import SessionOptions, make_options
from trio_rpc.session.session import Session
from trio_rpc.session.streams.scopes import SCOPE, scope_method
from trio_rpc.session.watch import Watchman
from trio_rpc.util.one_exception import one_exception, raise_one
from trio_rpc.util.places import catching
from trio_rpc.wire.registry import TypeRegistry

__all__ = [
    "OnEnd",
    "cancelled_at_end",
    "check_on_end",
    "make_session",
    "make_shared_tables",
    "make_tables",
    "open_session",
    "run_in_this_task",
    "run_session",
    "serve_session",
]


OnEnd: TypeAlias = Literal["cancel", "keep"]


@contextlib.asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def open_session(
    channel: trio.abc.Channel[bytes],
    services: object = None,
    *,
    name: str = "",
    on_end: OnEnd = "cancel",
    **options: Unpack[SessionOptions],
) -> AsyncIterator[Session]:
    """Open a session over ``channel``, and own it until the block is left.

    Leaving the block closes the session gracefully, as :meth:`Session.aclose` does. Leaving it by
    an exception or a cancellation closes it at once. In both cases no task, call or handler of the
    session remains after the block (law 6).

    If the session ends and this end has not closed it, the block's body is cancelled and the block
    raises SessionBroken (law 17), unless the body raises its own exception, such as a call's error.

    Args:
        channel: a fresh channel of whole packets; the session owns it from now on.
        services: the services for the other end: a mapping of names or identifiers to objects, one
            object (the service ""), a function of the new session that returns either, or None.
            Services that are async context managers are entered before the session opens, and left
            when it is over, after its handlers and before the block ends.
        name: the name of the other end in logs and errors.
        on_end: ``"keep"`` does not cancel the body when the session ends; calls still raise, and
            :meth:`Session.wait_closed` still returns.
        **options: see :class:`trio_rpc.Options`.

    Raises:
        Refused: one of the ends refused the session.
        RemoteProtocolError: the other end does not speak the protocol.
        SessionBroken: the connection was lost, or the other end left, before the session was open;
            or the other end or the network ended it while the body ran.
        TypeError: an option or a service has the wrong type.
        ValueError: an option or a service has an invalid value.
    """
    chosen = make_options(open_session, options)
    check_on_end(on_end)
    core = Core(channel, make_tables(services, chosen.registry), chosen, name or repr(channel))
    async with run_session(core, on_end=on_end) as session:
        yield session


async def serve_session(
    channel: trio.abc.Channel[bytes],
    services: object = None,
    *,
    name: str = "",
    **options: Unpack[SessionOptions],
) -> None:
    """Open a session over ``channel`` and serve until it ends.

    Args:
        channel: as in :func:`open_session`.
        services: the services for the other end, as in :func:`open_session`.
        name: the name of the other end in logs and errors.
        **options: as in :func:`open_session`.

    Raises:
        Refused: one of the ends refused the session.
        RemoteProtocolError: the other end does not speak the protocol.
        SessionBroken: the connection was lost, or the other end left, before the session was open.
        TypeError: an option or a service has the wrong type.
        ValueError: an option or a service has an invalid value.
    """
    chosen = make_options(serve_session, options)
    core = Core(channel, make_tables(services, chosen.registry), chosen, name or repr(channel))
    async with run_session(core, on_end="keep") as session:
        await session.wait_closed()


def make_tables(services: object, registry: TypeRegistry | None = None) -> MakeServices:
    """Return the function that makes the services of each session.

    All sessions have the same ones unless ``services`` is a function of the session.
    """
    none = _no_services(has_registry=bool(registry))
    if services is None:
        return lambda _session: none
    if not is_per_session(services):
        made = none.having(services)
        return lambda _session: made
    check_maker(services)  # type: ignore[arg-type]  # it is a function
    return lambda session: none.having(resolve(services, session))


def make_shared_tables(
    services: object, registry: TypeRegistry | None = None
) -> tuple[MakeServices, Sequence[object]]:
    """Return a maker of services for a server's sessions, and the services that the server enters.

    The server enters those async context managers that its sessions share.
    """
    if is_per_session(services):
        return make_tables(services, registry), ()
    made = _no_services(has_registry=bool(registry)).having(services)
    entered = made.entered()
    return lambda _session: entered, tuple(made.managers.values())


@functools.cache
def _no_services(*, has_registry: bool) -> Services:
    """Make the services of a session that has only the methods that every session has."""
    return Services({SCOPE: scope_method()}, has_registry=has_registry)


def make_session(core: Core) -> Session:
    """Make the Session object that users see."""
    session = core.parts.session(core, core.options.filters)
    core.incoming.session = core.outgoing.session = session
    return session


def check_on_end(on_end: object) -> None:
    """Raise ValueError unless ``on_end`` is ``"cancel"`` or ``"keep"``."""
    if on_end not in ("cancel", "keep"):
        raise ValueError(f'on_end must be "cancel" or "keep", not {on_end!r:.200}')


@contextlib.contextmanager
@trio.lowlevel.enable_ki_protection
def cancelled_at_end(*cores: Core) -> Iterator[None]:
    """Cancel the block if one of these sessions ends and this program has not closed any (law 17).

    The block then raises SessionBroken. Its own exception, or a cancellation from outside, takes
    precedence. A block that has already ended raises nothing.
    """
    body = trio.CancelScope()

    def ended() -> None:
        if not any(core.lifecycle.stage.is_closed_by_us for core in cores):
            body.cancel(reason="the session of this block is over")

    for core in cores:
        core.lifecycle.when_closed = ended
    try:
        if any(core.lifecycle.is_closed for core in cores):
            ended()
        with catching(body):
            yield
    finally:
        for core in cores:
            core.lifecycle.when_closed = None
    if body.cancelled_caught:
        error = next(
            core.lifecycle.error(Fate.UNKNOWN) for core in cores if core.lifecycle.is_closed
        )
        try:
            raise error from error.__cause__  # not from our own Cancelled
        finally:
            del error  # its traceback holds this frame


@contextlib.asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def run_session(
    core: Core, *, on_end: OnEnd, wait_until_open: bool = True
) -> AsyncIterator[Session]:
    """Run a session while the block lasts. The block is entered when it is open, or at once."""
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


async def run_in_this_task(core: Core, watchman: Watchman) -> None:
    """Run a session in this task until it ends.

    A cancellation ends the session. Raises as :func:`open_session` does.

    Args:
        core: a fresh session.
        watchman: looks after the sessions of a server.
    """
    try:
        async with trio.open_nursery() as nursery:
            await run(core, nursery, watchman)
    except BaseException as exc:  # noqa: BLE001 - of a group, one exception is raised
        raise_one(exc)
    if not core.lifecycle.stage.was_open:
        raise core.lifecycle.opening_error()

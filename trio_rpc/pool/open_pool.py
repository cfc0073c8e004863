"""Open a pool, and own its tasks and sessions for a block."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import Final, Unpack

import trio

from trio_rpc.channels import Resume
from trio_rpc.channels.carriers import resume_settings
from trio_rpc.errors import Refused, SessionBroken, Unavailable
from trio_rpc.nats.nats_options import NatsOptions
from trio_rpc.one_to_one.restart import Restart
from trio_rpc.pool.instances import Instances
from trio_rpc.pool.keeper import MAX_DELAY, Opener
from trio_rpc.pool.pool import Pool
from trio_rpc.pool.roster import Roster
from trio_rpc.pool.seats import Balancer
from trio_rpc.pool.sources import Source
from trio_rpc.pool.targets import Targets
from trio_rpc.session.held_services import held_services
from trio_rpc.session.live_services import MakeServices
from trio_rpc.session.opening import make_shared_tables
from trio_rpc.session.options import Options, SessionOptions, make_options
from trio_rpc.util.numbers import check_count, check_not_negative
from trio_rpc.util.one_exception import one_exception
from trio_rpc.util.option_checks import check_ssl_context, check_type
from trio_rpc.util.places import catching
from trio_rpc.util.rate_limited_log import RateLimitedLog

__all__ = ["open_pool", "open_roster"]

SUSPECT_AFTER: Final = 1.0
"""Seconds without an answer, while a call waits for it, after which others get the calls."""

logger = logging.getLogger("trio_rpc")


@contextlib.asynccontextmanager
async def open_pool(
    *where: str | Instances,
    services: object = None,
    patience: float = 30.0,
    budget: float = 100,
    max_waiting: int = 1024,
    restart: Restart = Restart(),  # noqa: B008 - it is frozen
    ssl_context: ssl.SSLContext | None = None,
    resume: bool | Resume = False,
    nats: NatsOptions | None = None,
    **options: Unpack[SessionOptions],
) -> AsyncIterator[Pool]:
    """Keep a session with each instance of a service, and share calls among them, for a block.

    The pool opens each session again whenever it is lost, after random pauses of at most 5 s. The
    block is entered when one instance is connected. So a pool of one URL is a client that waits for
    its server, and reconnects to it.

    For each call, the pool draws two random instances, and uses the one that has fewer of this
    pool's calls in flight. Instances that are leaving, or owe an answer and have been silent for a
    second, get calls only if there is no other. If an instance refuses a call that it has not
    begun, the call is made at another one, and its caller only notices the delay. One deadline
    holds for all attempts, and a cancellation cancels the current attempt. If it is unknown whether
    the handler ran, the error is raised, unless the proxy's interface declares the method with
    ``@method(idempotent=True)``. A stream, a duplex or a remote scope stays at the instance where
    it was opened.

    Leaving the block says Goodbye to all instances, as :func:`connect` does. Leaving it by an
    exception or a cancellation ends all sessions at once.

    Args:
        *where: the instances. URLs, as for :func:`connect`; ``dns+tcp://name:port`` or
            ``dns+tls://name:port`` for each address of a name, asked again every 30 s and when a
            session is lost; ``nats://host,host/service`` for each instance that NATS knows, asked
            again every 5 s; ``exec:`` and a command, for a program that calls
            :func:`serve_parent`; or an :class:`Instances`.
        services: the services that the instances may call, as in :func:`open_session`. Async
            context managers are entered once, before the first session opens.
        patience: seconds that a call waits in all while no instance takes it; also the seconds to
            wait for the first instance. ``math.inf`` for ever.
        budget: how many calls of idempotent methods may at first be made again after an unknown
            fate. Every ten calls that succeed allow one more, up to ten times this number.
        max_waiting: the number of calls that may wait for an instance.
        restart: how often each command is started again, and after which delays.
        ssl_context: as in :func:`connect`, for ``tls``, ``wss`` and ``nats``. For ``nats`` it is
            used with each instance, and to ask for them; it replaces the one of ``nats``.
        resume: as in :func:`connect`.
        nats: as in :func:`connect`.
        **options: as in :func:`open_session`, for each session. Filters run around each attempt.
            ``unresponsive_after`` is at most a second.

    Raises:
        ValueError: no instance is given, or a URL, a command or an option is invalid.
        TypeError: an argument or an option has the wrong type, or the option does not exist.
        Unavailable: no instance was connected within ``patience``, or none can be. The text says
            why.
        Refused: all instances refused the session, or the source of instances refused this
            program.
        SessionBroken: all processes have ended, and ``restart`` does not allow others.
        Exception: an error of an :class:`Instances` that another attempt cannot overcome.

    Example:
        >>> async def main() -> None:
        ...     async with trio_rpc.open_pool("tcp://10.0.0.1:5000", "tcp://10.0.0.2:5000") as pool:
        ...         print(await pool.call("market.price", "BTC"))
    """
    chosen = make_options(open_pool, options)
    _check_numbers(patience, budget, max_waiting)
    check_type("restart", restart, Restart, "a trio_rpc.Restart")
    check_type("nats", nats, NatsOptions | None, "a trio_rpc.nats.NatsOptions or None")
    check_ssl_context(ssl_context)
    targets = Targets(
        ssl_context=ssl_context,
        limits=chosen.limits,
        resume=resume_settings(resume),
        restart=restart,
        nats=nats,
    )
    sources = targets.sources(where)
    tables, shared_services = make_shared_tables(services, chosen.registry)
    after = min(chosen.unresponsive_after, SUSPECT_AFTER)
    chosen = dataclasses.replace(chosen, unresponsive_after=after)
    complaints = RateLimitedLog(logger)
    async with (
        held_services(shared_services, chosen.limits.shutdown_timeout, complaints),
        open_roster(sources, tables, chosen, complaints) as (roster, balancer, keeping),
    ):
        pool = Pool(roster, balancer, patience=patience, budget=budget, max_waiting=max_waiting)
        await _wait_for_first(roster, balancer, patience)
        with _until_all_have_failed(keeping, roster, balancer):
            yield pool


@contextlib.asynccontextmanager
async def open_roster(
    sources: list[Source],
    tables: MakeServices,
    options: Options,
    complaints: RateLimitedLog,
    *,
    max_delay: float = MAX_DELAY,
) -> AsyncIterator[tuple[Roster, Balancer, trio.Nursery]]:
    """Keep a session with each instance for a block, and say Goodbye to all at its end.

    Args:
        sources: name the instances.
        tables: makes the services of each session.
        options: the options of each session.
        complaints: logs errors of sources and instances.
        max_delay: seconds of the longest pause between two attempts to open a session.

    Yields the roster, the balancer, and the nursery of the tasks that keep the sessions.
    """
    with one_exception() as raised:
        async with trio.open_nursery() as nursery:
            balancer = Balancer()
            opener = Opener(tables, options, nursery, max_delay=max_delay)
            async with trio.open_nursery() as keeping:
                roster = Roster(sources, opener, balancer, keeping, complaints)
                roster.start()
                try:
                    yield roster, balancer, keeping
                except BaseException as exc:
                    raised.append(exc)
                    raise
                finally:
                    balancer.end()
                keeping.cancel_scope.cancel(reason="the block is over")
            for seat in roster.seats:
                nursery.start_soon(seat.session.aclose)


def _check_numbers(patience: object, budget: object, max_waiting: object) -> None:
    check_not_negative("patience", patience)
    check_not_negative("budget", budget)
    check_count("max_waiting", max_waiting)


async def _wait_for_first(roster: Roster, balancer: Balancer, patience: float) -> None:
    """Wait for the first session. Raises Unavailable or Refused if there is none in time."""
    with trio.move_on_after(patience):
        while balancer.is_empty and not roster.is_hopeless:
            await balancer.wait_changed()
    await trio.lowlevel.checkpoint()
    if balancer.is_empty:
        if roster.is_hopeless:
            kind = Refused if roster.were_refused else Unavailable
            raise kind(f"no instance can be used: {roster.describe()}")
        raise Unavailable(f"no instance within {patience:g} s: {roster.describe()}")


@contextlib.contextmanager
def _until_all_have_failed(
    nursery: trio.Nursery, roster: Roster, balancer: Balancer
) -> Iterator[None]:
    """Cancel the block when no instance will have a session again (law 17)."""
    body = trio.CancelScope()

    async def watch() -> None:
        while not roster.have_failed:
            await balancer.wait_changed()
        body.cancel(reason="all instances of the pool have failed")

    nursery.start_soon(watch, name="trio_rpc pool watch")
    with catching(body):
        yield
    if body.cancelled_caught:
        raise SessionBroken(f"all instances of the pool have failed: {roster.describe()}")

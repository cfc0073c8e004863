"""The task that keeps a session with one instance open.

Theory of operation
===================

1. Open a session, in a task of its own. The errors of an attempt lead to another one after a random
   pause (full jitter).
2. While it is open, it is one of the sessions that the pool chooses from.
3. When the other end says that it drains, or the session ends, open the next one. The old session
   stays in its own task until its calls have ended, so that a long call delays nothing.
4. An instance that the pool no longer wants is closed in order. If it is not wanted again soon, the
   task ends. So a source that adds and removes an instance again and again causes as many attempts
   as an instance that fails.

A process is started again as often as its ``Restart`` allows. It is not started again after an
error that another process would also have.
"""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import AsyncIterator, Callable
from typing import Final

import trio

from trio_rpc.channels import ConnectionState
from trio_rpc.channels.errors import CHANNEL_ERRORS
from trio_rpc.errors import Refused, RemoteProtocolError, RpcError
from trio_rpc.one_to_one.restart import Restart, Restarts
from trio_rpc.pool.instances import InstanceState, InstanceStatus, Reachable, refused_delay
from trio_rpc.pool.seats import Balancer, Seat
from trio_rpc.session.core import Core
from trio_rpc.session.live_services import MakeServices
from trio_rpc.session.opening import run_session
from trio_rpc.session.options import Options
from trio_rpc.session.session import Session
from trio_rpc.util.raised import text_of
from trio_rpc.util.rate_limited_log import RateLimitedLog
from trio_rpc.util.reconnect import keep_connected
from trio_rpc.util.text import one_line

__all__ = ["MAX_DELAY", "Keeper", "Opener"]

FIRST_DELAY: Final = 0.05
MAX_DELAY: Final = 5.0
LINGER: Final = 10.0
"""Seconds in which an instance that is not wanted can be wanted again with the same task."""

MOST_SEATS: Final = 4
"""Sessions with one instance at once: the current one, and older ones whose calls have not ended.

Beyond that, the next session is opened when the oldest has ended.
"""

ATTEMPT_ERRORS: Final = (*CHANNEL_ERRORS, OSError, RpcError)
"""Errors of an attempt that another attempt may not have."""


class Opener:
    """Opens the sessions of a pool.

    Args:
        services: makes the services of each session.
        options: the options of each session.
        nursery: the nursery of the tasks that hold sessions.
        max_delay: seconds of the longest pause between two attempts.
    """

    def __init__(
        self,
        services: MakeServices,
        options: Options,
        nursery: trio.Nursery,
        *,
        max_delay: float = MAX_DELAY,
    ) -> None:
        self.nursery = nursery
        self.max_delay = max_delay
        self._services = services
        self._options = options

    @contextlib.asynccontextmanager
    async def open(self, instance: Reachable) -> AsyncIterator[Session]:
        """Open a session with an instance, and own it for a block."""
        async with instance.open(self._options.limits) as channel:
            core = Core(channel, self._services, self._options, instance.name)
            async with run_session(core, on_end="keep") as session:
                yield session


class Keeper:
    """Keeps a session with one instance open, as long as the pool wants it.

    Args:
        instance: the instance.
        opener: opens sessions.
        balancer: gets the open sessions.
        lost: called when an open session is lost.
        complaints: logs errors of the instance.
    """

    def __init__(
        self,
        instance: Reachable,
        opener: Opener,
        balancer: Balancer,
        lost: Callable[[], None],
        complaints: RateLimitedLog,
    ) -> None:
        self.instance = instance
        self.name = instance.name
        self.failures = 0
        self._past_calls = 0
        """Calls on sessions that are over."""
        self.error = ""
        """The reason why there is no session."""
        self.was_refused = False
        """Whether the last attempt was refused, without saying for how long."""
        self.has_failed = False
        """Whether there will be no other attempt."""
        self.seats: list[Seat] = []
        """The open sessions, the current one last."""
        self._opener = opener
        self._balancer = balancer
        self._lost = lost
        self._complaints = complaints
        self._restarts = Restarts(instance.restart) if instance.restart else None
        self._attempts = 0
        self._wanted = trio.Event()
        self._wanted.set()
        self._scope = trio.CancelScope()
        """The present attempt, or the wait for the end of the session."""
        self._pause = 0.0
        """The least seconds until the next attempt."""
        self._next_attempt: float | None = None

    @property
    def calls(self) -> int:
        """The calls that it was given so far."""
        return self._past_calls + sum(seat.calls for seat in self.seats)

    # ── the pool's side ──────────────────────────────────────────────────────────────────────

    @property
    def is_hopeless(self) -> bool:
        """Whether it has no session, and waiting will not help."""
        return not self.seats and (self.has_failed or self.was_refused)

    def want(self, instance: Reachable) -> None:
        """Keep a session open again."""
        self.instance = instance
        self._wanted.set()

    def unwant(self) -> None:
        """Close the session, and open no other."""
        if self._wanted.is_set():
            self._wanted = trio.Event()
            self._scope.cancel(reason="the instance is no longer wanted")
            for seat in self.seats:
                self._begin_to_drain(seat)
                self._opener.nursery.start_soon(seat.session.aclose)

    def status(self) -> InstanceStatus:
        """Return the status of the instance."""
        now = trio.current_time()
        seat = self.seats[-1] if self.seats else None
        waits = self._next_attempt is not None and seat is None and not self.has_failed
        return InstanceStatus(
            name=self.name,
            state=self._state(seat),
            calls_in_flight=sum(each.session.calls_in_flight for each in self.seats),
            calls=self.calls,
            failures=self.failures,
            error="" if seat is not None else self.error,
            retry_in=max(0.0, (self._next_attempt or now) - now) if waits else None,
            pid=None if seat is None else seat.session.peer.pid,
        )

    def _state(self, seat: Seat | None) -> InstanceState:
        if seat is None:
            return "failed" if self.has_failed else "connecting"
        if seat.is_draining or not seat.session.is_open:
            return "draining"
        return "suspect" if seat.is_suspect else "open"

    # ── the task ─────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Keep a session open until the instance is not wanted, or has failed."""
        policy = self.instance.restart
        with contextlib.suppress(_OverError):
            await keep_connected(
                self._use,
                first_delay=policy.first_delay if policy else FIRST_DELAY,
                max_delay=policy.max_delay if policy else self._opener.max_delay,
                adjust=self._adjust,
            )
        self._balancer.tell()

    async def _use(self) -> bool:
        """Open a session, and use it until the next one is needed; return whether it lasted."""
        if not self._wanted.is_set():
            with trio.move_on_after(LINGER):
                await self._wanted.wait()
            if not self._wanted.is_set():
                raise _OverError
        while len(self.seats) >= MOST_SEATS:
            await self.seats[0].ended.wait()
        self._next_attempt, self._pause = None, 0.0
        self._count_restart()
        seat = None
        with trio.CancelScope() as self._scope:
            try:
                seat = await self._opener.nursery.start(self._hold, self.instance)
            except ATTEMPT_ERRORS as exc:
                self._could_not_open(exc)
                return False
            opened = trio.current_time()
            await seat.session.draining.wait()
        if seat is None:
            return False
        self._begin_to_drain(seat)
        return trio.current_time() - opened > MAX_DELAY

    def _count_restart(self) -> None:
        """Count a start of a process, but not the first one."""
        if self._restarts is not None:
            if self._attempts and self._restarts.are_used_up:
                policy = self.instance.restart or Restart()
                self._fail(
                    f"not started again ({policy.times} restarts within {policy.within:g} s are "
                    f"allowed): {self.error}"
                )
            if self._attempts:
                self._restarts.count()
        self._attempts += 1

    def _could_not_open(self, exc: Exception) -> None:
        self.error = one_line(text_of(exc) or type(exc).__name__)
        retry_after = exc.retry_after if isinstance(exc, Refused) else None
        self.was_refused = isinstance(exc, Refused | RemoteProtocolError) and retry_after is None
        level = logging.WARNING if self.was_refused else logging.INFO
        self._complaints.log(level, "no session with %s: %s", one_line(self.name), self.error)
        if self._restarts is not None and (self.was_refused or isinstance(exc, OSError)):
            self._fail(self.error)  # another process would fail in the same way
        if self.was_refused:
            self._pause = refused_delay()
        elif retry_after is not None:
            self._pause = random.uniform(1, 1.5) * retry_after  # noqa: S311 - not a secret
        self._balancer.tell()

    def _adjust(self, delay: float) -> float:
        delay = max(delay, self._pause)
        self._next_attempt = trio.current_time() + delay
        self._balancer.tell()
        return delay

    def _fail(self, error: str) -> None:
        self.error = one_line(error)
        self.has_failed = True
        self._complaints.log(logging.WARNING, "%s has failed: %s", one_line(self.name), self.error)
        raise _OverError

    # ── the task of one session ──────────────────────────────────────────────────────────────

    async def _hold(self, instance: Reachable, *, task_status: trio.TaskStatus[Seat]) -> None:
        """Open a session, and hold it until it ends."""
        seat = None
        try:
            async with self._opener.open(instance) as session:
                seat = Seat(session, self)
                self._take(seat)
                task_status.started(seat)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._watch_answers, seat)
                    end = await session.wait_closed()
                    nursery.cancel_scope.cancel(reason="the session is over")
                self.error = end.reason
                self._release(seat, is_lost=end.by != "us")
        except ATTEMPT_ERRORS as exc:
            if seat is None:
                raise
            text = "the channel to %s was not closed in order: %s"
            self._complaints.log(logging.INFO, text, one_line(self.name), exc)
        finally:
            if seat is not None:
                self._release(seat)
                seat.ended.set()

    def _take(self, seat: Seat) -> None:
        self.was_refused = False
        self.seats.append(seat)
        self._balancer.place(seat)

    def _release(self, seat: Seat, *, is_lost: bool = False) -> None:
        """Forget a session that is over, and end the blocks that hold it (law 17)."""
        if seat in self.seats:
            self.seats.remove(seat)
            self._past_calls += seat.calls
            self._balancer.place(seat)
            if is_lost:
                for body in seat.blocks:
                    body.cancel(reason="the session of this block is over")
                self._lost()

    def _begin_to_drain(self, seat: Seat) -> None:
        if not seat.is_draining:
            seat.is_draining = True
            self._balancer.place(seat)

    async def _watch_answers(self, seat: Seat) -> None:
        """Note whether the other end answers."""
        async for state in seat.session.connection_states():
            is_suspect = state in (ConnectionState.UNRESPONSIVE, ConnectionState.RECONNECTING)
            if is_suspect is not seat.is_suspect:
                seat.is_suspect = is_suspect
                self._balancer.place(seat)


class _OverError(Exception):
    """There will be no other session with this instance."""

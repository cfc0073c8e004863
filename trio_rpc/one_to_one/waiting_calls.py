"""Calls that may be made before there is a session, and go out in order once there is one.

Theory of operation
===================

A :class:`WaitingCalls` makes the calls of one proxy. It has one of three states:

- ``Waiting``: there is no session yet. Calls wait, in a fair queue of bounded length.
- ``Open``: calls are made on its session. Calls that have waited go first, one at a time: each has
  the *turn* until its message is queued in the session, and then passes the turn on. So they leave
  in the order in which they were made, although Trio runs tasks in no particular order.
- ``Over``: the last session has ended, or could not be opened. Calls raise its error, or wait for
  the next session until a given time.

A call belongs to the session that it was passed to, and is never repeated: if that session ends, it
raises with its fate.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeAlias

import trio

from trio_rpc.errors import LocalProtocolError, Overloaded, RpcError
from trio_rpc.services.decorators import Kind
from trio_rpc.services.proxies import RemoteMethod
from trio_rpc.session.calls.admission import UNLIMITED, Admission
from trio_rpc.session.calls.context import handled_call
from trio_rpc.session.session import Session
from trio_rpc.util.owner import Owner

__all__ = ["WaitingCalls"]


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """There is no session yet."""

    maker: trio.lowlevel.Task | None = None
    """The task that makes the target. It must not wait for the session, which opens afterwards."""


@dataclass(frozen=True, slots=True, eq=False)
class Open:
    """There is a session."""

    session: Session


@dataclass(frozen=True, slots=True, eq=False)
class Over:
    """The last session has ended, or could not be opened."""

    error: Callable[[], RpcError]
    """Makes the error of calls that are made now."""
    until: float
    """The time until which calls wait for the next session."""

    @property
    def is_final(self) -> bool:
        """Whether calls wait no longer."""
        return trio.current_time() >= self.until


State: TypeAlias = Waiting | Open | Over


class _Gate:
    """Tells how many of the waiting calls may go on.

    The queue of calls refers to this object, and not to the one that owns the queue, so no cycle is
    left for the garbage collector.
    """

    def __init__(self, grace: float) -> None:
        self.state: State = Waiting()
        self.turn: _Turn | None = None
        self._grace = grace

    def room(self) -> int:
        """Return how many of the waiting calls may go on."""
        state = self.state
        if isinstance(state, Over):
            return UNLIMITED if state.is_final else 0
        if isinstance(state, Waiting) or self.turn is not None:
            return 0
        # A session that is closing takes no new calls: they wait for the next one, if they may.
        return 1 if self._grace == 0 or state.session.is_open else 0


class WaitingCalls:
    """Makes the calls of a proxy on the current session, or lets them wait for one.

    Args:
        max_waiting: the number of calls that may wait.
        grace: seconds after the end of a session in which calls wait for the next one.
    """

    def __init__(self, max_waiting: int, grace: float) -> None:
        self._max_waiting = max_waiting
        self._grace = grace
        self._gate = _Gate(grace)
        self._queue = Admission(self._gate.room)
        self._scopes: set[trio.CancelScope] = set()
        """One for each waiting call, to end its wait."""
        self._lost_at = math.nan
        """The time since which there has been no session; nan before the first, and during one."""
        self._owner: Owner | None = None

    @property
    def session(self) -> Session | None:
        """The current session, if there is one."""
        return self._gate.state.session if isinstance(self._gate.state, Open) else None

    # ── from state to state ──────────────────────────────────────────────────────────────────

    def check_run(self) -> None:
        """Raise RuntimeError if another Trio run, which is not over, uses this object."""
        if self._owner is None or self._owner.is_over:
            self._owner = Owner("this service client")
        self._owner.check()

    def prepare(self) -> None:
        """Refuse calls of this task, which makes the target before a session is opened."""
        self._gate.state = Waiting(trio.lowlevel.current_task())

    def begin(self) -> None:
        """Make calls wait, since a session is being opened, or will be soon."""
        self._gate.state = Waiting()
        self._wait_until(math.inf)

    def open(self, session: Session) -> None:
        """Make the calls on ``session`` from now on, beginning with the waiting calls."""
        self._gate.state = Open(session)
        self._lost_at = math.nan
        self._gate.turn = None  # it was a turn of an earlier session
        self._wait_until(math.inf)
        self._queue.let_in()

    def end(self, error: Callable[[], RpcError], *, is_final: bool = False) -> None:
        """Make calls wait for another session as long as they may, or raise.

        Attempts to open another session that fail do not prolong the grace time.

        Args:
            error: makes the error that they raise.
            is_final: whether calls raise at once, since waiting does not help.
        """
        if math.isnan(self._lost_at):
            self._lost_at = trio.current_time()
        self._gate.state = Over(error, -math.inf if is_final else self._lost_at + self._grace)
        if self._gate.state.is_final:
            self._queue.let_in()
        else:
            self._wait_until(self._gate.state.until)

    # ── calls ────────────────────────────────────────────────────────────────────────────────

    def invoke(
        self, method: RemoteMethod, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Coroutine[Any, Any, Any] | AbstractAsyncContextManager[Any]:
        """Call, notify or open, according to the method's kind: a call of a proxy's method."""
        if method.kind.is_opened:
            return self._open(method, args, kwargs)
        return self._call(method, args, kwargs)

    async def _call(
        self, method: RemoteMethod, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        with await self._take_turn() as turn:
            making = turn.session.invoke(method, args, kwargs)
            assert isinstance(making, Coroutine)  # noqa: S101 - its kind is not one that is opened
            if method.kind is Kind.NOTIFICATION:
                return await making  # it is queued when this returns
            turn.pass_on()  # the next caller runs after this one has queued its Request
            return await making

    @contextlib.asynccontextmanager
    async def _open(
        self, method: RemoteMethod, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> AsyncIterator[Any]:
        with await self._take_turn() as turn:
            opening = turn.session.invoke(method, args, kwargs)
            assert not isinstance(opening, Coroutine)  # noqa: S101 - its kind is one that is opened
            async with opening as opened:
                turn.pass_on()
                yield opened

    # ── turns ────────────────────────────────────────────────────────────────────────────────

    async def _take_turn(self) -> _Turn:
        """Wait for a session, and until all calls that were made before have been passed to it."""
        if (turn := self._turn_without_waiting()) is not None:
            return turn
        self.check_run()
        while True:
            self._check_may_wait()
            with trio.CancelScope(deadline=self._deadline()) as scope:
                self._scopes.add(scope)
                try:
                    await self._queue.wait()
                finally:
                    self._scopes.discard(scope)
                if isinstance(self._gate.state, Open):
                    self._gate.turn = _Turn(self._gate.state.session, self._turn_is_over)
                    return self._gate.turn

    def _turn_without_waiting(self) -> _Turn | None:
        session = self.session
        if session is None:
            return None
        call = handled_call.get()
        is_nested = call is not None and call.session is session
        if is_nested or self._queue.is_free:
            return _Turn(session, _nothing)
        return None

    def _check_may_wait(self) -> None:
        state = self._gate.state
        if isinstance(state, Over) and state.is_final:
            raise state.error()
        if isinstance(state, Waiting) and state.maker is trio.lowlevel.current_task():
            raise LocalProtocolError(
                "the connection begins when the target has been made: the function that makes it "
                "cannot wait for a call of its own client"
            )
        if len(self._scopes) >= self._max_waiting:
            raise Overloaded(
                f"{len(self._scopes)} calls are waiting for the connection, and max_waiting "
                "allows no more"
            )

    def _turn_is_over(self, turn: _Turn) -> None:
        if self._gate.turn is turn:
            self._gate.turn = None
            self._queue.let_in()

    def _deadline(self) -> float:
        return self._gate.state.until if isinstance(self._gate.state, Over) else math.inf

    def _wait_until(self, deadline: float) -> None:
        for scope in self._scopes:
            scope.deadline = deadline


class _Turn:
    """The right of one call to go next. It is passed on at the end of the block at the latest."""

    __slots__ = ("_is_over", "session")

    def __init__(self, session: Session, is_over: Callable[[_Turn], None]) -> None:
        self.session = session
        self._is_over = is_over

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _exc: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.pass_on()

    def pass_on(self) -> None:
        """Pass the turn to the next call."""
        self._is_over(self)


def _nothing(_turn: _Turn) -> None:
    """Do nothing, since no call waited."""

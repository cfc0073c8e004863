"""A call that this end has made: what is known of it until it is over, and how its caller is woken.

Whoever wakes a caller first stores the reason and forgets the task, so that nobody wakes it twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, NamedTuple, NoReturn, Protocol

import trio
from trio.lowlevel import Abort, reschedule

from trio_rpc.errors import Fate, LocalProtocolError, RpcError
from trio_rpc.services.proxies import RemoteMethod
from trio_rpc.services.tables import BoundMethod
from trio_rpc.wire import messages as m

__all__ = [
    "NO_FUNCTIONS",
    "Failure",
    "Listener",
    "OutgoingCall",
    "RaiseCancel",
    "RunningCallback",
    "describe_exception",
    "raise_cancelled",
    "reason_of",
]

NO_FUNCTIONS: list[BoundMethod] = []
"""Of a call that lends none; it is compared with ``is``, and nobody appends to it."""

RaiseCancel = Callable[[], NoReturn]


class Failure(NamedTuple):
    """How a call has ended that no terminal message has ended.

    The exception is made where it is raised: one that was kept here would hold the frames that hold the call.
    """

    fate: Fate
    make: Callable[[], RpcError]


class Listener(Protocol):
    """Who is told of what comes in a call besides its answer, while nobody waits for that."""

    def ended(self) -> None:
        """The call is over; ``OutgoingCall.answer`` tells how."""


class RunningCallback(Protocol):
    """What a call needs of a callback that runs in it."""

    method: BoundMethod

    def cancel(self, reason: str) -> None:
        """Cancel the handler."""


class Canceller(Protocol):
    """What a call needs of the table that it is in."""

    def cancel(self, call: OutgoingCall) -> bool:
        """Cancel a call; True when its caller need not wait for anything."""


class OutgoingCall:
    """A call that is waiting for its end, and what has come of it."""

    __slots__ = (
        "_calls",
        "abandon_on_cancel",
        "answer",
        "callbacks",
        "context",
        "deadline",
        "expires",
        "functions",
        "id",
        "interrupted",
        "listener",
        "method",
        "parent",
        "raise_cancel",
        "remote_scope",
        "started",
        "task",
        "task_status",
    )

    def __init__(
        self,
        calls: Canceller,
        call_id: int,
        method: RemoteMethod,
        started: float,
        deadline: float,
    ) -> None:
        self._calls = calls
        self.id = call_id
        self.method = method
        self.deadline = deadline
        self.expires = math.inf
        """When it is abandoned, once it has been cancelled."""
        self.parent: int | None = None
        self.abandon_on_cancel = False
        self.started = started
        self.answer: m.Reply | m.ReplyErr | Failure | None = None
        self.raise_cancel: RaiseCancel | None = None
        self.interrupted = False
        """What ``raise_cancel`` raises is KeyboardInterrupt, which no result may replace."""
        self.task: trio.lowlevel.Task | None = None
        self.functions: list[BoundMethod] = NO_FUNCTIONS
        """What was given to this call to be called back."""
        self.listener: Any = None
        """A :class:`Listener`, if it is a call that was opened and not awaited."""
        self.remote_scope: OutgoingCall | None = None
        """The remote scope that it is made in."""
        self.task_status: trio.TaskStatus[Any] | None = None

    def take_callbacks(self, functions: list[BoundMethod]) -> None:
        """Let the peer call these, as part of this call, in the context of its caller."""
        self.functions = functions
        self.callbacks: set[RunningCallback] = set()
        """Those that are running."""
        self.context = copy_context()

    def is_using(self, method: BoundMethod) -> bool:
        """Whether a callback of the peer's runs that uses this function or stream."""
        return any(call.method is method for call in self.callbacks)

    def callback_ended(self, call: RunningCallback) -> None:
        """One of the callbacks is over; the call may have waited for that."""
        self.callbacks.discard(call)
        if self.answer is not None:
            self.wake()

    def cancel_callbacks(self, reason: str) -> None:
        """Cancel all that are running."""
        if self.functions:
            for call in tuple(self.callbacks):
                call.cancel(reason)

    def end(self, answer: m.Reply | m.ReplyErr | Failure) -> None:
        """The call is over: tell those who wait."""
        self.answer = answer
        self.wake()
        if self.listener is not None:
            listener, self.listener = self.listener, None  # which knows this call
            listener.ended()

    def wake(self) -> None:
        """Let the caller go on, unless it has been woken already."""
        if self.task is not None:
            task, self.task = self.task, None
            reschedule(task)

    def abort(self, raise_cancel: RaiseCancel) -> Abort:
        """Pass our cancellation on, and sleep on until it is confirmed (law 2)."""
        self.raise_cancel = raise_cancel
        if self._calls.cancel(self):
            self.task = None
            return Abort.SUCCEEDED
        if _can_be_interrupted(self.task):
            self.wake()  # a task is aborted once only: to sleep again, where Ctrl-C finds it
        return Abort.FAILED

    def abort_again(self, _raise_cancel: RaiseCancel) -> Abort:
        """Ctrl-C does not wait for the confirmation, and nothing else comes through the shield."""
        self.task = None
        return Abort.SUCCEEDED


def _can_be_interrupted(task: trio.lowlevel.Task | None) -> bool:
    """Whether Ctrl-C may be raised in that task: Trio's main one, which the root task has started."""
    nursery = None if task is None else task.parent_nursery
    return nursery is not None and nursery.parent_task is trio.lowlevel.current_root_task()


def raise_cancelled(call: OutgoingCall) -> NoReturn:
    """Raise what its caller has been cancelled with, in its own task."""
    raise_cancel, call.raise_cancel = call.raise_cancel, None
    if raise_cancel is None:  # pragma: no cover - callers have checked
        raise LocalProtocolError("nobody has cancelled this call")
    try:
        raise_cancel()
    finally:
        del raise_cancel  # it may hold the exception that holds this frame


def reason_of(call: OutgoingCall) -> str | None:
    """The reason of a cancellation, which only the exception itself tells."""
    try:
        if call.raise_cancel is not None:
            call.raise_cancel()
    except trio.Cancelled as exc:
        return _describe(exc)
    except KeyboardInterrupt:
        # Trio has now done its part: unlike a Cancelled, nobody would raise this one again.
        call.interrupted = True
        return "KeyboardInterrupt"
    return None


def describe_exception(exc: BaseException) -> str:
    """Tell the other end why a block is left early."""
    if isinstance(exc, trio.Cancelled):
        return _describe(exc) or "cancelled"
    return f"{type(exc).__name__}: {exc}"


def _describe(exc: trio.Cancelled) -> str | None:
    if exc.reason is not None:
        # Nothing may be raised in an abort function, whatever somebody has given as a reason.
        return str(exc.reason)[:1000].encode(errors="backslashreplace").decode()
    return "deadline" if exc.source == "deadline" else None

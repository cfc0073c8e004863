"""An outgoing call, from its Request until its end, and the ways to wake its caller.

The code that wakes a caller first stores the reason and clears the task, so that no caller is woken
twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, NamedTuple, NoReturn, Protocol

import trio
from trio.lowlevel import Abort, reschedule

from trio_rpc.errors import DecodeError, Fate, LocalProtocolError, RemoteCancelled, RpcError
from trio_rpc.services.converters import Convert
from trio_rpc.services.proxies import RemoteMethod
from trio_rpc.services.signatures import TASK_STATUS
from trio_rpc.services.tables import BoundMethod
from trio_rpc.util.raised import described, repr_of
from trio_rpc.wire import messages as m

__all__ = [
    "NO_FUNCTIONS",
    "CallView",
    "Failure",
    "Listener",
    "OutgoingCall",
    "RaiseCancel",
    "RunningCallback",
    "converted",
    "describe_exception",
    "raise_cancelled",
    "reason_of",
    "split_task_status",
    "started_value",
    "wait_for_own_deadline",
]

NO_FUNCTIONS: list[BoundMethod] = []
"""The functions of a call that lends none. It is compared with ``is`` and never appended to."""

RaiseCancel = Callable[[], NoReturn]


class Failure(NamedTuple):
    """The end of a call without a terminal message.

    The exception is made where it is raised. A stored one would refer to frames that refer to the
    call.
    """

    fate: Fate
    make: Callable[[], RpcError]


class Listener(Protocol):
    """Receives the events of an opened call while no task awaits it."""

    def ended(self) -> None:
        """Handle the end of the call; ``OutgoingCall.answer`` says how it ended."""


class RunningCallback(Protocol):
    """The method that a call needs of a callback that runs in it."""

    method: BoundMethod

    def cancel(self, reason: str) -> None:
        """Cancel the handler."""


class CallView(Protocol):
    """The part of a filter's view of a call that is set when the call gets its id."""

    id: int | None


class Canceller(Protocol):
    """The method that a call needs of the table that it is in."""

    def cancel(self, call: OutgoingCall) -> bool:
        """Cancel a call; return True if its caller need not wait."""


class OutgoingCall:
    """A call that waits for its end, and its outcome."""

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
        "is_running",
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
        """The time when it is abandoned, once it has been cancelled."""
        self.parent: int | None = None
        self.abandon_on_cancel = False
        self.started = started
        self.answer: m.Reply | m.ReplyErr | Failure | None = None
        self.raise_cancel: RaiseCancel | None = None
        self.interrupted = False
        """Whether ``raise_cancel`` raises KeyboardInterrupt, which no result may replace."""
        self.task: trio.lowlevel.Task | None = None
        self.functions: list[BoundMethod] = NO_FUNCTIONS
        """The functions and streams that were lent to this call."""
        self.is_running = False
        """Whether a message of its handler has arrived."""
        self.listener: Any = None
        """A :class:`Listener`, if it is a call that was opened and not awaited."""
        self.remote_scope: OutgoingCall | None = None
        """The remote scope that it is made in, or None."""
        self.task_status: trio.TaskStatus[Any] | None = None

    def take_callbacks(self, functions: list[BoundMethod]) -> None:
        """Allow the peer to call these functions as part of this call, in its caller's context."""
        self.functions = functions
        self.callbacks: set[RunningCallback] = set()
        """The callbacks that are running."""
        self.context = copy_context()

    def is_using(self, method: BoundMethod) -> bool:
        """Return whether a callback that uses this function or stream is running."""
        return any(call.method is method for call in self.callbacks)

    def callback_ended(self, call: RunningCallback) -> None:
        """Forget a callback that has ended; the call may have waited for that."""
        self.callbacks.discard(call)
        if self.answer is not None:
            self.wake()

    def cancel_callbacks(self, reason: str) -> None:
        """Cancel the callbacks that are running."""
        if self.functions:
            for call in tuple(self.callbacks):
                call.cancel(reason)

    def end(self, answer: m.Reply | m.ReplyErr | Failure) -> None:
        """Store the outcome, and wake the task or listener that waits."""
        if self.remote_scope is not None and type(answer) is m.ReplyErr:
            answer = _in_scope(answer, self.remote_scope)
        self.answer = answer
        self.wake()
        if self.listener is not None:
            listener, self.listener = self.listener, None  # it refers to this call
            listener.ended()

    def wake(self) -> None:
        """Wake the caller, unless it has been woken already."""
        if self.task is not None:
            task, self.task = self.task, None
            reschedule(task)

    def abort(self, raise_cancel: RaiseCancel) -> Abort:
        """Send Cancel, and sleep on until the handler's end is confirmed (law 2)."""
        self.raise_cancel = raise_cancel
        if self._calls.cancel(self):
            self.task = None
            return Abort.SUCCEEDED
        if _can_be_interrupted(self.task):
            self.wake()  # Trio aborts a wait only once, so Ctrl-C needs a new one
        return Abort.FAILED

    def abort_again(self, _raise_cancel: RaiseCancel) -> Abort:
        """Leave at once: only Ctrl-C passes the shield, and it does not wait."""
        self.task = None
        return Abort.SUCCEEDED


def _can_be_interrupted(task: trio.lowlevel.Task | None) -> bool:
    """Return whether Ctrl-C may be raised in that task: Trio's main one, below the root task."""
    nursery = None if task is None else task.parent_nursery
    return nursery is not None and nursery.parent_task is trio.lowlevel.current_root_task()


def raise_cancelled(call: OutgoingCall) -> NoReturn:
    """Raise the caller's own Cancelled, in the caller's task."""
    raise_cancel, call.raise_cancel = call.raise_cancel, None
    if raise_cancel is None:  # pragma: no cover - callers have checked
        raise LocalProtocolError("this call was not cancelled")
    try:
        raise_cancel()
    finally:
        del raise_cancel  # it may hold the exception that holds this frame


def reason_of(call: OutgoingCall) -> str | None:
    """Return the reason of a cancellation, which only the exception itself has."""
    try:
        if call.raise_cancel is not None:
            call.raise_cancel()
    except trio.Cancelled as exc:
        return _describe(exc)
    except KeyboardInterrupt:
        # Trio raises a KeyboardInterrupt only once, unlike a Cancelled, so remember it.
        call.interrupted = True
        return "KeyboardInterrupt"
    return None


def _in_scope(answer: m.ReplyErr, remote_scope: OutgoingCall) -> m.ReplyErr:
    """Return how a call in a remote scope has failed, as its caller sees it.

    The scope's terminal message is the last message of the scope. So a call that is refused later
    has crossed it on the way, and nothing is wrong with its arguments.
    """
    if remote_scope.answer is None or answer.error.get("code") != "invalid_arguments":
        return answer
    text = "the remote scope that this call is made in has ended"
    return m.ReplyErr(answer.id, {"code": "cancelled", "message": text, "started": False})


def describe_exception(exc: BaseException) -> str:
    """Describe for the other end why a block is left early."""
    if isinstance(exc, trio.Cancelled):
        return _describe(exc) or "cancelled"
    return described(exc)


def _describe(exc: trio.Cancelled) -> str | None:
    if exc.reason is not None:
        # An abort function must not raise, even if the given reason is not a str.
        reason = exc.reason if isinstance(exc.reason, str) else repr_of(exc.reason)
        return reason[:1000].encode(errors="backslashreplace").decode()
    return "deadline" if exc.source == "deadline" else None


def split_task_status(
    kwargs: dict[str, Any],
) -> tuple[trio.TaskStatus[Any] | None, dict[str, Any]]:
    """Remove ``task_status`` from the arguments: the Request only says that there is one."""
    rest = {name: value for name, value in kwargs.items() if name != TASK_STATUS}
    status = kwargs[TASK_STATUS]
    if status is trio.TASK_STATUS_IGNORED:
        return None, rest
    if not callable(getattr(status, "started", None)):
        raise TypeError(f"task_status must come from nursery.start(), but is {status!r:.200}")
    return status, rest


def started_value(method: RemoteMethod, message: m.Started, most: int) -> Any:
    """Return the value of a Started, as its annotation says."""
    if message.problem is not None:
        raise DecodeError(message.problem, fate=Fate.STOPPED)
    convert = method.converters.started
    return message.value if convert is None else converted(convert, message.value, most)


def converted(convert: Convert, value: object, most: int) -> Any:
    """Convert a value of a handler that has returned, or called ``started()``."""
    try:
        return convert(value, most)
    except DecodeError as exc:
        exc.fate = Fate.STOPPED  # the handler has returned, or called started()
        raise


async def wait_for_own_deadline(call: OutgoingCall) -> NoReturn:
    """Wait until the caller's own scope ends the call, since its deadline has passed (law 5).

    Clocks drift and messages take time, so the handler's copy of the deadline can pass first.
    """
    if call.deadline != math.inf:
        await trio.sleep_until(call.deadline)
        await trio.lowlevel.checkpoint()
    raise RemoteCancelled(
        "the deadline that was sent with this call has passed, and this end has moved its own since"
    )

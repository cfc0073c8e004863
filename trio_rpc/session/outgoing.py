"""The caller's side: a task sends a Request, sleeps, and goes on with what came of it.

A caller sleeps in ``wait_task_rescheduled`` and is woken by the reader, by the end of the session,
or by its own cancellation. The last sends Cancel and goes back to sleep, shielded, for the word
that the handler has ended: that is law 2. Whoever wakes a caller first stores the reason on its
:class:`Pending` and forgets the task, so that nobody wakes it twice.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, NoReturn

import trio
from trio.lowlevel import Abort, current_task, reschedule, wait_task_rescheduled

from trio_rpc.errors import (
    DecodeError,
    Fate,
    LocalProtocolError,
    Overloaded,
    RemoteCancelled,
    RpcError,
)
from trio_rpc.protocol.protocol import Protocol
from trio_rpc.services.faults import from_error
from trio_rpc.services.proxies import RemoteMethod
from trio_rpc.services.tables import BoundMethod
from trio_rpc.session.admission import UNLIMITED, Admission
from trio_rpc.session.callbacks import CALLBACK, as_method, is_function
from trio_rpc.session.context import Handled, call_context, callback_context
from trio_rpc.wire import messages as m
from trio_rpc.wire.limits import Limits

if TYPE_CHECKING:
    from trio_rpc.session.session import Session

__all__ = ["Outgoing", "Pending"]

logger = logging.getLogger("trio_rpc")

_CANCELLED_CODES = ("cancelled", "deadline")  # no set: a peer's code may be unhashable

_NO_FUNCTIONS: list[BoundMethod] = []

RaiseCancel = Callable[[], NoReturn]


class Pending:
    """A call that is waiting for its end, and what has come of it."""

    __slots__ = (
        "abandon_on_cancel",
        "answer",
        "callbacks",
        "context",
        "deadline",
        "functions",
        "id",
        "interrupted",
        "method",
        "outgoing",
        "parent",
        "raise_cancel",
        "started",
        "task",
    )

    def __init__(
        self, outgoing: Outgoing, call_id: int, method: str, started: float, deadline: float
    ) -> None:
        self.outgoing = outgoing
        self.id = call_id
        self.method = method
        self.deadline = deadline
        self.parent: int | None = None
        self.abandon_on_cancel = False
        self.started = started
        self.answer: m.Reply | m.ReplyErr | RpcError | None = None
        self.raise_cancel: RaiseCancel | None = None
        self.interrupted = False
        """What ``raise_cancel`` raises is KeyboardInterrupt, which no result may replace."""
        self.task: trio.lowlevel.Task | None = None
        self.functions: list[BoundMethod] = _NO_FUNCTIONS
        """What was given to this call to be called back."""

    def take_callbacks(self, functions: list[BoundMethod]) -> None:
        """Let the peer call these, as part of this call, in the context of its caller."""
        self.functions = functions
        self.callbacks: set[Handled] = set()
        """Those that are running."""
        self.context = copy_context()

    def callback_ended(self, handled: Handled) -> None:
        """One of the callbacks is over; the call may have waited for that."""
        self.callbacks.discard(handled)
        if self.answer is not None:
            self.wake()

    def cancel_callbacks(self, reason: str) -> None:
        """Cancel all that are running."""
        if self.functions:
            for handled in tuple(self.callbacks):
                handled.cancel(reason)

    def wake(self) -> None:
        """Let the caller go on, unless it has been woken already."""
        if self.task is not None:
            task, self.task = self.task, None
            reschedule(task)

    def abort(self, raise_cancel: RaiseCancel) -> Abort:
        """Pass our cancellation on; stay asleep, in effect, until it is confirmed (law 2)."""
        self.raise_cancel = raise_cancel
        if self.outgoing.cancel(self):
            self.task = None
            return Abort.SUCCEEDED
        self.wake()
        return Abort.FAILED

    def abort_grace(self, _raise_cancel: RaiseCancel) -> Abort:
        """The confirmation did not come within ``cancel_grace``."""
        self.task = None
        return Abort.SUCCEEDED


class Outgoing:
    """The calls that this end has made on one session.

    ``session`` is set before the first one.

    Args:
        protocol: where requests are queued.
        limits: for ``send_buffer`` and ``cancel_grace``.
        send: has what is queued written; true when nothing else is expected to join it.
        refusal: why a call with that context cannot be made now, or None.
        over: makes the error of a call that the end of the session has ended.
    """

    def __init__(
        self,
        protocol: Protocol,
        limits: Limits,
        send: Callable[[], None],
        refusal: Callable[[dict[str, Any] | None], RpcError | None],
        over: Callable[[Fate], RpcError],
    ) -> None:
        self.session: Session
        self.pending: dict[int, Pending] = {}
        self._protocol = protocol
        self._limits = limits
        self._functions = _NO_FUNCTIONS
        self._method: RemoteMethod
        self._lend_function = self._lend
        self._send_buffer = limits.send_buffer
        self._send = send
        self._refusal = refusal
        self._over = over
        self._calls = Admission(self._room_for_calls)
        self._notifications = Admission(self._room_for_notifications)
        self._room = Admission(lambda: UNLIMITED if self.has_room() else 0)

    # ── room ─────────────────────────────────────────────────────────────────────────────────

    def has_room(self) -> bool:
        """Whether anything more should be queued for sending now."""
        return self._protocol.bytes_waiting < self._send_buffer

    def _room_for_calls(self) -> int:
        protocol = self._protocol
        if protocol.bytes_waiting >= self._send_buffer:
            return 0
        return protocol.peer.max_calls - len(protocol.outgoing)

    def _room_for_notifications(self) -> int:
        return self._protocol.notification_credit if self.has_room() else 0

    @property
    def waiting(self) -> int:
        """How many callers wait for credit or room."""
        return self._calls.waiting + self._notifications.waiting + self._room.waiting

    def let_in(self) -> None:
        """Credit or room may have come free: wake those who wait for it."""
        self._calls.let_in()
        self._notifications.let_in()
        self._room.let_in()

    async def wait_for_room(self) -> None:
        """Wait while more than ``send_buffer`` bytes are queued; a checkpoint only if it waits."""
        if not self._room.is_free:
            await self._room.wait()

    # ── calling ──────────────────────────────────────────────────────────────────────────────

    async def request(
        self,
        method: RemoteMethod,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        *,
        abandon_on_cancel: bool = False,
        callback: tuple[Handled, int] | None = None,
    ) -> Any:
        """Call ``method``: send a Request, wait for its end, and return or raise what came of it.

        Args:
            method: what to call.
            args: positional arguments.
            kwargs: keyword arguments.
            abandon_on_cancel: leave when cancelled, without waiting for the handler's end.
            callback: the call of the peer's, and which of its callbacks, is called in place of
                ``method``, whose ``raises`` holds all the same.
        """
        deadline = trio.current_effective_deadline()
        if deadline != math.inf and deadline <= trio.current_time():
            await trio.lowlevel.checkpoint()  # raises: nothing is sent for a scope that is over
        context = call_context(self.session, self._protocol.incoming)
        if callback is not None:
            context = {**(context or {}), **callback_context(*callback)}
        if not self._calls.is_free:
            await self._wait_for_credit(context)
        error = self._refusal(context)
        if error is not None:
            raise error
        now = trio.current_time()
        if deadline != math.inf:
            context = {**(context or {}), "deadline": max(0.0, deadline - now)}
        self._functions = _NO_FUNCTIONS
        self._method = method
        call = self._protocol.request(
            method.name, list(args), kwargs or None, context, self._lend_function
        )
        pending = self.pending[call] = Pending(self, call, method.name, now, deadline)
        if self._functions:
            pending.take_callbacks(self._functions)
        if abandon_on_cancel:
            pending.abandon_on_cancel = True
        if context:
            pending.parent = context.get("parent")
        self._send()
        pending.task = current_task()
        await wait_task_rescheduled(pending.abort)
        if pending.answer is None:
            await self._confirm_cancel(pending)
        if pending.functions:
            await self._end_callbacks(pending)
        answer = pending.answer
        if type(answer) is not m.Reply or pending.interrupted:
            answer = await self._settle(pending)
            raise from_error(answer.error, method.raises)
        # Law 3: also when we were cancelled meanwhile.
        if answer.problem is not None:
            raise DecodeError(answer.problem, fate=Fate.STOPPED)
        return answer.result if method.convert is None else _converted(method, answer.result)

    def _lend(self, value: Any) -> m.Reference | None:
        """Let a function travel with the call that is being encoded."""
        if not is_function(value):
            return None
        if not self._functions:
            self._functions = []
        number, method = len(self._functions), self._method
        raises = tuple(method.raises.values())
        self._functions.append(as_method(value, method.name, number, raises))
        return m.Reference(CALLBACK, number)

    def callback(
        self, context: Mapping[str, Any]
    ) -> tuple[Pending, BoundMethod] | tuple[None, None]:
        """Find the function that a Request with that context calls back."""
        pending = self.pending.get(context.get("parent", 0))
        number = context["callback"]
        if pending is None or number >= len(pending.functions):
            return None, None
        return pending, pending.functions[number]

    async def _end_callbacks(self, pending: Pending) -> None:
        """See to it that no callback runs when its call has returned (law 8)."""
        pending.cancel_callbacks("the call that this callback belongs to has ended")
        with trio.CancelScope(shield=True):
            while pending.callbacks:
                pending.task = current_task()
                await wait_task_rescheduled(_never_aborts)

    async def _wait_for_credit(self, context: dict[str, Any] | None) -> None:
        nested = context is not None and "depth" in context
        if nested and not self._protocol.has_call_credit:
            # Those who hold the credit may be waiting for this very call, be it in the other end's
            # handlers: two ends that call each other and call back would wait for ever.
            raise Overloaded(
                "no credit is left for a call made inside another; it might never come"
            )
        await self._calls.wait()

    async def notify(
        self, method: RemoteMethod, args: Sequence[Any], kwargs: dict[str, Any]
    ) -> None:
        """Send a Notification; waits for credit and room only."""
        await trio.lowlevel.checkpoint()
        context = call_context(self.session, self._protocol.incoming)
        if not self._notifications.is_free:
            await self._notifications.wait()
        error = self._refusal(context)
        if error is not None:
            raise error
        self._protocol.notify(method.name, list(args), kwargs or None, context)
        self._send()

    # ── what comes of a call ─────────────────────────────────────────────────────────────────

    def finish(self, message: m.Reply | m.ReplyErr) -> None:
        """A terminal message has come: wake its caller."""
        pending = self.pending.pop(message.id)
        pending.answer = message
        pending.wake()
        if self._calls.waiting:
            self._calls.let_in()

    def fail_all(self) -> None:
        """The session is over: every call ends now (law 6)."""
        calls, self.pending = self.pending, {}
        for pending in calls.values():
            never_left = self._protocol.never_left(pending.id)
            pending.answer = self._over(Fate.NOT_STARTED if never_left else Fate.UNKNOWN)
            pending.wake()
        for queue in (self._calls, self._notifications, self._room):
            queue.open()

    def cancel(self, pending: Pending) -> bool:
        """Cancel a call; True when its caller need not wait for anything."""
        reason = _reason(pending)
        pending.cancel_callbacks(reason or "the call that this callback belongs to is cancelled")
        withdrawn = self._protocol.cancel(pending.id, reason)
        if not withdrawn:
            self._send()
            if not pending.abandon_on_cancel:
                return False
            self._protocol.abandon(pending.id)
        del self.pending[pending.id]
        self.let_in()
        return True

    async def _confirm_cancel(self, pending: Pending) -> None:
        """Wait for the word that the handler has ended, as long as ``cancel_grace`` allows."""
        grace = trio.CancelScope(
            shield=True, deadline=trio.current_time() + self._limits.cancel_grace
        )
        with grace:
            pending.task = current_task()
            await wait_task_rescheduled(pending.abort_grace)
        if pending.answer is None:
            logger.warning(
                "%s did not end within %g s of its cancellation and is abandoned",
                pending.method,
                self._limits.cancel_grace,
            )
            del self.pending[pending.id]
            self._protocol.abandon(pending.id)
            if pending.functions:
                await self._end_callbacks(pending)
            _raise_cancelled(pending)

    async def _settle(self, pending: Pending) -> m.ReplyErr:
        """Return the error that came, or raise what the caller is to see in its place."""
        answer = pending.answer
        if pending.interrupted:
            _raise_cancelled(pending)
        if isinstance(answer, m.ReplyErr):
            code = answer.error.get("code")
            if code in _CANCELLED_CODES and pending.raise_cancel is not None:
                _raise_cancelled(pending)
            if code == "deadline":
                await _wait_for_own_deadline(pending)
            return answer
        if pending.raise_cancel is not None:
            _raise_cancelled(pending)
        assert isinstance(answer, RpcError)  # noqa: S101 - what else ends a call
        raise answer


def _never_aborts(_raise_cancel: RaiseCancel) -> Abort:
    return Abort.FAILED  # only callbacks that have been cancelled are waited for


def _converted(method: RemoteMethod, result: object) -> Any:
    assert method.convert is not None  # noqa: S101 - the caller has looked
    try:
        return method.convert(result)
    except DecodeError as exc:
        exc.fate = Fate.STOPPED  # the handler has done its part
        raise


async def _wait_for_own_deadline(pending: Pending) -> NoReturn:
    """Law 5: the deadline was ours, so it is our own scope that ends us, however soon it came.

    Clocks drift and messages take time, so the handler's copy of the deadline can be first.
    """
    if pending.deadline != math.inf:
        await trio.sleep_until(pending.deadline)
        await trio.lowlevel.checkpoint()
    raise RemoteCancelled("the deadline that this call was made with is over, and was moved since")


def _raise_cancelled(pending: Pending) -> NoReturn:
    if pending.raise_cancel is None:  # pragma: no cover - callers have checked
        raise LocalProtocolError("nobody has cancelled this call")
    pending.raise_cancel()


def _reason(pending: Pending) -> str | None:
    """The reason of a cancellation, which only the exception itself tells."""
    try:
        if pending.raise_cancel is not None:
            pending.raise_cancel()
    except trio.Cancelled as exc:
        return _describe(exc)
    except KeyboardInterrupt:
        # Trio has now done its part: unlike a Cancelled, nobody would raise this one again.
        pending.interrupted = True
        return "KeyboardInterrupt"
    return None


def _describe(exc: trio.Cancelled) -> str | None:
    if exc.reason is not None:
        # Nothing may be raised in an abort function, whatever somebody has given as a reason.
        return str(exc.reason)[:1000].encode(errors="backslashreplace").decode()
    return "deadline" if exc.source == "deadline" else None

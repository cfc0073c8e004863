"""The callee's side: a Request arrives, a handler runs, one terminal message leaves (law 4).

The reader calls the functions here, so none of them waits (law 11). Only
:meth:`IncomingCalls.finish` does: it runs in the task that a waiting handler keeps (see
``reader.py``). A call is in ``running`` before its handler's first step, so a Cancel finds it, even
one in the same packet (law 9).
"""

from __future__ import annotations

import functools
import itertools
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextvars import Context as ContextVars
from typing import Any

import trio

from trio_rpc.errors import (
    CallError,
    EncodeError,
    Fate,
    InvalidArguments,
    MethodNotFound,
    RemoteCancelled,
)
from trio_rpc.protocol.context import is_within
from trio_rpc.protocol.protocol import Protocol
from trio_rpc.protocol.states import Half, IncomingState
from trio_rpc.services.converters import SCALARS
from trio_rpc.services.decorators import Kind
from trio_rpc.services.error_maps import refusal
from trio_rpc.services.fallbacks import Fallback, fallback_for
from trio_rpc.services.signatures import TASK_STATUS
from trio_rpc.services.tables import BoundMethod, Table, missing, wrong_kind
from trio_rpc.session.calls.absent import NO_CALLS, Arrived, CallsOfAbsentServices
from trio_rpc.session.calls.ages import CallAges
from trio_rpc.session.calls.callbacks import Callback
from trio_rpc.session.calls.context import handled_call
from trio_rpc.session.calls.eager import begin, is_awaitable
from trio_rpc.session.calls.incoming_call import CallSession, HeldScope, IncomingCall
from trio_rpc.session.calls.outgoing import OutgoingCalls
from trio_rpc.session.calls.outgoing_call import OutgoingCall
from trio_rpc.session.calls.queued import QueuedCalls, time_of
from trio_rpc.session.calls.refusals import (
    CALLED_TOO_LATE,
    NOT_BEGUN,
    NOT_TAKEN,
    PULLED_TWICE,
    SMALL,
    TOO_BUSY,
    TOO_LATE,
)
from trio_rpc.session.fallback_calls import fallback_method
from trio_rpc.session.handler import (
    CANCELLED,
    Outcome,
    arrived_arguments,
    bound_arguments,
    call_handler,
    error_of,
    has_expired,
    invoke,
    is_for_its_caller,
    is_refusal,
    log_bug,
    outcome_of,
)
from trio_rpc.session.lifecycle import Lifecycle
from trio_rpc.session.load import BEHIND, SLICE
from trio_rpc.session.options import Options
from trio_rpc.session.session import Session
from trio_rpc.session.shared import Shared
from trio_rpc.session.streams.items import ItemReceiver, ItemSender
from trio_rpc.session.streams.open import fits, with_channel
from trio_rpc.session.streams.references import ReceivedReferences
from trio_rpc.session.streams.scopes import SCOPE
from trio_rpc.session.streams.task_status import RemoteTaskStatus
from trio_rpc.util.contexts import copy_of
from trio_rpc.wire import messages as m

__all__ = ["IncomingCalls"]


# Looking up a member in an Enum class takes longer than everything done with it here.
_METHOD, _NOTIFICATION, _STREAM = Kind.METHOD, Kind.NOTIFICATION, Kind.STREAM
_ENDED = Half.ENDED


class IncomingCalls:
    """The incoming calls.

    ``session``, ``scope``, ``context`` and ``table`` are set before the first message is read.

    Args:
        protocol: queues terminal messages.
        lifecycle: is notified when a handler ends.
        calls: the outgoing calls, some of which take callbacks.
        options: the filters, and how much of an exception is sent to the peer.
        shared: logs undeclared exceptions of handlers, and the peer's errors.
    """

    def __init__(
        self,
        protocol: Protocol,
        lifecycle: Lifecycle,
        calls: OutgoingCalls,
        options: Options,
        shared: Shared,
    ) -> None:
        self.session: Session
        self.scope: trio.CancelScope
        """The cancel scope of the reading task, and so of the next handler's eager step."""
        self.context: ContextVars
        """The context that each handler runs in a copy of. No code runs in the original."""
        self.table: Table = {}
        self.fallbacks: Mapping[str, Fallback] = {}
        self.running: dict[int, IncomingCall] = {}
        """Calls whose handler has begun and not ended, by a local number."""
        self.waiting = QueuedCalls(shared.load)
        """Calls whose handler may not begin yet."""
        self.absent = NO_CALLS
        """Calls that wait until their service is set, if the options allow that."""
        if options.wait_for_service:
            self.absent = CallsOfAbsentServices(
                options.wait_for_service, options.limits.max_waiting_calls
            )
        self.notifications_running = 0
        self.nursery: trio.Nursery
        """The nursery of the session's tasks, set before the first message is read."""
        self.now = 0.0
        """The time when the current packet arrived."""
        self.is_cancelled = False
        """The block that owns the session is cancelled, so no handler begins any more."""
        self._protocol = protocol
        self._filters = tuple(options.filters)
        self._call: Callable[[IncomingCall], Awaitable[Any]] = _call_unfiltered
        if self._filters:
            self._call = functools.partial(call_handler, self._filters)
        self._call_plain: Callable[[IncomingCall], Any] = _call_plain
        self._detail = options.error_detail
        self._lifecycle = lifecycle
        self._calls = calls
        self._most = calls.limits.max_nodes
        self._ages = CallAges()
        self._load = shared.load
        self._bugs = shared.bugs
        self._last_notification = 0
        self._complaints = shared.complaints

    # ── starting: called by the reader ───────────────────────────────────────────────────────

    def start_request(self, request: m.Request) -> IncomingCall | None:
        """Start the handler of a Request, or answer it with the reason why not.

        While too many bytes are queued for sending, the Request waits, and so do all later ones.
        It also waits while the server is overloaded (``load.py``), unless it is made within a call
        of this end, which may hold the place of a handler until it ends.

        Returns the call if its handler has to wait. The handler then keeps this task.
        """
        context, waits = request.context, bool(self.waiting) or not self._load.is_free
        if context is not None:
            waits |= self._ages.subtract(context, self.now) > BEHIND
            waits = waits and not is_within(context, self._protocol.outgoing)
        if waits or not self._protocol.may_begin:
            self._put_in_queue(request)
            return None
        return self._begin_request(request)

    def _put_in_queue(self, request: m.Request) -> None:
        """Queue a Request, or refuse it if it cannot be answered in time."""
        left = time_of(request)
        if left <= 0:
            self._load.late += 1
            self._answer_error(request.id, {**TOO_LATE})
        elif self._load.admits(left, len(self.waiting)):
            self.waiting.put(request.id, (request, self.now))
        else:
            self._load.refused += 1
            self._answer_error(request.id, {**TOO_BUSY, "retry_after": self._load.retry_after})

    def _begin_request(self, request: m.Request) -> IncomingCall | None:
        context = request.context
        parent_call = None
        if context is None:
            method = self.table.get(request.method) or self._fallback(request.method, _METHOD)
            is_fitting = method is not None and method.kind is _METHOD
        else:
            parent_call, method = self._find(request.method, context)
            is_fitting = method is not None and fits(method, context)
        if method is None and self._waits_for_service(request.id, request):
            return None
        if method is None or not is_fitting or request.problem is not None:
            self._answer_error(request.id, refusal(self._why_refused(method, request)))
            return None
        if parent_call is not None and method.kind is _STREAM and parent_call.is_using(method):
            self._answer_error(request.id, {**PULLED_TWICE})
            return None
        try:
            args, sender = arrived_arguments(method, request), None
            if method.kind is not _METHOD:
                sender = ItemSender(self._calls)
                sender.bind(request.id)
                if method.kind is Kind.DUPLEX:
                    args = with_channel(method, args, sender)
            bound, kwargs = bound_arguments(method, request, self._most, args)
            call = IncomingCall(self.session, request.id, method, bound, kwargs, context)
            if context is not None or request.references or method.name == SCOPE:
                self._equip(call, request)
                call.sender = sender
        except InvalidArguments as exc:
            self._answer_error(request.id, refusal(exc))
            return None
        if parent_call is not None:
            call.parent_call = parent_call
            parent_call.callbacks.add(call)
        return self._start(call)

    def _find(
        self, name: str, context: dict[str, Any]
    ) -> tuple[OutgoingCall, BoundMethod] | tuple[None, BoundMethod | None]:
        """Find the callback, with the outgoing call that it belongs to, or the method."""
        if "callback" in context:
            return self._calls.callback(context)
        return None, self.table.get(name) or self._fallback(name, _METHOD)

    def _equip(self, call: IncomingCall, request: m.Request) -> None:
        """Set up a call's scope, references and task_status. Raises InvalidArguments."""
        method, context = call.method, call.context or {}
        if context.get(TASK_STATUS):
            if not method.signature.takes_task_status:
                raise InvalidArguments(f"{method.name} has no task_status: it cannot be started")
            status = RemoteTaskStatus(call, self._calls)
            call.kwargs = {**call.kwargs, TASK_STATUS: status}
            call.references = (status,)
        if method.name == SCOPE:
            call.held_scope = HeldScope(call)
        owner = self._enter_scope(call, context["scope"]) if "scope" in context else call
        # The application gets a reference of an unknown kind as it is, and nothing else uses it.
        lent = [one for one in request.references if isinstance(one, Callback | ItemReceiver)]
        if lent:
            ReceivedReferences(self._calls, self.nursery).bind(lent, call, owner)
            owner.references = (*owner.references, *lent)

    def _enter_scope(self, call: IncomingCall, number: int) -> IncomingCall:
        """Add a call to a remote scope, and return that scope's call."""
        scope_call = self.running.get(number)
        if scope_call is None or scope_call.held_scope is None or scope_call.held_scope.is_ending:
            raise InvalidArguments(f"the remote scope {number} that it was made in has ended")
        call.remote_scope = scope_call.held_scope
        scope_call.held_scope.enter(call)
        return scope_call

    def start_notification(self, message: m.Notification) -> IncomingCall | None:
        """Start the handler of a Notification, or log why not; returns as for a Request."""
        if self.waiting or not self._load.is_free:
            self._last_notification -= 1
            self.waiting.put(self._last_notification, (message, self.now))
            return None
        return self._begin_notification(message)

    def _begin_notification(self, message: m.Notification) -> IncomingCall | None:
        name = message.method
        method = self.table.get(name) or self._fallback(name, _NOTIFICATION)
        if method is None and self._waits_for_service(self._last_notification - 1, message):
            self._last_notification -= 1
            return None
        if method is None or method.kind is not _NOTIFICATION or message.problem is not None:
            self._drop_notification(self._why_not(method, message))
            return None
        try:
            args, kwargs = bound_arguments(method, message, self._most)
        except InvalidArguments as exc:
            self._drop_notification(exc)
            return None
        self._last_notification -= 1
        self.notifications_running += 1
        number = self._last_notification
        return self._start(
            IncomingCall(self.session, number, method, args, kwargs, message.context)
        )

    def begin_waiting(self, most: int) -> IncomingCall | None:
        """Start waiting handlers, for one turn; return one that has to wait again, or None.

        At most ``most`` may start, and they have the time of one slice.
        """
        until = time.perf_counter() + SLICE
        for _ in range(most):
            if not (self.waiting and self._protocol.may_begin and self._load.may_begin):
                break
            message, self.now = self.waiting.take_first()
            if isinstance(message, m.Notification):
                call = self._begin_notification(message)
            elif self._load.is_too_late(self.now + time_of(message) - trio.current_time()):
                self._load.late += 1
                self._answer_error(message.id, {**TOO_LATE})
                call = None
            else:
                self._load.began(trio.current_time() - self.now)
                call = self._begin_request(message)
            if call is not None:
                return call
            if time.perf_counter() >= until:
                break
        return None

    def _fallback(self, name: str, kind: Kind) -> BoundMethod | None:
        found = fallback_for(self.fallbacks, name) if self.fallbacks else None
        return None if found is None else fallback_method(found, name, kind)

    def _waits_for_service(self, number: int, message: m.Request | m.Notification) -> bool:
        """Keep a message whose service is not there, if it may wait; return whether it does."""
        is_kept = self.absent.keeps(number, message, self.table, self.now)
        if is_kept:
            self._lifecycle.look_by(self.absent.first_to_expire)
        return is_kept

    def begin_calls_of(self, service: str) -> None:
        """Begin the calls of a service that has been set, before all others that wait."""
        self.waiting.put_first(self.absent.take_calls_of(service))

    def refuse_late(self, now: float) -> bool:
        """Refuse the calls that have waited for their service too long; return whether any has."""
        expired = self.absent.take_expired(now)
        for message in expired:
            self._refuse(message)
        if expired:
            self._lifecycle.activity_ended()
        return bool(expired)

    def _refuse(self, message: m.Request | m.Notification) -> None:
        error = missing(self.table, message.method)
        if isinstance(message, m.Notification):
            self._drop_notification(error)
        else:
            self._answer_error(message.id, refusal(error))

    def _why_refused(self, method: BoundMethod | None, request: m.Request) -> CallError:
        context = request.context or {}
        if "callback" in context and self._calls.is_abandoned(context.get("parent", 0)):
            return RemoteCancelled(CALLED_TOO_LATE, fate=Fate.NOT_STARTED)
        return self._why_not(method, request)

    def _why_not(
        self, method: BoundMethod | None, message: m.Request | m.Notification
    ) -> MethodNotFound | InvalidArguments:
        if method is None:
            return missing(self.table, message.method)
        if message.problem is not None:
            return InvalidArguments(message.problem)
        if method.service is not None:  # a fallback, which handles neither streams nor duplexes
            return missing(self.table, message.method)
        return wrong_kind(method)

    def _drop_notification(self, reason: Exception) -> None:
        text = "a notification from %s was dropped: %s"
        self._complaints.log(logging.WARNING, text, self.session.name, reason)
        self._protocol.grant_notifications(1)

    def _start(self, call: IncomingCall) -> IncomingCall | None:
        call.started = self.now
        self.running[call.id] = call
        self._load.running += 1
        if self.is_cancelled or self._is_called_too_late(call):
            self.end(call, CANCELLED)
            return None
        context, has_deadline = self._context_of(call), False
        if call.context and "deadline" in call.context:
            self.scope.deadline, has_deadline = call.started + call.context["deadline"], True
        if not call.method.is_async and not self._filters:
            waiting = self._run_inline(call, context)
        else:
            waiting = self._step(call, context, self._call, call)
        if has_deadline and waiting is None:
            self.scope.deadline = math.inf  # the next handler may have none
        return waiting

    def _is_called_too_late(self, call: IncomingCall) -> bool:
        """Return whether a call is a callback of a call that was cancelled meanwhile."""
        return call.parent_call is not None and self._calls.is_cancelling(call.parent_call)

    # ── running ──────────────────────────────────────────────────────────────────────────────

    def _run_inline(self, call: IncomingCall, context: ContextVars) -> IncomingCall | None:
        """Run a plain ``def`` to completion, here and now; its result may be an awaitable."""
        try:
            result = context.run(self._call_plain, call)
        except BaseException as exc:
            if not self.end_raised(call, exc):
                raise
        else:
            if type(result) not in SCALARS and is_awaitable(result):
                return self._step(call, context, lambda awaitable: awaitable, result)
            self.end(call, Outcome(result))
        return None

    def _context_of(self, call: IncomingCall) -> ContextVars:
        """Make the context of one handler, whose changes no other handler sees.

        A callback gets a copy of its caller's context, and other handlers a copy of the session's.
        """
        return copy_of(self.context if call.parent_call is None else call.parent_call.context)

    def _step(
        self,
        call: IncomingCall,
        context: ContextVars,
        function: Callable[[Any], Awaitable[Any]],
        argument: Any,
    ) -> IncomingCall | None:
        """Run the eager step of an awaitable; end the call unless it has to wait."""
        scope = call.scope = self.scope
        try:
            call.suspended, call.result = begin(function, argument, context)
        except BaseException as exc:
            if not self.end_raised(call, exc):
                raise
        else:
            if call.suspended is not None:
                call.keeps_scope = True
                if call.cancelled is not None:
                    scope.cancel(reason=call.cancelled)
                return call
            self.end(call, Outcome(call.result))
        return None

    async def finish(self, call: IncomingCall) -> Any:
        """Run the rest of a handler that has to wait, in its own task, and return its result."""
        trio.lowlevel.current_task().name = call.method.name
        suspended, call.suspended = call.suspended, None  # they would hold each other
        assert suspended is not None  # noqa: S101 - else it would have ended in its first step
        return await suspended.rest()

    # ── ending: exactly one terminal message for each Request ────────────────────────────────

    def end(self, call: IncomingCall, outcome: Outcome) -> None:
        """End a call with the outcome of its handler."""
        del self.running[call.id]
        self._load.handler_ends()
        if call.sender is not None:
            call.sender.stop()
        for reference in call.references:
            reference.expire(call.method.name)
        call.references, call.held_scope = (), None  # they refer to the call
        if outcome.error is not None:
            self._end_with_error(call, outcome.error)
        elif outcome.is_cancelled:
            self._end_cancelled(call)
        else:
            self._end_with_result(call, outcome.result)
        if call.parent_call is not None:
            call.parent_call.callback_ended(call)
        if call.remote_scope is not None:
            call.remote_scope.leave(call)
        self._lifecycle.activity_ended()

    def end_raised(self, call: IncomingCall, exc: BaseException) -> bool:
        """Report a handler's exception to its caller; return False if it must also be raised."""
        self.end(call, outcome_of(exc))
        return is_for_its_caller(exc)

    def _end_with_result(self, call: IncomingCall, result: object) -> None:
        if call.id < 0:
            self._end_notification()
        elif not self._protocol.may_answer:
            self._answer_error(call.id, {**NOT_TAKEN})
        elif self._protocol.ours is not _ENDED:  # else the session's end was the answer
            try:
                self._protocol.reply(call.id, None if call.method.drops_result else result)
            except EncodeError as exc:
                message = f"the result of {call.method.name} cannot be sent: {exc}"
                self._answer_error(call.id, {"code": "internal", "message": message})
                method, name = call.method, _session_of(call).name
                self._bugs.unsendable(
                    exc, method.name, limited_as=method.own_name, session=name, call=call.id
                )

    def _end_with_error(self, call: IncomingCall, exc: BaseException) -> None:
        method, number = call.method, call.id
        if number < 0:
            self._end_notification()
            if is_refusal(call, exc):
                text = "the notification %s from %s was refused by a filter: %s"
                name = _session_of(call).name
                self._complaints.log(logging.WARNING, text, method.name, name, exc)
        elif not self._protocol.may_answer:
            self._answer_error(number, {**NOT_TAKEN, "started": call.has_begun})
        else:
            self._answer_error(number, error_of(call, exc, self._detail))
        log_bug(
            self._bugs,
            call,
            exc,
            session=_session_of(call).name,
            number=number if number > 0 else None,
            is_cancelled=call.cancelled is not None,
        )

    def _end_cancelled(self, call: IncomingCall) -> None:
        if call.id < 0:
            self._end_notification()
            return
        by_peer = self._protocol.incoming.get(call.id) is IncomingState.CANCELLED
        if has_expired(call) and not by_peer:
            error: dict[str, Any] = {"code": "deadline", "message": "the deadline has passed"}
        else:
            why = "cancelled by the caller" if by_peer else self._why_cancelled(call)
            error = {"code": "cancelled", "message": why}
        error["started"] = call.has_begun
        self._answer_error(call.id, error)

    def _why_cancelled(self, call: IncomingCall) -> str:
        """Return why a handler was cancelled, if its caller did not cancel it."""
        if call.remote_scope is not None and call.remote_scope.is_ending:
            return "the remote scope that it was made in has ended"
        if self._is_called_too_late(call):
            return CALLED_TOO_LATE
        if call.parent_call is not None and call.parent_call.answer is not None:
            return "the call that this callback belongs to has ended"
        return (not self._lifecycle.is_over and call.cancelled) or "this session is ending"

    def _end_notification(self) -> None:
        self.notifications_running -= 1
        if self._protocol.ours is not _ENDED:
            self._protocol.grant_notifications(1)

    def _answer_error(self, call: int, error: dict[str, Any]) -> None:
        if self._protocol.ours is _ENDED:
            return  # the session is over: its end was the answer
        try:
            self._protocol.reply_error(call, error)
        except EncodeError as exc:
            # The codec can encode every error map, but the peer may accept only small messages.
            self._complaints.log(logging.WARNING, "an error was too large to send: %s", exc)
            small = {name: error[name] for name in SMALL if name in error}
            small["message"] = "its text is larger than this end accepts"
            self._protocol.reply_error(call, small)

    def items_wanted(self, call_id: int) -> None:
        """Wake the stream of that call, whose consumer has given credit."""
        call = self.running.get(call_id)
        if call is not None and call.sender is not None:
            call.sender.let_in()

    # ── cancelling ───────────────────────────────────────────────────────────────────────────

    def cancel(self, message: m.Cancel) -> None:
        """Cancel the handler that the peer no longer wants (law 2)."""
        call = self.running.get(message.id)
        if call is not None:
            call.cancel(message.reason or "the caller cancelled this call")
            is_scope = call.held_scope is not None
        elif message.id in self.waiting or message.id in self.absent.waiting:
            is_scope = self._drop_waiting(message.id, NOT_BEGUN).method == SCOPE
        else:
            return
        for number, (each, _) in [*self._all_waiting()] if is_scope else ():
            if (each.context or {}).get("scope") == message.id:
                self._drop_waiting(number, "the remote scope that it was made in has ended")

    def _all_waiting(self) -> Iterable[tuple[int, Arrived]]:
        return itertools.chain(self.absent.waiting.items(), self.waiting.items())

    def _drop_waiting(self, call_id: int, why: str) -> m.Request | m.Notification:
        is_queued = call_id in self.waiting
        message, _ = (self.waiting.take if is_queued else self.absent.waiting.pop)(call_id)
        if call_id > 0:
            self._answer_error(call_id, {"code": "cancelled", "message": why, "started": False})
        return message

    def let_go(self) -> None:
        """Drop the references to this object. The session is over, and no handler begins."""
        del self.session
        self.table, self.fallbacks = {}, {}

    def cancel_all(self, reason: str) -> None:
        """Cancel every handler, since the session is over (law 6)."""
        for call in self.running.values():
            call.cancel(reason)
        for call_id, _ in [*self._all_waiting()]:
            self._drop_waiting(call_id, reason)


def _session_of(call: IncomingCall) -> CallSession:
    assert call.session is not None  # noqa: S101 - only the gateway's calls have none
    return call.session


def _call_unfiltered(call: IncomingCall) -> Awaitable[Any]:
    return call_handler((), call)


def _call_plain(call: IncomingCall) -> Any:
    handled_call.set(call)
    return invoke(call)

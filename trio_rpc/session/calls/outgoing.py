"""The caller's side: a task sends a Request, sleeps, and goes on with the outcome.

A caller sleeps in ``wait_task_rescheduled``. The reader, the end of the session, or its own
cancellation wakes it. A cancellation sends Cancel, and the caller sleeps again under a shield until
its handler has ended (law 2). The code that wakes a caller first stores the reason in its
:class:`OutgoingCall` and clears the task, so that no caller is woken twice.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import trio
from trio.lowlevel import Abort, current_task, wait_task_rescheduled

from trio_rpc.errors import (
    DecodeError,
    Fate,
    LocalProtocolError,
    Overloaded,
)
from trio_rpc.protocol.protocol import Protocol
from trio_rpc.protocol.states import OutgoingState
from trio_rpc.services.error_maps import from_error
from trio_rpc.services.proxies import RemoteMethod
from trio_rpc.services.signatures import TASK_STATUS
from trio_rpc.services.tables import BoundMethod
from trio_rpc.session.calls.admission import OPEN, UNLIMITED, Admission
from trio_rpc.session.calls.callbacks import lend, not_lent
from trio_rpc.session.calls.context import add_place, call_context
from trio_rpc.session.calls.incoming_call import IncomingCall
from trio_rpc.session.calls.outgoing_call import (
    NO_FUNCTIONS,
    CallView,
    Failure,
    Listener,
    OutgoingCall,
    RaiseCancel,
    converted,
    raise_cancelled,
    reason_of,
    split_task_status,
    started_value,
    wait_for_own_deadline,
)
from trio_rpc.session.io.receiver import Receiver
from trio_rpc.session.io.writer import Writer
from trio_rpc.session.lifecycle import Lifecycle
from trio_rpc.util.owner import Owner
from trio_rpc.util.rate_limited_log import RateLimitedLog
from trio_rpc.wire import messages as m
from trio_rpc.wire.limits import Limits

__all__ = ["OutgoingCalls"]


_CANCELLED_CODES = ("cancelled", "deadline")  # a tuple, since a peer's code may be unhashable


class OutgoingCalls:
    """The calls that this end has made on one session.

    ``session`` is set before the first one.

    Args:
        protocol: queues Requests.
        limits: for ``send_buffer`` and ``cancel_grace``.
        writer: writes them.
        lifecycle: says why a call cannot be made, or how it ended with the session.
        receiver: lets the only caller in flight receive its own Reply.
        owner: the run in which calls may be made.
        complaints: logs the peer's errors.
        name: the name of the other end in these lines.
    """

    def __init__(  # noqa: PLR0917 - made in one place
        self,
        protocol: Protocol,
        limits: Limits,
        writer: Writer,
        lifecycle: Lifecycle,
        receiver: Receiver,
        owner: Owner,
        complaints: RateLimitedLog,
        name: str,
    ) -> None:
        self.session: object | None = None
        self.calls: dict[int, OutgoingCall] = {}
        self.limits = limits
        self._owner = owner
        self.protocol = protocol
        self.writer = writer
        self._functions = NO_FUNCTIONS
        self._method: RemoteMethod | None = None
        """The method of the Request that is being encoded."""
        self._lifecycle = lifecycle
        self._receiver = receiver
        self._complaints = complaints
        self._name = name
        # Made when a task has to wait for the first time, since most sessions are idle.
        self._calls: Admission | None = None
        self._notifications: Admission | None = None
        self._room: Admission | None = None

    def check_run(self) -> None:
        """Raise RuntimeError outside of the run in which calls may be made."""
        self._owner.check()

    def is_cancelling(self, call: OutgoingCall) -> bool:
        """Return whether Cancel has been sent for a call that has not ended."""
        return self.protocol.outgoing.get(call.id) is OutgoingState.CANCELLING

    def is_running(self, call: OutgoingCall) -> bool:
        """Return whether the other end is known to have read the Request of a call."""
        return call.is_running or self.protocol.read_requests.has_read(call.id)

    def is_abandoned(self, call: int) -> bool:
        """Return whether a call that has not ended has been abandoned."""
        return self.protocol.outgoing.get(call) is OutgoingState.ABANDONED

    # ── room ─────────────────────────────────────────────────────────────────────────────────

    def has_room(self) -> bool:
        """Return whether there is room in the queue for another message."""
        return self.protocol.has_room

    def _room_for_calls(self) -> int:
        protocol = self.protocol
        if not protocol.has_room:
            return 0
        return protocol.peer.max_calls - len(protocol.outgoing)

    def _room_for_notifications(self) -> int:
        return self.protocol.notification_credit if self.has_room() else 0

    def _room_for_items(self) -> int:
        return UNLIMITED if self.has_room() else 0

    @property
    def _queues(self) -> list[Admission]:
        queues = (self._calls, self._notifications, self._room)
        return [queue for queue in queues if queue is not None]

    @property
    def waiting(self) -> int:
        """The number of callers that wait for credit or room."""
        return sum(len(queue.tasks or ()) for queue in self._queues)

    def let_in(self) -> None:
        """Wake the callers that wait, since there may be credit or room."""
        for queue in (self._calls, self._notifications, self._room):
            if queue is not None and queue.tasks:
                queue.let_in()

    async def wait_for_room(self) -> None:
        """Wait while the queue has no room. A checkpoint only if it waits."""
        if self._room is None:
            if self.has_room():
                return
            self._room = Admission(self._room_for_items)
        if not self._room.is_free:
            await self._room.wait()

    @property
    def _may_call(self) -> bool:
        """Whether a call may be made now, without overtaking others."""
        return self._room_for_calls() > 0 if self._calls is None else self._calls.is_free

    # ── calling ──────────────────────────────────────────────────────────────────────────────

    @trio.lowlevel.enable_ki_protection
    async def request(
        self,
        method: RemoteMethod,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        *,
        abandon_on_cancel: bool = False,
        callback: tuple[IncomingCall, int] | None = None,
        remote_scope: OutgoingCall | None = None,
        view: CallView | None = None,
    ) -> Any:
        """Call ``method``: send a Request, wait for its end, and return its result or raise.

        Args:
            method: the method to call.
            args: positional arguments.
            kwargs: keyword arguments.
            abandon_on_cancel: leave when cancelled, without waiting for the handler's end.
            callback: an incoming call and the number of its callback, which is called in place of
                ``method``. The ``raises`` of ``method`` still apply.
            remote_scope: the remote scope that the call is made in, or None.
            view: the view of the call that filters have, or None.

        1. Nothing is sent if the deadline has passed. Then wait for credit, which can be cancelled.
        2. From ``_begin`` on the call is in flight, and must come to an end.
        3. If it is the only call in flight, receive its Reply here. Otherwise, or if something else
           arrived, sleep until the call's end. A cancellation withdraws a Request that has not
           left, and raises. Otherwise it sends Cancel.
        4. A cancelled call is awaited under a shield (law 2). So are its callbacks.
        5. A Reply is returned even if the caller was cancelled meanwhile (law 3), but not if it was
           interrupted by Ctrl-C. Any other end raises.
        """
        self.check_run()
        deadline = trio.current_effective_deadline()  # (1)
        if deadline != math.inf and deadline <= trio.current_time():
            await trio.lowlevel.checkpoint()  # raises Cancelled, before anything is sent
        context = call_context(self.session, self.protocol.incoming)
        if callback is not None or remote_scope is not None:
            context = add_place(context, callback, remote_scope)
        if not self._may_call:
            await self._wait_for_credit(context)
        call = self._begin(method, args, kwargs, context, deadline, remote_scope, view)  # (2)
        if abandon_on_cancel:
            call.abandon_on_cancel = True
        self.writer.send()
        if len(self.calls) == 1 and self._receiver.is_free:  # (3)
            await self._receive_reply(call)
        if call.answer is None and call.raise_cancel is None:
            call.task = current_task()
            await wait_task_rescheduled(call.abort)
        if call.answer is None:  # (4)
            await self._wait_for_end(call)
        if call.functions:
            await self._end_callbacks(call)
        answer = call.answer
        if type(answer) is not m.Reply or call.interrupted:  # (5)
            answer = await self._settle(call)
            most = self.limits.max_nodes
            raise from_error(answer.error, method.raises, answer.problem, most)
        if answer.problem is not None:
            raise DecodeError(answer.problem, fate=Fate.STOPPED)
        convert = method.convert
        if convert is None or answer.shape is not None:
            return answer.result
        return converted(convert, answer.result, self.limits.max_nodes)

    async def _receive_reply(self, call: OutgoingCall) -> None:
        """Receive one packet, which may hold this call's end. A cancellation sends Cancel."""
        try:
            reply = await self._receiver.receive_reply(call.id)
        except (trio.Cancelled, KeyboardInterrupt) as exc:
            aborted = call.abort(functools.partial(_raise, exc))
            exc.with_traceback(None)  # it is kept by the call that these frames hold
            if aborted is Abort.SUCCEEDED:
                call.raise_cancel = None
                raise
        else:
            if reply is not None and call.answer is None:  # otherwise it crossed the session's end
                self.finish(reply)
                self._lifecycle.activity_ended()
            self.let_callers_in()
            if self.protocol.has_data:
                self.writer.send()  # a Pong, about which the reader gets no event

    @trio.lowlevel.enable_ki_protection
    async def open(
        self,
        method: RemoteMethod,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        *,
        listener: Listener,
        callback: tuple[IncomingCall, int] | None = None,
        remote_scope: OutgoingCall | None = None,
        view: CallView | None = None,
    ) -> OutgoingCall:
        """Send a Request and return the call, which must be closed with :meth:`close`.

        Args as for :meth:`request`; ``listener`` receives the events of the call.
        """
        self.check_run()
        await trio.lowlevel.checkpoint()
        context = call_context(self.session, self.protocol.incoming)
        context = add_place(context, callback, remote_scope)
        if method.kind.is_opened:
            first = [self.limits.stream_items, self.limits.stream_bytes]
            context = {**(context or {}), "stream": first}
        if not self._may_call:
            await self._wait_for_credit(context)
        deadline = trio.current_effective_deadline()
        call = self._begin(method, args, kwargs, context, deadline, remote_scope, view)
        call.listener = listener
        self.writer.send()
        return call

    def _begin(  # noqa: PLR0917 - made in two places, for each call
        self,
        method: RemoteMethod,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        context: dict[str, Any] | None,
        deadline: float,
        remote_scope: OutgoingCall | None,
        view: CallView | None,
    ) -> OutgoingCall:
        """Queue a Request. From here on the call is in flight."""
        self._lifecycle.check_may_call(context, self.protocol.incoming)
        now = trio.current_time()
        if deadline != math.inf:
            context = {**(context or {}), "deadline": max(0.0, deadline - now), "sent": now}
        task_status = None
        if kwargs and TASK_STATUS in kwargs:
            task_status, kwargs = split_task_status(kwargs)
            if task_status is not None:
                context = {**(context or {}), TASK_STATUS: True}
        # References passed in a call of a remote scope belong to that scope (law 8).
        functions = (
            NO_FUNCTIONS if remote_scope is None else self._open_scope(remote_scope).functions
        )
        if method.converters.prepare is not None:
            args, kwargs = method.converters.prepare(args, kwargs)
        self._functions, self._method = functions, method
        before = len(functions)
        try:
            call_id = self.protocol.request(
                method.name, list(args), kwargs or None, context, self._lend
            )
        except BaseException:
            del self._functions[before:]  # the remote scope continues without them
            raise
        finally:
            functions, self._functions, self._method = self._functions, NO_FUNCTIONS, None
        call = self.calls[call_id] = OutgoingCall(self, call_id, method, now, deadline)
        if view is not None:
            view.id = call_id
        if remote_scope is not None:
            call.remote_scope = remote_scope
        elif functions:
            call.take_callbacks(functions)
        if context:
            call.parent = context.get("parent")
            call.task_status = task_status
        return call

    def _open_scope(self, remote_scope: OutgoingCall) -> OutgoingCall:
        if self.calls.get(remote_scope.id) is not remote_scope:
            raise LocalProtocolError("the remote scope that this call is made in has ended")
        return remote_scope

    def _lend(self, value: Any) -> m.Reference | None:
        """Lend a function or a stream to the call that is being encoded."""
        assert self._method is not None  # noqa: S101 - a Request is being encoded
        lent = lend(value, self._method, len(self._functions))
        if lent is None:
            return None
        if self._functions is NO_FUNCTIONS:
            self._functions = []
        self._functions.append(lent.method)
        return lent.reference

    def callback(
        self, context: Mapping[str, Any]
    ) -> tuple[OutgoingCall, BoundMethod] | tuple[None, None]:
        """Return the function that a Request with that context calls back."""
        call = self.calls.get(context.get("parent", 0))
        number = context["callback"]
        if call is None or number >= len(call.functions):
            return None, None
        call.is_running = True
        return call, call.functions[number]

    async def _end_callbacks(self, call: OutgoingCall) -> None:
        """Cancel the callbacks of a call and wait for them, before the call returns (law 8)."""
        call.cancel_callbacks("the call that this callback belongs to has ended")
        with trio.CancelScope(shield=True):
            while call.callbacks:
                call.task = current_task()
                await wait_task_rescheduled(_never_aborts)

    async def _wait_for_credit(self, context: dict[str, Any] | None) -> None:
        nested = context is not None and "depth" in context
        if nested and not self.protocol.has_call_credit:
            # The calls that hold the credit may be waiting for this very call, perhaps in handlers
            # of the other end. Two ends that call each other and call back would wait forever.
            raise Overloaded("no credit is left for a nested call, and waiting might never end")
        self._calls = self._calls or Admission(self._room_for_calls)
        await self._calls.wait()

    @trio.lowlevel.enable_ki_protection
    async def notify(
        self,
        method: RemoteMethod,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        view: CallView | None = None,
    ) -> None:
        """Send a Notification; args as for :meth:`request`. It waits only for credit and room."""
        self.check_run()
        await trio.lowlevel.checkpoint()
        context = call_context(self.session, self.protocol.incoming)
        if self._notifications is None and not self._room_for_notifications():
            self._notifications = Admission(self._room_for_notifications)
        if self._notifications is not None and not self._notifications.is_free:
            await self._notifications.wait()
        self._notify(method, args, kwargs, context, view)
        self.writer.send()

    def _notify(
        self,
        method: RemoteMethod,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        context: dict[str, Any] | None,
        _view: CallView | None,
    ) -> None:
        """Queue a Notification."""
        self._lifecycle.check_may_call(context, self.protocol.incoming)
        if method.converters.prepare is not None:
            args, kwargs = method.converters.prepare(args, kwargs)
        self.protocol.notify(method.name, list(args), kwargs or None, context, not_lent)

    # ── the end of a call ────────────────────────────────────────────────────────────────────

    def finish(self, message: m.Reply | m.ReplyErr) -> None:
        """Handle a terminal message: wake its caller."""
        self.calls.pop(message.id).end(message)
        self.let_callers_in()

    def let_callers_in(self) -> None:
        """Wake callers that wait for credit.

        Called after each packet: the late end of an abandoned call frees credit without an event.
        """
        if self._calls is not None and self._calls.tasks:
            self._calls.let_in()

    def fail_all(self) -> None:
        """End every call, since the session is over (law 6)."""
        calls, self.calls = self.calls, {}
        for call in calls.values():
            never_left = self.protocol.never_left(call.id)
            fate = Fate.NOT_STARTED if never_left else Fate.UNKNOWN
            call.end(Failure(fate, functools.partial(self._lifecycle.error, fate)))
        for queue in self._queues:
            queue.open()
        self._calls = self._notifications = self._room = OPEN

    def let_go(self) -> None:
        """Drop the references to this object. The session is over, and calls only raise."""
        self.session = None

    def check_over(self, fate: Fate = Fate.UNKNOWN) -> None:
        """Raise the error of a session that is over."""
        if self._lifecycle.is_over:
            raise self._lifecycle.error(fate)

    def cancel(self, call: OutgoingCall) -> bool:
        """Cancel a call; return True if its caller need not wait."""
        reason = reason_of(call)
        if call.answer is not None:
            return False  # a caller that receives is cancelled in the tick of the session's end
        call.cancel_callbacks(reason or "the call that this callback belongs to is cancelled")
        withdrawn = self.protocol.cancel(call.id, reason)
        if not withdrawn:
            if not call.abandon_on_cancel:
                self._expect_end(call)
                return False
            self.protocol.abandon(call.id)
        del self.calls[call.id]
        self.writer.send()
        self.let_in()
        return True

    async def _wait_for_end(self, call: OutgoingCall) -> None:
        """Wait for the end of a call that has been cancelled."""
        with trio.CancelScope(shield=True):
            while call.answer is None:
                call.task = current_task()
                await wait_task_rescheduled(call.abort_again)

    def _expect_end(self, call: OutgoingCall) -> None:
        """Send Cancel, and abandon the call if it does not end within ``cancel_grace``."""
        self.writer.send()
        self.writer.write_early()
        call.expires = trio.current_time() + self.limits.cancel_grace
        self._lifecycle.look_by(call.expires)

    @property
    def first_to_expire(self) -> float:
        """The time when :meth:`abandon_late` is due, if no call ends before."""
        return min((call.expires for call in self.calls.values()), default=math.inf)

    def abandon_late(self, now: float) -> None:
        """Abandon cancelled calls that have not ended in time."""
        for call in list(self.calls.values()):
            if call.expires <= now:
                self._abandon(call)

    def _abandon(self, call: OutgoingCall) -> None:
        self._complaints.log(
            logging.WARNING,
            "%s at %s did not end within %g s of its cancellation and is abandoned",
            call.method.name,
            self._name,
            self.limits.cancel_grace,
        )
        del self.calls[call.id]
        self.protocol.abandon(call.id)
        self.writer.send()
        error = {"code": "cancelled", "message": "abandoned, because it did not end in time"}
        call.end(m.ReplyErr(call.id, error))

    # ── opened calls, which no task awaits ───────────────────────────────────────────────────

    def items(self, call_id: int, items: Sequence[m.Item]) -> None:
        """Handle one or more Items of a call."""
        call = self.calls[call_id]
        call.is_running = True
        call.listener.items(items)

    def end_of_items(self, message: m.EndOfItems) -> None:
        """Handle the end of a stream's items."""
        self.calls[message.id].listener.end_of_items()

    def grant_items(self, call: OutgoingCall, items: int, size: int) -> None:
        """Grant credit for items that were received from this call's stream."""
        if call.answer is None:
            self.protocol.grant_items(call.id, items, size)
            self.writer.wake()

    def started(self, message: m.Started) -> None:
        """Call the local ``task_status.started()``, since the handler has called its own."""
        call = self.calls[message.id]
        call.is_running = True
        try:
            value = started_value(call.method, message, self.limits.max_nodes)
        except DecodeError as exc:
            self.drop(call, "the started value does not fit its annotation")
            make = functools.partial(DecodeError, *exc.args, fate=exc.fate)
            call.end(Failure(exc.fate, make))
            return
        if call.task_status is not None:
            # Trio now moves the task to its new parent, which has other deadlines.
            call.deadline = math.inf
            call.task_status.started(value)

    @trio.lowlevel.enable_ki_protection
    async def close(self, call: OutgoingCall, reason: str) -> None:
        """End an opened call: cancel it, and wait until it has ended (law 2)."""
        if call.answer is None and self.calls.get(call.id) is call:
            call.cancel_callbacks(reason)
            if self.protocol.cancel(call.id, reason):
                call.listener = None
                del self.calls[call.id]
                self.writer.send()
                self.let_in()
            else:
                self._expect_end(call)
                await self._wait_for_end(call)
        if call.functions:
            await self._end_callbacks(call)

    def drop(self, call: OutgoingCall, reason: str) -> None:
        """End an opened call without waiting for its end."""
        if self.calls.get(call.id) is call:
            if not self.protocol.cancel(call.id, reason):
                self.protocol.abandon(call.id)
            call.listener = None
            del self.calls[call.id]
            self.writer.send()

    @trio.lowlevel.enable_ki_protection
    async def failure(self, call: OutgoingCall) -> Exception:
        """Make the exception for a failed opened call."""
        answer = await self._settle(call)
        most = self.limits.max_nodes
        return from_error(answer.error, call.method.raises, answer.problem, most)

    async def _settle(self, call: OutgoingCall) -> m.ReplyErr:
        """Return the call's error, or raise the exception that replaces it for the caller."""
        answer = call.answer
        if call.interrupted:
            raise_cancelled(call)
        if isinstance(answer, m.ReplyErr):
            code = answer.error.get("code")
            if code in _CANCELLED_CODES and call.raise_cancel is not None:
                raise_cancelled(call)
            if code == "deadline":
                await wait_for_own_deadline(call)
            return answer
        if call.raise_cancel is not None:
            raise_cancelled(call)
        assert isinstance(answer, Failure)  # noqa: S101 - nothing else ends a call
        raise answer.make()


def _raise(exc: BaseException) -> NoReturn:
    try:
        raise exc
    finally:
        del exc  # its traceback holds this frame


def _never_aborts(_raise_cancel: RaiseCancel) -> Abort:
    return Abort.FAILED  # the callbacks that it waits for have been cancelled

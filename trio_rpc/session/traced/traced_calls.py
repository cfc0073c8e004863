"""The traced calls of both directions: the steps 8 to 11, 17 and 18."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trio_rpc.services.proxies import RemoteMethod
from trio_rpc.session.calls.context import handled_call
from trio_rpc.session.calls.incoming_call import IncomingCall
from trio_rpc.session.calls.outgoing import OutgoingCalls
from trio_rpc.session.calls.outgoing_call import CallView, OutgoingCall
from trio_rpc.session.dispatch import IncomingCalls
from trio_rpc.session.handler import Outcome, call_handler, invoke
from trio_rpc.session.traced.traced_protocol import TracedProtocol
from trio_rpc.session.traced.tracer import Traced, Tracer
from trio_rpc.wire import messages as m

__all__ = ["TracedIncomingCalls", "TracedOutgoingCalls"]


class TracedOutgoingCalls(OutgoingCalls):
    """Outgoing calls that tell the tracer which call is being queued, and when it has ended."""

    def __init__(self, tracer: Tracer, protocol: TracedProtocol, *parts: Any) -> None:
        super().__init__(protocol, *parts)
        self._tracer = tracer
        self._traced_protocol = protocol

    def finish(self, message: m.Reply | m.ReplyErr) -> None:
        """Handle a terminal message: wake its caller."""
        traced = self._tracer.outgoing.get(message.id)
        if traced is not None:
            self._tracer.note(17, traced)
        super().finish(message)
        self._woken(message.id)

    def fail_all(self) -> None:
        """End every call, since the session is over (law 6)."""
        calls = list(self.calls)
        super().fail_all()
        for call in calls:
            self._woken(call, "session over")

    def _abandon(self, call: OutgoingCall) -> None:
        super()._abandon(call)
        self._woken(call.id, "abandoned")

    def _woken(self, call: int, state: str | None = None) -> None:
        """Note that the caller has been woken."""
        traced = self._tracer.outgoing.get(call)
        if traced is not None:
            traced.state = state or traced.state
            self._tracer.note(18, traced)
            if call not in self.protocol.outgoing:  # an abandoned call still gets its late answer
                del self._tracer.outgoing[call]
        self._tracer.flush()

    def _begin(  # noqa: PLR0917 - as in the base class
        self,
        method: RemoteMethod,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        context: dict[str, Any] | None,
        deadline: float,
        remote_scope: OutgoingCall | None,
        view: CallView | None,
    ) -> OutgoingCall:
        self._traced_protocol.beginning = self._tracer.traced(method.title, view)
        return super()._begin(method, args, kwargs, context, deadline, remote_scope, view)

    def _notify(
        self,
        method: RemoteMethod,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        context: dict[str, Any] | None,
        view: CallView | None,
    ) -> None:
        self._traced_protocol.beginning = self._tracer.traced(method.title, view)
        super()._notify(method, args, kwargs, context, view)


class TracedIncomingCalls(IncomingCalls):
    """Incoming calls that tell the tracer when a handler runs, and its outcome."""

    def __init__(self, tracer: Tracer, *parts: Any) -> None:
        super().__init__(*parts)
        self._tracer = tracer
        # Bound: the calls that wait or run.
        self._notifications: dict[int, Traced] = {}
        """The notifications that have not ended, by their local numbers."""
        self._waiting: dict[int, Traced] = {}
        """The notifications whose handlers have not begun, by the identities of their messages."""
        self._beginning: Traced | None = None
        """The notification that begins."""
        traced_invoke = functools.partial(_invoke, tracer, self._notifications)
        self._call = functools.partial(call_handler, self._filters, invoke=traced_invoke)
        self._call_plain = functools.partial(_call_plain, traced_invoke)

    def start_request(self, request: m.Request) -> IncomingCall | None:
        """Start the handler of a Request, or answer it with the reason why not."""
        traced = self._tracer.incoming.get(request.id)
        if traced is not None:
            self._tracer.note(8, traced)
            self._tracer.flush()
        return super().start_request(request)

    def start_notification(self, message: m.Notification) -> IncomingCall | None:
        """Start the handler of a Notification, or log why not."""
        traced = self._tracer.notifications.popleft()
        self._waiting[id(message)] = traced  # the message lives until it is handled
        self._tracer.note(8, traced)
        self._tracer.flush()
        return super().start_notification(message)

    def _begin_notification(self, message: m.Notification) -> IncomingCall | None:
        self._beginning = self._waiting.pop(id(message), None)
        return super()._begin_notification(message)

    def _waits_for_service(self, number: int, message: m.Request | m.Notification) -> bool:
        is_kept = super()._waits_for_service(number, message)
        if is_kept and number < 0 and self._beginning is not None:
            self._waiting[id(message)] = self._beginning
        return is_kept

    def _refuse(self, message: m.Request | m.Notification) -> None:
        self._beginning = self._waiting.pop(id(message), None)
        super()._refuse(message)

    def _drop_notification(self, reason: Exception) -> None:
        if self._beginning is not None:
            self._tracer.note_dropped(self._beginning)
        super()._drop_notification(reason)

    def _start(self, call: IncomingCall) -> IncomingCall | None:
        if call.id < 0 and self._beginning is not None:
            self._notifications[call.id] = self._beginning
        self._note(9, call)
        return super()._start(call)

    def end(self, call: IncomingCall, outcome: Outcome) -> None:
        """End a call with the outcome of its handler."""
        if outcome.error is not None:
            self._note(11, call, "raised")
        else:
            self._note(11, call, "cancelled" if outcome.is_cancelled else "result")
        self._notifications.pop(call.id, None)
        super().end(call, outcome)

    def let_go(self) -> None:
        """Drop the references to this object. The session is over, and no handler begins."""
        super().let_go()
        self._tracer.end(self._waiting.values())
        self._waiting.clear()

    def _note(self, step: int, call: IncomingCall, state: str | None = None) -> None:
        calls = self._tracer.incoming if call.id > 0 else self._notifications
        traced = calls.get(call.id)
        if traced is not None:
            traced.state = state or traced.state
            self._tracer.note(step, traced)
            self._tracer.flush()


def _invoke(tracer: Tracer, notifications: Mapping[int, Traced], call: IncomingCall) -> Any:
    traced = (tracer.incoming if call.id > 0 else notifications).get(call.id)
    if traced is not None:
        tracer.note(10, traced)
        tracer.flush()
    return invoke(call)


def _call_plain(invoke: Callable[[IncomingCall], Any], call: IncomingCall) -> Any:
    handled_call.set(call)
    return invoke(call)

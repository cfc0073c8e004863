"""The tracer of one session: it makes the events, and passes them to the user's trace.

The parts of a traced session note each step here, with its time. They call :meth:`Tracer.flush`
once their own state is consistent, because the trace is a function of the user, which may cancel
scopes and so call back into the session.

A message that leaves is noted when it is taken from the queue. It is reported when its packet has
been passed to the channel (:meth:`Tracer.passed_on`): only then may more packets be written.
"""

from __future__ import annotations

import functools
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

import trio

from trio_rpc.tracing.events import Trace, TraceEvent, WireEvent
from trio_rpc.util.per_run import PerRun
from trio_rpc.util.rate_limited_log import RateLimitedLog
from trio_rpc.util.text import one_line
from trio_rpc.wire import messages as m

__all__ = ["Traced", "Tracer"]

_WITH_SIZE: Final = frozenset({3, 4, 5, 6, 7, 12, 13, 14, 15, 16})
"""The steps that concern an encoded message."""

_OF_CALLEE: Final = frozenset({m.Reply, m.ReplyErr, m.Item, m.EndOfItems, m.Started})
"""The messages within a call that its callee sends."""


def _offset() -> float:
    """Return the seconds from 1970 to the zero of Trio's clock, which no other run shares."""
    return time.time() - trio.current_time()


# One for all sessions of a run, so that differences between their events are exact.
_offset_of_this_run = PerRun("trio_rpc traces", _offset)


class Traced:
    """A call, as the tracer knows it.

    Attributes:
        number: its number at this end; see :class:`TraceEvent`.
        method: its method's full name.
        is_incoming: whether the other end made it.
        call: its id, once it has one.
        state: its state, for the next event.
        size: the bytes of its last message.
    """

    __slots__ = ("call", "is_incoming", "method", "number", "size", "state")

    def __init__(
        self,
        number: int,
        method: str,
        is_incoming: bool,  # noqa: FBT001
        call: int | None,
        state: str,
    ) -> None:
        self.number = number
        self.method = method
        self.is_incoming = is_incoming
        self.call = call
        self.state = state
        self.size = 0


class Tracer:
    """Makes the events of one session.

    Bound: one entry for each call in flight, and notes of the packet that is received or sent.

    Args:
        trace: the user's function; see :data:`trio_rpc.tracing.Trace`.
        complaints: logs errors of the trace.
        peer: the other end's name in logs.

    Attributes:
        part: this end's part of the session's id.
        session: the session's id, once the other end's Hello has arrived.
        incoming: the peer's Requests in flight, by their ids.
        outgoing: our Requests in flight, by their ids.
        notifications: the peer's Notifications that have been decoded and not handled.
    """

    def __init__(self, trace: Trace, complaints: RateLimitedLog, peer: str = "") -> None:
        self._peer = one_line(peer)
        self.part = self.session = secrets.token_hex(4)
        self.incoming: dict[int, Traced] = {}
        self.outgoing: dict[int, Traced] = {}
        self.notifications: deque[Traced] = deque()
        self.sees_messages = hasattr(trace, "on_message")
        self._on_message: Callable[[WireEvent], None] = getattr(trace, "on_message", _ignore)
        self._wants_payloads = bool(getattr(trace, "payloads", False))
        self._trace = trace
        self._complaints = complaints
        self._has_failed = False
        self._offset = _offset_of_this_run.get()
        self._notes: deque[Callable[[], None]] = deque()
        self._leaving: list[Callable[[float], None]] = []
        self._numbers = {True: 0, False: 0}

    def now(self) -> float:
        """Return the time for events."""
        return self._offset + trio.current_time()

    def begin(
        self, method: str, *, is_incoming: bool, call: int | None = None, state: str = "new"
    ) -> Traced:
        """Return a new call, with the next number of its direction."""
        self._numbers[is_incoming] += 1
        return Traced(self._numbers[is_incoming], method, is_incoming, call, state)

    def traced(self, method: str, view: Any) -> Traced:
        """Return an outgoing call that is about to be queued.

        Args:
            method: the method, as it is shown.
            view: the view of a call whose step 1 has been noted, or None.
        """
        if view is None:
            return self.begin(method, is_incoming=False)
        # A filter may proceed more than once: each time it is another call with the same number.
        return Traced(view.number, method, False, None, "new")

    # ── noting ───────────────────────────────────────────────────────────────────────────────

    def note(self, step: int, traced: Traced, when: float | None = None) -> None:
        """Note a step of a call, which happens now unless ``when`` is given."""
        event = TraceEvent(
            step,
            self.now() if when is None else when,
            self.session,
            traced.is_incoming,
            traced.call,
            traced.number,
            traced.method,
            traced.size if step in _WITH_SIZE else 0,
            traced.state,
            self._peer,
        )
        self._notes.append(functools.partial(self._trace, event))

    def note_message(
        self, kind: type[Any], call: int | None, method: str, size: int, payload: Any
    ) -> None:
        """Note a message that has arrived."""
        if self.sees_messages:
            method = method or self._method_of(kind, call, is_sent=False)
            self._note_message(False, kind, call, method, size, payload, self.now())

    def note_leaving(self, step: int, traced: Traced) -> None:
        """Note a step of a call whose message was taken from the queue."""
        self._leaving.append(functools.partial(self.note, step, traced))

    def note_leaving_message(
        self, kind: type[Any], call: int | None, method: str, size: int, payload: Any
    ) -> None:
        """Note a message that was taken from the queue."""
        if self.sees_messages:
            method = method or self._method_of(kind, call, is_sent=True)
            note = functools.partial(self._note_message, True, kind, call, method, size, payload)
            self._leaving.append(note)

    def _note_message(  # noqa: PLR0917 - the fields of an event
        self,
        is_sent: bool,  # noqa: FBT001
        kind: type[Any],
        call: int | None,
        method: str,
        size: int,
        payload: Any,
        when: float,
    ) -> None:
        data = bytes(payload) if self._wants_payloads else b""
        event = WireEvent(when, self.session, is_sent, size, kind.__name__, call, method, data)
        self._notes.append(functools.partial(self._on_message, event))

    def _method_of(self, kind: type[Any], call: int | None, *, is_sent: bool) -> str:
        """Return the method of the call that a message belongs to."""
        is_incoming = (kind in _OF_CALLEE) is is_sent
        traced = (self.incoming if is_incoming else self.outgoing).get(call or 0)
        return "" if traced is None else traced.method

    # ── reporting ────────────────────────────────────────────────────────────────────────────

    def note_dropped(self, notification: Traced) -> None:
        """Note that no handler runs for a notification."""
        notification.state = "dropped"
        self.note(11, notification)
        self.flush()

    def end(self, notifications: Iterable[Traced]) -> None:
        """Note the end of the session for the peer's calls that it leaves without an answer.

        Args:
            notifications: the notifications whose handlers have not begun.
        """
        for traced in (*self.incoming.values(), *self.notifications, *notifications):
            traced.state = "session over"
            self.note(11, traced)
        self.incoming.clear()
        self.flush()

    def passed_on(self) -> None:
        """Report the messages that have left: their packet has been passed to the channel."""
        now = self.now()
        leaving, self._leaving = self._leaving, []
        for note in leaving:
            note(now)
        self.flush()

    def flush(self) -> None:
        """Pass the notes to the trace."""
        while self._notes:
            report = self._notes.popleft()
            try:
                report()
            except Exception as exc:  # noqa: BLE001 - a trace must not break the session
                self._complain(exc)

    def _complain(self, exc: Exception) -> None:
        if not self._has_failed:
            self._has_failed = True
            text = "a trace raised %s; later errors of this session's trace are not logged"
            self._complaints.log(logging.ERROR, text, type(exc).__qualname__, exc_info=exc)


def _ignore(_event: WireEvent) -> None:
    """Do nothing with a message, since the trace only sees steps."""

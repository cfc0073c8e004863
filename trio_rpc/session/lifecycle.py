"""The lifecycle of a session: the theory, the table of stages, and the errors that its end causes.

Theory of operation
===================

A session is OPENING until each end has accepted the other, and OPEN until one end says Goodbye.
From then on no new call begins, and calls in flight may end. If the other end says Goodbye first,
this end makes no new calls, goes on otherwise, and answers the Goodbye (PEER_CLOSING). If this end
closes, by ``aclose()`` or because its block has ended, it waits for calls in flight for a bounded
time. It ends the session as soon as both ends have sent Goodbye and nothing is in flight (CLOSING).
A block whose body has ended waits for nothing else, so from then on a cancellation of the block
ends the session at once (LEAVING).

While a session is OPENING, this end has no call in flight. The other end may have one as soon as
this end has sent its Welcome. So ``aclose()`` lets such a session open before it closes it, and
stops any other OPENING session at once.

A closing session can end in three ways. It is FINISHED in order. Or this end STOPs it, because the
time is up or the task that waits for the close was cancelled. Or the session is LOST, because of
the network, the other end, or a bug. In each case handlers are cancelled, calls end (law 6), and
the channel is closed.

The last stages answer two questions about a session that is over. *Was it ever open?* If not, the
block that wanted to open it raises. *Has this end closed it?* If not, its block is cancelled
(law 17). An end that closes a session after its end counts as having closed it. A FINISHED session
need not linger, since the other end has nothing more to send.

::

    OPENING --opened--> OPEN --goodbye--> PEER_CLOSING --close, leave--.
       |                  |                    |                      |
       |                  `------close, leave--|-------> CLOSING, LEAVING --finish--> FINISHED
       |                  |                    |                      |
       |                  `-------lose---------+---> LOST             `--stop, lose-> CLOSED
       |
       `--lose--> FAILED                      FAILED --close--> GIVEN_UP
       `--stop--> GIVEN_UP                    LOST   --close--> CLOSED

An event that is not in the table, because it is late or repeated, does not change the stage.
"""

from __future__ import annotations

import enum
import math
import typing
from collections.abc import Callable, Container, Mapping
from typing import Any, Final, TypeVar

import trio

from trio_rpc.channels.errors import ChannelBroken, EndDetail, detail_of
from trio_rpc.errors import (
    DecodeError,
    Fate,
    LocalProtocolError,
    Refused,
    RemoteProtocolError,
    RpcError,
    SessionBroken,
    SessionClosed,
)
from trio_rpc.protocol.protocol import Protocol
from trio_rpc.protocol.states import Half
from trio_rpc.session.end import EndedBy, SessionEnd, check_reason
from trio_rpc.session.io.writer import Writer
from trio_rpc.util.numbers import check_not_negative
from trio_rpc.util.places import keep_all_places
from trio_rpc.util.raised import text_of
from trio_rpc.util.text import one_line
from trio_rpc.wire.limits import Limits

__all__ = ["NEXT", "Activities", "Event", "Lifecycle", "Stage", "as_cause"]

T = TypeVar("T", bound=Exception)

CLOSED: Final = "it closed the session"
"""The text of a Goodbye without a reason, as the other end shows it: the other end has left: …"""

_PACKAGE: Final = __name__.rpartition(".")[0]


class Stage(enum.Enum):
    """The stage of a session.

    Attributes:
        state: "opening", "open", "closing" or "over": the state that users see.
        is_closing: an end has sent Goodbye, and calls in flight may end.
        is_over: the session has ended.
        was_open: calls could be made, or still can.
        is_closed_by_us: this end closes the session, or has closed it.
    """

    OPENING = "opening"
    OPEN = "open"
    PEER_CLOSING = "closing: the other end has begun"
    CLOSING = "closing: this end closes"
    LEAVING = "closing: this end closes, and its block is over"
    FINISHED = "over: both ends have sent Goodbye, and nothing was in flight"
    CLOSED = "over: this end has closed it"
    LOST = "over: by the other end, the network or a bug"
    GIVEN_UP = "over: closed by this end before it was open"
    FAILED = "over: before it was open"

    # Members are compared by identity. Enum's own hash is that of the name, made in Python.
    __hash__ = object.__hash__

    def __init__(self, text: str) -> None:
        self.state = text.partition(":")[0]
        self.is_closing = self.state == "closing"
        self.is_over = self.state == "over"
        self.was_open = self.name not in {"OPENING", "GIVEN_UP", "FAILED"}
        self.is_closed_by_us = self.name in {"CLOSING", "LEAVING", "FINISHED", "CLOSED", "GIVEN_UP"}


class Event(enum.Enum):
    """The events that move a session from one stage to another."""

    OPENED = "both ends have accepted each other"
    GOODBYE = "the other end has sent Goodbye"
    CLOSE = "this end begins to close"
    LEAVE = "its block is over"
    FINISH = "both ends have sent Goodbye, nothing is in flight, and this end closes"
    STOP = "this end closes at once"
    LOSE = "something else has ended it"

    # As in Stage.
    __hash__ = object.__hash__


_S, _E = Stage, Event
NEXT: Final[Mapping[tuple[Stage, Event], Stage]] = {
    (_S.OPENING, _E.OPENED): _S.OPEN,
    (_S.OPENING, _E.STOP): _S.GIVEN_UP,
    (_S.OPENING, _E.LOSE): _S.FAILED,
    (_S.OPEN, _E.GOODBYE): _S.PEER_CLOSING,
    (_S.OPEN, _E.CLOSE): _S.CLOSING,
    (_S.OPEN, _E.LEAVE): _S.LEAVING,
    (_S.OPEN, _E.STOP): _S.CLOSED,
    (_S.OPEN, _E.LOSE): _S.LOST,
    (_S.PEER_CLOSING, _E.CLOSE): _S.CLOSING,
    (_S.PEER_CLOSING, _E.LEAVE): _S.LEAVING,
    (_S.PEER_CLOSING, _E.FINISH): _S.FINISHED,
    (_S.PEER_CLOSING, _E.STOP): _S.CLOSED,
    (_S.PEER_CLOSING, _E.LOSE): _S.LOST,
    (_S.CLOSING, _E.LEAVE): _S.LEAVING,
    (_S.CLOSING, _E.FINISH): _S.FINISHED,
    (_S.CLOSING, _E.STOP): _S.CLOSED,
    (_S.CLOSING, _E.LOSE): _S.CLOSED,
    (_S.LEAVING, _E.FINISH): _S.FINISHED,
    (_S.LEAVING, _E.STOP): _S.CLOSED,
    (_S.LEAVING, _E.LOSE): _S.CLOSED,
    (_S.LOST, _E.CLOSE): _S.CLOSED,
    (_S.FAILED, _E.CLOSE): _S.GIVEN_UP,
}
"""The stage after an event, for each stage in which the event has an effect."""

# Looking up a member in its class takes longer than everything done with it.
_OPEN = Stage.OPEN
_HALF_LEAVING = Half.LEAVING


class Activities(typing.Protocol):
    """The activities of a session, as its lifecycle needs to know them."""

    @property
    def are_over(self) -> bool:
        """Whether nothing is in flight, in either direction."""

    @property
    def notifications_are_over(self) -> bool:
        """Whether every notification that has arrived has been handled."""

    def leave(self) -> None:
        """Allow a cancellation to end the session at once, since its block only waits for it."""

    def end(self) -> None:
        """Stop reading, cancel the handlers and wake the callers, since the session is over."""


class Watches(typing.Protocol):
    """Looks after a session at a given time."""

    def plan(self, when: float) -> None:
        """Look after the session at that time, if not before."""


class _NoWatch:
    """The watch of a session that has not begun."""

    def plan(self, when: float) -> None:
        pass


_NO_WATCH = _NoWatch()


class Lifecycle:
    """The stage of one session, its transitions, and the cause of its end.

    Args:
        protocol: queues Goodbyes.
        writer: writes them.
        limits: for ``close_grace``.
        activities: the calls and handlers of the session.
    """

    def __init__(
        self, protocol: Protocol, writer: Writer, limits: Limits, activities: Activities
    ) -> None:
        self.stage = Stage.OPENING
        self.is_closed = False
        """The channel is closed, and all tasks but exiting handlers have finished."""
        self._closed: trio.Event | None = None
        """Set when it is closed, if a task waits for that."""
        self.when_open: Callable[[], None] | None = None
        """Called when the session opens, if no task waits for that."""
        self.when_closed: Callable[[], None] | None = None
        """Called when the session is over and its channel closed, to end its block (law 17)."""
        self.peer_drains = False
        """Whether the other end has said that it will send Goodbye soon."""
        self.goodbye_text: str | None = None
        """The text of the other end's Goodbye, if it was sent first."""
        self.cause: Exception | None = None
        """The reason why the session is over; None after an orderly end."""
        self.ended_by: EndedBy = "us"
        self.detail: EndDetail | None = None
        """The transport's detail about the other end's end of the channel, if it has one."""
        self._closing_reason = ""
        """The reason why this end closes, in the words of its program; "" if it gave none."""
        self._last_text = "it was closed before it was open"
        """The text of the Goodbye of a session that was never open."""
        self.close_by = math.inf
        """The time when a closing session is stopped."""
        self.watch: Watches = _NO_WATCH
        """Looks after the session when it is time; set by the driver."""
        self._changed: trio.Event | None = None
        """Set at the next change, if a task waits for that."""
        self._protocol = protocol
        self._writer = writer
        self._limits = limits
        self._activities: Activities | None = activities

    def _move(self, event: Event) -> None:
        """Enter the next stage, and wake the tasks that wait for a change."""
        self.stage = NEXT.get((self.stage, event), self.stage)
        self._wake()

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    @property
    def is_over(self) -> bool:
        """Whether the session has ended."""
        return self.stage.is_over

    @property
    def is_open(self) -> bool:
        """Whether calls can be made."""
        return self.stage is _OPEN and not self._has_unhandled_goodbye

    @property
    def _has_unhandled_goodbye(self) -> bool:
        """Whether the other end's Goodbye has been read, but not handled.

        A caller that receives its own Reply goes on before the reader handles the rest of its
        packet.
        """
        return self.stage is _OPEN and self._protocol.theirs is _HALF_LEAVING

    # ── from stage to stage ──────────────────────────────────────────────────────────────────

    def open(self) -> None:
        """Record that each end has accepted the other, so that calls can be made."""
        self._move(Event.OPENED)
        if self.stage is _OPEN and self.when_open is not None:
            when_open, self.when_open = self.when_open, None
            when_open()

    def peer_begins_to_drain(self) -> None:
        """Record that the other end will send Goodbye soon. Calls can still be made."""
        self.peer_drains = True
        self._wake()

    def peer_closes(self, text: str) -> None:
        """Record the other end's Goodbye; ``text`` says why."""
        if self.stage is Stage.OPENING:
            self.goodbye_text = text
            self.lose(None, "peer")
            return
        if self.stage is Stage.OPEN:
            self.goodbye_text = text
        self._move(Event.GOODBYE)
        self.activity_ended()

    @trio.lowlevel.enable_ki_protection
    async def aclose(self, *, reason: str = "", grace: float | None = None) -> None:
        """Close the session: say Goodbye, let calls in flight end, then close the channel.

        If it is cancelled, it closes at once: handlers are cancelled, and calls in flight raise.
        If the other end may call, but the session is not open here yet, wait for that first.

        Args:
            reason: why, for people at both ends; only the first close can give one.
            grace: seconds that calls in flight get; ``limits.close_grace`` by default.

        Raises:
            TypeError: ``reason`` is not a str, or ``grace`` is not a number.
            ValueError: ``grace`` is negative.
        """
        check_reason(reason)
        if grace is not None:
            check_not_negative("grace", grace)
        try:
            if self.is_over:
                self._move(Event.CLOSE)  # so that its block is not cancelled (law 17)
            elif reason and not self.stage.is_closed_by_us:
                self._closing_reason = self._last_text = one_line(reason, 1000)
            await trio.lowlevel.checkpoint_if_cancelled()
            self._set_grace(grace)
            if self._has_welcomed:
                await self.begun()
            self.close(grace=grace)
            await self.wait_closed()
        finally:
            self.stop()

    def close(self, *, grace: float | None = None) -> None:
        """Begin to close. The session ends when nothing is in flight, at the latest after grace."""
        self._begin_to_close(Event.CLOSE, grace)

    def leave(self) -> None:
        """Begin to close, as ``aclose()`` does; a cancellation of its reader now ends it at once.

        Called when a block's body has ended, so that the block only waits for the reader.
        """
        self._begin_to_close(Event.LEAVE, None)
        if self._activities is not None:
            self._activities.leave()

    def _begin_to_close(self, event: Event, grace: float | None) -> None:
        """Send Goodbye. The end of the last activity ends the session, or else the watch does."""
        if self.stage is Stage.OPENING:
            self.stop()  # nothing can be in flight
            return
        self._move(event)
        if self.is_over:
            return
        self._set_grace(grace)
        if self._protocol.ours is Half.OPEN:
            self._protocol.goodbye("done", self._goodbye_text)
            self._writer.write_now()
        self._end_if_quiet()

    @property
    def _goodbye_text(self) -> str:
        return self._closing_reason or CLOSED

    def _set_grace(self, grace: float | None) -> None:
        """Stop the session after ``grace`` seconds, or the default, unless it stops before."""
        grace = self._limits.close_grace if grace is None else grace
        self.close_by = min(self.close_by, trio.current_time() + grace)
        self.look_by(self.close_by)

    @property
    def _has_welcomed(self) -> bool:
        """Whether this end has sent its Welcome, but the session is not open here yet."""
        return self.stage is Stage.OPENING and self._protocol.ours is Half.OPEN

    def activity_ended(self) -> None:
        """Check whether the session can end, since an activity has ended."""
        if self.stage is not _OPEN:
            self._answer_goodbye()
            self._end_if_quiet()
            self._wake()

    def _answer_goodbye(self) -> None:
        """Answer the peer's Goodbye once its notifications have been handled; none is cut off."""
        if (
            self._protocol.theirs is Half.LEAVING
            and self._protocol.ours is Half.OPEN
            and self._activities is not None
            and self._activities.notifications_are_over
        ):
            self._protocol.goodbye("done", "answering a Goodbye")
            self._writer.write_now()

    @property
    def is_quiet(self) -> bool:
        """Whether the other end begins no more calls and nothing is in flight."""
        return (
            self._protocol.theirs is not Half.OPEN
            and self._activities is not None
            and self._activities.are_over
        )

    def _end_if_quiet(self) -> None:
        if self.stage.is_closed_by_us and not self.is_over and self.is_quiet:
            self._end(Event.FINISH)

    def stop(self) -> None:
        """Begin to close at once, as ``aclose()`` does when it is cancelled."""
        is_finished = self.stage.is_closing and self.is_quiet
        self._end(Event.FINISH if is_finished else Event.STOP)

    def lose(
        self, cause: Exception | None, by: EndedBy = "us", detail: EndDetail | None = None
    ) -> None:
        """End the session, which this end has not closed. The first cause counts.

        After the other end's Goodbye, the other end counts as having ended the session.
        """
        if not self.is_over:
            if cause is not None:
                keep_all_places(cause, _is_not_ours)  # their frames hold this object
            self.cause = cause
            self.ended_by = by
            self.detail = detail
            self._end(Event.LOSE)

    def end_unopened(self, cause: Exception, by: EndedBy = "us") -> None:
        """End a session that is not open, and tell the other end the text of ``cause``.

        :meth:`lose` does not tell it, since the cause may be a bug.
        """
        self._last_text = text_of(cause)
        self.lose(cause, by)

    def end_unwelcomed(self, cause: Exception) -> None:
        """End the session if the other end cannot have called yet, because it has no Welcome."""
        if self.stage is Stage.OPENING and not self._has_welcomed:
            self.end_unopened(cause)

    def _end(self, event: Event) -> None:
        """Cancel the handlers and end the calls, since the session is over (law 6)."""
        if self.is_over:
            return
        if self.goodbye_text is not None:
            self.ended_by = "peer"
        self._move(event)
        if self._activities is not None:
            self._activities.end()

    def channel_closed(self) -> None:
        """Wake the tasks that wait for the end; end the block unless this end has closed."""
        self.is_closed = True
        if self._closed is not None:
            self._closed.set()
        if self.when_closed is not None:
            self.when_closed()
        self._activities = self.when_open = None  # they refer to this object
        self.watch = _NO_WATCH

    async def wait_closed(self) -> None:
        """Wait until the channel is closed, and all tasks but exiting handlers have finished."""
        if self.is_closed:
            await trio.lowlevel.checkpoint()
            return
        if self._closed is None:
            self._closed = trio.Event()
        await self._closed.wait()

    # ── the watch          ───────────────────────────────────────────────────────────────────

    def stop_if_late(self, now: float) -> None:
        """Stop a closing session whose time is up."""
        if now >= self.close_by:
            self.stop()

    def look_by(self, when: float) -> None:
        """Look after the session at that time, if not before."""
        self.watch.plan(when)

    # ── the stage, as callers see it ─────────────────────────────────────────────────────────

    async def begun(self) -> None:
        """Wait until the session is open, or can no longer open.

        When the waiting task runs, an open session may already be in a later stage.
        """
        while self.stage is Stage.OPENING:
            await self.wait_changed()

    async def wait_changed(self) -> None:
        """Wait until a later stage is entered, or an activity of a closing session has ended."""
        if self._changed is None:
            self._changed = trio.Event()
        await self._changed.wait()

    def error(self, fate: Fate) -> RpcError:
        """Make the error for a call that cannot be made, or was cut off."""
        if self.cause is None and self.goodbye_text is None:
            return SessionClosed(self._because("this end has closed the session"), fate=fate)
        if self.cause is None:
            return SessionBroken(
                f"the other end has left: {self.goodbye_text}", fate=fate, orderly=True
            )
        error = SessionBroken(f"the session is over: {_one_line(self.cause)}", fate=fate)
        error.__cause__ = self.cause
        return error

    def check_may_call(self, context: Mapping[str, Any] | None, incoming: Container[int]) -> None:
        """Raise if a call with that context cannot be made now.

        Args:
            context: the call's context.
            incoming: the ids of the incoming calls. While the session closes, calls may still be
                made inside them.
        """
        if self.stage is not _OPEN or self._protocol.theirs is _HALF_LEAVING:
            error = self._refusal(context, incoming)
            try:
                if error is not None:
                    raise error
            finally:
                del error  # its traceback holds this frame

    def _refusal(
        self, context: Mapping[str, Any] | None, incoming: Container[int]
    ) -> RpcError | None:
        is_unhandled = self._has_unhandled_goodbye
        if self.stage.is_closing or is_unhandled:
            if context is not None and context.get("parent") in incoming:
                return None
            if self.goodbye_text is None and not is_unhandled:
                text = self._because("this end is closing the session")
                return SessionClosed(text, fate=Fate.NOT_STARTED)
            why = "" if self.goodbye_text is None else f": {self.goodbye_text}"
            return SessionBroken(
                f"the other end is leaving{why}", fate=Fate.NOT_STARTED, orderly=True
            )
        if self.stage is Stage.OPENING:
            return LocalProtocolError("the session is not open yet")
        return self.error(Fate.NOT_STARTED)

    def _because(self, text: str) -> str:
        return f"{text}: {self._closing_reason}" if self._closing_reason else text

    def record(self) -> SessionEnd:
        """Return which side ended the session, and why."""
        text = str(self.error(Fate.UNKNOWN))
        return SessionEnd(self.ended_by, text, self.cause, self.detail)

    def goodbye(self) -> tuple[str, str]:
        """Return code and text of the last Goodbye, for the other end."""
        if isinstance(self.cause, Refused):
            if self.retry_after is not None:
                return "overloaded", text_of(self.cause)
            return "refused", text_of(self.cause)
        if isinstance(self.cause, RemoteProtocolError):
            return "protocol_error", text_of(self.cause)
        return "done", self._goodbye_text if self.stage.was_open else self._last_text

    @property
    def retry_after(self) -> float | None:
        """Seconds after which the other end may try again, if this end has no room for it now."""
        return self.cause.retry_after if isinstance(self.cause, Refused) else None

    def opening_error(self) -> RpcError:
        """Make the error for the task that wanted to open this session."""
        if isinstance(self.cause, Refused | RemoteProtocolError):
            return _anew(self.cause)
        return self.error(Fate.NOT_STARTED)


def as_cause(exc: Exception) -> Exception:
    """Turn an exception of the channel into the cause of the session's end."""
    if isinstance(exc, trio.EndOfChannel):
        text = "the other end closed the connection without a Goodbye"
        if text_of(exc):
            text += f": {text_of(exc)}"
        detail = detail_of(exc)
        return trio.BrokenResourceError(text) if detail is None else ChannelBroken(text, detail)
    if isinstance(exc, DecodeError):
        error = RemoteProtocolError(f"the other end broke the protocol: {text_of(exc)}")
        error.__cause__ = exc
        return error
    return exc


def _is_not_ours(module: str) -> bool:
    return not module.startswith(_PACKAGE)


def _anew(exc: T) -> T:
    """Copy an exception, so that it can be raised again; its class need not support copying."""
    copy = type(exc).__new__(type(exc))
    vars(copy).update(vars(exc))
    copy.args, copy.__cause__ = exc.args, exc.__cause__
    return copy


def _one_line(exc: Exception) -> str:
    return one_line(text_of(exc).partition("\n")[0], 1000) or type(exc).__name__

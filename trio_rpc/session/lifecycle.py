"""How far a session has come, and what its end means for those who still want something of it."""

from __future__ import annotations

import enum
from collections.abc import Container, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Literal, TypeAlias, TypeVar

import trio

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

__all__ = ["EndedBy", "Lifecycle", "SessionEnd", "Stage", "as_cause"]

T = TypeVar("T", bound=Exception)
_PACKAGE: Final = __name__.rpartition(".")[0]

EndedBy: TypeAlias = Literal["us", "peer", "network"]


@dataclass(frozen=True, slots=True)
class SessionEnd:
    """Who ended a session, and why; what :meth:`Session.wait_closed` returns.

    Attributes:
        by: ``"us"`` if this end closed it, refused it or failed; ``"peer"`` if the other end said Goodbye, refused
            it or broke the protocol; ``"network"`` if the connection was lost, or the other end fell silent.
        reason: one line of text, for people.
        cause: what ended it early; None after an orderly end. It is the ``__cause__`` of each
            :class:`SessionBroken` of the session.
    """

    by: EndedBy
    reason: str
    cause: Exception | None


class Stage(enum.Enum):
    """Where a session stands; it only ever moves down this list."""

    OPENING = "opening"
    OPEN = "open"
    CLOSING = "closing"
    """One end has said Goodbye; what is in flight may end."""
    OVER = "over"


_OPEN = Stage.OPEN  # to look a member up in its class takes longer than what is done with it


class Lifecycle:
    """The stage of one session, who began to close it, and the cause of its end."""

    def __init__(self) -> None:
        self.stage = Stage.OPENING
        self.changed = trio.Event()
        self.ended = trio.Event()
        """Set when the session is over."""
        self.goodbye_text: str | None = None
        """What the other end said in its Goodbye, if it was the one to begin."""
        self.was_open = False
        self.cause: Exception | None = None
        """Why the session is over; None after an orderly end."""
        self.ended_by: EndedBy = "us"

    def move(self, stage: Stage) -> None:
        """Enter a later stage, and wake those who wait for that."""
        self.stage = stage
        self.was_open = self.was_open or stage is Stage.OPEN
        self.changed.set()
        self.changed = trio.Event()
        if stage is Stage.OVER:
            self.ended.set()

    def end(self, cause: Exception | None, by: EndedBy) -> None:
        """Enter the last stage. After the other end's Goodbye it is the other end that has ended the session."""
        self.cause = None if cause is None else _without_our_frames(cause)
        self.ended_by = by if self.goodbye_text is None else "peer"
        self.move(Stage.OVER)

    @property
    def is_over(self) -> bool:
        """Whether nothing more can come of this session."""
        return self.stage is Stage.OVER

    async def begun(self) -> None:
        """Wait until the session is open, or will never be.

        By the time a task runs that was woken, an open session may have got further already.
        """
        while self.stage is Stage.OPENING:
            await self.changed.wait()

    async def wait_changed(self) -> None:
        """Wait until a later stage is entered."""
        await self.changed.wait()

    def error(self, fate: Fate) -> RpcError:
        """Make the error for a caller whose call cannot be made, or has been cut off."""
        if self.cause is None and self.goodbye_text is None:
            return SessionClosed("this end has closed the session", fate=fate)
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
            context: of the call.
            incoming: the ids of the peer's calls, in which calls may still be made while the session closes.
        """
        if self.stage is not _OPEN:
            error = self._refusal(context, incoming)
            try:
                if error is not None:
                    raise error
            finally:
                del error  # its traceback holds this frame

    def _refusal(
        self, context: Mapping[str, Any] | None, incoming: Container[int]
    ) -> RpcError | None:
        if self.stage is Stage.CLOSING:
            if context is not None and context.get("parent") in incoming:
                return None
            if self.goodbye_text is None:
                return SessionClosed("this end is closing the session", fate=Fate.NOT_STARTED)
            return SessionBroken(
                f"the other end is leaving: {self.goodbye_text}",
                fate=Fate.NOT_STARTED,
                orderly=True,
            )
        if self.stage is Stage.OPENING:
            return LocalProtocolError("the session is not open yet")
        return self.error(Fate.NOT_STARTED)

    def record(self) -> SessionEnd:
        """Say who ended the session, and why."""
        return SessionEnd(self.ended_by, str(self.error(Fate.UNKNOWN)), self.cause)

    def goodbye(self) -> tuple[str, str]:
        """Return code and text of the last Goodbye, for the other end."""
        if isinstance(self.cause, Refused):
            return "refused", str(self.cause)
        if isinstance(self.cause, RemoteProtocolError):
            return "protocol_error", str(self.cause)
        if self.was_open:
            return "done", "closed by the other end"
        # The other end is refused by these words. Those of a bug are not for it.
        was_late = isinstance(self.cause, TimeoutError)
        return "done", str(self.cause) if was_late else "it was closed before it was open"

    def opening_error(self) -> RpcError:
        """Make the error for the one who wanted to open this session."""
        if isinstance(self.cause, Refused | RemoteProtocolError):
            return _anew(self.cause)
        return self.error(Fate.NOT_STARTED)


def as_cause(exc: Exception) -> Exception:
    """Say in one sentence what an exception of the channel means for the session."""
    if isinstance(exc, trio.EndOfChannel):
        return trio.BrokenResourceError(
            str(exc) or "the other end closed the connection without a Goodbye"
        )
    if isinstance(exc, DecodeError):
        error = RemoteProtocolError(f"the other end broke the protocol: {exc}")
        error.__cause__ = exc
        return error
    return exc


def _without_our_frames(exc: Exception) -> Exception:
    """Cut the frames of the session out of the traceback of what has ended it: they hold the session, which holds this."""
    traceback = exc.__traceback__
    while traceback is not None and _is_ours(traceback):
        traceback = traceback.tb_next
    return exc.with_traceback(traceback)


def _is_ours(traceback: TracebackType) -> bool:
    return str(traceback.tb_frame.f_globals.get("__name__")).startswith(_PACKAGE)


def _anew(exc: T) -> T:
    """Copy an exception that may be raised more than once; its class need not be able to."""
    copy = type(exc).__new__(type(exc))
    vars(copy).update(vars(exc))
    copy.args, copy.__cause__ = exc.args, exc.__cause__
    return copy


def _one_line(exc: Exception) -> str:
    return str(exc).partition("\n")[0] or type(exc).__name__

"""How far a session has come, and what its end means for those who still want something of it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Literal, TypeAlias

import trio

from trio_rpc.errors import (
    DecodeError,
    Fate,
    Refused,
    RemoteProtocolError,
    RpcError,
    SessionBroken,
    SessionClosed,
)

__all__ = ["EndedBy", "Life", "SessionEnd", "Stage", "as_cause"]

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


class Life:
    """The stage of one session, who began to close it, and the cause of its end."""

    def __init__(self) -> None:
        self.stage = Stage.OPENING
        self.changed = trio.Event()
        self.ended = trio.Event()
        """Set when the session is over."""
        self.farewell: str | None = None
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
        self.cause = cause
        self.ended_by = by if self.farewell is None else "peer"
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
        if self.cause is None and self.farewell is None:
            return SessionClosed("this end has closed the session", fate=fate)
        if self.cause is None:
            return SessionBroken(
                f"the other end has left: {self.farewell}", fate=fate, orderly=True
            )
        error = SessionBroken(f"the session is over: {_one_line(self.cause)}", fate=fate)
        error.__cause__ = self.cause
        return error

    def record(self) -> SessionEnd:
        """Say who ended the session, and why."""
        return SessionEnd(self.ended_by, str(self.error(Fate.UNKNOWN)), self.cause)

    def goodbye(self) -> tuple[str, str]:
        """Return code and text of the last Goodbye, for the other end."""
        if isinstance(self.cause, Refused):
            return "refused", str(self.cause)
        if isinstance(self.cause, RemoteProtocolError):
            return "protocol_error", str(self.cause)
        return "done", "closed by the other end"

    def opening_error(self) -> RpcError:
        """Make the error for the one who wanted to open this session."""
        if isinstance(self.cause, Refused | RemoteProtocolError):
            return self.cause
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


def _one_line(exc: Exception) -> str:
    return str(exc).partition("\n")[0] or type(exc).__name__

"""The end of a session, as its users see it: a record and an event."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from trio_rpc.channels.errors import EndDetail
from trio_rpc.util.owner import Owner

__all__ = ["ClosedEvent", "EndedBy", "SessionEnd", "check_reason"]

EndedBy: TypeAlias = Literal["us", "peer", "network"]


@dataclass(frozen=True, slots=True)
class SessionEnd:
    """The party that ended a session, and why. :meth:`Session.wait_closed` returns it.

    Attributes:
        by: ``"us"`` if this end closed it, refused it or failed; ``"peer"`` if the other end sent
            Goodbye, refused it or broke the protocol; ``"network"`` if the connection was lost, or
            the other end fell silent.
        reason: one line of text, for people. It has the reason that was given to
            :meth:`Session.aclose` at the end that closed it.
        cause: the exception that ended it early; None after an orderly end. It is the ``__cause__``
            of each :class:`SessionBroken` of the session.
        detail: how the other end has ended the channel, if the transport tells that: a
            :class:`~trio_rpc.channels.WebSocketClose` with the code of its Close frame, or a
            :class:`~trio_rpc.channels.ProcessExit` with the exit code of a child process. None
            also if the session was over before that was known.
    """

    by: EndedBy
    reason: str
    cause: Exception | None
    detail: EndDetail | None = None


def check_reason(reason: object) -> None:
    """Raise TypeError unless ``reason`` is a str."""
    if not isinstance(reason, str):
        raise TypeError(f"the reason must be a str, not {reason!r:.200}")


class Ending(Protocol):
    """The part of a session's lifecycle that its :class:`ClosedEvent` needs."""

    is_closed: bool

    async def wait_closed(self) -> None:
        """Wait until the session is over and its channel closed."""

    def record(self) -> SessionEnd:
        """Return which side ended the session, and why."""


class ClosedEvent:
    """The end of one session, as an event; see :attr:`Session.closed`.

    Args:
        ending: knows whether the session is closed, and which side ended it.
        owner: the Trio run that the session belongs to.
    """

    __slots__ = ("_ending", "_owner")

    def __init__(self, ending: Ending, owner: Owner) -> None:
        self._ending = ending
        self._owner = owner

    def __repr__(self) -> str:
        return f"<trio_rpc.ClosedEvent, {'set' if self._ending.is_closed else 'not set'}>"

    def is_set(self) -> bool:
        """Return whether the session is over and its channel closed."""
        return self._ending.is_closed

    async def wait(self) -> SessionEnd:
        """Wait until the session is over and its channel closed; return how it ended, and why."""
        self._owner.check()
        await self._ending.wait_closed()
        return self._ending.record()

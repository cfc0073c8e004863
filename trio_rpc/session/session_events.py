"""The events of a server's sessions: one when a session opens, and one when it is over."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import trio

from trio_rpc.session.end import SessionEnd
from trio_rpc.session.session import Session
from trio_rpc.util.owner import Owner

__all__ = ["SessionEvent", "SessionEvents"]


@dataclass(frozen=True, slots=True)
class SessionEvent:
    """A session of a server has opened, or is over.

    Attributes:
        kind: ``"opened"`` or ``"closed"``.
        session: the session.
        end: the record of its end; None if it has opened.
    """

    kind: Literal["opened", "closed"]
    session: Session
    end: SessionEnd | None = None


class SessionEvents:
    """An async iterator over the events of a server's sessions; one task reads it.

    It begins with an event for each session that is open, and ends with the server. A slow reader
    misses sessions that open and end before it reads. But it gets the end of each session whose
    opening it has read, and no other ends, so it can keep a correct table of the sessions. At most
    as many events wait as sessions are open, or were open when it last read.
    """

    def __init__(self, open_now: Collection[Session], *, is_over: bool) -> None:
        self._unread: dict[Session, SessionEvent] = {}
        self._changed = trio.Event()
        self._is_over = is_over
        self._owner = Owner("this iteration over sessions")
        for session in open_now:
            self.opened(session)

    def __aiter__(self) -> SessionEvents:
        return self

    async def __anext__(self) -> SessionEvent:
        self._owner.check()
        await trio.lowlevel.checkpoint()
        while not self._unread:
            if self._is_over:
                raise StopAsyncIteration
            self._changed = trio.Event()
            await self._changed.wait()
        session = next(iter(self._unread))
        return self._unread.pop(session)

    def opened(self, session: Session) -> None:
        """Add the event of a session that has opened.

        :meta private:
        """
        self._unread[session] = SessionEvent("opened", session)
        self._changed.set()

    def closed(self, session: Session, end: SessionEnd) -> None:
        """Add the event of a session that is over.

        :meta private:
        """
        if self._unread.pop(session, None) is None:
            self._unread[session] = SessionEvent("closed", session, end)
            self._changed.set()

    def server_is_over(self) -> None:
        """End the iteration once everything has been read.

        :meta private:
        """
        self._is_over = True
        self._changed.set()

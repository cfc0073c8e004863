"""Draining: an end says that it leaves soon, before it says Goodbye.

The announcement is a notification that every session understands, ``trio_rpc.draining``. A peer
that does not know it drops it. Calls can still be made until the Goodbye. A client that has another
instance to call, such as a pool, calls that one from now on, so that no call crosses the Goodbye.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from trio_rpc.errors import SessionBroken, SessionClosed
from trio_rpc.services.decorators import Kind
from trio_rpc.services.interfaces import RESERVED
from trio_rpc.services.proxies import Caller, RemoteMethod
from trio_rpc.session.calls.outgoing import OutgoingCalls
from trio_rpc.session.lifecycle import Lifecycle

__all__ = ["DRAINING", "DrainingEvent", "announce"]

DRAINING: Final = f"{RESERVED}.draining"


class DrainingEvent:
    """An event: the other end of a session leaves soon, or the session takes no more calls.

    Args:
        lifecycle: the lifecycle of the session.
        check: raises RuntimeError if the session belongs to another Trio run.
    """

    __slots__ = ("_check", "_lifecycle")

    def __init__(self, lifecycle: Lifecycle, check: Callable[[], None]) -> None:
        self._lifecycle = lifecycle
        self._check = check

    def __repr__(self) -> str:
        return f"<trio_rpc.DrainingEvent, {'set' if self.is_set() else 'not set'}>"

    def is_set(self) -> bool:
        """Return whether the other end has said that it drains, or the session is not open."""
        return self._lifecycle.peer_drains or not self._lifecycle.is_open

    async def wait(self) -> None:
        """Wait until the other end says that it drains, or the session takes no more calls."""
        self._check()
        while not self.is_set():
            await self._lifecycle.wait_changed()


class DrainingCore(Protocol):
    """The parts of a session's core that an announcement needs."""

    outgoing: OutgoingCalls

    async def ping(self) -> float:
        """Send a Ping, and wait for its Pong."""


async def announce(core: DrainingCore, session: Caller) -> None:
    """Tell the other end that this end drains, and wait until it has read that.

    The Pong also shows that all calls that it had made before have arrived. The caller bounds the
    time.
    """
    try:
        method = RemoteMethod(session, DRAINING, Kind.NOTIFICATION)
        await core.outgoing.notify(method, (), {})
        await core.ping()
    except (SessionBroken, SessionClosed):
        pass  # it has ended meanwhile

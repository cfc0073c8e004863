"""The states of a session's connection, and an iterator over them."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from typing import Protocol

import trio

from trio_rpc.util.owner import Owner

__all__ = ["ConnectionState", "ConnectionStates"]


class ConnectionState(enum.Enum):
    """The state of a session's connection."""

    CONNECTED = "connected"
    """The first connection is in use."""
    UNRESPONSIVE = "unresponsive"
    """Calls wait, and the other end has not answered for ``Options.unresponsive_after`` seconds."""
    RECONNECTING = "reconnecting"
    """The connection is lost, but the session is not, so far."""
    RESUMED = "resumed"
    """The session has a new connection, and has sent all unconfirmed packets again over it."""
    LOST = "lost"
    """There will be no new connection: the session is over."""


class Answering(Protocol):
    """Knows whether the other end answers."""

    is_missing: bool

    async def wait_changed(self) -> None:
        """Wait until that changes."""


class ConnectionStates:
    """An async iterator over the states of a connection. A slow reader misses older states."""

    def __init__(
        self,
        current: Callable[[], ConnectionState | None],
        wait_changed: Callable[[], Awaitable[None]],
    ) -> None:
        """Iterate over the states, which two functions report.

        Args:
            current: returns the state, or None if the channel was closed.
            wait_changed: waits until the state may have changed.
        """
        self._current = current
        self._wait_changed = wait_changed
        self._seen: ConnectionState | None = None
        self._owner = Owner("this iteration over states")

    def while_answering(self, answers: Answering) -> ConnectionStates:
        """Return an iterator that also reports when the other end does not answer.

        Args:
            answers: knows whether it answers.

        :meta private:
        """
        current, wait_changed = self._current, self._wait_changed

        def state() -> ConnectionState | None:
            state = current()
            if answers.is_missing and state in (ConnectionState.CONNECTED, ConnectionState.RESUMED):
                return ConnectionState.UNRESPONSIVE
            return state

        async def wait() -> None:
            async with trio.open_nursery() as nursery:

                async def wait_for(change: Callable[[], Awaitable[None]]) -> None:
                    await change()
                    nursery.cancel_scope.cancel(reason="the state may have changed")

                nursery.start_soon(wait_for, wait_changed)
                nursery.start_soon(wait_for, answers.wait_changed)

        return ConnectionStates(state, wait)

    def __aiter__(self) -> ConnectionStates:
        return self

    async def __anext__(self) -> ConnectionState:
        self._owner.check()
        await trio.lowlevel.checkpoint()
        while True:
            state = self._current()
            if state is not None and state is not self._seen:
                self._seen = state
                return state
            if state is None or state is ConnectionState.LOST:
                raise StopAsyncIteration
            await self._wait_changed()

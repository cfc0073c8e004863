"""The open sessions of a pool, and the choice of one for each call."""

from __future__ import annotations

from collections.abc import Callable, Container, Coroutine
from contextlib import AbstractAsyncContextManager
from random import choice, random
from typing import Any, Protocol

import trio

from trio_rpc.services.proxies import RemoteMethod
from trio_rpc.session.session import Session

__all__ = ["Balancer", "Counts", "Seat"]


class Counts(Protocol):
    """The counts of an instance, over all of its sessions."""

    name: str
    failures: int


class Seat:
    """One session of a pool.

    Args:
        session: the session.
        counts: the counts of its instance.
    """

    __slots__ = (
        "blocks",
        "calls",
        "counts",
        "ended",
        "invoke",
        "is_draining",
        "is_suspect",
        "session",
    )

    def __init__(self, session: Session, counts: Counts) -> None:
        self.session = session
        self.counts = counts
        self.calls = 0
        """Calls that were made on it so far."""
        self.invoke: Callable[
            [RemoteMethod, tuple[Any, ...], dict[str, Any]],
            Coroutine[Any, Any, Any] | AbstractAsyncContextManager[Any],
        ] = session.invoke
        self.is_draining = False
        self.is_suspect = False
        self.blocks: set[trio.CancelScope] = set()
        """The bodies of the blocks that hold this session, which its end cancels."""
        self.ended = trio.Event()
        """Set when the session is over, and its channel and process have ended."""

    @property
    def is_ready(self) -> bool:
        """Whether it takes calls, and is neither draining nor suspect."""
        return self.session.is_open and not self.is_draining and not self.is_suspect


class Balancer:
    """Chooses a session for each call.

    Of two random sessions, the call goes to the one with fewer of our calls in flight (*power of
    two choices*: Mitzenmacher 2001). A session that is draining or suspect is chosen only if there
    is no other.
    """

    def __init__(self) -> None:
        self._ready: list[Seat] = []
        self._others: list[Seat] = []
        """Sessions that are draining or suspect, and take calls."""
        self._changed = trio.Event()
        self.is_over = False
        """Whether the block of the pool is over."""

    def choose(self) -> Seat | None:
        """Return a session for a call, or None if none takes calls."""
        ready = self._ready
        count = len(ready)
        if count == 1:
            return ready[0]
        if count:
            first = int(random() * count)  # noqa: S311 - it is not a secret
            second = int(random() * (count - 1))  # noqa: S311 - likewise
            return _better(ready[first], ready[second + (second >= first)])
        return _best(self._others)

    def choose_other(self, tried: Container[Seat]) -> Seat | None:
        """Return a session that is not among ``tried``, or None."""
        for seats in (self._ready, self._others):
            fresh = [seat for seat in seats if seat not in tried and seat.session.is_open]
            if fresh:
                return _best(fresh)
        return None

    @property
    def is_empty(self) -> bool:
        """Whether no session takes calls."""
        return not self._ready and not self._others

    def place(self, seat: Seat) -> None:
        """Add a session, or take it in again after it has changed."""
        for seats in (self._ready, self._others):
            if seat in seats:
                seats.remove(seat)
        if seat.session.is_open:
            (self._ready if seat.is_ready else self._others).append(seat)
        self.tell()

    def tell(self) -> None:
        """Wake the tasks that wait for a change."""
        self._changed.set()
        self._changed = trio.Event()

    def end(self) -> None:
        """Wake all tasks, since the block of the pool is over."""
        self.is_over = True
        self.tell()

    async def wait_changed(self) -> None:
        """Wait until an instance changes."""
        await self._changed.wait()


def _better(one: Seat, other: Seat) -> Seat:
    return one if one.session.calls_in_flight <= other.session.calls_in_flight else other


def _best(seats: list[Seat]) -> Seat | None:
    """Return the one with the fewest calls in flight; a random one of several."""
    if not seats:
        return None
    fewest = min(seat.session.calls_in_flight for seat in seats)
    best = [seat for seat in seats if seat.session.calls_in_flight == fewest]
    return choice(best)  # noqa: S311 - it is not a secret

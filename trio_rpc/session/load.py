"""The work of all sessions of a server: how much there is, and whose turn it is.

Most calls begin when they are read. These wait in the queue of their session instead:

1. calls that arrive while the server runs ``max_handlers`` handlers;
2. calls that were read late, more than ``BEHIND`` seconds after other calls of their session take
   (``calls/ages.py``): this program is behind with its reading;
3. calls that arrive while others wait: in their own session, or for their turn.

Queued calls begin in turns. A turn belongs to one session, and lasts for ``SLICE`` seconds of work,
or one handler. Between two turns all sessions read. So while a server is overloaded, it knows all
waiting calls: a Cancel is seen before the work that it cancels begins, and a call that cannot be
answered in time is refused at once, and not after it has waited.

**Refused calls.** A call with a deadline waits for at most half of the time that it has left. The
server measures the time between the beginnings of two queued calls. It predicts the wait of a new
call from that time and from the number of queued calls before it, in all sessions. If that is less,
it counts the calls of the new call's own session, times the number of sessions that wait for turns.
If the predicted wait is more than half of its time, the call is refused: the newest goes first, and
accepted calls keep their order. The prediction alone is not enough, because one long gap, such as a
cut connection, makes it far too large. The last queued call that began must also have waited for an
eighth of that time. Any call is refused while ``max_queued`` calls wait.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from trio_rpc.wire.limits import ServerLimits

__all__ = ["BEHIND", "SLICE", "Load"]

BEHIND: Final = 0.02
SLICE: Final = 0.002
SEEN: Final = 1 / 8
"""The part of a call's time that another one must have waited, before any is refused."""
WEIGHT: Final = 0.1
"""The weight of the last time between two beginnings in their average."""


class Load:
    """Counts the handlers and the queued calls of one server, and gives turns to its sessions.

    Args:
        limits: for ``max_handlers``, ``max_queued`` and ``retry_after``.

    Attributes:
        running: handlers that have begun and not ended.
        queued: calls and notifications in the queues of all sessions.
        refused: calls that were refused, because they would have waited for too long.
        late: calls that were refused, because their time was over.
    """

    def __init__(self, limits: ServerLimits) -> None:
        self.limits = limits
        self.running = 0
        self.queued = 0
        self.refused = 0
        self.late = 0
        # Bound: one for each session. A dict, for its order.
        self._turns: dict[Callable[[], None], None] = {}
        self._is_taken = False
        self._interval = 0.0
        """The average time between the beginnings of two queued calls."""
        self._last_began: float | None = None
        self._waited = 0.0
        """The seconds that the last queued call that began has waited."""

    @property
    def retry_after(self) -> float:
        """Seconds until a refused call may be repeated."""
        return self.limits.retry_after

    @property
    def may_begin(self) -> bool:
        """Whether one more handler may begin."""
        return self.running < self.limits.max_handlers

    @property
    def is_free(self) -> bool:
        """Whether a call may begin without waiting for its turn."""
        return not (self._turns or self._is_taken) and self.running < self.limits.max_handlers

    def admits(self, left: float, before: int) -> bool:
        """Return whether a call may be queued.

        Args:
            left: the seconds until its deadline; infinite without one.
            before: calls that are queued in its session.
        """
        if self.queued >= self.limits.max_queued:
            return False
        if self._waited < left * SEEN:
            return True
        turns = len(self._turns) + self._is_taken
        calls = min(self.queued + 1, (before + 1) * max(1, turns))
        return calls * self._interval <= left / 2

    def is_too_late(self, left: float) -> bool:
        """Return whether a queued call whose turn it is can no longer be answered in time."""
        return left <= self._interval

    def began(self, waited: float) -> None:
        """Record that a queued call begins, after it has waited for so many seconds."""
        now, self._waited = trio.current_time(), waited
        if self._last_began is not None:
            weight = WEIGHT if self._interval else 1.0
            self._interval += weight * (now - self._last_began - self._interval)
        self._last_began = now

    # ── handlers ─────────────────────────────────────────────────────────────────────────────

    def handler_ends(self) -> None:
        """Stop counting a handler; a queued call may begin."""
        self.running -= 1
        if self._turns:
            self._next()

    # ── turns ────────────────────────────────────────────────────────────────────────────────

    def want_turn(self, take: Callable[[], None]) -> None:
        """Wait for a turn. ``take`` is called when it begins; then comes :meth:`turn_over`."""
        self._turns[take] = None
        self._next()

    def turn_over(self) -> None:
        """End the current turn."""
        self._is_taken = False
        self._next()
        if not self._is_taken and not self._turns:
            self._last_began = None  # the next call does not wait for this one

    def leave(self, take: Callable[[], None]) -> None:
        """Forget a session that has ended."""
        self._turns.pop(take, None)

    def _next(self) -> None:
        if not self._is_taken and self._turns and self.may_begin:
            take = next(iter(self._turns))
            del self._turns[take]
            self._is_taken = True
            take()

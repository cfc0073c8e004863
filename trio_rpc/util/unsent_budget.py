"""The bytes that many sessions hold for their peers; each counts its own in a share of one budget.

Theory of operation
===================

A message counts from the moment when it is queued until the channel has taken it. A packet that a
resumable channel may have to send again counts until its arrival is known. When the bytes of all
shares together reach ``most``, the budget *is full*, and these rules hold:

1. A session that has queued data, or data that waits for the channel, queues only control messages,
   and drops results. Any other session may queue one message, so it goes on, whatever others hold.
2. A resumable channel with a connection keeps only as many bytes as it needs to get an Ack. Without
   a connection it takes a packet only if it keeps none.
3. Sessions without a connection are ended, the one with the largest share first, until the budget
   is no longer full: they hold memory for peers that may not return. A session whose share is below
   the average is not ended, so peers that stay connected and do not read cannot end the others.

**The bound.** A session adds to a full budget only by the first two rules. So all sessions together
hold at most ``most`` bytes, and in addition for each session one message, its control messages, and
the bytes of rule 2.

**No wake-up is lost**, although a budget wakes no task when it has room again. A session that waits
has queued something. It looks again whenever the channel takes a packet, at the latest when nothing
is queued any more. A channel that waits has kept packets. It looks again when their arrival becomes
known, and when it has a new connection. If none of this happens, the peer does not read.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["UnsentBudget", "UnsentShare"]


class UnsentBudget:
    """Counts the bytes that sessions hold for their peers.

    Attributes:
        size: bytes of all shares together.
        shares: the number of shares.
        disconnected: the shares of sessions without a connection, each with a function that ends
            its session.
    """

    __slots__ = ("disconnected", "shares", "size")

    def __init__(self) -> None:
        self.size = 0
        self.shares = 0
        self.disconnected: dict[UnsentShare, Callable[[], None]] = {}

    def relieve(self, most: int) -> None:
        """End disconnected sessions with large shares, until fewer than ``most`` bytes are held."""
        while self.size >= most and self.disconnected:
            largest = max(self.disconnected, key=_size)
            if largest.size * self.shares < self.size:
                return
            end = self.disconnected[largest]
            largest.leave()
            end()


class UnsentShare:
    """The bytes that one session holds.

    Args:
        budget: counts the bytes of all sessions.
        most: bytes of all sessions together at which the budget is full for this one.

    Attributes:
        queued: bytes in the session's queue.
        held: bytes of the packet that has left the queue and waits for the channel.
        kept: bytes that its resumable channel may have to send again.
    """

    __slots__ = ("_budget", "_most", "held", "kept", "queued")

    def __init__(self, budget: UnsentBudget, most: int) -> None:
        self._budget = budget
        self._most = most
        self.queued = self.held = self.kept = 0
        budget.shares += 1

    @property
    def size(self) -> int:
        """Bytes of this share."""
        return self.queued + self.held + self.kept

    @property
    def is_full(self) -> bool:
        """Whether the budget is full, or the session was ended because it was."""
        return self._budget.size >= self._most

    def allows(self, size: int, most: int) -> bool:
        """Return whether the session may queue one more message (rule 1).

        Args:
            size: bytes in the session's own queue.
            most: its own bound of them.
        """
        return not (self.queued or self.held) or (size < most and self._budget.size < self._most)

    @property
    def is_connected(self) -> bool:
        """Whether the session has a connection, as far as the budget knows."""
        return self not in self._budget.disconnected

    def queue(self, size: int) -> None:
        """Set the number of bytes in the queue."""
        # As _add does: this runs twice for each packet, so it saves a call.
        budget = self._budget
        before = budget.size
        after = budget.size = before + size - self.queued
        self.queued = size
        if before < self._most <= after:
            budget.relieve(self._most)

    def hold(self, size: int) -> None:
        """Set the number of bytes that wait for the channel."""
        difference, self.held = size - self.held, size
        self._add(difference)

    def keep(self, size: int) -> None:
        """Set the number of bytes that the channel keeps."""
        difference, self.kept = size - self.kept, size
        self._add(difference)

    def disconnect(self, end: Callable[[], None]) -> None:
        """Record that the session has no connection.

        Args:
            end: ends the session, once the budget is full. It may be called at once.
        """
        self._budget.disconnected[self] = end
        self._budget.relieve(self._most)

    def connect(self) -> None:
        """Record that the session has a connection again, or has ended."""
        self._budget.disconnected.pop(self, None)

    def leave(self) -> None:
        """Remove this share from the budget, since its session ends."""
        self.connect()
        self._budget.size -= self.size
        self._budget.shares -= 1
        self._budget = UnsentBudget()
        self.queued = self.held = self.kept = 0
        self._most = 0  # a full budget: results that are still to come are dropped

    def _add(self, difference: int) -> None:
        budget = self._budget
        before = budget.size
        after = budget.size = before + difference
        if before < self._most <= after:
            budget.relieve(self._most)


def _size(share: UnsentShare) -> int:
    return share.size

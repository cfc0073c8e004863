"""A bound for the bytes that a gateway holds for all its clients together. No I/O.

Each holder of bytes (a client, an answer, the body of a request) has a share of one budget.

Bound (law 12): the shares hold less than ``most`` bytes, plus the one message that exceeded it,
plus ``ALWAYS`` bytes for each share. Proof: ``has_room`` is asked before a share takes a message,
without a checkpoint in between, and it is true for one of two reasons.

1. Less than ``most`` bytes are held. Then the message goes beyond by less than its own size, and no
   other message does for this reason until less than ``most`` bytes are held again.
2. The share holds at most ``ALWAYS`` bytes with this message in it. Such messages add at most
   ``ALWAYS`` bytes for each share, however many they are.

By the second reason, a client that accepts its messages can continue while others have used up the
budget. Bytes that are taken without asking are bounded elsewhere, where they are taken.
"""

from __future__ import annotations

from collections.abc import Callable

from trio_rpc.errors import Overloaded

__all__ = ["ALWAYS", "SHORT", "MemoryBudget", "MemoryShare"]

ALWAYS = 16 * 1024
"""Bytes that each share may hold, however many the others hold.

The clients of this library leave fewer bytes unacknowledged while they read.
"""


SHORT = 1024
"""Bytes of a message that ends a call and is always held. Bound: one for each running call."""


class MemoryBudget:
    """Bytes that many shares hold together.

    Args:
        most: a share may take another message of any size while fewer bytes are held.

    Attributes:
        size: bytes that are held.
        most: the same number of bytes.
    """

    def __init__(self, most: float) -> None:
        self.size = 0
        self.most = most
        # In the order in which they began to wait. Bound: one entry for each client.
        self._waiting: dict[MemoryShare, None] = {}

    @property
    def is_used_up(self) -> bool:
        """Whether only small shares may take more."""
        return self.size >= self.most

    def take(self, size: int) -> None:
        """Hold more bytes, without asking for room."""
        self.size += size

    def give_back(self, size: int) -> None:
        """Hold fewer bytes. The share that has waited the longest is woken if there is room."""
        self.size -= size
        self.pass_on()

    def pass_on(self) -> None:
        """Wake the next share that waits, if there is room.

        A task that was woken calls this before anything else, as it may need no room any more. It
        takes its own room in the same step, so the next one sees the remaining room.
        """
        while self._waiting and not self.is_used_up:
            share = next(iter(self._waiting))
            del self._waiting[share]
            if share.wake():
                return

    def add_waiting(self, share: MemoryShare) -> None:
        """Wake this share when there is room; it keeps its place if it already waits."""
        self._waiting[share] = None

    def forget(self, share: MemoryShare) -> None:
        """Do not wake this share."""
        self._waiting.pop(share, None)


class MemoryShare:
    """The bytes of one holder.

    Args:
        budget: the budget that this is a share of.
        wake: wakes the holder's tasks that wait for room; returns whether there were any.

    Attributes:
        size: bytes that the holder holds.
    """

    __slots__ = ("_budget", "_is_closed", "_wake", "size")

    def __init__(self, budget: MemoryBudget, wake: Callable[[], bool] | None = None) -> None:
        self._wake = wake
        self.size = 0
        self._budget = budget
        self._is_closed = False

    def wake(self) -> bool:
        """Wake the holder's tasks that wait for room; return whether there were any."""
        return self._wake is not None and self._wake()

    def has_room(self, size: int) -> bool:
        """Return whether the holder may take a message of this size."""
        budget = self._budget
        return budget.size < budget.most or self.size + size <= ALWAYS

    def check_room(self, size: int) -> None:
        """Raise Overloaded unless the message that ends a call, of this size, can be held."""
        if size > SHORT and not self.has_room(size):
            raise Overloaded(
                "too much data is held for the gateway's clients, so the outcome was dropped"
            )

    def wait(self) -> None:
        """Call ``wake`` when the budget has room again."""
        self._budget.add_waiting(self)

    def take(self, size: int) -> None:
        """Hold more bytes, without asking for room. A share that is closed holds none."""
        if not self._is_closed:
            self.size += size
            self._budget.size += size

    def give_back(self, size: int) -> None:
        """Hold fewer bytes."""
        if not self._is_closed:
            self.size -= size
            self._budget.give_back(size)

    def close(self) -> None:
        """Return all bytes, and hold none afterwards."""
        self._budget.forget(self)
        self.give_back(self.size)
        self._is_closed = True
        self._wake = None  # it refers to the holder, which has this share

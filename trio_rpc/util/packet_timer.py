"""Timing of packets: how long a peer may take for one, without the time that this end loses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import trio

from trio_rpc.util.places import catching

__all__ = ["PacketTimer", "was_blocked"]

PUNCTUAL: Final = 0.1
"""How late a program may notice the end of an interval without counting as blocked: a fraction."""


def was_blocked(deadline: float, interval: float) -> bool:
    """Return whether this program itself was blocked when an interval ended.

    Args:
        deadline: the time when the interval ended.
        interval: its length in seconds.
    """
    return trio.current_time() - deadline > interval * PUNCTUAL


class PacketTimer:
    """The seconds that a peer has for one packet, from the first byte to the last.

    Time in which no task waits for the packet does not count, nor does time in which this program
    was blocked.

    Args:
        seconds: the time for each packet.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._left = seconds

    def renew(self) -> None:
        """Begin the time of the next packet."""
        self._left = self._seconds

    @contextmanager
    def bound(self) -> Iterator[None]:
        """Bound a wait for the rest of a packet.

        If this program was blocked, the wait may end without the rest: wait again.

        Raises:
            trio.BrokenResourceError: the peer has used up its time.
        """
        started = trio.current_time()
        deadline = started + self._left
        with catching(trio.CancelScope(deadline=deadline)) as scope:
            try:
                yield
            finally:
                self._left -= trio.current_time() - started
        if not scope.cancelled_caught:
            return
        if was_blocked(deadline, self._seconds):
            self.renew()  # the rest may have arrived unread
            return
        raise trio.BrokenResourceError(
            f"the peer began a packet and took more than {self._seconds:g} s over it"
        )

"""The Requests of this end that the other end has read, as far as its Pongs show."""

from __future__ import annotations

from collections.abc import Collection

__all__ = ["ReadRequests"]


_NONE: tuple[int, frozenset[int]] = 0, frozenset()
"""The id of the last Request and of the large ones, before a Ping was sent."""


class ReadRequests:
    """Learns from Pongs which Requests have been read; no message is sent for that.

    A small Request leaves before a Ping that was queued after it, and the peer reads messages in
    their order. So the Pong shows that the peer has read the Requests before its Ping, except for
    large ones that had not left.

    Bound: one Ping at a time is remembered, with at most ``max_calls`` large Requests.
    """

    __slots__ = ("_asked", "_last", "_ping", "_unread")

    def __init__(self) -> None:
        self._ping = 0
        """The number of the Ping whose Pong is awaited, or 0."""
        self._asked = _NONE
        self._last, self._unread = self._asked

    @property
    def is_asking(self) -> bool:
        """Whether a Pong is awaited that will show more Requests to be read."""
        return self._ping > 0

    def pinged(self, number: int, last: int, large: Collection[int]) -> None:
        """Record that a Ping was queued.

        Args:
            number: its number.
            last: the id of the last Request queued before it.
            large: the ids of large Requests that have not left entirely.
        """
        if not self._ping:
            self._ping, self._asked = number, (last, frozenset(large))

    def ponged(self, number: int) -> None:
        """Record a Pong, which answers all Pings up to that number."""
        if 0 < self._ping <= number:
            self._ping = 0
            self._last, self._unread = self._asked

    def has_read(self, call: int) -> bool:
        """Return whether the peer is known to have read the Request with that id."""
        return call <= self._last and call not in self._unread

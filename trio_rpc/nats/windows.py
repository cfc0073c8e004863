"""The bytes that all channels of one connection together may have on their way to it.

A broker cuts the connection of a client for which 64 MiB wait (``max_pending``), for instance
because its loop is blocked for a moment. All channels of that connection would suffer together. So
the windows of all of them together stay below that.
"""

from __future__ import annotations

from typing import Final

from trio_rpc.nats.core import LEAST_WINDOW

__all__ = ["WindowBudget"]

TOTAL: Final = 48 * 1024 * 1024
"""Bytes of all windows: 64 MiB, less a part for messages that need no credit."""

SHARE: Final = 256
"""A new channel gets the bytes that are left, divided by this."""


class WindowBudget:
    """The windows of the channels of one connection."""

    def __init__(self, total: int = TOTAL) -> None:
        self.left = total

    def take(self) -> int:
        """Return the window for a new channel, or 0 if there is none left."""
        window = max(self.left // SHARE, LEAST_WINDOW)
        if window > self.left:
            return 0
        self.left -= window
        return window

    def give_back(self, window: int) -> None:
        """Return the window of a channel that has ended."""
        self.left += window

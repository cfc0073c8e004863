"""Errors that all channels share, and the guard that raises some of them."""

from __future__ import annotations

import trio

from trio_rpc.util.conflict_detector import ConflictDetector

__all__ = ["CHANNEL_ENDS", "CHANNEL_ERRORS", "ChannelGuard", "closed_error"]

CHANNEL_ENDS = (trio.EndOfChannel, trio.BrokenResourceError, trio.ClosedResourceError)
"""The errors that a channel raises once it has ended."""

CHANNEL_ERRORS = (*CHANNEL_ENDS, OSError)
"""``CHANNEL_ENDS``, and ``OSError`` for channels that pass on errors of the operating system.

``DecodeError`` is not included: it means that the peer broke the protocol, not that it has left.
"""


def closed_error() -> trio.ClosedResourceError:
    """Return the error for a channel that was closed at this end."""
    return trio.ClosedResourceError("this channel was closed")


class ChannelGuard:
    """Allow one task to send and one to receive, and neither once the channel is closed.

    Attributes:
        is_closed: whether this end was closed; set by the channel.
        sending: held by the task that sends.
        receiving: held by the task that receives.
    """

    __slots__ = ("is_closed", "receiving", "sending")

    def __init__(self) -> None:
        self.is_closed = False
        self.sending = ConflictDetector("another task is sending on this channel")
        self.receiving = ConflictDetector("another task is receiving from this channel")

    def check_open(self) -> None:
        """Raise ``trio.ClosedResourceError`` if this end was closed."""
        if self.is_closed:
            raise closed_error()

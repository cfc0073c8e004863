"""Errors that all channels share, and the guard that raises some of them.

A channel raises ``trio.EndOfChannel`` after an orderly end, and ``trio.BrokenResourceError`` after
any other one. If its transport says more about the end, it raises a subclass, which carries that as
``detail``: the code of a WebSocket's Close frame, or the exit status of a process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import trio

__all__ = [
    "CHANNEL_ENDS",
    "CHANNEL_ERRORS",
    "ChannelBroken",
    "ChannelEnded",
    "ChannelGuard",
    "EndDetail",
    "ProcessExit",
    "WebSocketClose",
    "closed_error",
    "detail_of",
]

CHANNEL_ENDS = (trio.EndOfChannel, trio.BrokenResourceError, trio.ClosedResourceError)
"""The errors that a channel raises once it has ended."""

CHANNEL_ERRORS = (*CHANNEL_ENDS, OSError)
"""``CHANNEL_ENDS``, and ``OSError`` for channels that pass on errors of the operating system.

``DecodeError`` is not included: it means that the peer broke the protocol, not that it has left.
"""


@dataclass(frozen=True, slots=True)
class WebSocketClose:
    """The Close frame that has ended a WebSocket.

    Attributes:
        code: its code, such as 1000 (done) or 1001 (going away); 1005 if it had none.
        reason: its text, or ``""``.
    """

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class ProcessExit:
    """The end of the process at the other end.

    Attributes:
        returncode: its exit code; minus the number of the signal, if a signal has killed it.
    """

    returncode: int


EndDetail: TypeAlias = WebSocketClose | ProcessExit


class ChannelEnded(trio.EndOfChannel):
    """The other end has closed the channel in an orderly way.

    Attributes:
        detail: the transport's information about the end.
    """

    def __init__(self, text: str, detail: EndDetail) -> None:
        super().__init__(text)
        self.detail = detail


class ChannelBroken(trio.BrokenResourceError):
    """The channel has ended, but not in an orderly way.

    Attributes:
        detail: the transport's information about the end.
    """

    def __init__(self, text: str, detail: EndDetail) -> None:
        super().__init__(text)
        self.detail = detail


def detail_of(exc: BaseException | None) -> EndDetail | None:
    """Return a transport's information about the end, from ``exc`` or one of its causes."""
    while exc is not None:
        if isinstance(exc, (ChannelEnded, ChannelBroken)):
            return exc.detail
        exc = exc.__cause__
    return None


def closed_error() -> trio.ClosedResourceError:
    """Return the error for a channel that was closed at this end."""
    return trio.ClosedResourceError("this channel was closed")


class ChannelGuard:
    """Allow one task to send and one to receive, and neither once the channel is closed.

    These are flags and not context managers, because every idle session is inside a ``receive``.

    Attributes:
        is_closed: whether this end was closed; set by the channel.
        is_sending: whether a task sends; the channel resets it.
        is_receiving: whether a task receives; the channel resets it.
    """

    __slots__ = ("is_closed", "is_receiving", "is_sending")

    def __init__(self) -> None:
        self.is_closed = self.is_sending = self.is_receiving = False

    def begin_sending(self) -> None:
        """Set ``is_sending``, or raise ``trio.BusyResourceError`` if another task sends."""
        if self.is_sending:
            raise trio.BusyResourceError("another task is sending on this channel")
        self.is_sending = True

    def begin_receiving(self) -> None:
        """Set ``is_receiving``, or raise ``trio.BusyResourceError`` if another task receives."""
        if self.is_receiving:
            raise trio.BusyResourceError("another task is receiving from this channel")
        self.is_receiving = True

    def check_open(self) -> None:
        """Raise ``trio.ClosedResourceError`` if this end was closed."""
        if self.is_closed:
            raise closed_error()

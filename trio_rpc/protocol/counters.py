"""What a session has counted, for those who look at it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Counters", "Tally"]


@dataclass(slots=True)
class Counters:
    """What has gone through, and what was dropped by rule."""

    packets_sent: int = 0
    packets_received: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    messages_received: int = 0
    late_replies: int = 0
    """Terminal messages of calls that had been abandoned."""
    late_cancels: int = 0
    """Cancels of calls that had ended."""
    late_calls: int = 0
    """Requests and Notifications that crossed our Goodbye."""


@dataclass(slots=True)
class Tally:
    """Bytes that wait to be sent, of several sessions together."""

    size: int = 0

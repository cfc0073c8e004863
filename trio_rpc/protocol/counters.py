"""Counters of a session, for statistics and tests."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Counters"]


@dataclass(slots=True)
class Counters:
    """Traffic so far, and the messages that were dropped because they came late."""

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

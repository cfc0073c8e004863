"""The error maps and texts for calls that this end answers without a handler."""

from __future__ import annotations

from typing import Any, Final

__all__ = [
    "CALLED_TOO_LATE",
    "NOT_BEGUN",
    "NOT_TAKEN",
    "PULLED_TWICE",
    "SMALL",
    "TOO_BUSY",
    "TOO_LATE",
]

NOT_TAKEN: Final[dict[str, Any]] = {
    "code": "overloaded",
    "message": "too much data is queued for this caller, so the handler's outcome was dropped",
    "started": True,
}
TOO_BUSY: Final[dict[str, Any]] = {
    "code": "overloaded",
    "message": "this end is overloaded: the call would have waited for too long",
    "started": False,
}
TOO_LATE: Final[dict[str, Any]] = {
    "code": "deadline",
    "message": "the deadline passed before the handler could begin",
    "started": False,
}
PULLED_TWICE: Final[dict[str, Any]] = {
    "code": "raised",
    "type": "trio.BusyResourceError",
    "message": "another pull of this stream is running",
    "started": False,
}
NOT_BEGUN: Final = "cancelled before the handler could begin"
CALLED_TOO_LATE: Final = "the call that this callback belongs to has been cancelled"

SMALL: Final[tuple[str, ...]] = ("code", "type", "started", "parameter")
"""The entries of an error that fit into the smallest message that a peer may accept."""

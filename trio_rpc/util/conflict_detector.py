"""Detect two tasks in an operation that is for one task at a time."""

from __future__ import annotations

import trio

__all__ = ["ConflictDetector"]


class ConflictDetector:
    """A context manager for one task at a time. A second task gets an error and does not wait.

    Trio's own class of this kind is private. Use a ``trio.Lock`` if the second task should wait.

    Args:
        text: the text of the error.

    Attributes:
        is_held: whether a task is inside.
    """

    __slots__ = ("_text", "is_held")

    def __init__(self, text: str) -> None:
        self.is_held = False
        self._text = text

    def __enter__(self) -> None:
        """Enter, or raise ``trio.BusyResourceError`` if a task is inside."""
        if self.is_held:
            raise trio.BusyResourceError(self._text)
        self.is_held = True

    def __exit__(self, *_exc_info: object) -> None:
        """Leave."""
        self.is_held = False

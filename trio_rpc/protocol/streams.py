"""What may pass in a call between its two ends: Items, by credit, and one Started.

The consumer of a stream gives credit: the first in its Request, more with a Credit as it takes items.
An Item may be sent while there is credit for one more item and for at least one byte; it uses up
one item and all of its bytes, so the last one before a pause may overdraw the bytes. That lets any
item pass that is a legal message, whatever the window.

Both ends count by this one rule, as with all else what must not be sent must not arrive. Items and
credit are counted where they are sent before they are counted where they arrive, so a correct producer
never seems to overdraw, nor a correct consumer to give more than it has taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trio_rpc.errors import LocalProtocolError

__all__ = ["Streams"]


class _Window:
    """What may still be sent in one stream, and what could be at first."""

    __slots__ = ("items", "most_items", "most_size", "size")

    def __init__(self, items: int, size: int) -> None:
        self.items = self.most_items = items
        self.size = self.most_size = size


class Streams:
    """The calls of one direction that let something pass; most calls do not.

    Bound: at most one entry of each kind for a call in flight.
    """

    def __init__(self) -> None:
        self._windows: dict[int, _Window] = {}
        self._to_start: set[int] = set()

    def expect(self, call: int, context: Mapping[str, Any]) -> None:
        """Remember what the context of a Request asks for."""
        if "stream" in context:
            self._windows[call] = _Window(*context["stream"])
        if context.get("task_status"):
            self._to_start.add(call)

    def forget(self, call: int) -> None:
        """Nothing passes in that call any more."""
        if self._windows:
            self._windows.pop(call, None)
        if self._to_start:
            self._to_start.discard(call)

    def clear(self) -> None:
        """Nothing passes in any call any more."""
        self._windows.clear()
        self._to_start.clear()

    def may_pass(self, call: int) -> bool:
        """Whether there is credit for one more Item."""
        window = self._windows.get(call)
        return window is not None and window.items > 0 and window.size > 0

    def item(self, call: int, size: int) -> None:
        """Count an Item of ``size`` bytes. Raises LocalProtocolError if it has no credit."""
        window = self._windows.get(call)
        if window is None or window.items <= 0 or window.size <= 0:
            raise LocalProtocolError(f"an Item without credit in call {call}")
        window.items -= 1
        window.size -= size

    def has_items(self, call: int) -> bool:
        """Whether Items may come in that call, be it with more credit."""
        return call in self._windows

    def end(self, call: int) -> None:
        """No more Items. Raises LocalProtocolError where there never were any, or not any more."""
        if self._windows.pop(call, None) is None:
            raise LocalProtocolError(f"an EndOfItems in call {call}, which has no Items")

    def give(self, call: int, items: int, size: int) -> bool:
        """Count credit; False if the stream has ended meanwhile.

        Raises LocalProtocolError for more than has been used.
        """
        window = self._windows.get(call)
        if window is None:
            return False
        window.items += items
        window.size += size
        if window.items > window.most_items or window.size > window.most_size:
            raise LocalProtocolError(f"Credit for more than was sent in call {call}")
        return True

    def started(self, call: int) -> None:
        """Count a Started. Raises LocalProtocolError where none is waited for."""
        if call not in self._to_start:
            raise LocalProtocolError(f"a Started in call {call}, which waits for none")
        self._to_start.remove(call)

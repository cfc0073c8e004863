"""Messages within a call: Items, which need credit, and one Started.

The consumer of a stream gives credit: the first in its Request, more with Credit as it takes items.
An Item may be sent while there is credit for one more item and for at least one byte. It uses up
one item and all of its bytes, so the last Item before a pause may overdraw the bytes. That lets
every item of a legal size pass, whatever the window.

Both ends count by this one rule: a message that must not be sent must not arrive. Items and credit
are counted where they are sent before they are counted where they arrive. So a correct producer
never seems to overdraw, and a correct consumer never seems to give more than it has taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

from trio_rpc.errors import LocalProtocolError
from trio_rpc.wire.messages import Item, Message

__all__ = ["NO_STREAMS", "Event", "ItemRun", "Streams", "expecting", "with_runs"]

MOST_IN_RUN = 32
"""Items that are handled together at most, before other tasks run."""


class ItemRun(NamedTuple):
    """Items of one call that follow each other in one packet: one event in place of many.

    Attributes:
        id: the call.
        items: the Items, at least two.
        size: the bytes of all.
    """

    id: int
    items: list[Item]
    size: int


class _Window:
    """The credit left in one stream, and the credit it began with."""

    __slots__ = ("items", "most_items", "most_size", "size")

    def __init__(self, items: int, size: int) -> None:
        self.items = self.most_items = items
        self.size = self.most_size = size


Event: TypeAlias = Message | ItemRun


class Streams:
    """The calls of one direction that have Items or a Started; most calls have neither.

    Bound: at most one entry of each kind for a call in flight.
    """

    __slots__ = ("_to_start", "_windows")

    def __init__(self) -> None:
        self._windows: dict[int, _Window] = {}
        self._to_start: set[int] = set()

    def expect(self, call: int, context: Mapping[str, Any]) -> None:
        """Record the credit and the Started that the context of a Request asks for."""
        if "stream" in context:
            self._windows[call] = _Window(*context["stream"])
        if context.get("task_status"):
            self._to_start.add(call)

    def forget(self, call: int) -> None:
        """Forget a call, which has ended."""
        if self._windows:
            self._windows.pop(call, None)
        if self._to_start:
            self._to_start.discard(call)

    def clear(self) -> None:
        """Forget all calls."""
        self._windows.clear()
        self._to_start.clear()

    def may_pass(self, call: int) -> bool:
        """Return whether there is credit for one more Item."""
        window = self._windows.get(call)
        return window is not None and window.items > 0 and window.size > 0

    def item(self, call: int, size: int) -> None:
        """Count an Item of ``size`` bytes. Raises LocalProtocolError if it has no credit."""
        window = self._windows.get(call)
        if window is None or window.items <= 0 or window.size <= 0:
            raise LocalProtocolError(f"an Item without credit in call {call}")
        window.items -= 1
        window.size -= size

    def take_run(self, run: ItemRun) -> bool:
        """Count the Items of a run, as :meth:`item` does for each, if all of them have credit.

        Return False, and count nothing, if one of them has no credit.
        """
        window = self._windows.get(run.id)
        # The last Item may overdraw the bytes, and no other may.
        if (
            window is None
            or window.items < len(run.items)
            or window.size <= run.size - run.items[-1].size
        ):
            return False
        window.items -= len(run.items)
        window.size -= run.size
        return True

    def has_items(self, call: int) -> bool:
        """Return whether that call has Items that have not ended."""
        return call in self._windows

    def end(self, call: int) -> None:
        """Count an EndOfItems. Raises LocalProtocolError if that call has no Items to end."""
        if self._windows.pop(call, None) is None:
            raise LocalProtocolError(f"an EndOfItems in call {call}, which has no Items")

    def give(self, call: int, items: int, size: int) -> bool:
        """Count credit; return False if the stream has ended meanwhile.

        Raises LocalProtocolError for more credit than has been used.
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
        """Count a Started. Raises LocalProtocolError if the call expects none."""
        if call not in self._to_start:
            raise LocalProtocolError(f"a Started in call {call}, which does not expect one")
        self._to_start.remove(call)


NO_STREAMS = Streams()
"""Stands for no calls, since most sessions have no streams. :func:`expecting` replaces it."""


def expecting(streams: Streams, call: int, context: Mapping[str, Any]) -> Streams:
    """Add the streams that the context of a Request opens to those of a direction; return them."""
    if "stream" in context or context.get("task_status"):
        if streams is NO_STREAMS:
            streams = Streams()
        streams.expect(call, context)
    return streams


def with_runs(messages: Iterable[Message]) -> Iterator[Event]:
    """Join the Items of one call that follow each other; other messages pass as they are."""
    items: list[Item] = []
    call = size = 0
    for message in messages:
        if type(message) is Item:
            if message.id != call or len(items) >= MOST_IN_RUN:
                yield from _joined(items, size)
                items, call, size = [], message.id, 0
            items.append(message)
            size += message.size
        else:
            yield from _joined(items, size)
            items, call, size = [], 0, 0
            yield message
    yield from _joined(items, size)


def _joined(items: list[Item], size: int) -> tuple[Item | ItemRun, ...]:
    if len(items) > 1:
        return (ItemRun(items[0].id, items, size),)
    return tuple(items)

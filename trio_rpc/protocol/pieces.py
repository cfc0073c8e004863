"""Reassembly of a large message from its pieces."""

from __future__ import annotations

from trio_rpc.errors import DecodeError
from trio_rpc.wire.parts import LARGE, Buffer, LargeBytes, SplitMessage
from trio_rpc.wire.scan import BytesPosition, find_large

__all__ = ["Pieces"]

REACH = 32
"""The most bytes reserved for a large object, for each byte of its message that has arrived."""

_NO_BYTES = b"\xc4\0"


class Pieces:
    """Collects the pieces of the one large message that may be in transit.

    Most large messages hold one large ``bytes`` object, near their beginning. The pieces of that
    object are copied straight to their final place; the bytes around it are kept apart.

    Bound: ``max_message`` bytes, checked before a piece is kept.
    """

    def __init__(self, max_message: int) -> None:
        self._max_message = max_message
        self._clear()

    def _clear(self) -> None:
        self._size = 0
        self._rest = bytearray()
        """The message so far, without the bytes in ``_content``."""
        self._place: BytesPosition | None = None
        self._content: LargeBytes | None = None

    def add(self, data: Buffer) -> None:
        """Keep a copy of one piece. Raises DecodeError if the message becomes too large."""
        size = self._size + len(data)
        if size > self._max_message:
            raise DecodeError(f"a message in pieces is larger than {self._max_message} bytes")
        more = memoryview(data)
        if not self._size:
            self._place = find_large(more, LARGE)
        self._size = size
        if self._content is not None:
            more = self._content.add(more)
        elif self._place is not None and self._place.size <= min(REACH * size, self._max_message):
            more = self._begin_content(self._place, more)
        self._rest += more

    def _begin_content(self, place: BytesPosition, more: memoryview) -> memoryview:
        """Move the large bytes that have arrived to their place; return the rest of ``more``."""
        if self._rest:
            head = memoryview(self._rest)
        else:
            head, more = more, more[:0]
        self._content = LargeBytes(place.size)
        self._rest = bytearray(head[: place.header]) + _NO_BYTES
        self._rest += self._content.add(head[place.content :])
        return self._content.add(more)

    def take(self) -> memoryview | SplitMessage:
        """Return the completed message. Raises DecodeError if it ends inside its large bytes."""
        place, content, rest, size = self._place, self._content, self._rest, self._size
        self.drop()
        if content is None or place is None:
            return memoryview(rest)
        return SplitMessage(memoryview(rest), content.whole(), place.path, size)

    def drop(self) -> None:
        """Drop the pieces received so far. Raises DecodeError if there are none."""
        if not self._size:
            raise DecodeError("there are no pieces to drop")
        self._clear()

"""The receiver's half of a large message: pieces come in, a whole message comes out."""

from __future__ import annotations

from trio_rpc.errors import DecodeError
from trio_rpc.wire.parts import LARGE, Buffer, LargeBytes, SplitMessage
from trio_rpc.wire.scan import BytesPosition, find_large

__all__ = ["Pieces"]

REACH = 32
"""How much is reserved at most for large bytes, for each byte of their message that has come."""

_NO_BYTES = b"\xc4\0"


class Pieces:
    """Collects the pieces of the one large message that may be under way.

    Most often a message is large because of one ``bytes`` object, and begins with its header. Then
    the pieces are copied to where that object is to be; what is round it is kept apart.

    Bound: ``max_message`` bytes, checked before a piece is kept.
    """

    def __init__(self, max_message: int) -> None:
        self._max_message = max_message
        self._clear()

    def _clear(self) -> None:
        self._size = 0
        self._rest = bytearray()
        """The message so far, without what is in ``_content``."""
        self._place: BytesPosition | None = None
        self._content: LargeBytes | None = None

    def add(self, data: Buffer) -> None:
        """Keep a copy of one piece; DecodeError when the message grows past the limit."""
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
        """Put what has come of large bytes to their place; return what comes after them of ``more``."""
        if self._rest:
            head = memoryview(self._rest)
        else:
            head, more = more, more[:0]
        self._content = LargeBytes(place.size)
        self._rest = bytearray(head[: place.header]) + _NO_BYTES
        self._rest += self._content.add(head[place.content :])
        return self._content.add(more)

    def take(self) -> memoryview | SplitMessage:
        """Hand out the message that the last piece has completed. Raises DecodeError."""
        place, content, rest, size = self._place, self._content, self._rest, self._size
        self.drop()
        if content is None or place is None:
            return memoryview(rest)
        return SplitMessage(memoryview(rest), content.whole(), place.path, size)

    def drop(self) -> None:
        """Forget what has come so far; DecodeError when that is nothing."""
        if not self._size:
            raise DecodeError("there are no pieces to drop")
        self._clear()

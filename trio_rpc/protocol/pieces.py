"""The receiver's half of a large message: pieces come in, a whole message comes out."""

from __future__ import annotations

from trio_rpc.errors import DecodeError

__all__ = ["KEPT", "Pieces"]

KEPT = 4 * 1024 * 1024
"""Bytes of memory kept for the next large message, since to get it anew costs more than to copy."""


class Pieces:
    """Collects the pieces of the one large message that may be under way.

    Bound: ``max_message`` bytes, checked before a piece is kept; ``KEPT`` while none is under way,
    until :meth:`free`.
    """

    def __init__(self, max_message: int) -> None:
        self._max_message = max_message
        self._buffer = bytearray()
        self._size = 0

    @property
    def is_empty(self) -> bool:
        """Whether no large message is under way."""
        return not self._size

    @property
    def kept(self) -> int:
        """Bytes of memory that are held."""
        return len(self._buffer)

    def add(self, data: bytes | memoryview) -> None:
        """Keep one piece; DecodeError when the message grows past the limit."""
        size = self._size + len(data)
        if size > self._max_message:
            raise DecodeError(f"a message in pieces is larger than {self._max_message} bytes")
        self._buffer[self._size : size] = data
        self._size = size

    def take(self) -> memoryview:
        """Hand out the message that the last piece has completed; release it before the next one."""
        whole = memoryview(self._buffer)[: self._size]
        self.drop()
        return whole

    def drop(self) -> None:
        """Forget what has come so far; DecodeError when that is nothing."""
        if not self._size:
            raise DecodeError("there are no pieces to drop")
        if len(self._buffer) > KEPT:
            self._buffer = bytearray()
        self._size = 0

    def free(self) -> None:
        """Give back the memory kept for the next large message, if none is under way."""
        if not self._size:
            self._buffer = bytearray()

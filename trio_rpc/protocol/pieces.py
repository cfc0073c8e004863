"""The receiver's half of a large message: pieces come in, a whole message comes out."""

from __future__ import annotations

from trio_rpc.errors import DecodeError

__all__ = ["Pieces"]

_SHORT = 1024
"""Pieces shorter than this are joined as they come: an object each costs more than they hold."""


class Pieces:
    """Collects the pieces of the one large message that may be under way.

    Bound: ``max_message`` bytes, checked before a piece is kept.
    """

    def __init__(self, max_message: int) -> None:
        self._max_message = max_message
        self._parts: list[bytes | bytearray | memoryview] = []
        self._size = 0

    def add(self, data: bytes | memoryview) -> None:
        """Keep one piece; DecodeError when the message grows past the limit."""
        self._size += len(data)
        if self._size > self._max_message:
            raise DecodeError(f"a message in pieces is larger than {self._max_message} bytes")
        if len(data) >= _SHORT:
            self._parts.append(data)
            return
        last = self._parts[-1] if self._parts else None
        if not isinstance(last, bytearray):
            last = bytearray()
            self._parts.append(last)
        last += data

    def take(self) -> bytes:
        """Hand out the message that the last piece has completed."""
        whole = b"".join(self._parts)
        self.drop()
        return whole

    def drop(self) -> None:
        """Forget what has come so far; DecodeError when that is nothing."""
        if not self._parts:
            raise DecodeError("there are no pieces to drop")
        self._parts = []
        self._size = 0

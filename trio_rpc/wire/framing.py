"""Packets on a stream of bytes: each is preceded by its length, four bytes, big-endian."""

from __future__ import annotations

from collections import deque
from collections.abc import Sized
from io import BytesIO

from trio_rpc.errors import DecodeError

__all__ = ["PREFIX", "FrameReader", "frame", "frame_length", "prefix"]

PREFIX = 4
"""Bytes of the length prefix."""

MANY_PIECES = 256
"""Number of pieces above which small ones are joined: each costs some 40 bytes of overhead."""

SMALL_PIECE = 1024
"""Average bytes of a piece below which joining pays."""

WORTH = 16 * 1024
"""Missing bytes of a packet above which reading them straight into the packet pays."""

REACH = 8
"""The most bytes of a packet that are reserved for each byte of it that has arrived."""

_NO_SPACE = memoryview(b"")


def prefix(packet: Sized) -> bytes:
    """Return the length prefix of a packet. Raises ValueError for an empty packet."""
    if not len(packet):
        raise ValueError("an empty packet cannot be sent")
    return len(packet).to_bytes(PREFIX, "big")


def frame(packet: bytes) -> bytes:
    """Return a packet with its length prefix. Raises ValueError for an empty packet."""
    return prefix(packet) + packet


def frame_length(head: bytes | bytearray | memoryview, max_frame: int) -> int:
    """Return the length that the first four bytes of a frame announce.

    Raises DecodeError if it is zero or above ``max_frame``, before memory is allocated for it.
    """
    length = int.from_bytes(head[:PREFIX], "big")
    if not length:
        raise DecodeError("a frame of length zero")
    if length > max_frame:
        raise DecodeError(f"a frame of {length} bytes where at most {max_frame} are allowed")
    return length


class FrameReader:
    """Cuts packets out of a stream of bytes that arrives in arbitrary pieces.

    ::

        reader.feed(received)
        while (packet := reader.next_frame()) is not None:
            ...

    The reader keeps each piece as it was fed and copies it once, into its packet. A length alone
    reserves no memory.

    When part of a large packet has arrived, the rest can be read straight into the packet::

        if (space := reader.space()) is not None:
            reader.filled(socket.recv_into(space))
    """

    __slots__ = ("_have", "_length", "_max_frame", "_pieces", "_space", "_start", "_whole")

    def __init__(self, max_frame: int) -> None:
        """``max_frame``: bytes of the largest packet that is accepted."""
        self._max_frame = max_frame
        # None while nothing is buffered: an empty deque has memory for 64 pieces.
        self._pieces: deque[bytes] | None = None
        self._start = 0  # where the unread part of the first piece begins
        self._have = 0  # unread bytes in all pieces
        self._length = 0  # of the frame whose prefix has been read; 0 before that
        # The whole of that packet, and where the rest of it goes. A BytesIO hands out the bytes
        # that were written to its buffer without a copy.
        self._whole: BytesIO | None = None
        self._space = _NO_SPACE

    def feed(self, data: bytes) -> None:
        """Add bytes that have arrived."""
        if not data:
            return
        if self._pieces is None:
            self._pieces = deque()
        self._pieces.append(data)
        self._have += len(data)
        if len(self._pieces) > MANY_PIECES and self._have < len(self._pieces) * SMALL_PIECE:
            whole = b"".join(self._pieces)
            self._pieces.clear()
            self._pieces.append(whole)

    def first_of(self, data: bytes) -> bytes | None:
        """Add bytes that have arrived; return the next whole packet, as :meth:`next_frame` does."""
        if not self._have and not self._length:
            size = len(data) - PREFIX  # most often the data is exactly one packet
            if 0 < size <= self._max_frame and int.from_bytes(data[:PREFIX], "big") == size:
                return data[PREFIX:]
        self.feed(data)
        return self.next_frame()

    def next_frame(self) -> bytes | None:
        """Return the next whole packet, or None if it has not arrived.

        Raises DecodeError for a length of zero or above the limit. The stream is then unusable.
        """
        if not self._length:
            if self._have < PREFIX:
                return None
            self._length = frame_length(self._peek(), self._max_frame)
            self._take(PREFIX)
        if self._have < self._length:
            return None
        if self._whole is None:
            packet = self._take(self._length)
        else:
            self._space.release()
            packet = self._whole.getvalue()
            self._whole, self._have, self._space = None, 0, _NO_SPACE
        self._length = 0
        return packet

    def space(self) -> memoryview | None:
        """Return the buffer for the rest of an incomplete large packet, or None.

        At most ``REACH`` times the bytes that have arrived are reserved. :meth:`feed` must not be
        called while there is such a buffer.
        """
        if self._whole is None:
            missing = self._length - self._have
            if missing < WORTH or self._have * REACH < self._length:
                return None
            have = self._have
            self._whole = BytesIO(bytes(self._length))
            space = self._whole.getbuffer()
            space[:have] = self._take(have)
            self._have, self._space = have, space[have:]
            space.release()
        return self._space

    def filled(self, count: int) -> None:
        """Count the bytes that were read into the buffer of :meth:`space`."""
        self._have += count
        self._space, filled = self._space[count:], self._space
        filled.release()

    @property
    def partial(self) -> bool:
        """Whether a frame is incomplete: if the stream ends here, data is lost."""
        return bool(self._length or self._have)

    def _peek(self) -> bytes:
        """Return the first bytes, at least a prefix, without removing them."""
        pieces = self._buffered
        head = pieces[0][self._start : self._start + PREFIX]
        if len(head) == PREFIX:
            return head
        rest = list(pieces)[1:PREFIX]  # none is empty, so these hold enough
        return head + b"".join(rest)

    def _take(self, size: int) -> bytes:
        """Remove and return the first bytes."""
        pieces = self._buffered
        self._have -= size
        first = pieces[0]
        end = self._start + size
        if end < len(first):
            taken = first[self._start : end]
            self._start = end
            return taken
        if self._start:
            pieces[0] = first[self._start :]
            self._start = 0
        taken = self._take_pieces(pieces, size)
        if not pieces:
            self._pieces = None
        return taken

    def _take_pieces(self, pieces: deque[bytes], size: int) -> bytes:
        """Join pieces, and part of the last one, into the next ``size`` bytes."""
        if len(pieces[0]) == size:
            return pieces.popleft()
        parts = []
        while size and len(pieces[0]) <= size:
            parts.append(pieces.popleft())
            size -= len(parts[-1])
        if size:
            parts.append(pieces[0][:size])
            self._start = size
        return b"".join(parts)

    @property
    def _buffered(self) -> deque[bytes]:
        """The pieces, of which there is at least one."""
        assert self._pieces is not None  # noqa: S101 - only asked for bytes that have arrived
        return self._pieces

"""Packets on a stream of bytes: each is preceded by its length, four bytes, big-endian."""

from __future__ import annotations

from trio_rpc.errors import DecodeError

__all__ = ["PREFIX", "FrameReader", "frame", "frame_length", "prefix"]

PREFIX = 4
"""Bytes of a length."""

_COMPACT_AFTER = 64 * 1024


def prefix(packet: bytes) -> bytes:
    """Return the bytes that go before a packet. Raises ValueError for an empty one."""
    if not packet:
        raise ValueError("an empty packet cannot be sent")
    return len(packet).to_bytes(PREFIX, "big")


def frame(packet: bytes) -> bytes:
    """Return a packet as it stands on the stream. Raises ValueError for an empty one."""
    return prefix(packet) + packet


def frame_length(head: bytes | bytearray | memoryview, max_frame: int) -> int:
    """Return the length that the first four bytes of a frame announce.

    Raises DecodeError when it is zero or above ``max_frame``: before anything is allocated for it.
    """
    length = int.from_bytes(head[:PREFIX], "big")
    if not length:
        raise DecodeError("a frame of length zero")
    if length > max_frame:
        raise DecodeError(f"a frame of {length} bytes where at most {max_frame} are allowed")
    return length


class FrameReader:
    """Cuts packets out of bytes that come in any pieces.

    ::

        reader.feed(received)
        while (packet := reader.next_frame()) is not None:
            ...

    Its memory is what was fed and not yet taken: a length alone reserves nothing.
    """

    def __init__(self, max_frame: int) -> None:
        """``max_frame``: bytes of the largest packet that is taken."""
        self._max_frame = max_frame
        self._buffer = bytearray()
        self._start = 0  # where the unread part of the buffer begins
        self._length: int | None = None  # of the frame whose prefix has been read

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Add bytes as they came."""
        # Taken frames are cut off here and not one by one: moving the rest for each of a
        # thousand small frames would cost the square of their number.
        if self._start == len(self._buffer) or self._start > _COMPACT_AFTER:
            del self._buffer[: self._start]
            self._start = 0
        self._buffer += data

    def next_frame(self) -> bytes | None:
        """Return the next whole packet, or None while there is none.

        Raises DecodeError for a length of zero or above the limit; the stream is of no use then.
        """
        if self._length is None:
            if len(self._buffer) - self._start < PREFIX:
                return None
            head = self._buffer[self._start : self._start + PREFIX]
            self._length = frame_length(head, self._max_frame)
            self._start += PREFIX
        end = self._start + self._length
        if len(self._buffer) < end:
            return None
        with memoryview(self._buffer) as view:
            packet = bytes(view[self._start : end])
        self._start = end
        self._length = None
        return packet

    @property
    def needed(self) -> int:
        """Bytes still missing until the next prefix or packet is whole; 0 if one can be taken."""
        due = PREFIX if self._length is None else self._length
        return max(0, due - (len(self._buffer) - self._start))

    @property
    def partial(self) -> bool:
        """Whether the stream stands inside a frame: if it ends here, something is lost."""
        return self._length is not None or self._start < len(self._buffer)

"""Length-prefixed frames, until wire/framing.py is there."""

from __future__ import annotations

from collections import deque

from trio_rpc.errors import DecodeError

HEADER_SIZE = 4


def frame(packet: bytes) -> bytes:
    """Put the length before a packet."""
    return len(packet).to_bytes(HEADER_SIZE) + packet


class FrameReader:
    """Cuts a byte stream into frames.

    What was fed is kept as it came and copied once, into the frame it belongs to; a piece that
    is exactly one frame is not copied at all.
    """

    __slots__ = ("_at", "_have", "_length", "_max_frame", "_pieces")

    def __init__(self, max_frame: int) -> None:
        self._max_frame = max_frame
        self._pieces: deque[bytes] = deque()
        self._at = 0  # bytes of the first piece that are used up
        self._have = 0  # bytes that are not
        self._length = 0  # of the frame whose header has been read; 0 before that

    @property
    def partial(self) -> bool:
        """Whether a frame has begun and not ended."""
        return bool(self._have or self._length)

    @property
    def needed(self) -> int:
        """Bytes missing from the frame that has begun, as far as is known."""
        return (self._length or HEADER_SIZE) - self._have

    def feed(self, data: bytes) -> None:
        """Add bytes that arrived."""
        self._pieces.append(data)
        self._have += len(data)

    def next_frame(self) -> bytes | None:
        """Return the next frame, or None as long as it is not whole."""
        if not self._length:
            if self._have < HEADER_SIZE:
                return None
            self._length = self._read_length()
        if self._have < self._length:
            return None
        packet = self._take(self._length)
        self._length = 0
        return packet

    def _read_length(self) -> int:
        length = int.from_bytes(self._take(HEADER_SIZE))
        if 0 < length <= self._max_frame:
            return length
        # Put it back, so that asking again gives the same answer.
        self._pieces = deque([length.to_bytes(HEADER_SIZE)])
        self._at, self._have = 0, HEADER_SIZE
        raise DecodeError(f"a packet of {length} bytes; {self._max_frame} are allowed")

    def _take(self, size: int) -> bytes:
        self._have -= size
        first = self._pieces[0]
        end = self._at + size
        if end < len(first):
            taken = first[self._at : end]
            self._at = end
            return taken
        parts: list[bytes] = []
        while size:
            piece = self._pieces[0]
            part = piece[self._at : self._at + size] if self._at or len(piece) > size else piece
            parts.append(part)
            size -= len(part)
            if self._at + len(part) == len(piece):
                self._pieces.popleft()
                self._at = 0
            else:
                self._at += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

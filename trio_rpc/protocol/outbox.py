"""What waits to be sent, and how it is cut into packets.

Small messages leave in the order they were put, as many in one packet as fit. A message that is
larger than a packet goes into a lane of its own and leaves in pieces, one in each packet, so that
small ones pass between them. One large message is under way at a time: the receiver never has
more than one half of a message to keep, which is what bounds its memory.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import msgpack

from trio_rpc.wire import messages as m

__all__ = ["Outbox"]

# [16, bin 32 …] and [17, bin 32 …]: a piece is built by hand, since packing it would copy it twice.
_PIECE = b"\x92" + bytes([m.Piece.TYPE]) + b"\xc6"
_LAST_PIECE = b"\x92" + bytes([m.LastPiece.TYPE]) + b"\xc6"
_PIECE_HEADER = len(_PIECE) + 4
_DROP_PIECES = b"\x91" + bytes([m.DropPieces.TYPE])

NO_REPLY = 0


@dataclass(slots=True)
class _Large:
    data: memoryview
    answers: int
    """The id of the call that this message ends, or NO_REPLY."""
    sent: int = 0


class Outbox:
    """The queue between those who send and the one who writes.

    Bounds: small messages are calls, replies and control messages. Calls stop being put at
    ``Limits.send_buffer`` bytes (the session waits with them). A reply and a Cancel
    belong to a call each, of which there are at most ``max_calls``, and
    each of which keeps its slot until its terminal message has left. Pongs share one place, and
    so do Credits.
    """

    def __init__(self, max_packet: int) -> None:
        self.max_packet = max_packet
        self.size = 0
        """Bytes that wait."""
        self._small: deque[tuple[bytes, int]] = deque()
        self._large: deque[_Large] = deque()
        self._pong = b""
        self._dropped = b""
        self._credit = 0

    def __bool__(self) -> bool:
        return bool(self._small or self._large or self._pong or self._credit or self._dropped)

    def put(self, data: bytes, answers: int = NO_REPLY) -> None:
        """Queue one encoded message; ``answers`` is the id of the call that it ends."""
        self.size += len(data)
        if len(data) > self.max_packet:
            self._large.append(_Large(memoryview(data), answers))
        else:
            self._small.append((data, answers))

    def put_pong(self, data: bytes) -> None:
        """Queue a Pong in place of one that has not left yet: Pings cannot pile up answers."""
        self._pong = data

    def put_credit(self, notifications: int) -> None:
        """Queue a Credit, or add it to the one that has not left yet."""
        self._credit += notifications

    def next_packet(self) -> tuple[bytes, list[int]] | None:
        """Take what leaves next: one packet, and the ids of the calls that it ends."""
        if not self:
            return None
        # The drop comes before any piece, or the pieces that follow it would be dropped instead.
        first = self._take_first()
        parts: list[bytes | memoryview] = [first] if first else []
        answered: list[int] = []
        room = self.max_packet - len(first)
        # A large message has half of each packet to itself, or a steady stream of small ones
        # would stop it for ever.
        share = room // 2 if self._large else room
        room -= self._take_small(parts, answered, share)
        if self._large:
            self._take_piece(parts, answered, room)
        return b"".join(parts), answered

    def _take_first(self) -> bytes:
        first = self._dropped + self._pong
        if self._credit:
            first += msgpack.packb([m.Credit.TYPE, self._credit])
        self._dropped = self._pong = b""
        self._credit = 0
        return first

    def _take_small(self, parts: list[bytes | memoryview], answered: list[int], room: int) -> int:
        used = 0
        small = self._small
        while small:
            data, answers = small[0]
            if parts and used + len(data) > room:
                break
            small.popleft()
            parts.append(data)
            used += len(data)
            if answers:
                answered.append(answers)
        self.size -= used
        return used

    def _take_piece(self, parts: list[bytes | memoryview], answered: list[int], room: int) -> None:
        room -= _PIECE_HEADER
        if room <= 0:
            return
        large = self._large[0]
        piece = large.data[large.sent : large.sent + room]
        large.sent += len(piece)
        self.size -= len(piece)
        last = large.sent == len(large.data)
        parts.append((_LAST_PIECE if last else _PIECE) + len(piece).to_bytes(4, "big"))
        parts.append(piece)
        if last:
            self._large.popleft()
            if large.answers:
                answered.append(large.answers)

    def withdraw_request(self, call: int) -> bool:
        """Take back the Request of that id; False when its last byte has left already."""
        prefixes = _request_prefixes(call)
        for index, (data, _) in enumerate(self._small):
            if data.startswith(prefixes):
                del self._small[index]
                self.size -= len(data)
                return True
        for large in self._large:
            if large.data[:12].tobytes().startswith(prefixes):
                self._drop(large)
                return True
        return False

    def withdraw_answer(self, call: int) -> bool:
        """Take back a large Reply to that call; False when it is small or has left already."""
        for large in self._large:
            if large.answers == call:
                self._drop(large)
                return True
        return False

    def _drop(self, large: _Large) -> None:
        self._large.remove(large)
        self.size -= len(large.data) - large.sent
        if large.sent:
            self._dropped = _DROP_PIECES


def _request_prefixes(call: int) -> tuple[bytes, ...]:
    """How the Request of that id begins, in each of its lengths."""
    tail = bytes([m.Request.TYPE]) + msgpack.packb(call)
    return tuple(bytes([0x90 + length]) + tail for length in (4, 5, 6))

"""The queue of messages to send, and the packets that they leave in.

Small messages leave in the order in which they were put, as many in one packet as fit. A message
larger than a packet goes into a separate lane and leaves in pieces, one in each packet, so that
small messages pass between the pieces. Messages of one call keep their order: an Item that leaves
in pieces overtakes no earlier Item of its stream, and neither the next Item nor the end of the
stream overtakes it. Only one large message is in transit at a time, so the receiver never keeps
more than one incomplete message. That bounds its memory.

A message that was legal when it was put is legal when it leaves, because only Credit overtakes a
small message, and Credit may come at any time. A Goodbye must not overtake a large call, so it
waits until no large call is queued.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import groupby

import msgpack

from trio_rpc.wire import messages as m
from trio_rpc.wire.parts import LARGE, Buffer, BufferList

__all__ = ["CONTROL_ROOM", "NOTHING", "Outbox"]

# [16, bin 32 …] and [17, bin 32 …]: packing a piece would copy it twice, so it is built by hand.
_PIECE = b"\x92" + bytes([m.Piece.TYPE]) + b"\xc6"
_LAST_PIECE = b"\x92" + bytes([m.LastPiece.TYPE]) + b"\xc6"
_PIECE_HEADER = len(_PIECE) + 4
_DROP = b"\x92" + bytes([m.LastPiece.TYPE]) + b"\xc4\0"

CONTROL_ROOM = 32
"""Bytes that each packet keeps free for a drop, a Pong and a Credit, beside any small message."""

SHORT_PIECE = 64 * 1024
"""Bytes of a piece while small messages may follow: none of them waits for more than this."""

# A tag is the id of the call that a message ends, or the negated id of the call that it begins.
NOTHING = 0
_NO_PONG = -1


@dataclass(slots=True, eq=False)
class _Large:
    data: BufferList
    tag: int
    """The id of the call that it ends, the negated id of the one that it begins, or NOTHING."""
    call: int
    """The id of the peer's call that this message belongs to, or NOTHING."""
    behind: int
    """The number of the small message that it must not overtake, or 0."""
    sent: int = 0


class _ItemCredit:
    """Credit for the Items of one call, written when it leaves; later grants are added to it."""

    __slots__ = ("call", "items", "size")

    def __init__(self, call: int, items: int, size: int) -> None:
        self.call = call
        self.items = items
        self.size = size

    def __len__(self) -> int:
        """Return the most bytes that it may have."""
        return CONTROL_ROOM

    def written(self) -> bytes:
        data: bytes = msgpack.packb(m.Credit(self.items, self.call, self.size).to_wire())
        return data


_NO_SMALL: deque[tuple[bytes | BufferList | _ItemCredit, int, int]] = deque()
_NO_LARGE: deque[_Large] = deque()
"""Stand for empty queues: an empty deque has memory for 64 items, and most sessions are idle."""


class Outbox:
    """The queue between the tasks that send and the task that writes.

    Bounds: small messages are calls, replies and control messages. The session puts no calls while
    ``Limits.send_buffer`` bytes are queued, or all sessions hold too much (``unsent_budget.py``).
    Each reply and each Cancel belongs to a call. There are at most ``max_calls`` of them (no
    handler begins above ``Limits.max_unsent`` bytes), and each keeps its slot until its terminal
    message has left. Pongs share one slot, and so do Credits for Notifications, and the Credits for
    the Items of one call.

    Args:
        max_packet: bytes that a packet may have.
    """

    def __init__(self, max_packet: int) -> None:
        self.size = 0
        """Bytes in the queue."""
        self._small = _NO_SMALL
        """Each with its tag and its number; numbers increase."""
        self._last_number = 0
        self._large = _NO_LARGE
        self._last_small_request = 0
        """The id of the last small Request that has left. Requests leave in order of their ids."""
        self._pong = _NO_PONG
        self._has_spoken = False
        """Hello has left. Nothing overtakes it."""
        self._goodbye = b""
        self._dropped = b""
        self._credit = 0
        self._item_credits: dict[int, _ItemCredit] = {}
        """The Credits for items among the small messages, by the id of the call."""
        self._large_is_owed = False
        self.allowance = SHORT_PIECE
        """Bytes of short pieces that may leave."""
        self.resize(max_packet)

    def __bool__(self) -> bool:
        return bool(self._small or self._large or self._has_first)

    @property
    def _has_first(self) -> bool:
        """Whether a drop, a Pong or a Credit is queued, which go first in a packet."""
        if self._pong != _NO_PONG and self._has_spoken:
            return True
        return bool(self._credit or self._dropped)

    @property
    def messages(self) -> int:
        """The number of queued small messages."""
        return len(self._small)

    @property
    def large_requests(self) -> list[int]:
        """The ids of the large Requests of which a part has not left."""
        return [-large.tag for large in self._large if large.tag < NOTHING]

    def resize(self, max_packet: int) -> None:
        """Set the size of packets in bytes. It never shrinks below the size of queued messages."""
        self.max_packet = max_packet
        self._max_small = max_packet - CONTROL_ROOM

    def put(self, data: bytes | BufferList, tag: int = NOTHING, call: int = NOTHING) -> None:
        """Queue one encoded message.

        Args:
            data: the message; a BufferList is not copied.
            tag: the id of the call that it ends, or the negated id of the one that it begins.
            call: the id of the peer's call that it belongs to, if it does not end that call.
                Messages of one call leave in the order in which they were put.
        """
        self.size += len(data)
        if tag > NOTHING:
            call = tag
        if len(data) > self._max_small or (call and self._large and self._is_behind(call)):
            behind = self._last_number if call else 0
            parts = data if isinstance(data, BufferList) else BufferList([data])
            if self._large is _NO_LARGE:
                self._large = deque()
            self._large.append(_Large(parts, tag, call, behind))
        else:
            self._add_small(data, tag)

    def put_pong(self, number: int) -> None:
        """Queue a Pong. It replaces one that has not left yet, and also answers that Ping."""
        self._pong = number

    def put_credit(self, notifications: int) -> None:
        """Queue a Credit, or add it to one that has not left yet."""
        self._credit += notifications

    def put_item_credit(self, call: int, items: int, size: int) -> None:
        """Queue a Credit for the Items of a call, or add it to the one that has not left yet."""
        waiting = self._item_credits.get(call)
        if waiting is not None:
            waiting.items += items
            waiting.size += size
            return
        credit = self._item_credits[call] = _ItemCredit(call, items, size)
        self.size += len(credit)
        self._add_small(credit, NOTHING)

    def _add_small(self, data: bytes | BufferList | _ItemCredit, tag: int) -> None:
        self._last_number += 1
        if self._small is _NO_SMALL:
            self._small = deque()
        self._small.append((data, tag, self._last_number))

    def put_goodbye(self, data: bytes) -> None:
        """Queue a small message behind all calls, including large ones."""
        if any(large.call == NOTHING for large in self._large):
            self._goodbye = data
        else:
            self.put(data)

    def next_packet(self, *, short: bool = False) -> tuple[bytes | BufferList, list[int]] | None:
        """Return the next packet, and the ids of the calls that it ends.

        A packet with large bytes in it is a BufferList, which saves a copy.

        Args:
            short: cut short pieces, so that small messages can overtake a large one. ``allowance``
                bounds how many bytes of them leave. Otherwise pieces fill packets, which is faster.
        """
        if len(self._small) == 1 and not (self._large or self._has_first):
            answered: list[int] = []
            return self._take_next(answered), answered
        if not self:
            return None
        # The drop precedes every piece, or it would drop the pieces that follow.
        first = self._take_first()
        parts: list[Buffer] = [first] if first else []
        answered = []
        room = self.max_packet - len(first)
        if not self._may_take_large or (short and self.allowance <= 0):
            room -= self._take_small(parts, answered, room, room)
            return (_packet(parts, self.max_packet - room), answered) if parts else None
        # A large message gets half of each packet, or a steady stream of small messages would
        # stop it forever. A small message that needs more than half gets every second packet, or a
        # large one would stop it.
        share = room // 2
        limit = share if self._large_is_owed else room
        room -= self._take_small(parts, answered, limit, share)
        self._large_is_owed = room < share
        if short:
            room = min(room, SHORT_PIECE)
            self.allowance -= room
        is_alone = not parts
        size = self._take_piece(parts, answered, room)
        if is_alone and size >= LARGE:
            return BufferList(parts), answered
        return _packet(parts, self.max_packet), answered

    @property
    def _may_take_large(self) -> bool:
        """Whether a large message may leave without overtaking a message of the same call."""
        if not self._large:
            return False
        return not self._small or self._small[0][2] > self._large[0].behind

    def _take_first(self) -> bytes:
        if not self._has_first:
            return b""
        first = self._dropped
        if self._pong != _NO_PONG and self._has_spoken:
            first += msgpack.packb([m.Pong.TYPE, self._pong])
            self._pong = _NO_PONG
        if self._credit:
            first += msgpack.packb([m.Credit.TYPE, self._credit])
        self._dropped = b""
        self._credit = 0
        return first

    def _take_small(self, parts: list[Buffer], answered: list[int], limit: int, share: int) -> int:
        """Remove small messages: the first of at most ``limit`` bytes, all of at most ``share``."""
        used = 0
        while self._small:
            size = len(self._small[0][0])
            if used + size > limit:
                break
            data = self._take_next(answered)
            if isinstance(data, bytes):
                parts.append(data)
            else:
                parts += data.buffers
            used += size
            limit = share
        return used

    def _take_next(self, answered: list[int]) -> bytes | BufferList:
        """Remove and return the first small message."""
        self._has_spoken = True
        data, tag, _ = self._small.popleft()
        if not self._small:
            self._small = _NO_SMALL
        self.size -= len(data)
        if tag < 0:
            self._last_small_request = -tag
        elif tag:
            answered.append(tag)
        if isinstance(data, _ItemCredit):
            del self._item_credits[data.call]
            return data.written()
        return data

    def _take_piece(self, parts: list[Buffer], answered: list[int], room: int) -> int:
        """Remove as many bytes of the first large message as fit, and return their number."""
        room -= _PIECE_HEADER
        if room <= 0:
            return 0
        large = self._large[0]
        size = min(room, large.data.size - large.sent)
        piece = large.data.cut(large.sent, large.sent + size)
        large.sent += size
        self.size -= size
        last = large.sent == large.data.size
        parts.append((_LAST_PIECE if last else _PIECE) + size.to_bytes(4, "big"))
        parts += piece
        if last:
            self._remove(large)
            if large.tag > NOTHING:
                answered.append(large.tag)
        return size

    def withdraw_request(self, call: int) -> bool:
        """Withdraw the Request of that id; return False if its last byte has left already."""
        for large in self._large:
            if large.tag == -call:
                self._withdraw(large)
                return True
        if call <= self._last_small_request:
            return False
        for index, (data, tag, _) in enumerate(self._small):
            if tag == -call:
                del self._small[index]
                if not self._small:
                    self._small = _NO_SMALL
                self.size -= len(data)
                return True
        return False

    def withdraw_large(self, call: int) -> bool:
        """Withdraw the large messages of an incoming call that the peer no longer wants.

        Returns whether its terminal message was among them. It may also be small, or have left.
        """
        mine = [large for large in self._large if large.call == call]
        for large in mine:
            self._withdraw(large)
        return any(large.tag == call for large in mine)

    def clear(self) -> None:
        """Forget all queued messages, which will not be sent."""
        self._small, self._large = _NO_SMALL, _NO_LARGE
        self._item_credits.clear()
        self._goodbye = self._dropped = b""
        self.size = self._credit = 0
        self._pong = _NO_PONG

    def _is_behind(self, call: int) -> bool:
        return any(large.call == call for large in self._large)

    def _withdraw(self, large: _Large) -> None:
        self.size -= len(large.data) - large.sent
        if large.sent:
            self._dropped = _DROP
        self._remove(large)

    def _remove(self, large: _Large) -> None:
        self._large.remove(large)
        if not self._large:
            self._large, self._large_is_owed = _NO_LARGE, False
        if self._goodbye:
            goodbye, self._goodbye = self._goodbye, b""
            self.put_goodbye(goodbye)


def _packet(parts: list[Buffer], size: int) -> bytes | BufferList:
    """Join short parts, and leave large ones uncopied."""
    if size < LARGE or max(map(len, parts)) < LARGE:
        return b"".join(parts)
    if len(parts) == 1 and isinstance(parts[0], bytes):
        return parts[0]
    joined: list[Buffer] = []
    for is_large, run in groupby(parts, lambda part: len(part) >= LARGE):
        if is_large:
            joined += run
        else:
            joined.append(b"".join(run))
    return BufferList(joined)

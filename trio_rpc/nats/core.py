"""One end of a channel over NATS, without I/O and without a clock.

Each NATS message has a kind, two numbers and a rest::

    kind (1 byte)  seq (8)  consumed (8)  rest

    D data, the whole packet or its last part    P part of a packet    C credit
    K keepalive ("?" wants one back)             S send again, from the number in the rest
    X orderly end                                R reset, with a reason

1. *seq* is the number of data messages (D, P) that this end has sent before, in every kind. So the
   peer notices a gap with the next message, and asks for the missing ones by S. A number that
   is too low is a copy.
2. *consumed* is the size of all data messages that the application of this end has taken. It is
   cumulative, so that a lost message costs no credit.
3. Messages that the peer has not consumed are kept, and sent again after a gap. They are at most
   the window that the peer has granted.
4. Messages after a gap are dropped. They are sent again, so the order is restored.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator
from typing import Final, NamedTuple

from trio_rpc.errors import DecodeError

__all__ = ["COST", "LEAST_WINDOW", "MOST_WINDOW", "Arrival", "ChannelCore", "part_size"]

COST: Final = 160
"""Bytes that a message takes in the broker in addition to its rest: the line with both subjects
(107 with the default prefix), the header, and line ends."""

LEAST_WINDOW: Final = 32 * 1024
MOST_WINDOW: Final = 1024 * 1024
"""Bytes of a window; a peer that grants more is taken to grant this."""

MAX_PART: Final = 128 * 1024
MARGIN: Final = 1024
"""Bytes of ``max_payload`` that a part leaves for the header."""

_HEADER: Final = struct.Struct(">BQQ")
_NUMBER: Final = struct.Struct(">Q")
_pack, _unpack = _HEADER.pack, _HEADER.unpack_from
_SIZE: Final = _HEADER.size

DATA, PART, CREDIT, KEEPALIVE, AGAIN, END, RESET = (ord(kind) for kind in "DPCKSXR")

WANTS_ONE_BACK: Final = b"?"


def part_size(window: int, max_payload: int) -> int:
    """Return the bytes of the largest part: two of them fit into the window."""
    return max(1, min(MAX_PART, window // 2 - COST, max_payload - MARGIN))


class Arrival(NamedTuple):
    """The consequences of a message.

    Attributes:
        has_gap: data messages before it have not arrived.
        has_data: it is the data message that was due.
        wants_answer: the peer wants a keepalive.
        again: the number of the data message from which to send again, or None.
        reset: the reason why the peer has given up the channel, or None.
    """

    has_gap: bool = False
    has_data: bool = False
    wants_answer: bool = False
    again: int | None = None
    reset: str | None = None


_NOTHING: Final = Arrival()
_GAP: Final = Arrival(has_gap=True)
_IN_ORDER: Final = Arrival(has_data=True)


class ChannelCore:
    """The numbers, the credit and the kept messages of one end.

    Args:
        receive_window: bytes that this end grants to the peer.

    Attributes:
        peer_ended: whether the peer has closed the channel after everything it has sent.
        send_window: bytes that the peer grants; 0 until it is known.
        parts: the parts that have arrived in order: whether each ends a packet, and its bytes.
    """

    def __init__(self, receive_window: int) -> None:
        self.peer_ended = False
        self.send_window = 0
        # Bound: receive_window, as receive() checks.
        self.parts: deque[tuple[bool, bytes]] = deque()
        self._receive_window = receive_window
        self._received = 0
        """Data messages that have arrived in order."""
        self._arrived = 0
        """The size of these messages."""
        self._consumed = 0
        """The size of the messages that the application has taken."""
        self._announced = 0
        """The size that the peer has been told."""
        self._sent = 0
        """Data messages that were sent."""
        self._sent_size = 0
        self._confirmed = 0
        """The size that the peer has consumed."""
        # Bound: send_window, which is at most MOST_WINDOW. The kind, the rest, and the size of all
        # data messages up to this one.
        self._kept: deque[tuple[int, bytes, int]] = deque()
        self._packet = b""
        self._at = 0
        """The bytes of the packet that were sent."""

    # ------------------------------------------------------------------------------ sending

    def is_sending(self) -> bool:
        """Return whether a packet is not yet sent completely."""
        return bool(self._packet)

    @property
    def has_begun(self) -> bool:
        """Whether a part of that packet was sent."""
        return self._at > 0

    @property
    def unsent(self) -> int:
        """Bytes of that packet that were not sent."""
        return len(self._packet) - self._at

    @property
    def confirmed(self) -> int:
        """The size of the data messages that the peer has consumed."""
        return self._confirmed

    @property
    def received(self) -> int:
        """The number of data messages that have arrived in order."""
        return self._received

    @property
    def all_consumed(self) -> bool:
        """Whether the peer has consumed all sent messages."""
        return not self._kept

    def start(self, packet: bytes) -> None:
        """Begin a packet, after the previous one was sent completely."""
        self._packet, self._at = packet, 0

    def withdraw(self) -> None:
        """Forget a packet of which nothing was sent."""
        self._packet = b""

    def next_message(self, max_part: int) -> bytes | None:
        """Return the next message of the packet, or None if there is none or no credit for it."""
        packet, at = self._packet, self._at
        if not packet:
            return None
        size = len(packet) - at
        if size <= max_part:
            kind, rest = DATA, packet[at:] if at else packet
        else:
            kind, rest = PART, packet[at : at + max_part]
        total = self._sent_size + len(rest) + COST
        if total - self._confirmed > self.send_window:
            return None
        message = _pack(kind, self._sent, self._consumed) + rest
        self._announced = self._consumed
        self._sent += 1
        self._sent_size = total
        self._kept.append((kind, rest, total))
        if kind == DATA:
            self._packet, self._at = b"", 0
        else:
            self._at = at + len(rest)
        return message

    def control(self, kind: int, rest: bytes = b"") -> bytes:
        """Return a message that is not data."""
        self._announced = self._consumed
        return _pack(kind, self._sent, self._consumed) + rest

    def ask_again(self) -> bytes:
        """Return the message that asks for the missing messages."""
        return self.control(AGAIN, _NUMBER.pack(self._received))

    def again(self, first: int) -> Iterator[bytes]:
        """Yield the data messages from a number on.

        Raises:
            DecodeError: the peer asks for messages that it has consumed, or that were not sent.
        """
        oldest = self._sent - len(self._kept)
        if not oldest <= first <= self._sent:
            raise DecodeError(
                f"the peer asks for message {first} again; only {oldest} to {self._sent} are kept"
            )
        for number, (kind, rest, _) in enumerate(list(self._kept), start=oldest):
            if number >= first:
                yield _pack(kind, number, self._consumed) + rest

    # ---------------------------------------------------------------------------- receiving

    def receive(self, message: bytes) -> Arrival:
        """Handle a message from the peer.

        Raises:
            DecodeError: the peer has broken the rules above.
        """
        if len(message) < _SIZE:
            raise DecodeError(f"a message of {len(message)} bytes on a channel over NATS")
        kind, seq, consumed = _unpack(message)
        if consumed > self._confirmed:
            self._confirm(consumed)
        if kind in (DATA, PART):
            if seq == self._received:
                self._take_in(kind, message[_SIZE:])
                return _IN_ORDER
            return _GAP if seq > self._received else _NOTHING
        return self._control(kind, seq, message[_SIZE:])

    def _confirm(self, consumed: int) -> None:
        if consumed > self._sent_size:
            raise DecodeError("the peer has consumed more than was sent")
        self._confirmed = consumed
        kept = self._kept
        while kept and kept[0][2] <= consumed:
            kept.popleft()

    def _take_in(self, kind: int, rest: bytes) -> None:
        if not rest:
            raise DecodeError("an empty part of a packet")
        arrived = self._arrived + len(rest) + COST
        if arrived - self._consumed > self._receive_window:
            raise DecodeError("the peer has sent more than its credit")
        if self.peer_ended:
            raise DecodeError("the peer has sent data after the end")
        self._arrived = arrived
        self._received += 1
        self.parts.append((kind == DATA, rest))

    def _control(self, kind: int, seq: int, rest: bytes) -> Arrival:
        has_gap = seq > self._received
        if kind == CREDIT:
            return _GAP if has_gap else _NOTHING
        if kind == KEEPALIVE:
            return Arrival(has_gap, wants_answer=rest == WANTS_ONE_BACK)
        if kind == AGAIN:
            if len(rest) != _NUMBER.size:
                raise DecodeError("a message that asks for others names no number")
            return Arrival(has_gap, again=_NUMBER.unpack(rest)[0])
        if kind == END:
            self.peer_ended = self.peer_ended or not has_gap
            return Arrival(has_gap)
        if kind == RESET:
            return Arrival(reset=rest[:500].decode(errors="replace"))
        raise DecodeError(f"a message of the unknown kind {kind} on a channel over NATS")

    def take(self) -> tuple[bool, bytes]:
        """Remove and return the oldest part that has arrived."""
        part = self.parts.popleft()
        self._consumed += len(part[1]) + COST
        return part

    @property
    def owes_credit(self) -> bool:
        """Whether half of the window was consumed since the peer was told."""
        return (self._consumed - self._announced) * 2 >= self._receive_window

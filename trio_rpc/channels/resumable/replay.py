"""Numbered packets, acknowledgements and replay: a resumable channel without its I/O.

Theory of operation
===================

Each end numbers the packets that it sends, 1, 2, 3 …, and keeps a copy of each until the other end has said that
it has it. Over one carrier, which keeps the order and loses nothing while it lives, the next packet always has the
next number. After a carrier was lost, both ends tell each other on the new one the number of the last packet that
they have, and each sends again what comes after it. So every packet arrives once and in order, however many
carriers that takes.

An acknowledgement rides on every packet. An end that has nothing to send sends one alone when it is :data:`ACK_PACKETS` or
:data:`ACK_BYTES` behind. So an end that keeps twice as much at most is never stopped for long, and one that keeps less
would be stopped for ever.

The end of a channel is a packet too, with a number and a copy, so it survives a cut as well.

The frames
==========

All begin alike: what it is (one byte), a number and an acknowledgement (eight bytes each, big-endian).
None begins as a packet of a session's does, which is a MessagePack array.

====== ======= ============ ================ =============================================
byte   frame   number       acknowledgement  rest
====== ======= ============ ================ =============================================
0x40   Open    0            0                the version, one byte
0x41   Resume  0            what I have      the version, and the token: 16 bytes
0x42   Accept  0            what I have      the token
0x43   Refuse  0            0                why: UTF-8
0x44   Data    its number   what I have      the packet
0x45   Ack     0            what I have
0x46   End     its number   what I have
====== ======= ============ ================ =============================================
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from trio_rpc.errors import DecodeError
from trio_rpc.util.replay_buffer import ReplayBuffer
from trio_rpc.wire.limits import Limits

__all__ = [
    "ACK_BYTES",
    "HEADER",
    "TOKEN_BYTES",
    "VERSION",
    "Frame",
    "Kind",
    "Resumption",
    "carrier_limits",
    "decode",
    "encode",
    "is_frame",
]

VERSION = 1
TOKEN_BYTES = 16
_HEADER = struct.Struct(">BQQ")
HEADER = _HEADER.size
"""Bytes that a frame is longer than the packet in it."""

MAX_REASON = 1000
"""Bytes of a reason for a refusal."""

ACK_PACKETS = 64
ACK_BYTES = 256 * 1024
"""After so much that came without an answer to ride on, an Ack is due."""

END = b""
"""What is kept for the end of the channel, which has a number as a packet has; no packet is empty."""

MAX_PACKETS = 4096
"""Packets that are kept at most, however small; many times what is acknowledged at once."""


class Kind(enum.IntEnum):
    """What a frame is: its first byte."""

    OPEN = 0x40
    RESUME = 0x41
    ACCEPT = 0x42
    REFUSE = 0x43
    DATA = 0x44
    ACK = 0x45
    END = 0x46


_RESTS = {
    Kind.OPEN: range(1, 2),
    Kind.RESUME: range(1 + TOKEN_BYTES, 2 + TOKEN_BYTES),
    Kind.ACCEPT: range(TOKEN_BYTES, TOKEN_BYTES + 1),
    Kind.REFUSE: range(MAX_REASON + 1),
    Kind.ACK: range(1),
    Kind.END: range(1),
}
"""How long the rest of a frame may be."""

_NUMBERED = (Kind.DATA, Kind.END)


class Frame(NamedTuple):
    """What a carrier carries at once."""

    kind: Kind
    number: int = 0
    ack: int = 0
    rest: bytes = b""


def encode(frame: Frame) -> bytes:
    """Make a frame of bytes."""
    kind, number, ack, rest = frame
    return _HEADER.pack(kind, number, ack) + rest


def decode(data: bytes) -> Frame:
    """Read a frame. Raises DecodeError for what is none."""
    try:
        byte, number, ack = _HEADER.unpack_from(data)
        kind = Kind(byte)
    except (struct.error, ValueError):
        raise DecodeError("that is no frame of a resumable channel") from None
    rest = data[HEADER:]
    if (number > 0) != (kind in _NUMBERED):
        raise DecodeError(f"{kind.name} with number {number}")
    if kind is Kind.DATA:
        if not rest:
            raise DecodeError("DATA without a packet")
    elif len(rest) not in _RESTS[kind]:
        raise DecodeError(f"{kind.name} with {len(rest)} bytes behind its header")
    return Frame(kind, number, ack, rest)


class Resumption:
    """What one end has to know to resume: the packets that may not have arrived, and how many have come.

    Args:
        max_bytes: how many bytes are kept before sending has to wait.

    Attributes:
        received: the number of the last packet that has come.
        has_peer_ended: whether the other end's End has come.
    """

    def __init__(self, max_bytes: int) -> None:
        self.received = 0
        self.has_peer_ended = False
        self._sent = ReplayBuffer(MAX_PACKETS, max_bytes)
        self._told = 0
        self._received_bytes = 0

    @property
    def confirmed(self) -> int:
        """The number of the last packet whose arrival is known."""
        return self._sent.acknowledged

    @property
    def unconfirmed(self) -> int:
        """How many packets have been sent whose arrival is not known."""
        return len(self._sent)

    @property
    def has_room(self) -> bool:
        """Whether one more packet may be sent; an empty buffer takes any."""
        return self._sent.has_room

    @property
    def is_ack_due(self) -> bool:
        """Whether the other end should be told what has come, even if there is nothing to send."""
        return (
            self.received - self._told >= ACK_PACKETS
            or self._received_bytes >= ACK_BYTES
            or (self.has_peer_ended and self.received > self._told)
        )

    def frame(self, packet: bytes) -> bytes:
        """Make the frame of the next packet; it counts as sent only when it has been kept."""
        return self._frame(self._sent.last + 1, packet)

    def keep(self, packet: bytes) -> None:
        """Number a packet, and keep it until its arrival is known."""
        self._sent.append(packet)
        self._have_told()

    def end(self) -> bytes:
        """Keep the end, and make the frame of it."""
        self.keep(END)
        return self._frame(self._sent.last, END)

    def ack(self) -> bytes:
        """Make an acknowledgement."""
        self._have_told()
        return _HEADER.pack(Kind.ACK, 0, self.received)

    def replay(self, received: int) -> Iterator[bytes]:
        """Take note of what the other end has, and return the frames of what comes after that, made as they are needed.

        Raises:
            DecodeError: that number cannot be.
        """
        if received < self.confirmed:
            raise DecodeError(f"packet {received + 1} is asked for again, and was acknowledged")
        self._confirm(received)
        return self._after(received)

    def _after(self, number: int) -> Iterator[bytes]:
        for each, packet in self._sent.after(number):
            self._have_told()
            yield self._frame(each, packet)

    def receive(self, data: bytes) -> bytes | None:
        """Take note of what has come, and return the packet in it, if there is one.

        Raises:
            DecodeError: it is no frame, or not one that may come now.
        """
        kind, number, ack, rest = decode(data)
        if kind not in (Kind.DATA, Kind.ACK, Kind.END):
            raise DecodeError(f"{kind.name} may only come first")
        self._confirm(ack)
        if kind is Kind.ACK:
            return None
        if number != self.received + 1:
            raise DecodeError(f"packet {number} came after packet {self.received}")
        if self.has_peer_ended:
            raise DecodeError("a packet came after the end")
        self.received = number
        self._received_bytes += len(rest)
        self.has_peer_ended = kind is Kind.END
        return rest or None

    def _confirm(self, number: int) -> None:
        if number > self._sent.last:
            raise DecodeError(f"packet {number} was acknowledged and never sent")
        self._sent.acknowledge(number)

    def _have_told(self) -> None:
        self._told = self.received
        self._received_bytes = 0

    def _frame(self, number: int, packet: bytes) -> bytes:
        return _HEADER.pack(Kind.DATA if packet else Kind.END, number, self.received) + packet


def is_frame(data: bytes) -> bool:
    """Say whether a packet is a frame of a resumable channel; a packet of a session begins with an array."""
    return data[0] in Kind._value2member_map_


def carrier_limits(limits: Limits) -> Limits:
    """Return the limits of a carrier: its packets are a header longer than those of the session."""
    size = limits.max_packet + HEADER
    return replace(limits, max_packet=size, max_message=max(limits.max_message, size))

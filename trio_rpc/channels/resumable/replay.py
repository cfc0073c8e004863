"""Numbered packets, acknowledgements and replay: a resumable channel without its I/O.

Theory of operation
===================

Each end numbers the packets that it sends (1, 2, 3 …), and keeps a copy of each until the other
end acknowledges it. A carrier keeps the order and loses nothing while it works, so over one carrier
the next packet always has the next number. After a carrier was lost, each end tells the other over
the new one the number of the last packet that it received, and each sends all later packets again.
So every packet arrives once and in order, however many carriers that takes.

Every packet carries an acknowledgement. An end that has nothing to send sends an Ack alone when it
is :data:`ACK_PACKETS` or :data:`ACK_BYTES` behind. So a sender whose replay buffer holds at least
twice that much is never blocked for long, and one with less could be blocked forever.

The end of a channel is also a numbered packet with a copy, so it also survives a lost connection.

The frames
==========

Every frame begins with its kind (one byte), a number and an acknowledgement (eight bytes each,
big-endian). The acknowledgement is the number of the last packet received. No frame begins like a
session's packet, which is a MessagePack array.

====== ======= ============ ================ =============================================
byte   frame   number       acknowledgement  rest
====== ======= ============ ================ =============================================
0x40   Open    0            0                the version, one byte
0x41   Resume  0            last received    the version, and the token: 16 bytes
0x42   Accept  0            last received    the token
0x43   Refuse  0            0                the reason: UTF-8
0x44   Data    its number   last received    the packet
0x45   Ack     0            last received
0x46   End     its number   last received
====== ======= ============ ================ =============================================
"""

from __future__ import annotations

import enum
import struct
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from trio_rpc.errors import DecodeError
from trio_rpc.util.replay_buffer import ReplayBuffer
from trio_rpc.util.unsent_budget import UnsentBudget, UnsentShare
from trio_rpc.wire.limits import Limits

__all__ = [
    "ACK_BYTES",
    "HEADER",
    "LEAST_KEPT",
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
"""Bytes of a frame before its packet."""

MAX_REASON = 1000
"""Bytes of a reason for a refusal."""

ACK_PACKETS = 64
ACK_BYTES = 256 * 1024
"""An Ack is due after this much was received, and no packet left that could acknowledge it."""

LEAST_KEPT = 2 * ACK_BYTES
"""Bytes that a channel with a connection may always keep: with fewer, no Ack might be due."""

END = b""
"""The copy that is kept for the end of the channel, which is numbered; no packet is empty."""

MAX_PACKETS = 4096
"""The most packets that are kept, however small: many times more than one Ack acknowledges."""


class Kind(enum.IntEnum):
    """The kind of a frame: its first byte."""

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
"""The allowed lengths of the rest of a frame."""

_NUMBERED = (Kind.DATA, Kind.END)


class Frame(NamedTuple):
    """One packet of a carrier."""

    kind: Kind
    number: int = 0
    ack: int = 0
    rest: bytes = b""


def encode(frame: Frame) -> bytes:
    """Return the bytes of a frame."""
    kind, number, ack, rest = frame
    return _HEADER.pack(kind, number, ack) + rest


def decode(data: bytes) -> Frame:
    """Decode a frame. Raises DecodeError if the bytes are not a frame."""
    try:
        byte, number, ack = _HEADER.unpack_from(data)
        kind = Kind(byte)
    except (struct.error, ValueError):
        raise DecodeError("the packet is not a frame of a resumable channel") from None
    rest = data[HEADER:]
    if (number > 0) != (kind in _NUMBERED):
        raise DecodeError(f"{kind.name} with number {number}")
    if kind is Kind.DATA:
        if not rest:
            raise DecodeError("DATA without a packet")
    elif len(rest) not in _RESTS[kind]:
        raise DecodeError(f"{kind.name} with {len(rest)} bytes after its header")
    return Frame(kind, number, ack, rest)


class Resumption:
    """The state that one end needs to resume: its unconfirmed packets and the receive count.

    Args:
        max_bytes: how many bytes are kept before sending must wait.

    Attributes:
        received: the number of the last packet that was received.
        share: counts the bytes that are kept, in a budget that other sessions share.
        has_peer_ended: whether the other end's End was received.
    """

    def __init__(self, max_bytes: int) -> None:
        self.received = 0
        self.has_peer_ended = False
        self.share = UnsentShare(UnsentBudget(), sys.maxsize)
        self._sent = ReplayBuffer(MAX_PACKETS, max_bytes)
        self._acknowledged = 0
        self._received_bytes = 0

    @property
    def confirmed(self) -> int:
        """The number of the last packet whose arrival is known."""
        return self._sent.acknowledged

    @property
    def unconfirmed(self) -> int:
        """The number of sent packets whose arrival is not known."""
        return len(self._sent)

    @property
    def has_room(self) -> bool:
        """Whether one more packet may be sent. An empty buffer accepts any packet."""
        sent, share = self._sent, self.share
        least = LEAST_KEPT if share.is_connected else 1
        return sent.has_room and (sent.size < least or not share.is_full)

    @property
    def is_ack_due(self) -> bool:
        """Whether an Ack should be sent even if there is no packet to send."""
        return (
            self.received - self._acknowledged >= ACK_PACKETS
            or self._received_bytes >= ACK_BYTES
            or (self.has_peer_ended and self.received > self._acknowledged)
        )

    def frame(self, packet: bytes) -> bytes:
        """Return the frame of the next packet, which counts as sent only after ``keep``."""
        return self._frame(self._sent.last + 1, packet)

    def keep(self, packet: bytes) -> None:
        """Number a packet, and keep it until its arrival is known."""
        self._sent.append(packet)
        self.share.keep(self._sent.size)
        self._record_acknowledgement()

    def end(self) -> bytes:
        """Keep the end, and return its frame."""
        self.keep(END)
        return self._frame(self._sent.last, END)

    def forget(self) -> None:
        """Drop all kept packets, since no connection will carry them."""
        self._sent.acknowledge(self._sent.last)
        self.share.keep(0)
        self.share.connect()

    def ack(self) -> bytes:
        """Return an Ack frame."""
        self._record_acknowledgement()
        return _HEADER.pack(Kind.ACK, 0, self.received)

    def replay(self, received: int) -> Iterator[bytes]:
        """Confirm the packets up to ``received``, and return the frames of all later packets.

        The frames are made lazily.

        Raises:
            DecodeError: the number is impossible.
        """
        if received < self.confirmed:
            raise DecodeError(f"packet {received + 1} is requested again after it was acknowledged")
        self._confirm(received)
        return self._after(received)

    def _after(self, number: int) -> Iterator[bytes]:
        for each, packet in self._sent.after(number):
            self._record_acknowledgement()
            yield self._frame(each, packet)

    def receive(self, data: bytes) -> bytes | None:
        """Process a received frame, and return the packet in it, or None.

        Raises:
            DecodeError: the bytes are not a frame, or the frame is not allowed now.
        """
        kind, number, ack, rest = decode(data)
        if kind not in (Kind.DATA, Kind.ACK, Kind.END):
            raise DecodeError(f"{kind.name} is allowed only as the first frame")
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
            raise DecodeError(f"packet {number} was acknowledged, but never sent")
        self._sent.acknowledge(number)
        self.share.keep(self._sent.size)

    def _record_acknowledgement(self) -> None:
        self._acknowledged = self.received
        self._received_bytes = 0

    def _frame(self, number: int, packet: bytes) -> bytes:
        return _HEADER.pack(Kind.DATA if packet else Kind.END, number, self.received) + packet


def is_frame(data: bytes) -> bool:
    """Return whether a packet is a frame of a resumable channel, not a session's array."""
    return data[0] in Kind._value2member_map_


def carrier_limits(limits: Limits) -> Limits:
    """Return the limits of a carrier, whose packets are one header longer than the session's.

    Args:
        limits: the limits of the session.
    """
    size = limits.max_packet + HEADER
    return replace(limits, max_packet=size, max_message=max(limits.max_message, size))

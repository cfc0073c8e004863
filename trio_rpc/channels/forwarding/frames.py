"""The frames of forwarding, each a MessagePack array. A packet of the carrier holds several.

The second element of most frames is the id of a channel: positive if the sender of the frame opened
that channel, negative if its receiver did. So each end numbers its own channels from 1, and two
channels that both ends open at the same time stay distinct.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import msgpack

from trio_rpc.errors import DecodeError

__all__ = [
    "DATA_HEADER",
    "MAX_TEXT",
    "VERSION",
    "Abort",
    "Accept",
    "Close",
    "Credit",
    "Data",
    "Frame",
    "Goodbye",
    "Hello",
    "Open",
    "Part",
    "Refuse",
    "check_name",
    "decode_frames",
    "encode",
    "encode_data_header",
    "shorten",
]

VERSION = 1

MAX_TEXT = 1024
"""Bytes of a name or a reason, in UTF-8."""


class Hello(NamedTuple):
    """The first frame of each end: its limits."""

    version: int
    max_packet: int
    """The most bytes in a packet of the carrier."""
    max_channels: int
    """The most channels that the other end may have open at once."""


class Open(NamedTuple):
    """Asks for a channel."""

    id: int
    name: str
    credit: int
    """Bytes that the acceptor may send on it."""


class Accept(NamedTuple):
    """Accepts an Open."""

    id: int
    credit: int
    """Bytes that the opener may send."""


class Refuse(NamedTuple):
    """Refuses an Open."""

    id: int
    reason: str


class Data(NamedTuple):
    """A packet, or its last part."""

    id: int
    content: bytes


class Part(NamedTuple):
    """A part of a packet that is not the last one."""

    id: int
    content: bytes


class Credit(NamedTuple):
    """Lets the other end send more."""

    id: int
    amount: int


class Close(NamedTuple):
    """The orderly end: its sender sends nothing more, and drops everything that still arrives."""

    id: int


class Abort(NamedTuple):
    """The end of a channel that has failed; otherwise like Close."""

    id: int
    reason: str


class Goodbye(NamedTuple):
    """The end of the carrier, because of an error of the receiver of this frame."""

    reason: str


Frame: TypeAlias = Hello | Open | Accept | Refuse | Data | Part | Credit | Close | Abort | Goodbye

_CLASSES: dict[int, tuple[type[Frame], tuple[type, ...]]] = {
    0: (Hello, (int, int, int)),
    1: (Open, (int, str, int)),
    2: (Accept, (int, int)),
    3: (Refuse, (int, str)),
    4: (Data, (int, bytes)),
    5: (Part, (int, bytes)),
    6: (Credit, (int, int)),
    7: (Close, (int,)),
    8: (Abort, (int, str)),
    9: (Goodbye, (str,)),
}
_NUMBERS = {cls: number for number, (cls, _) in _CLASSES.items()}

DATA_HEADER = 2 + 9 + 5
"""The most bytes of a Data or a Part without its content."""


def encode(frame: Frame) -> bytes:
    """Return the bytes of a frame."""
    packed: bytes = msgpack.packb((_NUMBERS[type(frame)], *frame))
    return packed


def encode_data_header(kind: type[Data | Part], channel: int, size: int) -> bytes:
    """Return the bytes before the content of a Data or a Part; packing it whole would copy it."""
    head: bytes = msgpack.packb(channel)
    return b"\x93" + bytes([_NUMBERS[kind]]) + head + b"\xc6" + size.to_bytes(4, "big")


def decode_frames(packet: bytes) -> Iterator[Frame]:
    """Decode the frames of one packet, one at a time.

    Raises DecodeError at the first malformed frame, and no other exception.
    """
    unpacker = msgpack.Unpacker(
        use_list=False,
        max_buffer_size=len(packet),
        max_bin_len=len(packet),
        max_str_len=MAX_TEXT,
        max_array_len=4,  # a type and its fields; frames contain no nested values
        max_map_len=0,
        max_ext_len=0,
    )
    unpacker.feed(packet)
    while unpacker.tell() < len(packet):
        try:
            fields = unpacker.unpack()
        except Exception as exc:
            raise DecodeError(f"malformed frame: {str(exc) or type(exc).__name__:.200}") from exc
        yield _parse(fields)


def _parse(fields: object) -> Frame:
    if type(fields) is not tuple or not fields or type(fields[0]) is not int:
        raise DecodeError("a frame is an array that begins with its type")
    number, *values = fields
    if number not in _CLASSES:
        raise DecodeError(f"there are no frames of type {number}")
    cls, types = _CLASSES[number]
    if tuple(map(type, values)) != types:
        raise DecodeError(f"a malformed {cls.__name__}")
    return cls(*values)


def check_name(name: str) -> None:
    """Raise TypeError or ValueError if this cannot be the name of a channel."""
    if not isinstance(name, str):
        raise TypeError(f"the name of a channel must be a str, not {name!r:.200}")
    if not 0 < len(name.encode("utf-8", "replace")) <= MAX_TEXT:
        raise ValueError(f"the name of a channel has 1 to {MAX_TEXT} bytes in UTF-8")
    name.encode()  # raises UnicodeEncodeError, a ValueError, for half a surrogate pair


def shorten(reason: str) -> str:
    """Return a reason, truncated to ``MAX_TEXT`` bytes."""
    return reason.encode("utf-8", "replace")[:MAX_TEXT].decode("utf-8", "ignore")

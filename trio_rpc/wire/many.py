"""Reading the short messages of one packet in one pass.

Busy sessions put many messages into a packet, and most of them are short: calls with scalars, their
results, items, cancellations. The packet is read as one array of messages, of a type that msgspec
knows: it makes the ids, the texts and the scalars, and checks the form of each message.

1. The walk over the packet finds where each message ends, and so their number. Without it, neither
   the header of the array nor the size of an Item is known.
2. msgspec decodes the array. It accepts no other kinds of messages, no values inside others except
   the scalars in one list or one map, no bytes and no extensions.
3. The array is encoded again. If the bytes differ from the packet, it could hold more than the
   messages show: a key that is given twice, for instance.

A packet that is refused here is read in the way of all packets, which raises its error if it has
one. No memory is spent on lengths that are only announced, since a message is walked over first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import msgpack
import msgspec

from trio_rpc.wire.messages import Cancel, Item, Message, Reply, ReplyErr, Request
from trio_rpc.wire.one_pass import Id
from trio_rpc.wire.plain import ENCODER

__all__ = ["DEPTH", "FIRST", "MOST", "read_many"]

MOST: Final = 16 * 1024
"""Bytes of a packet above which its messages are read one by one, and other tasks run between."""

DEPTH: Final = 3
"""The greatest depth of a message that is read here."""

_Scalar: TypeAlias = bool | int | float | str | None
_Flat: TypeAlias = _Scalar | list[_Scalar]


class _Request(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False, tag=1):
    id: Id
    method: str
    args: list[_Scalar]

    def message(self, _size: int) -> Message:
        return Request(self.id, self.method, self.args)


class _Reply(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False, tag=3):
    id: Id
    value: _Flat

    def message(self, _size: int) -> Message:
        return Reply(self.id, self.value)


class _ReplyErr(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False, tag=4):
    id: Id
    error: dict[str, _Scalar]

    def message(self, _size: int) -> Message:
        return ReplyErr(self.id, self.error)


class _Cancel(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False, tag=5):
    id: Id

    def message(self, _size: int) -> Message:
        return Cancel(self.id)


class _Item(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False, tag=20):
    id: Id
    value: _Flat

    def message(self, size: int) -> Message:
        item = Item(self.id, self.value)
        item.size = size
        return item


_decode: Final[Callable[[bytes], list[Any]]] = msgspec.msgpack.Decoder(
    list[_Request | _Reply | _ReplyErr | _Cancel | _Item]
).decode

FIRST: Final = frozenset(
    {
        bytes([0x94, Request.TYPE]),
        bytes([0x92, Cancel.TYPE]),
        *(bytes([0x93, kind.TYPE]) for kind in (Reply, ReplyErr, Item)),
    }
)
"""The first two bytes of a packet that may be read here."""


def read_many(packet: bytes) -> list[Message] | None:
    """Return the messages of a packet, or None if it must be read in another way."""
    try:
        sizes = _sizes(packet)
        count = len(sizes)
        head = bytes([0x90 | count]) if count < 16 else b"\xdc" + count.to_bytes(2, "big")
        array = head + packet
        read = _decode(array)
        if ENCODER.encode(read) != array:
            return None
    except Exception:  # noqa: BLE001 - msgspec and msgpack raise several kinds of errors
        return None
    return [one.message(size) for one, size in zip(read, sizes, strict=True)]


def _sizes(packet: bytes) -> list[int]:
    """Return the bytes of each message. An error of msgpack passes."""
    walker = msgpack.Unpacker(max_buffer_size=len(packet))
    walker.feed(packet)
    skip, tell = walker.skip, walker.tell
    sizes = []
    start, size = 0, len(packet)
    while start < size:
        skip()
        end = tell()
        sizes.append(end - start)
        start = end
    return sizes

"""Checks of encoded bytes before decoding, and of values after it, against the limits.

Nothing here builds the values that a peer describes. MessagePack's headers announce how much
follows, and a library that believes them allocates memory for it. One byte can stand for 73 bytes
in memory. So the scan walks over a message first, and only complete messages within the limits are
decoded.
"""

from __future__ import annotations

from itertools import chain
from typing import Any, NamedTuple

import msgpack

from trio_rpc.errors import DecodeError
from trio_rpc.wire.messages import Hello, LastPiece, Piece

__all__ = [
    "SMALL",
    "BytesPosition",
    "check_complete",
    "check_packet",
    "check_whole",
    "find_large",
    "hello_version",
    "is_deeper",
    "lone_piece",
    "malformed",
    "may_be_deeper",
    "may_have_more",
    "walk",
]

SMALL = 512
"""Bytes below which even the largest nested claims of headers do no harm."""

BULK = 64 * 1024
"""Bytes above which the scan checks whether a message is mostly one large string."""

TRAILING = "malformed MessagePack: something follows where a value ends"


def check_packet(packet: bytes | memoryview, max_nodes: int) -> int:
    """Check that the messages of a packet are safe to decode, and return their number.

    Raises DecodeError unless all are complete and each has at most ``max_nodes`` values.
    """
    walker = msgpack.Unpacker(max_buffer_size=len(packet))
    walker.feed(packet)
    count = end = 0
    while end < len(packet):
        start = end
        try:
            walker.skip()
        except (ValueError, msgpack.UnpackException) as error:
            raise malformed(error) from error
        end = walker.tell()
        if _is_long(end - start, max_nodes):
            part = memoryview(packet)[start:end]
            if may_have_more(part, max_nodes):
                walk(part, max_nodes)
        count += 1
    return count


_PIECES = {
    bytes([0x92, cls.TYPE, 0xC6]): cls for cls in (Piece, LastPiece)
}  # arrays of two whose second is a bin 32


def lone_piece(packet: bytes) -> Piece | LastPiece | None:
    """Return the piece of a large message that fills a packet alone, or None.

    Such packets carry most of a session's bytes. Their payload is handed on as it is, where
    decoding would copy it twice.
    """
    cls = _PIECES.get(packet[:3])
    if cls is None or len(packet) != 7 + int.from_bytes(packet[3:7], "big") or len(packet) == 7:
        return None
    return cls(memoryview(packet)[7:])


def check_whole(data: bytes | memoryview, max_nodes: int) -> None:
    """Check that it is safe to decode one value from these bytes.

    Raises DecodeError unless they begin with one complete value of at most ``max_nodes`` values.
    Bytes that follow it are refused by the exact decoder.
    """
    if not data:
        raise DecodeError("malformed MessagePack: there is no value at all")
    # Walking over a copy is fast but making it is slow, so a few large strings are not copied.
    if len(data) > BULK and walk(memoryview(data), max_nodes, patience=len(data) // 4096):
        return
    if check_packet(data, max_nodes) != 1:
        raise DecodeError(TRAILING)


def check_complete(data: bytes) -> None:
    """Check that these bytes are exactly one value, and end where its headers say.

    The values are not counted, since a message with many extensions inside each other would be
    counted once for each of them. Raises DecodeError.
    """
    walker = msgpack.Unpacker(max_buffer_size=len(data))
    walker.feed(data)
    try:
        walker.skip()
    except (ValueError, msgpack.UnpackException) as error:
        raise malformed(error) from error
    if walker.tell() != len(data):
        raise DecodeError(TRAILING)


def malformed(error: Exception) -> DecodeError:
    """Return the error for bytes that are not MessagePack as the protocol uses it."""
    if isinstance(error, msgpack.OutOfData):
        return DecodeError("malformed MessagePack: it ends inside a value")
    detail = str(error) or type(error).__name__
    return DecodeError(f"malformed MessagePack: {detail[:200]}")


# The size of an encoded value by its first byte; for a container, the size of its header.
# 0 if the size depends on the bytes that follow.
_WIDTHS = bytearray(256)
_WIDTHS[0x00:0xA0] = bytes([1]) * 0xA0  # small ints, and headers of small maps and arrays
_WIDTHS[0xA0:0xC0] = bytes(range(1, 33))  # short strings
_WIDTHS[0xC0:0xC4] = bytes([1] * 4)  # nil, never used, false, true
_WIDTHS[0xCA:0xD4] = bytes([5, 9, 2, 3, 5, 9, 2, 3, 5, 9])  # floats and ints
_WIDTHS[0xE0:0x100] = bytes([1]) * 0x20  # small negative ints

# Strings and bytes: how many bytes of length follow.
_LENGTHS = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
# Extensions: how many bytes of length follow, or the length itself, negated.
_EXTENSIONS = {0xC7: 1, 0xC8: 2, 0xC9: 4, 0xD4: -1, 0xD5: -2, 0xD6: -4, 0xD7: -8, 0xD8: -16}
# Arrays and maps: how many bytes of count follow, and how many values each counts.
_COUNTS = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}

_OF_VALUES = frozenset({1, 2, 3, 12, *range(64, 128)})
"""Extension codes whose payload is one encoded value. Its values also count."""

EXTENSION_NODES = 4
"""Values that an extension counts as, in addition to those inside: reading it takes as long."""


def _is_long(size: int, most: int) -> bool:
    """Return whether so many bytes could hold more than ``most`` values."""
    return size > most // 2  # the densest value, an empty tuple, is three bytes and counts as five


def may_have_more(data: bytes | memoryview, most: int) -> bool:
    """Return whether these bytes could hold more than ``most`` values, without counting them."""
    size = len(data)
    if not _is_long(size, most):
        return False
    if size > most:
        return True
    extensions = len(bytes(data).translate(None, _NO_EXTENSION))
    return size + EXTENSION_NODES * extensions > most


_NO_EXTENSION = bytes(set(range(256)) - _EXTENSIONS.keys())
"""All bytes that do not begin an extension."""


def walk(
    data: memoryview, max_nodes: int, max_depth: int | None = None, patience: int | None = None
) -> int:
    """Count the values in one encoded value, including those in containers and extensions.

    It reads only headers: long strings cost nothing, and no memory is allocated. Containers count
    as many values as their headers claim, so a bomb is refused at its header.

    Args:
        data: one encoded value.
        max_nodes: the largest number of values.
        max_depth: the largest nesting of arrays, maps and extensions of values.
        patience: the number of headers to read; the result is 0 if there are more.

    Raises:
        DecodeError: there are more values than allowed or than the bytes can hold, or bytes follow
            the value.
    """
    deepest = len(data) if max_depth is None else max_depth
    most = min(max_nodes, EXTENSION_NODES * len(data))
    # For each open container, the state of the one around it: the number of values that follow,
    # and its end, which only an extension has.
    outer: list[tuple[int, int]] = []
    left, end = 1, len(data)
    count, at = 1, 0
    while True:
        while not left:
            if end not in (_OPEN, at):
                raise DecodeError(TRAILING if at < end else _CUT)
            if not outer:
                return count
            left, end = outer.pop()
        if patience is not None:
            if not patience:
                return 0
            patience -= 1
        if at >= len(data):
            raise DecodeError(_CUT)
        left -= 1
        first = data[at]
        width = _WIDTHS[first]
        if width and not 0x80 <= first < 0xA0:
            at += width
        elif first in _LENGTHS:
            size = _LENGTHS[first]
            at += 1 + size + _number(data, at + 1, size)
        elif first in _EXTENSIONS:
            code, payload, stop = _extension(data, at)
            count += EXTENSION_NODES - 1
            at = stop
            if code in _OF_VALUES:
                outer.append((left, end))
                left, end, at = 1, stop, payload
                count += 1
        else:
            outer.append((left, end))
            if width:
                left, at = (first & 15) * (2 if first < 0x90 else 1), at + 1
            else:
                size, each = _COUNTS[first]
                left, at = each * _number(data, at + 1, size), at + 1 + size
            end = _OPEN
            count += left
        if count > most:
            raise DecodeError(f"a message of more than {max_nodes} values")
        if len(outer) > deepest:
            raise DecodeError(f"nested more than {max_depth} levels deep")


_OPEN = -1
"""The end of an array or a map, which follows from its values."""

_CUT = "malformed MessagePack: it ends inside a value"


def _number(data: memoryview, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "big")


def _extension(data: memoryview, at: int) -> tuple[int, int, int]:
    """Return code, start and end of the payload of the extension that begins at ``at``."""
    size = _EXTENSIONS[data[at]]
    length = _number(data, at + 1, size) if size > 0 else -size
    payload = at + 2 + max(size, 0)
    end = payload + length
    if end > len(data):
        raise DecodeError("malformed MessagePack: it ends inside an extension")
    return data[payload - 1], payload, end


def hello_version(packet: bytes) -> int | None:
    """Return the version if a packet begins like a Hello, else None.

    The bytes after the version are not checked, since another version may define them differently.
    """
    head = memoryview(packet)[:30]
    first = head[0] if head else 0
    if 0x92 <= first <= 0x9F:
        at = 1
    elif first in (0xDC, 0xDD):
        at = 1 + _COUNTS[first][0]
    else:
        return None
    found: list[int] = []
    for _ in range(2):
        if at >= len(head) or (0x80 <= head[at] < 0xE0 and not 0xCC <= head[at] <= 0xD3):
            return None
        stop = at + _WIDTHS[head[at]]
        if stop > len(head):
            return None
        found.append(msgpack.unpackb(head[at:stop]))
        at = stop
    kind, version = found
    return version if kind == Hello.TYPE and version >= 0 else None


PATIENCE = 64
"""Values that are examined to find a large one."""


class BytesPosition(NamedTuple):
    """The position of a bytes object in an encoded array."""

    path: tuple[int, ...]
    """Its index in the array; before it, the index of that array in an outer one."""

    header: int
    """The offset of its header, a bin 32."""

    content: int
    """The offset of its first byte."""

    size: int
    """Its size in bytes, as the header claims."""


def find_large(data: memoryview, least: int) -> BytesPosition | None:
    """Find long bytes among the values of an array, or of the first array in it.

    Args:
        data: bytes that may begin with such an array.
        least: the smallest size to look for, in bytes.

    Returns:
        The position, or None if the first values have none. None does not mean that the bytes are
        valid.
    """
    path: tuple[int, ...] = ()
    at, index, count = 0, 0, 1
    for _ in range(PATIENCE):
        if index == count or at + 5 > len(data):
            break
        first = data[at]
        is_array = 0x90 <= first < 0xA0 or first == 0xDC
        if is_array and len(path) < 2:
            path, index = (*path, index), 0
            count = _number(data, at + 1, 2) if first == 0xDC else first & 15
            at += 3 if first == 0xDC else 1
            continue
        if first in _LENGTHS:
            size = _LENGTHS[first]
            length = _number(data, at + 1, size)
            if first == 0xC6 and length >= least and path:
                return BytesPosition((*path[1:], index), at, at + 5, length)
            at += 1 + size + length
        elif _WIDTHS[first] and not 0x80 <= first < 0xA0:
            at += _WIDTHS[first]
        else:
            break
        index += 1
    return None


_ELSE = bytes(byte for byte in _NO_EXTENSION if not (0x80 <= byte < 0xA0 or 0xDC <= byte < 0xE0))
"""All bytes that do not begin an array, a map or an extension."""


def may_be_deeper(packet: bytes | memoryview, start: int, end: int, most: int) -> bool:
    """Return whether ``packet[start:end]`` could nest containers more than ``most`` deep.

    This is much faster than an exact check, and nearly always enough: text and small numbers have
    no such bytes. A long message counts as too deep, because looking at it would need a copy.
    """
    size = end - start
    if size <= most or size > 4096:
        return size > most
    return len(bytes(packet[start:end]).translate(None, _ELSE)) > most


def is_deeper(value: Any, most: int) -> bool:
    """Return whether lists and dicts are nested more than ``most`` deep.

    Not for messages with extensions of values, since decoded values do not show those levels.
    """
    level = [value] if type(value) in _CONTAINERS else []
    for _ in range(most):
        if not level:
            return False
        dicts = [outer for outer in level if type(outer) is dict]
        inner = chain(chain.from_iterable(level), chain.from_iterable(map(dict.values, dicts)))
        level = [value for value in inner if type(value) in _CONTAINERS]
    return bool(level)


_CONTAINERS = frozenset({list, dict})

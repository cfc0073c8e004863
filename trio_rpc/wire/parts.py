"""Large strings of bytes on their way through: handed on, not copied.

A MiB that is copied costs more than all else that is done for its call. So a message that carries a
large ``bytes`` object is never joined at its sender: it is a :class:`BufferList`, the object itself between what
was packed before and after it, and is written like that. The receiver copies it once, out of each packet into
the object that its user gets (:class:`LargeBytes`).

Who owns what is simple: the bytes in a Parts never change, so whoever has them may keep them for as long as he
likes. Of what users pass only ``bytes`` are taken as they are; a ``bytearray`` or a ``memoryview`` is copied
while they still wait for the call to be made.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any, TypeAlias

import msgpack

from trio_rpc.errors import DecodeError

__all__ = ["LARGE", "Buffer", "BufferList", "LargeBytes", "SplitMessage", "pack_parts"]

LARGE = 32 * 1024
"""Bytes of a string below which to copy it costs less than to treat it apart."""

Buffer: TypeAlias = bytes | memoryview


class BufferList:
    """Bytes in order that lie in several places; ``bytes()`` joins them, with a copy.

    Args:
        buffers: none of them empty, and none that will change.
    """

    __slots__ = ("buffers", "size")

    def __init__(self, buffers: list[Buffer]) -> None:
        self.buffers = buffers
        self.size = sum(map(len, buffers))

    def __len__(self) -> int:
        return self.size

    def __bytes__(self) -> bytes:
        return b"".join(self.buffers)

    def cut(self, start: int, stop: int) -> list[Buffer]:
        """Return what lies between two positions, uncopied; ``stop`` may be beyond the end."""
        found: list[Buffer] = []
        for buffer in self.buffers:
            size = len(buffer)
            if start < size and stop > 0:
                whole = start <= 0 and stop >= size
                found.append(buffer if whole else memoryview(buffer)[max(start, 0) : stop])
            start -= size
            stop -= size
        return found


# ── sending ──────────────────────────────────────────────────────────────────────────────────────

_STRINGS = frozenset({bytes, bytearray, memoryview})


def pack_parts(fields: list[Any], packer: msgpack.Packer, most: int) -> BufferList | None:
    """Pack a message around the large bytes that are in it, or in an array in it.

    None if there are none, or if there could be more than ``most`` values in the message.
    """
    if not any(_is_large(field) or (type(field) is list and _holds(field)) for field in fields):
        return None
    parts = _Packing(packer)
    parts.rest += packer.pack_array_header(len(fields))
    for field in fields:
        if type(field) is list and _holds(field):
            parts.rest += packer.pack_array_header(len(field))
            parts.add(field)
        else:
            parts.add([field])
    whole = parts.whole()
    return whole if parts.most_nodes <= most else None


def _holds(values: list[Any]) -> bool:
    return not _STRINGS.isdisjoint(map(type, values)) and any(map(_is_large, values))


def _is_large(value: Any) -> bool:
    if type(value) is memoryview:
        return value.nbytes >= LARGE
    return type(value) in _STRINGS and len(value) >= LARGE


class _Packing:
    """A message that is being packed."""

    def __init__(self, packer: msgpack.Packer) -> None:
        self._packer = packer
        self._buffers: list[Buffer] = []
        self.rest = bytearray()
        """What was packed since the last large bytes."""
        self.most_nodes = 0

    def add(self, values: list[Any]) -> None:
        for value in values:
            if _is_large(value):
                content = bytes(value)  # no copy of what cannot change
                self.rest += b"\xc6" + len(content).to_bytes(4, "big")
                self._seal()
                self._buffers.append(content)
            else:
                self.rest += self._packer.pack(value)

    def whole(self) -> BufferList:
        self._seal()
        return BufferList(self._buffers)

    def _seal(self) -> None:
        if self.rest:
            # No value takes less than a byte.
            self.most_nodes += len(self.rest)
            self._buffers.append(bytes(self.rest))
            self.rest.clear()


# ── receiving ────────────────────────────────────────────────────────────────────────────────────


class LargeBytes:
    """Large bytes that are still coming, in the object that they become.

    Args:
        size: how many there will be. Memory is reserved for them and, as far as it is fresh, not
            touched before they come.
    """

    def __init__(self, size: int) -> None:
        # A BytesIO hands out what was written to its buffer without a copy.
        self._file = BytesIO(bytes(size))
        self._space = self._file.getbuffer()

    def add(self, data: memoryview) -> memoryview:
        """Copy what belongs here, and return the rest."""
        count = min(len(data), len(self._space))
        with self._space as space:
            space[:count] = data[:count]
            self._space = space[count:]
        return data[count:]

    def whole(self) -> bytes:
        """Return the bytes. Raises DecodeError if they have not all come."""
        if self._space:
            raise DecodeError("malformed MessagePack: it ends inside a value")
        self._space.release()
        return self._file.getvalue()


class SplitMessage:
    """A whole message whose large bytes are not in it.

    Args:
        rest: the message with no bytes in their place.
        content: the bytes.
        path: where they belong: a number in the array that the message is, or in an array in it.
        size: bytes of the message, all in all.
    """

    __slots__ = ("_content", "_path", "_size", "rest")

    def __init__(self, rest: memoryview, content: bytes, path: tuple[int, ...], size: int) -> None:
        self.rest = rest
        self._content = content
        self._path = path
        self._size = size

    def __len__(self) -> int:
        return self._size

    def put_back(self, fields: Any) -> None:
        """Put the bytes into ``rest``, decoded."""
        *outer, last = self._path
        for index in outer:
            fields = fields[index]
        fields[last] = self._content

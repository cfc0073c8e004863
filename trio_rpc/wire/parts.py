"""Large ``bytes`` objects, which pass through a session without needless copies.

Copying a MiB costs more than all other work for its call. So the sender never joins a message with
a large ``bytes`` object: the message is a :class:`BufferList`, which holds the object itself
between the bytes packed before and after it, and is written like that. The receiver copies the
bytes once, from each packet into the object that its user gets (:class:`LargeBytes`).

The bytes in a BufferList never change, so every holder may keep them. Only ``bytes`` objects of
users are taken as they are. A ``bytearray`` or a ``memoryview`` is copied before the call is made.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any, TypeAlias

import msgpack

from trio_rpc.errors import DecodeError

__all__ = ["LARGE", "Buffer", "BufferList", "LargeBytes", "SplitMessage", "pack_parts"]

LARGE = 32 * 1024
"""Bytes of an object below which a copy costs less than separate handling."""

Buffer: TypeAlias = bytes | memoryview


class BufferList:
    """A sequence of buffers that is one string of bytes; ``bytes()`` joins them, with a copy.

    Args:
        buffers: the buffers, none of them empty; they must not change.
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
        """Return the buffers between two positions, uncopied; ``stop`` may exceed the size."""
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
    """Pack a message around large bytes that are one of its values, or in an array in it.

    Returns None if it has none, or if the message could have more than ``most`` values.
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
    """The state of packing one message."""

    def __init__(self, packer: msgpack.Packer) -> None:
        self._packer = packer
        self._buffers: list[Buffer] = []
        self.rest = bytearray()
        """The bytes packed since the last large object."""
        self.most_nodes = 0

    def add(self, values: list[Any]) -> None:
        for value in values:
            if _is_large(value):
                content = bytes(value)  # without a copy, if it is a bytes object already
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
    """A large ``bytes`` object that is still arriving.

    Args:
        size: its final size in bytes. Memory is reserved for it; fresh memory is not touched before
            the bytes arrive.
    """

    def __init__(self, size: int) -> None:
        # A BytesIO returns the bytes that were written to its buffer without a copy.
        self._file = BytesIO(bytes(size))
        self._space = self._file.getbuffer()

    def add(self, data: memoryview) -> memoryview:
        """Copy the bytes that belong to this object, and return the rest."""
        count = min(len(data), len(self._space))
        with self._space as space:
            space[:count] = data[:count]
            self._space = space[count:]
        return data[count:]

    def whole(self) -> bytes:
        """Return the bytes. Raises DecodeError if some have not arrived."""
        if self._space:
            raise DecodeError("malformed MessagePack: it ends inside a value")
        self._space.release()
        return self._file.getvalue()


class SplitMessage:
    """A whole message, split into its large bytes and the rest.

    Args:
        rest: the message with empty bytes in place of the large ones.
        content: the large bytes.
        path: the index of the large bytes in the message's array, or in an array in it.
        size: bytes of the whole message.
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
        """Put the large bytes into the decoded ``rest``."""
        *outer, last = self._path
        for index in outer:
            fields = fields[index]
        fields[last] = self._content

"""Reading a lone message in one pass, its values directly into the annotated types.

Most packets carry one message, and most values are plain (see ``plain.py``). msgspec decodes such a
message at once: dataclasses are made of the bytes, without dicts in between. It is more lenient
than the protocol: of a key that is given twice it takes the last value, and it skips a key that a
class does not have, whatever follows it. So a value is accepted only if it is encoded to the very
bytes that arrived. Every message that is refused here is read again in the way of all messages, and
its error, if it has one, is raised there.

1. The first two bytes say which message it is, if it is one of a few. A :class:`msgspec.Struct`
   reads it, with its values left as bytes. That also fails if another message follows.
2. ``shapes`` has the annotated types of the method or the call, as a :class:`Shape`.
3. The shape decodes the values. They are encoded again if the type has maps. If it has a class
   with a field that may be anything, the types of all values are also looked at.

A shape runs no code of users, because the message may still break the protocol. No memory is spent
on lengths that are only announced, since msgspec makes lists as they fill. A message has at most as
many values as bytes, unless it has extensions, which no shape accepts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, NamedTuple, Protocol, TypeAlias

import msgspec

from trio_rpc.wire.limits import Limits
from trio_rpc.wire.messages import MAX_NUMBER, Item, Message, Notification, Reply, Request
from trio_rpc.wire.plain import ENCODER, is_plain
from trio_rpc.wire.registry import TypeRegistry

__all__ = ["PLAIN", "Head", "Id", "Reader", "Shape", "Shapes", "as_plain", "read_head"]


class Shape(NamedTuple):
    """A type that a value or the arguments of a call are decoded into.

    Attributes:
        decode: decodes bytes that are one value.
        depth: the greatest depth of its arrays and maps. It is 0 for a type that contains itself,
            or has a field that may be anything: then ``is_open`` is true.
        has_maps: whether the bytes could hold more than the value shows.
        is_open: whether the types of the values in it must be looked at.
    """

    decode: Callable[[Any], Any]
    depth: int
    has_maps: bool
    is_open: bool = False


# ── values without an annotation ─────────────────────────────────────────────────────────────

PLAIN_DEPTH: Final = 5
"""Levels of lists and dicts in a value without an annotation that is read in one pass."""


def _plain(depth: int) -> Any:
    scalars = None | bool | int | float | str  # msgspec has no type for text or bytes
    if not depth:
        return scalars
    inner: Any = _plain(depth - 1)
    return scalars | list[inner] | dict[str, inner]


PLAIN: Final = _plain(PLAIN_DEPTH)
"""The type of plain values. msgspec's own ``Any`` would also accept extensions and other keys."""

_SCALARS: Final = frozenset({str, int, float, bool, type(None)})


_VALUE: Final = Shape(msgspec.msgpack.Decoder(PLAIN).decode, PLAIN_DEPTH, has_maps=True)
_ARGUMENTS: Final = Shape(
    msgspec.msgpack.Decoder(list[PLAIN]).decode,  # type: ignore[valid-type]
    PLAIN_DEPTH + 1,
    has_maps=True,
)


def as_plain(values: Sequence[Any]) -> list[Any]:
    """Return the plain values that arguments were decoded from."""
    plain: list[Any] = msgspec.msgpack.decode(ENCODER.encode(list(values)))
    return plain


# ── reading ──────────────────────────────────────────────────────────────────────────────────


class Shapes(Protocol):
    """Knows the annotated types of the messages that arrive in a session."""

    def arguments(self, method: str, count: int) -> Shape | None:
        """Return the shape of that many arguments of a method, or None if it has none."""

    def result(self, call: int) -> Shape | None:
        """Return the shape of the result of a call that this end has made, or None."""

    def item(self, call: int) -> Shape | None:
        """Return the shape of the items of a stream that this end has opened, or None."""


class Reader(NamedTuple):
    """Decodes values by the rules of one session.

    Attributes:
        shapes: the annotated types of arguments and results, if any are known.
        registry: its classes are not plain.
        limits: the limits of this end.
    """

    shapes: Shapes | None
    registry: TypeRegistry
    limits: Limits

    def value(self, raw: msgspec.Raw, shape: Shape) -> Any:
        """Decode one value. Raises Unfit, or an error of msgspec."""
        decode, depth, has_maps, is_open = shape
        if depth >= self.limits.max_depth:  # the message itself is one more level
            raise Unfit
        value = decode(raw)
        if has_maps and not _is_flat(value) and ENCODER.encode(value) != bytes(raw):
            raise Unfit
        if is_open and not is_plain((value,), self.registry, self.limits):
            raise Unfit
        return value

    def arguments(self, raw: msgspec.Raw, method: str) -> tuple[list[Any], Shape | None]:
        """Decode the arguments of a call."""
        shape = None
        if self.shapes is not None:
            shape = self.shapes.arguments(method, memoryview(raw)[0] - _ARRAY)
        return self.value(raw, shape or _ARGUMENTS), shape


def _is_flat(value: Any) -> bool:
    """Return whether a value is a scalar or a list of scalars, whose bytes hold nothing else."""
    cls = type(value)
    return cls in _SCALARS or (cls is list and _SCALARS.issuperset(map(type, value)))


class Unfit(Exception):
    """The bytes differ from the encoding of the value, or it may not be read in one pass."""


_ARRAY: Final = 0x90
"""The first byte of an array of at most 15 values, less their number."""

Id: TypeAlias = Annotated[int, msgspec.Meta(gt=0, le=MAX_NUMBER)]
_Map: TypeAlias = dict[str, PLAIN]  # type: ignore[valid-type]


class Head(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """The array of a message, with its values left as bytes."""

    type: int

    def read(self, packet: bytes, reader: Reader) -> Message:
        """Decode the values, and return the message. Raises Unfit, or an error of msgspec."""
        raise NotImplementedError


class _Request(Head):
    id: Id
    method: str
    args: msgspec.Raw

    def read(self, packet: bytes, reader: Reader) -> Message:
        args, shape = reader.arguments(self.args, self.method)
        return Request(self.id, self.method, args, shape=shape)


class _RequestWithNames(_Request):
    kwargs: _Map

    def read(self, packet: bytes, reader: Reader) -> Message:
        if reader.limits.max_depth < PLAIN_DEPTH + 2 or ENCODER.encode(self) != packet:
            raise Unfit
        if self.kwargs:
            args = reader.value(self.args, _ARGUMENTS)
            return Request(self.id, self.method, args, self.kwargs)
        args, shape = reader.arguments(self.args, self.method)
        return Request(self.id, self.method, args, self.kwargs, shape=shape)


class _RequestInContext(_RequestWithNames):
    context: _Map

    def read(self, packet: bytes, reader: Reader) -> Message:
        if "callback" in self.context:
            raise Unfit  # its method is not one of the session
        request = _RequestWithNames.read(self, packet, reader)
        request.context = self.context  # type: ignore[union-attr]
        return request


class _Notification(Head):
    method: str
    args: msgspec.Raw

    def read(self, packet: bytes, reader: Reader) -> Message:
        args, shape = reader.arguments(self.args, self.method)
        return Notification(self.method, args, shape=shape)


class _Reply(Head):
    id: Id
    value: msgspec.Raw

    def read(self, packet: bytes, reader: Reader) -> Message:
        shape = None if reader.shapes is None else reader.shapes.result(self.id)
        return Reply(self.id, reader.value(self.value, shape or _VALUE), shape=shape)


class _Item(Head):
    id: Id
    value: msgspec.Raw

    def read(self, packet: bytes, reader: Reader) -> Message:
        shape = None if reader.shapes is None else reader.shapes.item(self.id)
        item = Item(self.id, reader.value(self.value, shape or _VALUE), shape=shape)
        item.size = len(packet)
        return item


_DECODERS: Final[dict[bytes, Callable[[bytes], Head]]] = {
    bytes([_ARRAY | count, kind.TYPE]): msgspec.msgpack.Decoder(head).decode
    for count, kind, head in (
        (4, Request, _Request),
        (5, Request, _RequestWithNames),
        (6, Request, _RequestInContext),
        (3, Notification, _Notification),
        (3, Reply, _Reply),
        (3, Item, _Item),
    )
}
"""By the first two bytes of a message, the decoder of its array."""


def read_head(packet: bytes) -> Head | None:
    """Return the head of the message that a packet consists of, or None.

    It is None for other kinds of messages, if more than one follows, and for malformed ones.
    """
    decode = _DECODERS.get(packet[:2])
    if decode is None:
        return None
    try:
        return decode(packet)
    except Exception:  # noqa: BLE001 - msgspec raises several kinds of errors
        return None

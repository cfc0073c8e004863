"""Convert Python values to MessagePack types.

Nearly every call carries plain values only, which ``plain.py`` recognises. A message with another
value is converted here.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple, TypeAlias

import msgpack
import msgspec

from trio_rpc.errors import DecodeError, EncodeError
from trio_rpc.util.raised import repr_of
from trio_rpc.wire.extensions import (
    FROZENSET,
    LEAF_ENCODERS,
    MAP,
    SCALARS,
    SET,
    TUPLE,
    encode_reference,
)
from trio_rpc.wire.keys import collide
from trio_rpc.wire.limits import Limits
from trio_rpc.wire.messages import Reference
from trio_rpc.wire.registry import FIRST_TAG, LAST_TAG, Registration, TypeRegistry
from trio_rpc.wire.simpler import simplifier

__all__ = [
    "EXTENSION_FACTOR",
    "AsData",
    "Converter",
    "InPlaceOf",
    "has_data",
    "keeps_its_type",
]

EXTENSION_FACTOR = 4
"""Total payload of extensions, as a multiple of ``max_message``, counted at every level.

A nested extension is copied once for each level when it is read. This bounds the work and the
memory that nesting large extensions costs.
"""

_PLAIN_KEYS = frozenset({str, bytes})

_CONTAINERS = frozenset({list, dict, tuple, set, frozenset})
_EXACT = (SCALARS - {bytearray, memoryview}) | frozenset(LEAF_ENCODERS)


class AsData(NamedTuple):
    """An object that is data, including everything in it, even if it looks like a stream."""

    value: Any


class InPlaceOf(NamedTuple):
    """An object, and the value that is sent instead unless the object's class is registered."""

    value: Any
    instead: Any


Lowerer: TypeAlias = "Callable[[Converter, Any, int], Any]"


def keeps_its_type(value: Any) -> bool:
    """Return whether a value keeps its type where the receiver has no annotation."""
    waiting = [value]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop()
        cls = type(one)
        if cls in _CONTAINERS and id(one) not in seen:
            seen.add(id(one))
            waiting += one
            if cls is dict:
                waiting += one.values()
        elif cls not in _CONTAINERS and cls not in _EXACT:
            return False
    return True


class _NotHashableError(EncodeError):
    """A key of a dict, or an element of a set, arrives as something that has no hash."""


class Converter:
    """Converts the values of one message, and counts its cost against the limits."""

    __slots__ = (
        "_check_opaque",
        "_extension_bytes",
        "_in_key",
        "_limits",
        "_nodes",
        "_pack",
        "_references",
        "_registry",
        "has_opaque",
    )

    def __init__(
        self,
        registry: TypeRegistry,
        limits: Limits,
        pack: Callable[[Any], bytes],
        references: Callable[[Any], Reference | None] | None,
        check_opaque: Callable[[bytes], None],
    ) -> None:
        self._check_opaque = check_opaque
        self.has_opaque = False
        """Whether it contains payloads whose own depth has not been counted."""
        self._registry = registry
        self._limits = limits
        self._pack = pack
        self._references = references
        self._nodes = 0
        self._extension_bytes = 0
        self._in_key = False  # inside a set or a key, where only hashable values can arrive

    def value(self, value: Any, depth: int) -> Any:
        """Convert a value that is nested in ``depth`` containers. Raises EncodeError."""
        cls = type(value)
        if cls in SCALARS:
            return value
        if cls is list or cls is dict:
            self._refuse_in_key(cls)
            return self.items(value, depth + 1) if cls is list else self._dict(value, depth + 1)
        registration = self._registry.for_class(cls)
        if registration is not None:
            return self._registered(registration, value, depth + 1)
        lower: Lowerer | None = _lowerer(cls)  # type: ignore[arg-type]  # a class has a hash
        if lower is not None:
            return lower(self, value, depth)
        return self._unknown(value, depth)

    def items(self, items: Iterable[Any], depth: int) -> list[Any]:
        """Convert the values of a container at ``depth``."""
        values = items if type(items) is list else list(items)
        self._enter(len(values), depth)
        if SCALARS.issuperset(map(type, values)):
            return values
        return [self.value(value, depth) for value in values]

    def _enter(self, nodes: int, depth: int) -> None:
        if depth > self._limits.max_depth:
            raise EncodeError(
                f"nested more than {self._limits.max_depth} levels deep, or contains itself"
            )
        # Counted on the way, because a few lists that hold each other twice have no end.
        self._nodes += nodes
        if self._nodes > self._limits.max_nodes:
            raise EncodeError(f"more than {self._limits.max_nodes} values in one message")

    def _dict(self, value: dict[Any, Any], depth: int) -> Any:
        self._enter(2 * len(value), depth)
        if not _PLAIN_KEYS.issuperset(map(type, value)):
            return self._odd_dict(value, depth)
        if SCALARS.issuperset(map(type, value.values())):
            return value
        return {key: self.value(item, depth) for key, item in value.items()}

    def _odd_dict(self, value: dict[Any, Any], depth: int) -> Any:
        keys = self._keys(value, depth + 1)
        if not _PLAIN_KEYS.issuperset(map(type, keys)):
            depth += 1  # it is sent as an array in an extension
            self._enter(0, depth)
        items = [self.value(item, depth) for item in value.values()]
        if _PLAIN_KEYS.issuperset(map(type, keys)):  # of str's subclasses, or enums of text
            lowered = dict(zip(keys, items, strict=True))
            if len(lowered) != len(value):
                raise EncodeError("two keys of a dict are equal once they are sent")
            return lowered
        flat = [None] * (2 * len(keys))
        flat[::2] = keys
        flat[1::2] = items
        return self._extension(MAP, flat)

    def _keys(self, keys: Collection[Any], depth: int) -> list[Any]:
        """Convert the elements of a set or the keys of a dict."""
        if collide(keys):
            raise EncodeError("too many keys with the same hash in a dict or set")
        outside, self._in_key = self._in_key, True
        try:
            return [self.value(key, depth) for key in keys]
        finally:
            self._in_key = outside

    def _refuse_in_key(self, cls: type) -> None:
        if self._in_key:
            name = cls.__name__
            raise _NotHashableError(
                f"a value that arrives as a {name} cannot be a key: send a list of pairs, or"
                " register its class on a TypeRegistry"
            )

    def _extension(self, code: int, value: Any) -> msgpack.ExtType:
        payload = self._pack(value)
        self._extension_bytes += len(payload)
        if self._extension_bytes > EXTENSION_FACTOR * self._limits.max_message:
            raise EncodeError("too many bytes in tuples, sets and the like inside each other")
        return msgpack.ExtType(code, payload)

    def _registered(self, registration: Registration, value: Any, depth: int) -> msgpack.ExtType:
        self._enter(1, depth)
        try:
            encoded = registration.encode(value)
        except Exception as error:
            name = registration.cls.__qualname__
            text = f"the encode function of {name} raised {repr_of(error):.200}"
            raise EncodeError(text) from error
        outside, self._in_key = self._in_key, False
        lowered = self.value(encoded, depth)
        self._in_key = outside
        return self._extension(registration.tag, lowered)

    def _unknown(self, value: Any, depth: int) -> Any:
        """Convert a value that may be lent: to a reference, or as data if it cannot be lent."""
        reference = None if self._references is None else self._references(value)
        if reference is not None:
            return encode_reference(reference)
        cls = type(value)
        lower: Lowerer | None = None
        if not _is_channel(cls):
            lower = _data_lowerer(cls)  # type: ignore[arg-type]  # a class has a hash
        if lower is None:
            raise EncodeError(f"a value of type {cls.__qualname__} cannot be sent")
        return lower(self, value, depth)

    def array(self, value: Any, depth: int) -> msgpack.ExtType:
        """Convert a tuple. The extension is one level, and the array in it another."""
        return self._extension(TUPLE, self.items(value, depth + 2))

    def set(self, code: int, value: Any, depth: int) -> Any:
        """Convert a set or frozenset; to an array if elements arrive as maps or arrays.

        The receiver makes a set of that array if its annotation says so, and knows the elements.
        """
        before = self._nodes, self._extension_bytes, self._references
        try:
            self._enter(len(value), depth + 2)
            return self._extension(code, self._keys(value, depth + 2))
        except _NotHashableError:
            if self._in_key:
                raise
            self._nodes, self._extension_bytes, self._references = before
            return self.items(value, depth + 1)

    def record(self, value: Any, depth: int) -> Any:
        """Convert a named tuple to an array, or to a tuple where the receiver needs a hash."""
        return self.array(value, depth) if self._in_key else self.items(value, depth + 1)

    def fields(self, value: dict[str, Any], depth: int) -> dict[str, Any]:
        """Convert an object to a map of its fields."""
        self._refuse_in_key(dict)
        self._enter(2 * len(value), depth + 1)
        return {name: self.value(item, depth + 1) for name, item in value.items()}

    def in_place(self, value: InPlaceOf, depth: int) -> Any:
        """Convert an object whose fields have been extracted before."""
        registered = self._registry.for_class(type(value.value)) is not None
        return self.value(value.value if registered else value.instead, depth)

    def as_data(self, value: AsData, depth: int) -> Any:
        """Convert an object that an annotation declares as data, including its parts."""
        outside, self._references = self._references, None
        lowered = self.value(value.value, depth)
        self._references = outside
        return lowered

    def opaque(self, value: msgpack.ExtType, depth: int) -> msgpack.ExtType:
        """Pass on a user's extension that is not registered here."""
        if not FIRST_TAG <= value.code <= LAST_TAG:
            raise EncodeError(f"extension {value.code} is not one of {FIRST_TAG} to {LAST_TAG}")
        self._enter(1, depth + 1)
        # The peer would end the session if it could not read the payload.
        try:
            self._check_opaque(value.data)
        except DecodeError as error:
            raise EncodeError(f"the payload of extension {value.code}: {error}") from error
        self.has_opaque = True
        return value


def _leaf(code: int, encode: Callable[[Any], bytes]) -> Lowerer:
    return lambda _, value, __: msgpack.ExtType(code, encode(value))


_LOWERERS: dict[type, Lowerer] = {
    tuple: Converter.array,
    set: lambda lowering, value, depth: lowering.set(SET, value, depth),
    frozenset: lambda lowering, value, depth: lowering.set(FROZENSET, value, depth),
    Reference: lambda _, value, __: encode_reference(value),
    AsData: Converter.as_data,
    InPlaceOf: Converter.in_place,
    msgpack.ExtType: Converter.opaque,
    **{cls: _leaf(code, encode) for cls, (code, encode) in LEAF_ENCODERS.items()},
    # Only subclasses of these get here.
    str: lambda _, value, __: str.__str__(value),
    int: lambda _, value, __: int.__int__(value),
    float: lambda _, value, __: float.__float__(value),
    bytes: lambda _, value, __: bytes(memoryview(value)),
    bytearray: lambda _, value, __: bytes(memoryview(value)),
    list: lambda lowering, value, depth: lowering.value(list(value), depth),
    dict: lambda lowering, value, depth: lowering.value(dict(value), depth),
}


@functools.lru_cache(maxsize=1024)
def _lowerer(cls: type) -> Lowerer | None:
    """Return the function that converts instances of a class; None if they may be lent."""
    if hasattr(cls, "__aiter__") and not issubclass(cls, (enum.Enum, msgspec.Struct)):
        return None  # it is a stream, unless an annotation says that it is data
    return _data_lowerer(cls)


def _is_channel(cls: type) -> bool:
    """Return whether a class is like Trio's channels, whose fields are not data."""
    return hasattr(cls, "aclose") and (hasattr(cls, "receive") or hasattr(cls, "receive_some"))


def has_data(cls: type) -> bool:
    """Return whether an instance of a class has fields that could be sent as data."""
    return _data_lowerer(cls) is not None


@functools.lru_cache(maxsize=1024)
def _data_lowerer(cls: type) -> Lowerer | None:
    if cls in _LOWERERS:
        return _LOWERERS[cls]
    if issubclass(cls, enum.Enum):
        return lambda lowering, value, depth: lowering.value(value.value, depth)
    if issubclass(cls, msgspec.Struct):
        return _struct_lowerer(cls)
    simplify = simplifier(cls)
    if simplify is not None:
        return _simpler_lowerer(simplify)
    if dataclasses.is_dataclass(cls):
        return _fields_lowerer([field.name for field in dataclasses.fields(cls)])
    if hasattr(cls, "__attrs_attrs__"):
        if _is_of_trio(cls):
            return None
        return _fields_lowerer([attribute.name for attribute in cls.__attrs_attrs__])
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return Converter.record
    return next((_LOWERERS[base] for base in cls.__mro__ if base in _LOWERERS), None)


def _is_of_trio(cls: type) -> bool:
    """Return whether Trio wrote an attrs class: its fields are a channel's or a lock's state."""
    decorated = next(base for base in cls.__mro__ if "__attrs_attrs__" in vars(base))
    return decorated.__module__.partition(".")[0] == "trio"


def _fields_lowerer(names: list[str]) -> Lowerer:
    def lower(lowering: Converter, value: Any, depth: int) -> Any:
        return lowering.fields({name: getattr(value, name) for name in names}, depth)

    return lower


def _simpler_lowerer(simplify: Callable[[Any], Any]) -> Lowerer:
    def lower(lowering: Converter, value: Any, depth: int) -> Any:
        try:
            simpler = simplify(value)
        except ValueError as exc:
            raise EncodeError(str(exc)) from None
        return lowering.value(simpler, depth)

    return lower


def _struct_lowerer(cls: type[msgspec.Struct]) -> Lowerer:
    config = cls.__struct_config__
    pairs = list(zip(cls.__struct_encode_fields__, cls.__struct_fields__, strict=True))
    tag = {} if config.tag is None else {str(config.tag_field): config.tag}

    def lower_array(lowering: Converter, value: Any, depth: int) -> Any:
        items = [*tag.values(), *(getattr(value, name) for _, name in pairs)]
        return lowering.record(items, depth)

    def lower_map(lowering: Converter, value: Any, depth: int) -> Any:
        items = ((key, getattr(value, name)) for key, name in pairs)
        present = {key: item for key, item in items if item is not msgspec.UNSET}
        return lowering.fields(tag | present, depth)

    return lower_array if config.array_like else lower_map

"""Making of any value we can send one that MessagePack has.

Scalars, and lists and dicts of them, are what nearly every call carries: they are recognised by
one look at the set of their types and go to the packer as they are. The rest is taken apart here.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import msgpack
import msgspec

from trio_rpc.errors import EncodeError
from trio_rpc.wire import scan
from trio_rpc.wire.extensions import (
    FROZENSET,
    LEAF_ENCODERS,
    MAP,
    SCALARS,
    SET,
    TUPLE,
    encode_reference,
)
from trio_rpc.wire.limits import Limits
from trio_rpc.wire.messages import Reference
from trio_rpc.wire.registry import FIRST_TAG, LAST_TAG, TypeRegistry

__all__ = ["EXTENSION_FACTOR", "Lowering"]

EXTENSION_FACTOR = 4
"""How often ``max_message`` the payloads of extensions may be, each counted at every level.

An extension in an extension is copied once for each level when it is read. This bounds the work
and the memory that nesting large ones costs.
"""

_PLAIN_KEYS = frozenset({str, bytes})

Lowerer: TypeAlias = "Callable[[Lowering, Any, int], Any]"


class Lowering:
    """The work on one message: what it has cost so far, and what it may."""

    __slots__ = ("_extension_bytes", "_limits", "_nodes", "_pack", "_references", "_registry")

    def __init__(
        self,
        registry: TypeRegistry,
        limits: Limits,
        pack: Callable[[Any], bytes],
        references: Callable[[Any], Reference | None] | None,
    ) -> None:
        self._registry = registry
        self._limits = limits
        self._pack = pack
        self._references = references
        self._nodes = 0
        self._extension_bytes = 0

    def value(self, value: Any, depth: int) -> Any:
        """Lower one value that lies inside ``depth`` containers. Raises EncodeError."""
        cls = type(value)
        if cls in SCALARS:
            return value
        if cls is list:
            return self.items(value, depth + 1)
        if cls is dict:
            return self._dict(value, depth + 1)
        registration = self._registry.for_class(cls)
        if registration is not None:
            return self._registered(registration.tag, registration.encode, value, depth + 1)
        lower = _lowerer(cls)
        if lower is not None:
            return lower(self, value, depth)
        return self._unknown(value)

    def items(self, items: Iterable[Any], depth: int) -> list[Any]:
        """Lower what a container at ``depth`` holds."""
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
        keys = [self.value(key, depth) for key in value]
        items = [self.value(item, depth) for item in value.values()]
        if _PLAIN_KEYS.issuperset(map(type, keys)):  # of str's subclasses, or enums of text
            lowered = dict(zip(keys, items, strict=True))
            if len(lowered) != len(value):
                raise EncodeError("a dict with keys that are the same once they are sent")
            return lowered
        flat = [None] * (2 * len(keys))
        flat[::2] = keys
        flat[1::2] = items
        return self._extension(MAP, flat)

    def _extension(self, code: int, value: Any) -> msgpack.ExtType:
        payload = self._pack(value)
        self._extension_bytes += len(payload)
        if self._extension_bytes > EXTENSION_FACTOR * self._limits.max_message:
            raise EncodeError("too many bytes in tuples, sets and the like inside each other")
        return msgpack.ExtType(code, payload)

    def _registered(
        self, tag: int, encode: Callable[[Any], Any], value: Any, depth: int
    ) -> msgpack.ExtType:
        self._enter(1, depth)
        try:
            encoded = encode(value)
        except Exception as error:
            raise EncodeError(f"the encode function of tag {tag} raised {error!r:.200}") from error
        return self._extension(tag, self.value(encoded, depth))

    def _unknown(self, value: Any) -> Any:
        reference = None if self._references is None else self._references(value)
        if reference is None:
            raise EncodeError(f"a value of type {type(value).__qualname__} cannot be sent")
        return encode_reference(reference)

    def array(self, code: int, value: Any, depth: int) -> msgpack.ExtType:
        """Lower a tuple, set or frozenset."""
        return self._extension(code, self.items(value, depth + 1))

    def fields(self, value: dict[str, Any], depth: int) -> dict[str, Any]:
        """Lower an object that becomes a map of its fields."""
        self._enter(2 * len(value), depth + 1)
        return {name: self.value(item, depth + 1) for name, item in value.items()}


def _opaque(lowering: Lowering, value: msgpack.ExtType, depth: int) -> msgpack.ExtType:
    """Pass on an extension of the users' range that nothing here gave a meaning."""
    if not FIRST_TAG <= value.code <= LAST_TAG:
        raise EncodeError(f"extension code {value.code} is not one of {FIRST_TAG} to {LAST_TAG}")
    # The peer may have registered it, and would end the session if it could not be read.
    scan.check_whole(value.data, lowering._limits.max_nodes)  # noqa: SLF001 - a friend
    return value


def _leaf(code: int, encode: Callable[[Any], bytes]) -> Lowerer:
    return lambda lowering, value, depth: msgpack.ExtType(code, encode(value))


_LOWERERS: dict[type, Lowerer] = {
    tuple: lambda lowering, value, depth: lowering.array(TUPLE, value, depth),
    set: lambda lowering, value, depth: lowering.array(SET, value, depth),
    frozenset: lambda lowering, value, depth: lowering.array(FROZENSET, value, depth),
    Reference: lambda lowering, value, depth: encode_reference(value),
    msgpack.ExtType: _opaque,
    **{cls: _leaf(code, encode) for cls, (code, encode) in LEAF_ENCODERS.items()},
    # Of these only subclasses get here.
    str: lambda lowering, value, depth: str.__str__(value),
    int: lambda lowering, value, depth: int.__int__(value),
    float: lambda lowering, value, depth: float.__float__(value),
    bytes: lambda lowering, value, depth: bytes(memoryview(value)),
    bytearray: lambda lowering, value, depth: bytes(memoryview(value)),
    list: lambda lowering, value, depth: lowering.value(list(value), depth),
    dict: lambda lowering, value, depth: lowering.value(dict(value), depth),
}


@functools.lru_cache(maxsize=1024)
def _lowerer(cls: type) -> Lowerer | None:
    """Find out how instances of a class are lowered, or None."""
    if cls in _LOWERERS:
        return _LOWERERS[cls]
    if issubclass(cls, enum.Enum):
        return lambda lowering, value, depth: lowering.value(value.value, depth)
    if issubclass(cls, msgspec.Struct):
        return _struct_lowerer(cls)
    if dataclasses.is_dataclass(cls):
        return _fields_lowerer([field.name for field in dataclasses.fields(cls)])
    if hasattr(cls, "__attrs_attrs__"):
        return _fields_lowerer([attribute.name for attribute in cls.__attrs_attrs__])
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return lambda lowering, value, depth: lowering.items(value, depth + 1)
    return next((_LOWERERS[base] for base in cls.__mro__ if base in _LOWERERS), None)


def _fields_lowerer(names: list[str]) -> Lowerer:
    def lower(lowering: Lowering, value: Any, depth: int) -> Any:
        return lowering.fields({name: getattr(value, name) for name in names}, depth)

    return lower


def _struct_lowerer(cls: type[msgspec.Struct]) -> Lowerer:
    config = cls.__struct_config__
    pairs = list(zip(cls.__struct_encode_fields__, cls.__struct_fields__, strict=True))
    tag = {} if config.tag is None else {str(config.tag_field): config.tag}

    def lower_array(lowering: Lowering, value: Any, depth: int) -> Any:
        items = [*tag.values(), *(getattr(value, name) for _, name in pairs)]
        return lowering.items(items, depth + 1)

    def lower_map(lowering: Lowering, value: Any, depth: int) -> Any:
        items = ((key, getattr(value, name)) for key, name in pairs)
        present = {key: item for key, item in items if item is not msgspec.UNSET}
        return lowering.fields(tag | present, depth)

    return lower_array if config.array_like else lower_map

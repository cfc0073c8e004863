"""The shapes of annotated types: decoders that make values of the bytes of a message, in one pass.

Only a type that msgspec can make without code of users has a shape, and only if its values are
plain on the wire (``wire/one_pass.py``). Values of all other types are converted from plain ones.
"""

from __future__ import annotations

import collections.abc
import enum
from collections.abc import Sequence
from typing import Annotated, Any, Final, Union, get_args, get_origin

import msgspec
from msgspec import inspect as ms

from trio_rpc.services.aliases import UNIONS
from trio_rpc.wire.one_pass import PLAIN, Shape
from trio_rpc.wire.plain import fields_of

__all__ = ["shape_of", "shape_of_arguments"]

_LISTS: Final = (
    list,
    collections.abc.Collection,
    collections.abc.Sequence,
    collections.abc.MutableSequence,
)
_DICTS: Final = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_QUICK: Final = frozenset({str, int, float, bool, None, type(None), Any, object})
"""Types that are read and checked as fast without a shape."""


def shape_of(adapted: Any) -> Shape | None:
    """Return the shape of the values of an adapted annotation, or None if it has none."""
    if adapted in _QUICK:
        return None
    return _shape(_with_plain(adapted))


def shape_of_arguments(adapted: Sequence[Any]) -> Shape | None:
    """Return the shape of positional arguments with these adapted annotations."""
    if all(one in _QUICK for one in adapted):
        return None
    fields = [(f"_{index}", _with_plain(one)) for index, one in enumerate(adapted)]
    made = msgspec.defstruct("Arguments", fields, array_like=True, forbid_unknown_fields=True)
    shape = _shape(made)
    if shape is None:
        return None
    decode = shape.decode
    return shape._replace(decode=lambda raw: [*msgspec.structs.astuple(decode(raw))])


def _shape(wanted: Any) -> Shape | None:
    try:
        found = _Looking()
        depth = found.depth(ms.type_info(wanted))
        decoder = msgspec.msgpack.Decoder(wanted)
    except (TypeError, NameError, NotImplementedError, ValueError):
        return None
    return Shape(decoder.decode, depth, found.has_maps, found.is_open)


def _with_plain(adapted: Any) -> Any:
    """Replace the parts of an annotation that may be anything by the type of plain values."""
    if adapted is Any or adapted is object:
        return PLAIN
    if adapted is list:
        return list[PLAIN]
    if adapted is dict:
        return dict[str, PLAIN]
    origin, args = get_origin(adapted), get_args(adapted)
    if origin is Annotated:
        return Annotated[(_with_plain(args[0]), *args[1:])]
    if origin in UNIONS:
        return Union[tuple(map(_with_plain, args))]  # noqa: UP007 - of a tuple
    if origin in _LISTS and len(args) == 1:
        return origin[_with_plain(args[0])]
    if origin in _DICTS and len(args) == 2:
        key = str if args[0] is Any else args[0]
        return origin[key, _with_plain(args[1])]
    return adapted


class _Looking:
    """Looks at a type as msgspec understands it. Raises TypeError if it has no shape."""

    def __init__(self) -> None:
        self.has_maps = self.is_open = False
        self._within: list[Any] = []

    def depth(self, info: Any) -> int:
        """Return the greatest depth of arrays and maps in a type; 0 where that has no bound."""
        if isinstance(info, _SCALARS):
            return 0
        if isinstance(info, ms.EnumType):
            return _check_enum(info.cls)
        if isinstance(info, ms.UnionType):
            return max(map(self.depth, info.types))
        if isinstance(info, ms.ListType):
            return 1 + self.depth(info.item_type)
        if isinstance(info, ms.DictType) and isinstance(info.key_type, ms.StrType):
            self.has_maps = True
            return 1 + self.depth(info.value_type)
        if isinstance(info, ms.AnyType):
            self.is_open = True
            return 0
        if isinstance(info, _RECORDS):
            return self._record(info)
        raise TypeError

    def _record(self, info: Any) -> int:
        if any(info is one for one in self._within):
            self.is_open = True
            return 0
        cls = get_origin(info.cls) or info.cls
        _check_record(cls, info)
        if not isinstance(info, ms.StructType) or not (
            info.array_like and info.forbid_unknown_fields
        ):
            self.has_maps = True
        self._within.append(info)
        depth = 1 + max((self.depth(one.type) for one in info.fields), default=0)
        self._within.pop()
        return depth


_SCALARS: Final = (
    ms.NoneType, ms.BoolType, ms.IntType, ms.FloatType, ms.StrType, ms.BytesType, ms.LiteralType,
)  # fmt: skip
_RECORDS: Final = (ms.DataclassType, ms.StructType, ms.TypedDictType, ms.NamedTupleType)
_FACTORIES: Final = (msgspec.NODEFAULT, list, dict)


def _check_enum(cls: Any) -> int:
    if cls._missing_.__func__ is not enum.Enum._missing_.__func__:  # type: ignore[attr-defined]
        raise TypeError
    return 0


def _check_record(cls: Any, info: Any) -> None:
    """Raise TypeError if making or encoding an instance would run code of users."""
    if any(one.default_factory not in _FACTORIES for one in info.fields):
        raise TypeError
    if isinstance(info, ms.DataclassType | ms.StructType) and (
        hasattr(cls, "__post_init__") or fields_of(cls) is None
    ):
        raise TypeError

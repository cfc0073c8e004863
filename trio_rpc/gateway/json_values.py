"""Write values as JSON and read them back without loss.

JSON has fewer types than Python, and its encoders lose the difference silently: NaN becomes null,
one of two keys that become the same text is dropped, bytes come back as text. Here a value is
written only if it will be read back as the same value:

1. :func:`lower` converts a value to JSON's own types. It refuses a value that JSON cannot carry for
   any reader.
2. A :class:`Form` knows the annotation that the reader reads by. It reads the lowered value back by
   that annotation. If the result is not equal to the value, the sender gets an error. Without an
   annotation, this allows JSON's own types, and classes of fields, which are objects for every
   reader.
"""

from __future__ import annotations

import base64
import collections
import dataclasses
import datetime as dt
import decimal
import enum
import math
import sys
import uuid
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final, get_args, get_origin

import msgspec

from trio_rpc.services.converters import decode_custom, scalar_type
from trio_rpc.services.costs import MOST, Read
from trio_rpc.services.models import keys_of
from trio_rpc.wire.simpler import model_fields, model_keys, simplifier

__all__ = [
    "MAX_DEPTH",
    "MAX_INTEGER",
    "UNTYPED",
    "Form",
    "JsonRead",
    "has_lost",
    "is_deeper",
    "lower",
    "read_json",
]

MAX_INTEGER: Final = 2**53 - 1
"""The largest integer that every JSON reader keeps exactly: JavaScript rounds larger ones."""

MAX_DEPTH: Final = 100
"""Levels of arrays and objects inside each other that a gateway reads from a client.

Reading is recursive, and Python's limit of recursion leaves room for several hundred levels.
"""

TOO_DEEP: Final = "nested too deeply, or contains itself"

SCALARS: Final = frozenset({str, int, float, bool, type(None)})
TEXTS: Final = (dt.date, dt.time, dt.timedelta, uuid.UUID, decimal.Decimal)
"""Types that are written as text; a datetime is also a date."""

_BARE: Final[dict[type, Callable[[Any], Any]]] = {
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
}

SHOWN: Final = 100
"""Characters of a value that an error text shows."""


def lower(value: Any) -> Any:
    """Convert a value to JSON's own types.

    These are None, bool, int, float, str, list, and dict with text keys. A value that consists only
    of them is returned itself, not a copy.

    Raises:
        TypeError: JSON has no form for a value of that type.
        ValueError: JSON cannot carry the value: NaN, an integer beyond 2^53 - 1, a lone surrogate,
            keys that become the same text; or the value is nested too deeply.
    """
    try:
        return _lower(value)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None


def is_deeper(value: Any, most: int) -> bool:
    """Return whether a JSON value has more than ``most`` levels of arrays and objects."""
    level = [value]
    for _ in range(most + 1):
        inner: list[Any] = []
        for one in level:
            if type(one) is list:
                inner += one
            elif type(one) is dict:
                inner += one.values()
        if not inner:
            return False
        level = inner
    return True


class JsonRead(Read):
    """Reads the parts of a JSON value."""

    __slots__ = ()

    def __call__(self, value: Any, adapted: Any) -> Any:
        """Convert a part."""
        return msgspec.convert(value, adapted, dec_hook=self._decode, str_keys=True)

    def check_items(self, value: Any, items: list[Any]) -> None:
        """Check the items of a set, since the set does not show whether one of them lost a part."""
        if has_lost(value, items):
            raise ValueError("an item of a set repeats an element of a set, or a key")

    def _decode(self, wanted: Any, value: Any) -> Any:
        if (get_origin(wanted) or wanted) is complex and type(value) is list:
            self.spend(1)
            real, imag = map(float, value)
            return complex(real, imag)
        return decode_custom(wanted, value, self)


def read_json(value: Any, adapted: Any, most: int = MOST) -> Any:
    """Check and convert a JSON value by an annotation.

    Args:
        value: the JSON value.
        adapted: the annotation, as :func:`~trio_rpc.services.conversion.adapt` returned it.
        most: the units that it may cost.

    Raises:
        msgspec.ValidationError: it does not fit; the text has the path of the part that does not.
        TooCostly: it would cost more.
    """
    return JsonRead(most)(value, adapted)


class Form:
    """Writes values so that a reader with the same annotation gets equal values.

    Args:
        annotation: the annotation, or ``Any`` without one.
        adapted: the annotation, as :func:`~trio_rpc.services.conversion.adapt` returned it.
    """

    def __init__(self, annotation: Any = Any, adapted: Any = Any) -> None:
        self._adapted = adapted
        self._enums = frozenset(_enums_in(annotation))
        self._is_any = adapted is Any or adapted is object
        self._scalar = scalar_type(adapted)

    def write(self, value: Any) -> Any:
        """Return the JSON form of ``value``.

        Raises:
            TypeError: JSON has no form for that type, or the annotation reads it as another type.
            ValueError: JSON cannot carry the value.
        """
        lowered = lower(value)
        if type(lowered) is self._scalar or (self._is_any and lowered is value):
            return lowered
        try:
            self._check(value, lowered)
        except RecursionError:
            raise ValueError(TOO_DEEP) from None
        return lowered

    def _check(self, value: Any, lowered: Any) -> None:
        """Raise TypeError if a reader would get another value."""
        read = lowered if self._is_any else self._read(value, lowered)
        if not _is_same(value, read, self._enums):
            raise TypeError(
                f"{_shown(value)} would be read back as {_shown(read)}:"
                " JSON does not keep its type, and the annotation does not specify it"
            )

    def _read(self, value: Any, lowered: Any) -> Any:
        try:
            return read_json(lowered, self._adapted, sys.maxsize)  # this end's own value
        except RecursionError:
            raise
        except Exception as exc:
            text = f"{_shown(value)} does not fit the annotation: {exc}"
            raise TypeError(text) from exc


# ── writing ──────────────────────────────────────────────────────────────────────────────────


def _lower(value: Any) -> Any:
    cls = type(value)
    if cls in SCALARS:
        return _checked(value)
    if cls is list:
        return _items(value)
    if cls is dict:
        return _mapping(value)
    if isinstance(value, enum.Enum):
        return _lower(value.value)
    fields = _fields(value)
    if fields is not None:
        return _items(fields) if isinstance(fields, list) else _mapping(fields)
    return _lower_other(value)


def _checked(value: Any) -> Any:
    """Refuse a scalar that JSON cannot carry."""
    cls = type(value)
    if cls is str:
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise ValueError(
                    f"{_shown(value)} has a lone surrogate, which is not text"
                ) from None
    elif cls is float:
        if not math.isfinite(value):
            raise ValueError(f"JSON cannot represent {value!r}")
    elif cls is int and not -MAX_INTEGER <= value <= MAX_INTEGER:
        raise ValueError(
            f"the integer {_shown(value)} is beyond 2^53 - 1, where browsers round: send it as text"
        )
    return value


def _items(values: list[Any]) -> list[Any]:
    lowered = [_lower(value) for value in values]
    same = all(new is old for new, old in zip(lowered, values, strict=True))
    return values if same else lowered


def _mapping(value: dict[Any, Any]) -> dict[str, Any]:
    lowered = {_key(key): _lower(item) for key, item in value.items()}
    if len(lowered) < len(value):
        raise ValueError(f"{_shown(value)} has keys that become the same text")
    same = all(
        new is old and lowered[new] is value[old] for new, old in zip(lowered, value, strict=True)
    )
    return value if same else lowered


def _key(key: Any) -> str:
    lowered = _lower(key)
    if type(lowered) is str:
        return lowered
    if type(lowered) in (int, float):
        return repr(lowered)
    raise TypeError(f"{_shown(key)} cannot be a key in JSON")


def _fields(value: Any) -> dict[str, Any] | list[Any] | None:
    """Return the fields of a value; None if its class is not a class of fields."""
    cls = type(value)
    if isinstance(value, msgspec.Struct):
        return _struct_fields(value)
    if model_keys(cls) is not None:
        simpler = simplifier(cls)(value)  # type: ignore[misc]
        return simpler if isinstance(simpler, dict) else None
    if dataclasses.is_dataclass(cls):
        return {one.name: getattr(value, one.name) for one in dataclasses.fields(cls)}
    if hasattr(cls, "__attrs_attrs__"):
        return {one.name: getattr(value, one.name) for one in cls.__attrs_attrs__}
    if isinstance(value, tuple) and hasattr(cls, "_fields"):
        return list(value)
    return None


def _struct_fields(value: msgspec.Struct) -> dict[str, Any] | list[Any]:
    config = value.__struct_config__
    tag = {} if config.tag is None else {str(config.tag_field): config.tag}
    pairs = zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True)
    fields = tag | {key: getattr(value, name) for key, name in pairs}
    if config.array_like:
        return list(fields.values())
    return {key: item for key, item in fields.items() if item is not msgspec.UNSET}


def _lower_other(value: Any) -> Any:
    if isinstance(value, TEXTS):
        if getattr(value, "fold", 0) and value.utcoffset() is None:  # type: ignore[union-attr]
            raise ValueError(f"{value!r}: JSON cannot carry fold; give the time a UTC offset")
        if isinstance(value, decimal.Decimal) and value.is_nan():
            raise ValueError(f"JSON cannot represent {value!r}")
        return msgspec.to_builtins(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode()
    if isinstance(value, complex):
        return [_checked(value.real), _checked(value.imag)]
    simplify = simplifier(type(value))
    if simplify is not None:
        return _lower(simplify(value))
    if isinstance(value, (str, int, float)):  # a subclass; its own additions are lost
        return _checked(_BARE[next(cls for cls in type(value).__mro__ if cls in _BARE)](value))
    if isinstance(value, Mapping):
        return _mapping(dict(value))
    if isinstance(value, (Sequence, AbstractSet)) or _is_collection(value):
        return _items(list(value))
    raise TypeError(f"a value of type {type(value).__qualname__} cannot be sent as JSON")


def _is_collection(value: Any) -> bool:
    return type(value).__module__ == "collections" and isinstance(value, Collection)


# ── values that a read value lacks ───────────────────────────────────────────────────────────


def has_lost(value: Any, read: Any) -> bool:
    """Return whether fewer values were read than had arrived.

    A set or a dict keeps only one of several values that become equal. Keys that a class does not
    have are ignored, so they are not lost. The items of a set have been checked before:
    see :meth:`JsonRead.check_items`.

    Args:
        value: the JSON value.
        read: the value that was read from it.
    """
    kind = type(value)
    if kind is not list and kind is not dict:
        return False
    if getattr(type(read), "__pydantic_root_model__", False):
        return has_lost(value, read.root)
    if kind is list:
        if isinstance(read, AbstractSet):
            return len(read) < len(value)
        return any(map(has_lost, value, _in_order(read)))
    if not isinstance(read, dict):
        return any(has_lost(value[key], one) for key, one in _by_key(value, read))
    if all(key in value for key in read):  # a TypedDict, or a dict whose keys are still the text
        return any(has_lost(value[key], one) for key, one in read.items())
    return len(read) < len(value) or any(map(has_lost, value.values(), read.values()))


def _in_order(read: Any) -> Iterable[Any]:
    """Return the values that were read from an array, in its order."""
    if isinstance(read, (list, tuple, collections.deque)):
        return read
    if isinstance(read, msgspec.Struct):
        tag = () if read.__struct_config__.tag is None else (read.__struct_config__.tag,)
        return (*tag, *(getattr(read, name) for name in read.__struct_fields__))
    return ()


def _by_key(value: dict[str, Any], read: Any) -> Iterator[tuple[str, Any]]:
    """Yield the keys of an object that fields were read from, and the values of these fields.

    Only names that the class has are looked up (law 13).
    """
    cls = type(read)
    models = model_fields(cls)
    if models is not None:
        for name, field in models.items():
            key = next((one for one in keys_of(cls, name, field) if one in value), None)
            if key is not None:
                yield key, getattr(read, name, None)
        names: Iterable[tuple[str, str]] = ()
        extra = getattr(read, "__pydantic_extra__", None) or {}
        yield from ((key, one) for key, one in extra.items() if key in value)
    elif isinstance(read, msgspec.Struct):
        names = zip(read.__struct_encode_fields__, read.__struct_fields__, strict=True)
    elif dataclasses.is_dataclass(cls):
        names = ((one.name, one.name) for one in dataclasses.fields(cls))
    else:
        names = ((one.name, one.name) for one in getattr(cls, "__attrs_attrs__", ()))
    yield from ((key, getattr(read, name, None)) for key, name in names if key in value)


# ── reading back ─────────────────────────────────────────────────────────────────────────────


def _is_same(sent: Any, read: Any, enums: Container[type]) -> bool:
    """Return whether a value was read back as the same value, as far as a session would keep it.

    A class of fields that no annotation names may come back as an object. An enum may come back as
    its value, unless it is one of ``enums``, which the annotation names.
    """
    cls = type(sent)
    if cls is type(read):
        if cls in SCALARS:
            return bool(sent == read)
        # Compare as text: where a zone's offset depends on fold, == is always False.
        if cls is dt.datetime or cls is dt.time:
            return bool(sent.isoformat() == read.isoformat())
        if cls is list or cls is tuple:
            return _are_same(sent, read, enums)
        if cls is dict:
            return sent.keys() == read.keys() and _are_same(
                sent.values(), map(read.get, sent), enums
            )
    if isinstance(sent, enum.Enum) and not isinstance(read, enum.Enum):
        return cls not in enums and _is_same(sent.value, read, enums)
    fields, read_fields = _fields(sent), _fields(read)
    if fields is not None and (cls is type(read) or read_fields is None):
        return _is_same(fields, read if read_fields is None else read_fields, enums)
    try:
        return (sent == read) is True
    except Exception:  # noqa: BLE001 - a class's own code
        return False


def _are_same(sent: Iterable[Any], read: Iterable[Any], enums: Container[type]) -> bool:
    try:
        return all(_is_same(one, other, enums) for one, other in zip(sent, read, strict=True))
    except ValueError:  # different lengths
        return False


def _enums_in(annotation: Any) -> Iterator[type]:
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        yield annotation
    for one in get_args(annotation):
        yield from _enums_in(one)


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - a class's own code, or an integer of too many digits
        text = f"a value of type {type(value).__qualname__}"
    text = text.encode(errors="backslashreplace").decode()
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


UNTYPED: Final = Form()
"""The form of values without a known annotation."""

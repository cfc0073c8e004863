"""Converters of one value to an adapted annotation, and the adapters of functions and streams.

:func:`~trio_rpc.services.conversion.adapt` makes the adapted annotations.
"""

from __future__ import annotations

import collections.abc
import contextlib
import types
from collections.abc import Callable
from typing import Any, Final, Protocol, get_origin, runtime_checkable

import msgspec

from trio_rpc.services.adapters import AdapterType, adapter
from trio_rpc.services.costs import MOST, OTHER, Read, TooCostly
from trio_rpc.services.lending import PrepareAll

__all__ = [
    "SCALARS",
    "Convert",
    "ConvertsItems",
    "Described",
    "WireRead",
    "check_supported",
    "convert_to",
    "decode_custom",
    "function_of",
    "instance_of",
    "is_natural",
    "is_protocol",
    "make_converter",
    "make_reader",
    "scalar_type",
    "stream_of",
]


class Convert(Protocol):
    """Checks and converts one value."""

    def __call__(self, value: Any, /, most: int = MOST) -> Any:
        """Return the converted value.

        Args:
            value: the value.
            most: the units that this may cost: ``Limits.max_nodes`` of this end.
        """


# A converted value of exactly one of these types is passed on without looking inside.
SCALARS = frozenset({str, int, float, bool, bytes, types.NoneType})

# msgspec would read text as base64 for these; it is far more often a mistake.
BYTES_LIKE = (bytes, bytearray, memoryview)


@runtime_checkable
class ConvertsItems(Protocol):
    """A stream that arrived in a call. Its items are checked one by one, as they are received."""

    def convert_items(self, convert: Convert | None) -> None:
        """Check and convert each item with ``convert``."""


@runtime_checkable
class Described(Protocol):
    """A function that arrived in a call. Its annotation is applied at each call."""

    def use(self, convert: Convert | None, prepare: PrepareAll | None) -> None:
        """Convert each result, and mark the arguments that are lent, with these functions."""


class WireRead(Read):
    """Reads the parts of a value that the codec has decoded."""

    __slots__ = ()

    def __call__(self, value: Any, adapted: Any) -> Any:
        """Convert a part."""
        return msgspec.convert(value, adapted, dec_hook=self._decode, builtin_types=BYTES_LIKE)

    def _decode(self, wanted: Any, value: Any) -> Any:
        return decode_custom(wanted, value, self)


def convert_to(value: Any, adapted: Any, most: int = MOST) -> Any:
    """Check ``value`` against an adapted annotation and convert it.

    Args:
        value: the value.
        adapted: the annotation, as ``adapt`` returned it.
        most: the units that this may cost.

    Raises:
        msgspec.ValidationError: it does not fit; the text has the path of the part that does not.
        TooCostly: it would cost more.
    """
    return WireRead(most)(value, adapted)


def check_supported(adapted: Any) -> None:
    """Raise TypeError if msgspec cannot convert to ``adapted`` at all."""
    with contextlib.suppress(msgspec.ValidationError):
        convert_to(object(), adapted)


def scalar_type(adapted: Any) -> type | None:
    """Return the one scalar type that ``adapted`` is, or None if it is not a plain scalar."""
    return adapted if isinstance(adapted, type) and adapted in SCALARS else None


def make_reader(adapted: Any) -> Callable[[Any, Read], Any] | None:
    """Return a function that converts one value with a Read, or None if nothing is to check."""
    if adapted is Any or adapted is object:
        return None
    if type(adapted) is AdapterType:  # without msgspec, which would only call it
        return adapted.convert  # type: ignore[attr-defined, no-any-return]
    scalar = scalar_type(adapted)
    shape: Any = None

    def read_whole(value: Any, read: Read) -> Any:
        nonlocal shape
        if type(value) is scalar:
            return value
        if shape is None:  # made when it is needed, since a service may have many methods
            # msgspec caches its type information for a Struct, but for nothing else.
            shape = msgspec.defstruct("Value", [("value", adapted)], array_like=True)
        left = read.left
        try:
            return read((value,), shape).value
        except TooCostly:
            raise
        except Exception:  # noqa: BLE001 - the next line raises it, with the right path
            read.left = left
        return read(value, adapted)

    return read_whole


def make_converter(adapted: Any) -> Convert | None:
    """Return a function that converts one value, or None if there is nothing to check."""
    read_whole, scalar = make_reader(adapted), scalar_type(adapted)
    if read_whole is None:
        return None
    quickly: Callable[[Any], Any] | None = None
    is_new = True

    def convert(value: Any, /, most: int = MOST) -> Any:
        nonlocal is_new, quickly
        if type(value) is scalar:
            return value
        if is_new:
            is_new, quickly = False, _quick_converter(adapted)
        if quickly is not None:
            try:
                return quickly(value)
            except Exception:  # noqa: BLE001, S110 - the next line raises it, with the right path
                pass
        return read_whole(value, WireRead(most))

    return convert


def _quick_converter(adapted: Any) -> Callable[[Any], Any] | None:
    """Return a function that converts values of a type that needs no function of this module."""
    if not is_natural(adapted):
        return None
    shape: Any = msgspec.defstruct("Value", [("value", adapted)], array_like=True)
    return lambda value: msgspec.convert((value,), shape).value


def is_natural(adapted: Any) -> bool:
    """Return whether msgspec converts to a type without a hook, and makes no bytes of text."""
    try:
        waiting: list[Any] = [msgspec.inspect.type_info(adapted)]
    except Exception:  # noqa: BLE001 - such as a name that cannot be resolved
        return False
    seen: dict[int, Any] = {}
    while waiting:
        info = waiting.pop()
        if isinstance(info, _NOT_NATURAL):
            return False
        if isinstance(info, msgspec.Struct) and id(info) not in seen:
            seen[id(info)] = info  # a class may contain itself
            waiting += map(info.__getattribute__, info.__struct_fields__)
        elif isinstance(info, tuple):
            waiting += info
    return True


_NOT_NATURAL: Final = (
    msgspec.inspect.CustomType,
    msgspec.inspect.BytesType,
    msgspec.inspect.ByteArrayType,
    msgspec.inspect.MemoryViewType,
)


def decode_custom(wanted: Any, value: Any, read: Read) -> Any:
    """Convert to a custom type of msgspec: an adapter, or a class that msgspec does not know.

    Args:
        wanted: the type that msgspec has reached.
        value: the value to convert to it.
        read: converts the parts of the value.
    """
    if type(wanted) is AdapterType:
        return wanted.convert(value, read)  # type: ignore[attr-defined]
    read.spend(OTHER)
    return _check_instance(get_origin(wanted) or wanted, value)


def _check_instance(wanted: type, value: Any) -> Any:
    if _is_plain_protocol(wanted) or isinstance(value, wanted):
        return value
    raise TypeError(f"Expected `{wanted.__name__}`, got `{type(value).__name__}`")


def is_protocol(wanted: Any) -> bool:
    """Return whether a class is a Protocol."""
    return isinstance(wanted, type) and getattr(wanted, "_is_protocol", False)


def _is_plain_protocol(wanted: type) -> bool:
    # isinstance() refuses a Protocol that is not runtime_checkable, so there is nothing to check.
    return is_protocol(wanted) and not getattr(wanted, "_is_runtime_protocol", False)


def instance_of(cls: type) -> Any:
    """Return the adapter that accepts the instances of a class as they are."""
    made = adapter(cls.__name__, lambda value, _: _check_instance(cls, value), OTHER)
    if not is_protocol(cls):
        made.instances_of = cls
    return made


def function_of(name: str, result: Any, prepare: PrepareAll | None) -> Any:
    """Return the adapter for a function.

    Args:
        name: its name in error messages.
        result: its result, adapted.
        prepare: marks the arguments that are lent.
    """
    check_supported(result)
    # A result of None is not used, and a plain function may well return something.
    convert_result = _nothing if result in (None, types.NoneType) else make_converter(result)

    def convert(value: Any, _read: Read) -> Any:
        if not callable(value):
            raise TypeError(f"Expected a function, got `{type(value).__name__}`")
        if isinstance(value, Described):
            value.use(convert_result, prepare)
        return value

    return adapter(name, convert, OTHER)


def _nothing(_value: Any, /, most: int = MOST) -> None:
    """Return None: the value is not used."""


def stream_of(origin: Any, item: Any) -> Any:
    """Return the adapter for a stream.

    Args:
        origin: its class, one of ``STREAMS``.
        item: the annotation of its items, adapted.
    """
    convert_item = make_converter(item)
    # A received stream cannot be a generator, and the annotation is mostly meant for iteration.
    wanted = (
        collections.abc.AsyncIterator
        if issubclass(origin, collections.abc.AsyncIterator)
        else origin
    )

    def convert(value: Any, _read: Read) -> Any:
        _check_instance(wanted, value)
        if isinstance(value, ConvertsItems):
            value.convert_items(convert_item)
        return value

    return adapter(origin.__name__, convert, OTHER)

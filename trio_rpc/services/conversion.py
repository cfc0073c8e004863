"""Checking and converting one value against an annotation, with msgspec.

What the codec hands over is plain: maps and lists for dataclasses, attrs classes, Structs and
NamedTuples, values for enums; everything of its extension table (datetime, Decimal, tuple, set, …)
is of its own type already. msgspec turns plain values into what the annotation says. It is
strict: no ``str`` becomes an ``int``, nor ``bytes``. ``int`` becomes ``float``, a list a tuple or a set, and text in
the ISO or usual form a datetime, Decimal or UUID, as a peer without our extensions sends them.

msgspec refuses some annotations that are quite usable: ``str | bytes``, ``complex | None | int``,
unions of dataclasses, enums of tuples, parameterised generics it does not know (callbacks!). These
are replaced, before msgspec sees them, by *adapters*: classes made on the spot that msgspec takes
for a custom type and hands to our hook.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import enum
import functools
import inspect
import types
from collections.abc import Callable, Iterable
from typing import (
    Annotated,
    Any,
    ClassVar,
    LiteralString,
    Never,
    NoReturn,
    ParamSpecArgs,
    ParamSpecKwargs,
    Protocol,
    TypeAlias,
    TypeVar,
    Union,
    get_args,
    get_origin,
    runtime_checkable,
)

import msgspec

from trio_rpc.services.functions import CALLABLE, STREAMS, Said, is_call_protocol, said_of

__all__ = [
    "SCALARS",
    "STREAMS",
    "Convert",
    "ConvertsItems",
    "ConvertsResults",
    "Read",
    "adapt",
    "check_supported",
    "convert_to",
    "decode_custom",
    "is_function",
    "make_converter",
    "scalar_type",
]

Convert: TypeAlias = Callable[[Any], Any]
Read: TypeAlias = Callable[[Any, Any], Any]
"""Converts a value to an adapted annotation: :func:`convert_to`, or what another form of values has for it."""

# Types that a converted value has to have exactly to be passed on as it is, without a look inside.
SCALARS = frozenset({str, int, float, bool, bytes, types.NoneType})

# msgspec would read text as base64 for these; it is far more often a mistake.
BYTES_LIKE = (bytes, bytearray, memoryview)

# The generics whose arguments msgspec looks into.
COLLECTIONS = frozenset(
    {
        list,
        set,
        frozenset,
        tuple,
        dict,
        collections.abc.Collection,
        collections.abc.Iterable,
        collections.abc.Sequence,
        collections.abc.MutableSequence,
        collections.abc.Set,
        collections.abc.MutableSet,
        collections.abc.Mapping,
        collections.abc.MutableMapping,
    }
)


@runtime_checkable
class ConvertsItems(Protocol):
    """A stream that came in a call: its items are checked one by one, as they are taken."""

    def convert_items(self, convert: Convert | None) -> None:
        """Check and convert each item with that function."""


@runtime_checkable
class ConvertsResults(Protocol):
    """A function that came in a call: what it returns is checked each time that it is called."""

    def convert_results(self, convert: Convert | None) -> None:
        """Check and convert each result with that function."""


class _AdapterType(type):
    # msgspec checks what the hook returned against the type it asked for.
    def __instancecheck__(cls, instance: object) -> bool:
        return True


class Adapter(metaclass=_AdapterType):
    """Stands in an annotation for a type that msgspec does not take."""

    convert: ClassVar[Callable[[Any, Read], Any]]


def adapt(annotation: Any) -> Any:
    """Return ``annotation`` with all that msgspec would refuse replaced by adapters."""
    if annotation in (inspect.Parameter.empty, NoReturn, Never):
        return Any
    if isinstance(annotation, (ParamSpecArgs, ParamSpecKwargs)):
        return Any
    if annotation is LiteralString:
        return str
    origin = get_origin(annotation)
    if origin is None:
        return _adapt_class(annotation)
    if origin is Annotated:
        inner, *metadata = get_args(annotation)
        adapted = adapt(inner)
        return annotation if adapted is inner else Annotated[(adapted, *metadata)]
    if origin in (Union, types.UnionType):
        return _adapt_union(annotation)
    if origin in COLLECTIONS:
        return _adapt_collection(annotation, origin)
    if origin in STREAMS:
        return _stream_of(origin, get_args(annotation)[0])
    said = said_of(annotation)
    if said is not None:
        return _function_of(origin, said)
    if isinstance(origin, type) and not _is_record(origin):
        return _instance_of(origin)
    return annotation


def convert_to(value: Any, adapted: Any) -> Any:
    """Check ``value`` against an adapted annotation and convert it.

    Raises msgspec.ValidationError, with the path of what does not fit.
    """
    return msgspec.convert(value, adapted, dec_hook=_decode, builtin_types=BYTES_LIKE)


def check_supported(adapted: Any) -> None:
    """Raise TypeError when msgspec cannot be asked for ``adapted`` at all."""
    with contextlib.suppress(msgspec.ValidationError):
        convert_to(object(), adapted)


def scalar_type(adapted: Any) -> type | None:
    """Return the one scalar type that ``adapted`` is, or None when it is not that plain."""
    return adapted if isinstance(adapted, type) and adapted in SCALARS else None


def make_converter(adapted: Any) -> Convert | None:
    """Return a function that converts one value, or None when there is nothing to check."""
    if adapted is Any or adapted is object:
        return None
    scalar = scalar_type(adapted)

    def convert(value: Any) -> Any:
        if type(value) is scalar:
            return value
        return convert_to(value, adapted)

    return convert


def is_function(annotation: Any) -> bool:
    """Say whether an annotation is that of a function, or of one that may be missing."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return is_function(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        members = set(get_args(annotation)) - {types.NoneType}
        return bool(members) and all(map(is_function, members))
    return said_of(annotation) is not None


def _decode(wanted: Any, value: Any) -> Any:
    return decode_custom(wanted, value, convert_to)


def decode_custom(wanted: Any, value: Any, read: Read) -> Any:
    """Handle what msgspec calls custom types: adapters, and classes it knows nothing about.

    Args:
        wanted: the type that msgspec has come to.
        value: what is to become one.
        read: converts what is inside of it.
    """
    if not isinstance(
        wanted, _AdapterType
    ):  # a field of a class, whose annotations are not adapted
        wanted = _adapted_field(wanted)
    wanted = get_origin(wanted) or wanted
    if isinstance(wanted, _AdapterType):
        return wanted.convert(value, read)  # type: ignore[attr-defined]
    return _check_instance(wanted, value)


@functools.lru_cache(maxsize=1024)
def _adapted_field(annotation: Any) -> Any:
    return adapt(annotation)


def _check_instance(wanted: type, value: Any) -> Any:
    if _is_plain_protocol(wanted) or isinstance(value, wanted):
        return value
    raise TypeError(f"Expected `{wanted.__name__}`, got `{type(value).__name__}`")


def _is_protocol(wanted: Any) -> bool:
    return isinstance(wanted, type) and getattr(wanted, "_is_protocol", False)


def _is_plain_protocol(wanted: type) -> bool:
    # isinstance() refuses a Protocol that is not runtime_checkable: there is nothing to check.
    return _is_protocol(wanted) and not getattr(wanted, "_is_runtime_protocol", False)


def _adapter(name: str, convert: Callable[[Any, Read], Any]) -> Any:
    return _AdapterType(name, (Adapter,), {"convert": staticmethod(convert)})


def _instance_of(cls: type) -> Any:
    return _adapter(cls.__name__, lambda value, _: _check_instance(cls, value))


def _function_of(origin: Any, said: Said) -> Any:
    """Make what stands for a function; what it returns is converted as its annotation says."""
    adapted = adapt(said.result)
    check_supported(adapted)
    convert_result = make_converter(adapted)
    if said.result in (None, types.NoneType):
        convert_result = _nothing  # nobody wants it, and a plain function may well return something

    def convert(value: Any, _read: Read) -> Any:
        if not callable(value):
            raise TypeError(f"Expected a function, got `{type(value).__name__}`")
        if isinstance(value, ConvertsResults):
            value.convert_results(convert_result)
        return value

    return _adapter(getattr(origin, "__name__", "Callable"), convert)


def _nothing(_value: Any) -> None:
    """Return None: nobody wants the value."""


def _stream_of(origin: Any, item: Any) -> Any:
    convert_item = make_converter(adapt(item))
    # A generator is more than what arrives can be, and most often just meant to be iterated over.
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

    return _adapter(origin.__name__, convert)


def _adapt_class(annotation: Any) -> Any:
    if isinstance(annotation, TypeVar):
        return _adapt_type_variable(annotation)
    if hasattr(annotation, "__value__") and not _is_supported(annotation):
        return adapt(annotation.__value__)  # a "type" statement's alias
    if annotation is CALLABLE or is_call_protocol(annotation):
        return _function_of(annotation, said_of(annotation) or Said())
    if _is_protocol(annotation):
        return _instance_of(annotation)
    if not (isinstance(annotation, type) and issubclass(annotation, enum.Enum)):
        return annotation
    if _is_supported(annotation):
        return annotation
    return _adapter(annotation.__name__, _enum_converter(annotation))


def _adapt_type_variable(variable: TypeVar) -> Any:
    if variable.__constraints__:
        return adapt(Union.__getitem__(variable.__constraints__))
    return Any if variable.__bound__ is None else adapt(variable.__bound__)


def _enum_converter(cls: type[enum.Enum]) -> Callable[[Any, Read], Any]:
    def convert(value: Any, _read: Read) -> Any:
        if isinstance(value, cls):
            return value
        if type(value) is list:  # a tuple's place is often taken by a list on its way
            value = tuple(value)
        return cls(value)

    return convert


def _adapt_collection(annotation: Any, origin: Any) -> Any:
    args = get_args(annotation)
    adapted = tuple(arg if arg is Ellipsis else adapt(arg) for arg in args)
    if all(new is old for new, old in zip(adapted, args, strict=True)):
        return annotation
    return origin[adapted]


def _adapt_union(annotation: Any) -> Any:
    functions = [one for one in get_args(annotation) if is_function(one)]
    kept = [one for one in get_args(annotation) if one not in functions[1:]]
    # Any function fits the first of several, so what all of them say is put in its place.
    as_one = (
        {functions[0]: _function_of(CALLABLE, said_of(annotation) or Said())}
        if functions[1:]
        else {}
    )
    members = tuple(as_one.get(one) or adapt(one) for one in kept)
    union: Any = Union.__getitem__(members)
    if any(member in (Any, object) for member in members):
        return Any
    if _is_supported(union):
        return union
    for member in members:
        check_supported(member)
    return _adapter(_names(get_args(annotation)), _union_converter(members))


def _names(annotations: Iterable[Any]) -> str:
    return " | ".join(getattr(one, "__name__", None) or str(one) for one in annotations)


def _union_converter(members: tuple[Any, ...]) -> Callable[[Any, Read], Any]:
    """Make the converter of a union that msgspec does not take: the first member that fits.

    A member that the value is an instance of already goes first, so that ``str`` stays text in
    ``datetime | str``; among classes of fields the one with these very fields does.
    """
    fields = {member: names for member in members if (names := _field_names(member)) is not None}
    if len(set(fields.values())) < len(fields):
        same = _names(fields)
        raise TypeError(f"{same} cannot be told apart by their fields: use tagged msgspec.Structs")

    def fits(member: Any, value: Any) -> bool:
        if member in fields and type(value) is dict:
            return fields[member] == value.keys()
        return type(value) is (get_origin(member) or member)

    def convert(value: Any, read: Read) -> Any:
        for member in sorted(members, key=lambda member: not fits(member, value)):
            try:
                return read(value, member)
            except msgspec.ValidationError:
                continue
        raise TypeError(f"Expected `{_names(members)}`, got `{type(value).__name__}`")

    return convert


def _field_names(member: Any) -> frozenset[str] | None:
    cls = get_origin(member) or member
    if dataclasses.is_dataclass(cls):
        return frozenset(field.name for field in dataclasses.fields(cls))
    if hasattr(cls, "__attrs_attrs__"):
        return frozenset(field.name for field in cls.__attrs_attrs__)
    if isinstance(cls, type) and issubclass(cls, msgspec.Struct) and not _is_supported_array(cls):
        return frozenset(cls.__struct_encode_fields__)
    return None


def _is_supported_array(cls: type[msgspec.Struct]) -> bool:
    return cls.__struct_config__.array_like


def _is_record(cls: type) -> bool:
    """Say whether msgspec looks into this generic class itself."""
    return _field_names(cls) is not None or issubclass(cls, (msgspec.Struct, tuple, dict))


def _is_supported(annotation: Any) -> bool:
    try:
        check_supported(annotation)
    except TypeError:
        return False
    return True

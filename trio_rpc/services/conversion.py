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
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from typing import (
    Annotated,
    Any,
    ClassVar,
    Final,
    ForwardRef,
    Literal,
    LiteralString,
    Never,
    NoReturn,
    NotRequired,
    ParamSpecArgs,
    ParamSpecKwargs,
    Protocol,
    Required,
    Self,
    TypeAlias,
    TypeVar,
    TypeVarTuple,
    Union,
    Unpack,
    get_args,
    get_origin,
    runtime_checkable,
)

import msgspec

from trio_rpc.services.adapters import AdapterType, Read, adapter, reader
from trio_rpc.services.annotations import Names
from trio_rpc.services.functions import (
    CALLABLE,
    STREAMS,
    Said,
    aliased,
    identity,
    is_call_protocol,
    said_of,
)
from trio_rpc.services.keyed import (
    SETS,
    check_hash,
    guarded_dict,
    guarded_set,
    mapping,
    needs_guard,
)
from trio_rpc.services.lending import PrepareAll, preparer_of_said
from trio_rpc.services.models import (
    config_of,
    dataclass_converter,
    is_model,
    maker_of,
    maker_of_dataclass,
    model_converter,
    pydantic_type,
    tagged_union,
)
from trio_rpc.services.records import READ_ONLY, is_typed_dict, record_of, unpacked
from trio_rpc.services.special import (
    container,
    enumeration,
    is_plain_enum,
    literal,
    nested_tuple,
    special,
)
from trio_rpc.services.unions import field_names, names_of, union_converter

__all__ = [
    "SCALARS",
    "STREAMS",
    "Convert",
    "ConvertsItems",
    "Described",
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

QUALIFIERS = frozenset({Final, ClassVar, Required, NotRequired, *READ_ONLY})
"""What says something of a name, and not of its values."""


@runtime_checkable
class ConvertsItems(Protocol):
    """A stream that came in a call: its items are checked one by one, as they are taken."""

    def convert_items(self, convert: Convert | None) -> None:
        """Check and convert each item with that function."""


@runtime_checkable
class Described(Protocol):
    """A function that came in a call: what its annotation says is used each time that it is called."""

    def use(self, convert: Convert | None, prepare: PrepareAll | None) -> None:
        """Convert each result, and mark what arguments lend, with these functions."""


def adapt(annotation: Any, names: Names | None = None) -> Any:
    """Return ``annotation`` with all that msgspec would refuse replaced by adapters.

    Args:
        annotation: the annotation.
        names: what names mean that are left in it as text: those of recursive aliases, and ``Self``.

    Raises:
        TypeError: no value that arrives could ever fit it, and the text says what to write; or a name
            in a class that it names cannot be resolved.
    """
    return _Adapting(names or Names({}, {})).adapt(annotation)


class _Adapting:
    """The work on one annotation.

    Aliases and classes of fields may name themselves. What is in the middle of its own adaptation is an empty
    adapter meanwhile, and is filled when it is done.
    """

    def __init__(self, names: Names) -> None:
        self._names = names
        self._memo: dict[Any, Any] = {}
        self._used: set[Any] = set()
        self._model: Any = None
        """The configuration of the Pydantic model that the annotation is of a field of."""
        self._as_dicts = False
        """Whether models within are left to the one round them, and only the fields are converted."""

    def adapt(self, annotation: Any) -> Any:
        if isinstance(annotation, (ParamSpecArgs, ParamSpecKwargs, TypeVarTuple)):
            return Any
        origin = get_origin(annotation)
        if origin is None:
            return self._plain(annotation)
        args = get_args(annotation)
        if origin is Annotated:
            return self._annotated(annotation)
        if origin in QUALIFIERS:
            return self.adapt(args[0])
        if origin in (Union, types.UnionType):
            return self._union(annotation)
        if origin is Literal:
            return annotation if _is_supported(annotation) else literal(args)
        if origin is tuple and any(map(unpacked, args)):
            return nested_tuple(args, self.adapt)
        if origin in COLLECTIONS:
            return self._collection(annotation, origin)
        if origin is Unpack:  # of a TypeVarTuple, which may be anything
            return Any
        if origin in STREAMS:
            return _stream_of(origin, self.adapt(args[0]))
        if origin is CALLABLE or is_call_protocol(origin):
            return self._function(annotation)
        if hasattr(origin, "__value__"):  # a "type" statement's alias, with its arguments
            return self._alias(identity(annotation), origin.__name__, aliased(annotation))
        if isinstance(origin, type):
            if is_model(origin):
                return self._model_of(annotation)
            made = container(origin, args, self.adapt) or self._record(annotation)
            return _instance_of(origin) if made is None else made
        return annotation

    def _plain(self, annotation: Any) -> Any:
        """Adapt what has no arguments."""
        if annotation in (inspect.Parameter.empty, NoReturn, Never):
            return Any
        if annotation is LiteralString:
            return str
        if annotation is Self:
            return Any if self._names.owner is None else self.adapt(self._names.owner)
        if isinstance(annotation, (str, ForwardRef)):
            text = annotation if isinstance(annotation, str) else annotation.__forward_arg__
            return self._alias(("name", text), text, annotation)
        if isinstance(annotation, TypeVar):
            return self._type_variable(annotation)
        if isinstance(annotation, dataclasses.InitVar):
            return self.adapt(annotation.type)
        if hasattr(annotation, "__supertype__"):  # a NewType
            adapted = self.adapt(annotation.__supertype__)
            return annotation if adapted is annotation.__supertype__ else adapted
        if hasattr(annotation, "__value__"):
            return self._alias(annotation, annotation.__name__, annotation.__value__)
        return self._class(annotation)

    def _class(self, annotation: Any) -> Any:
        if annotation is CALLABLE or is_call_protocol(annotation):
            return self._function(annotation)
        if _is_protocol(annotation):
            return _instance_of(annotation)
        if not isinstance(annotation, type) or isinstance(annotation, AdapterType):
            return annotation
        if annotation in STREAMS:
            return annotation
        if annotation in SETS:
            return guarded_set(annotation)
        if issubclass(annotation, enum.Enum):
            return (
                annotation
                if is_plain_enum(annotation) and _is_supported(annotation)
                else enumeration(annotation)
            )
        if is_model(annotation):
            return self._model_of(annotation)
        in_model = self._model is not None
        made = pydantic_type(annotation, self._checked, is_in_model=in_model)
        if made is not None:
            return made
        return special(annotation, self.adapt) or self._record(annotation) or annotation

    def _type_variable(self, variable: TypeVar) -> Any:
        if variable.__constraints__:
            return self.adapt(Union.__getitem__(variable.__constraints__))
        return Any if variable.__bound__ is None else self.adapt(variable.__bound__)

    def _alias(self, key: Any, name: str, value: Any) -> Any:
        """Adapt what an alias stands for, in which it may be named."""
        if key in self._memo:
            self._used.add(key)
            return self._memo[key]
        mine = self._memo[key] = adapter(name, _empty)
        if isinstance(value, (str, ForwardRef)):
            value = self._names.resolve(name, value)
        adapted = self.adapt(value)
        if key not in self._used:
            del self._memo[key]
            return adapted
        mine.convert = staticmethod(reader(adapted))
        return adapted

    def _record(self, annotation: Any) -> Any:
        """Adapt a class of fields; None if it is not one."""
        if not is_record(get_origin(annotation) or annotation):
            return None
        if self._model is not None:
            made = self._in_model(annotation)
            if made is not None:
                return made
        if annotation in self._memo:
            return self._memo[annotation]
        if self._is_natural(annotation, set()):
            return annotation
        record = record_of(annotation, self._names)
        if record is None:
            return None
        mine = self._memo[annotation] = adapter(record.cls.__name__, _empty)
        with self._within(record.cls, None):
            fields = {one.name: self.adapt(one.annotation) for one in record.fields}
        mine.convert = staticmethod(record.converter(fields))
        for one in fields.values():
            check_supported(one)
        return mine

    @contextlib.contextmanager
    def _within(self, cls: type, model: Any) -> Iterator[None]:
        """Adapt the fields of a class: names mean what they mean there."""
        outside = self._names, self._model
        self._names = self._names.within(vars(sys.modules.get(cls.__module__, types)), cls)
        self._model = model
        try:
            yield
        finally:
            self._names, self._model = outside

    def _model_of(self, annotation: Any) -> Any:
        """Adapt a model, or a dataclass, of Pydantic's."""
        key = "a model", annotation, self._as_dicts
        if key in self._memo:
            return self._memo[key]
        cls = get_origin(annotation) or annotation
        mine = self._memo[key] = adapter(cls.__name__, _empty)
        make = _as_it_is if self._as_dicts else maker_of(annotation)
        with self._within(cls, config_of(cls)):
            convert = model_converter(annotation, make, self._checked, self._names)
        mine.convert = staticmethod(convert)
        return mine

    def _in_model(self, annotation: Any) -> Any:
        """Adapt what Pydantic makes, and looks into, in the fields of its models; None if it does not."""
        cls: Any = get_origin(annotation) or annotation
        if not hasattr(cls, "__dataclass_fields__"):
            return None
        key = "in a model", annotation, self._as_dicts
        if key in self._memo:
            return self._memo[key]
        mine = self._memo[key] = adapter(cls.__name__, _empty)
        make = _as_it_is if self._as_dicts else maker_of_dataclass(annotation, self._model)
        if make is None:
            del self._memo[key]
            return None
        with self._within(cls, self._model):
            convert = dataclass_converter(annotation, make, self._checked, self._names)
        mine.convert = staticmethod(convert)
        return mine

    def _checked(self, annotation: Any, *, as_dicts: bool | None = None) -> Any:
        outside = self._as_dicts
        self._as_dicts = outside if as_dicts is None else as_dicts
        try:
            adapted = self.adapt(annotation)
        finally:
            self._as_dicts = outside
        check_supported(adapted)
        return adapted

    def _is_natural(self, annotation: Any, seen: set[Any]) -> bool:
        """Say whether msgspec can make instances of a class of fields, and of all that is in it, by itself."""
        origin = get_origin(annotation) or annotation
        if isinstance(origin, type) and is_record(origin):
            if annotation in seen:
                return True
            seen.add(annotation)
            record = record_of(annotation, self._names)
            if record is None:
                return _is_supported(annotation)
            return _is_supported(annotation) and all(
                self._is_natural(one.annotation, seen) for one in record.fields
            )
        if (
            origin in (Union, types.UnionType, Annotated)
            or origin in COLLECTIONS
            or origin in QUALIFIERS
        ):
            parts = get_args(annotation)
            parts = parts[:1] if origin is Annotated else parts
            if needs_guard(origin, parts):
                return False
            whole = origin in QUALIFIERS or _is_supported(annotation)
            return whole and all(one is Ellipsis or self._is_natural(one, seen) for one in parts)
        if isinstance(annotation, (str, ForwardRef)):
            return False
        return self.adapt(annotation) is annotation

    def _annotated(self, annotation: Any) -> Any:
        """Adapt what says something about a type; of a set or a dict that is built here, it is checked here, too."""
        bare, *about = get_args(annotation)
        origin = get_origin(bare)
        tagged = tagged_union(bare, about, self._checked)
        if tagged is not None:
            return tagged
        if about and (origin in COLLECTIONS or bare in SETS):
            adapted = self._collection(bare, origin or bare, tuple(about))
            if isinstance(adapted, AdapterType):
                return adapted
        else:
            adapted = self.adapt(bare)
        return annotation if adapted is bare else Annotated[(adapted, *about)]

    def _collection(self, annotation: Any, origin: Any, about: tuple[Any, ...] = ()) -> Any:
        args = get_args(annotation)
        adapted: tuple[Any, ...] = tuple(
            arg if arg is Ellipsis else self.adapt(arg) for arg in args
        )
        is_mapping = len(args) == 2 and origin is not tuple
        if is_mapping or origin in SETS:
            for one in args[:1]:
                check_hash(one, "the keys of a dict" if is_mapping else "the items of a set")
        if is_mapping and isinstance(adapted[0], AdapterType):
            return mapping(origin, adapted[0], adapted[1], about)
        if needs_guard(origin, adapted):
            if is_mapping:
                return guarded_dict(origin, adapted[0], adapted[1], about)
            return guarded_set(origin, adapted[0] if adapted else Any, about)
        if all(new is old for new, old in zip(adapted, args, strict=True)):
            return annotation
        return origin[adapted]

    def _function(self, annotation: Any) -> Any:
        said = said_of(annotation) or Said()
        name = getattr(get_origin(annotation) or annotation, "__name__", "Callable")
        return _function_of(name, self.adapt(said.result), preparer_of_said(said, self._names))

    def _union(self, annotation: Any) -> Any:
        functions = [one for one in get_args(annotation) if is_function(one)]
        kept = tuple(one for one in get_args(annotation) if one not in functions[1:])
        # Any function fits the first of several, so what all of them say is put in its place.
        as_one = {functions[0]: self._function(annotation)} if functions[1:] else {}
        members = tuple(as_one.get(one) or self.adapt(one) for one in kept)
        union: Any = Union.__getitem__(members)
        if any(member in (Any, object) for member in members):
            return Any
        if _is_supported(union):
            return union
        for member in members:
            check_supported(member)
        return adapter(
            names_of(get_args(annotation)),
            union_converter(members, get_args(annotation), self._names),
        )


def _as_it_is(value: Any) -> Any:
    return value


def _empty(_value: Any, _read: Read) -> Any:
    raise TypeError("this type is made of nothing but itself")


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
    if type(adapted) is AdapterType:  # without msgspec, which only calls it
        convert_whole: Callable[[Any, Read], Any] = adapted.convert  # type: ignore[attr-defined]
        return lambda value: convert_whole(value, convert_to)
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
    if type(wanted) is AdapterType:
        return wanted.convert(value, read)  # type: ignore[attr-defined]
    return _check_instance(get_origin(wanted) or wanted, value)


def _check_instance(wanted: type, value: Any) -> Any:
    if _is_plain_protocol(wanted) or isinstance(value, wanted):
        return value
    raise TypeError(f"Expected `{wanted.__name__}`, got `{type(value).__name__}`")


def _is_protocol(wanted: Any) -> bool:
    return isinstance(wanted, type) and getattr(wanted, "_is_protocol", False)


def _is_plain_protocol(wanted: type) -> bool:
    # isinstance() refuses a Protocol that is not runtime_checkable: there is nothing to check.
    return _is_protocol(wanted) and not getattr(wanted, "_is_runtime_protocol", False)


def _instance_of(cls: type) -> Any:
    return adapter(cls.__name__, lambda value, _: _check_instance(cls, value))


def _function_of(name: str, result: Any, prepare: PrepareAll | None) -> Any:
    """Make what stands for a function.

    Args:
        name: for complaints.
        result: what it returns, adapted.
        prepare: marks what its arguments lend.
    """
    check_supported(result)
    # Nobody wants a result of None, and a plain function may well return something.
    convert_result = _nothing if result in (None, types.NoneType) else make_converter(result)

    def convert(value: Any, _read: Read) -> Any:
        if not callable(value):
            raise TypeError(f"Expected a function, got `{type(value).__name__}`")
        if isinstance(value, Described):
            value.use(convert_result, prepare)
        return value

    return adapter(name, convert)


def _nothing(_value: Any) -> None:
    """Return None: nobody wants the value."""


def _stream_of(origin: Any, item: Any) -> Any:
    convert_item = make_converter(item)
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

    return adapter(origin.__name__, convert)


def is_record(cls: type) -> bool:
    """Say whether msgspec looks into this class itself, for its fields."""
    return (
        field_names(cls) is not None
        or issubclass(cls, msgspec.Struct)
        or (issubclass(cls, tuple) and hasattr(cls, "_fields"))
        or is_typed_dict(cls)
    ) and not hasattr(cls, "__pydantic_validator__")


def _is_supported(annotation: Any) -> bool:
    try:
        check_supported(annotation)
    except (TypeError, NameError):  # msgspec looks up names in modules only
        return False
    return True

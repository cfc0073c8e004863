"""Checking and converting one value against an annotation, with msgspec.

The codec delivers plain values: maps and lists for classes of fields, values for enums. Only types
of its extension table (datetime, Decimal, tuple, set, …) arrive as themselves. msgspec converts
plain values to the annotated type. It is strict: neither ``str`` nor ``bytes`` becomes an ``int``.
It does convert ``int`` to ``float``, a list to a tuple or a set, and text to a datetime, Decimal or
UUID, as a peer without our extensions sends them.

msgspec refuses some usable annotations: ``str | bytes``, ``complex | None | int``, unions of
dataclasses, enums of tuples, and generics that it does not know (callbacks!). They are replaced by
*adapters*: classes made at run time that msgspec treats as custom types and passes to our hook.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import enum
import inspect
import sys
import types
from collections.abc import Iterator
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
    TypeVar,
    TypeVarTuple,
    Union,
    Unpack,
    get_args,
    get_origin,
)

import msgspec

from trio_rpc.services.adapters import AdapterType, adapter, define, reader
from trio_rpc.services.aliases import UNIONS, aliased, identity, is_alias, stands_for
from trio_rpc.services.annotations import Names
from trio_rpc.services.constraints import constrained, constraints_in
from trio_rpc.services.converters import (
    check_supported,
    function_of,
    instance_of,
    is_protocol,
    stream_of,
)
from trio_rpc.services.costs import (
    MADE_BY_PYDANTIC,
    OTHER,
    Read,
    class_cost,
    count_objects,
    model_cost,
    record_cost,
    union_cost,
)
from trio_rpc.services.functions import (
    CALLABLE,
    STREAMS,
    FunctionTypes,
    function_types,
    is_call_protocol,
)
from trio_rpc.services.keyed import (
    SETS,
    check_hash,
    guarded_dict,
    guarded_set,
    mapping,
    needs_guard,
)
from trio_rpc.services.lending import preparer_of_arguments
from trio_rpc.services.makers import maker_of, maker_of_dataclass
from trio_rpc.services.models import (
    config_of,
    dataclass_converter,
    is_model,
    model_converter,
    pydantic_type,
    tagged_union,
)
from trio_rpc.services.records import READ_ONLY, content_base, is_typed_dict, record_of, unpacked
from trio_rpc.services.special import (
    NEVER,
    NO_TYPES,
    check_apart,
    container,
    enumeration,
    is_plain_enum,
    literal,
    nested_tuple,
    special,
    why_no_type,
)
from trio_rpc.services.unions import field_names, names_of, union_converter

__all__ = ["QUALIFIERS", "adapt", "is_function"]

# The generics whose arguments msgspec checks.
COLLECTIONS = frozenset(
    {
        list,
        set,
        frozenset,
        tuple,
        dict,
        collections.abc.Collection,
        collections.abc.Sequence,
        collections.abc.MutableSequence,
        collections.abc.Set,
        collections.abc.MutableSet,
        collections.abc.Mapping,
        collections.abc.MutableMapping,
    }
)

QUALIFIERS = frozenset({Final, ClassVar, Required, NotRequired, *READ_ONLY})
"""Qualifiers: they say something about a name, and not about its values."""


def adapt(annotation: Any, names: Names | None = None) -> Any:
    """Return ``annotation`` with every part that msgspec would refuse replaced by an adapter.

    Args:
        annotation: the annotation.
        names: the meaning of names that remain in it as text: those of recursive aliases, and
            ``Self``.

    Raises:
        TypeError: no value that arrives could ever fit it, and the text says what to write instead;
            or a name in a class that it uses cannot be resolved.
    """
    try:
        return _Adapting(names or Names({}, {})).adapt_separately(annotation)
    except RecursionError:
        raise TypeError("it never ends, because it contains itself") from None


class _Adapting:
    """Adapts one annotation.

    Aliases and classes with fields may refer to themselves. While one of them is being adapted, an
    empty adapter stands for it. That adapter is filled in at the end.
    """

    def __init__(self, names: Names) -> None:
        self._names = names
        self._memo: dict[Any, Any] = {}
        self._used: set[Any] = set()
        self._model: Any = None
        """The configuration of the Pydantic model that the annotated field belongs to."""
        self._as_dicts = False
        """Whether only fields of inner models are converted, since the outer model makes them."""
        self._heaviest = 1
        """The units of the most expensive class that msgspec or Pydantic makes by itself."""

    def adapt_separately(self, annotation: Any) -> Any:
        """Adapt a whole annotation, or that of values which are converted separately."""
        adapted = self.adapt(annotation)
        return adapted if self._heaviest == 1 else _counted(adapted, self._heaviest)

    def note(self, cls: Any) -> None:
        """Count the cost of a class whose objects msgspec or Pydantic makes by itself."""
        self._heaviest = max(self._heaviest, model_cost(cls) if is_model(cls) else class_cost(cls))

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
        if origin in UNIONS:
            return self._union(annotation)
        if origin is Literal:
            return annotation if _is_supported(annotation) else literal(args)
        if origin is tuple and any(map(unpacked, args)):
            return nested_tuple(args, self.adapt)
        if origin in COLLECTIONS:
            return self._collection(annotation, origin)
        if origin is Unpack:  # arguments of a TypeVarTuple, which may be anything
            return Any
        if origin in STREAMS:
            return stream_of(origin, self.adapt_separately((*args, Any)[0]))
        if origin is CALLABLE or is_call_protocol(origin):
            return self._function(annotation)
        if is_alias(origin):  # the alias of a "type" statement, with its arguments
            return self._alias(identity(annotation), origin.__name__, aliased(annotation))
        if isinstance(origin, type) and origin not in NO_TYPES:
            if is_model(origin):
                return self._model_of(annotation)
            made = container(origin, args, self.adapt) or self._record(annotation)
            return instance_of(origin) if made is None else made
        raise TypeError(why_no_type(annotation))

    def _plain(self, annotation: Any) -> Any:
        """Adapt an annotation that has no arguments."""
        if annotation is inspect.Parameter.empty:
            return Any
        if annotation in (Never, NoReturn):
            return NEVER
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
            adapted = self.adapt(aliased(annotation))
            return annotation if adapted is annotation.__supertype__ else adapted
        if is_alias(annotation):
            return self._alias(annotation, annotation.__name__, aliased(annotation))
        return self._class(annotation)

    def _class(self, annotation: Any) -> Any:
        if annotation is CALLABLE or is_call_protocol(annotation):
            return self._function(annotation)
        if is_protocol(annotation) and annotation is not Protocol:
            return instance_of(annotation)
        if annotation is None or annotation is Any or isinstance(annotation, AdapterType):
            return annotation
        if not isinstance(annotation, type) or annotation in NO_TYPES:
            raise TypeError(why_no_type(annotation))
        if annotation in STREAMS:
            return annotation
        if annotation in SETS:
            return guarded_set(annotation)
        if issubclass(annotation, enum.Enum):
            return (
                annotation
                if is_plain_enum(annotation) and len(annotation) and _is_supported(annotation)
                else enumeration(annotation, self.adapt)
            )
        if is_model(annotation):
            return self._model_of(annotation)
        in_model = self._model is not None
        made = pydantic_type(annotation, self, is_in_model=in_model)
        if made is not None:
            return made
        return special(annotation, self.adapt) or self._record(annotation) or annotation

    def _type_variable(self, variable: TypeVar) -> Any:
        meaning = stands_for(variable)
        return Any if meaning is None else self.adapt(meaning)

    def _alias(self, key: Any, name: str, value: Any) -> Any:
        """Adapt the value of an alias, which may refer to the alias itself."""
        if key in self._memo:
            self._used.add(key)
            return self._memo[key]
        mine = self._memo[key] = adapter(name, _empty, OTHER)
        if isinstance(value, (str, ForwardRef)):
            value = self._names.resolve(name, value)
        adapted = self.adapt(value)
        if key not in self._used:
            del self._memo[key]
            return adapted
        if adapted is mine:
            raise TypeError(f"{name} never ends, because it is an alias of itself")
        define(mine, reader(adapted), OTHER)
        return adapted

    def _record(self, annotation: Any) -> Any:
        """Adapt a class with fields. Returns None for any other annotation."""
        cls = get_origin(annotation) or annotation
        if not is_record(cls):
            return None
        if content_base(cls) is not None:
            return instance_of(cls)
        if self._model is not None:
            made = self._in_model(annotation)
            if made is not None:
                return made
        if annotation in self._memo:
            return self._memo[annotation]
        seen: set[Any] = set()
        if self._is_natural(annotation, seen):
            for one in seen:
                self.note(get_origin(one) or one)
            return annotation
        record = record_of(annotation, self._names)
        if record is None:
            return None
        mine = self._memo[annotation] = adapter(record.cls.__name__, _empty, OTHER)
        with self._within(record.cls, None):
            fields = {one.name: self.adapt(one.annotation) for one in record.fields}
            extra = [self(dict.__class_getitem__((str, one))) for one in record.extra]
        for one in record.fields:
            if one.is_required and fields[one.name] is NEVER:
                raise TypeError(f"field {one.name!r} of {record.cls.__name__} is Never: remove it")
        define(mine, record.converter(fields, *extra), record_cost(len(fields)))
        for adapted in fields.values():
            check_supported(adapted)
        return mine

    @contextlib.contextmanager
    def _within(self, cls: type, model: Any) -> Iterator[None]:
        """Adapt the fields of a class. Their names are resolved in that class."""
        outside = self._names, self._model
        self._names = self._names.within(vars(sys.modules.get(cls.__module__, types)), cls)
        self._model = model
        try:
            yield
        finally:
            self._names, self._model = outside

    def _model_of(self, annotation: Any) -> Any:
        """Adapt a Pydantic model or a Pydantic dataclass."""
        key = "a model", annotation, self._as_dicts
        if key in self._memo:
            return self._memo[key]
        cls = get_origin(annotation) or annotation
        mine = self._memo[key] = adapter(cls.__name__, _empty, OTHER)
        make = _unchanged if self._as_dicts else maker_of(annotation)
        with self._within(cls, config_of(cls)):
            convert = model_converter(annotation, make, self, self._names)
        define(mine, convert, MADE_BY_PYDANTIC + model_cost(cls))
        return mine

    def _in_model(self, annotation: Any) -> Any:
        """Adapt a class that Pydantic itself validates in a field. Returns None for others."""
        cls: Any = get_origin(annotation) or annotation
        if not hasattr(cls, "__dataclass_fields__"):
            return None
        key = "in a model", annotation, self._as_dicts
        if key in self._memo:
            return self._memo[key]
        mine = self._memo[key] = adapter(cls.__name__, _empty, OTHER)
        make = _unchanged if self._as_dicts else maker_of_dataclass(annotation, self._model)
        if make is None:
            del self._memo[key]
            return None
        with self._within(cls, self._model):
            convert = dataclass_converter(annotation, make, self, self._names)
        define(mine, convert, record_cost(len(cls.__dataclass_fields__)))
        return mine

    def __call__(self, annotation: Any, *, as_dicts: bool | None = None) -> Any:
        """Adapt the annotation of a field, as models need it."""
        outside = self._as_dicts
        self._as_dicts = outside if as_dicts is None else as_dicts
        try:
            adapted = self.adapt(annotation)
        finally:
            self._as_dicts = outside
        check_supported(adapted)
        return adapted

    def _is_natural(self, annotation: Any, seen: set[Any]) -> bool:
        """Return whether msgspec alone can make a class with fields and all its contents."""
        origin = get_origin(annotation) or annotation
        if isinstance(origin, type) and is_record(origin):
            if content_base(origin) is not None:
                return False
            if annotation in seen:
                return True
            seen.add(annotation)
            record = record_of(annotation, self._names)
            if record is None:
                return _is_supported(annotation)
            has_more = bool(record.extra) or record.is_closed
            return (
                not has_more
                and _is_supported(annotation)
                and all(self._is_natural(one.annotation, seen) for one in record.fields)
            )
        if origin in (*UNIONS, Annotated) or origin in COLLECTIONS or origin in QUALIFIERS:
            parts = get_args(annotation)
            if origin is Annotated and constraints_in(parts[1:]):
                return False
            parts = parts[:1] if origin is Annotated else parts
            if needs_guard(origin, parts):
                return False
            whole = origin in QUALIFIERS or _is_supported(annotation)
            return whole and all(one is Ellipsis or self._is_natural(one, seen) for one in parts)
        if isinstance(annotation, (str, ForwardRef)):
            return False
        return self.adapt(annotation) is annotation

    def _annotated(self, annotation: Any) -> Any:
        """Adapt ``Annotated``. Constraints of a set or dict built here are checked here."""
        bare, *about = get_args(annotation)
        origin = get_origin(bare)
        tagged = tagged_union(bare, about, self)
        if tagged is not None:
            return tagged
        constraints = [] if self._model is not None else constraints_in(about)
        if constraints:
            others = tuple(one for one in about if not constraints_in([one]))
            inner = self.adapt(Annotated[(bare, *others)] if others else bare)
            return constrained(bare, inner, constraints)
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
        given = function_types(annotation) or FunctionTypes()
        for one in given.arguments:  # the other end will convert to it
            self(one)
        name = getattr(get_origin(annotation) or annotation, "__name__", "Callable")
        return function_of(
            name, self.adapt_separately(given.result), preparer_of_arguments(given, self._names)
        )

    def _union(self, annotation: Any) -> Any:
        functions = [one for one in get_args(annotation) if is_function(one)]
        kept = tuple(one for one in get_args(annotation) if one not in functions[1:])
        # The first member accepts any function, so it is replaced by the types that all members
        # have in common.
        as_one = {functions[0]: self._function(annotation)} if functions[1:] else {}
        members = tuple(as_one.get(one) or self.adapt(one) for one in kept)
        union: Any = Union.__getitem__(members)
        if any(member in (Any, object) for member in members):
            return Any
        check_apart(get_args(annotation))
        if _is_supported(union):
            return union
        for member in members:
            check_supported(member)
        return adapter(
            names_of(get_args(annotation)),
            union_converter(members, get_args(annotation), self._names),
            union_cost(len(members), sum(map(_has_fields, get_args(annotation)))),
        )


def _unchanged(value: Any) -> Any:
    return value


def _counted(adapted: Any, cost: int) -> Any:
    """Return the adapter of values in which any object may cost so many units."""
    read_it = reader(adapted)

    def convert(value: Any, read: Read) -> Any:
        read.spend(cost * count_objects(value))
        return read_it(value, read)

    return adapter(getattr(adapted, "__name__", str(adapted)), convert, OTHER)


def _empty(_value: Any, _read: Read) -> Any:
    raise TypeError("this type has no values, because it contains only itself")


def is_function(annotation: Any) -> bool:
    """Return whether an annotation is that of a function, or of an optional one."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return is_function(get_args(annotation)[0])
    if origin in UNIONS:
        members = set(get_args(annotation)) - {types.NoneType}
        return bool(members) and all(map(is_function, members))
    return function_types(annotation) is not None


def _has_fields(annotation: Any) -> bool:
    return field_names(get_origin(annotation) or annotation) is not None


def is_record(cls: type) -> bool:
    """Return whether msgspec itself handles the fields of this class."""
    return (
        field_names(cls) is not None
        or issubclass(cls, msgspec.Struct)
        or (issubclass(cls, tuple) and hasattr(cls, "_fields"))
        or is_typed_dict(cls)
    ) and not hasattr(cls, "__pydantic_validator__")


def _is_supported(annotation: Any) -> bool:
    try:
        check_supported(annotation)
    except (TypeError, NameError, NotImplementedError, AssertionError):  # limits of msgspec
        return False
    return True

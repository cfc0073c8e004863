"""Marking the arguments that a call lends: functions and streams, of which a reference is sent.

An object may look like a function, a stream and data at once. So the annotation of the parameter
decides, and the argument is marked accordingly before it is encoded.
"""

from __future__ import annotations

import collections
import collections.abc
import inspect
import types
from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from itertools import chain, repeat
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    TypeAlias,
    TypeVar,
    get_args,
    get_origin,
)

import msgspec
import trio

from trio_rpc.errors import EncodeError
from trio_rpc.services.aliases import UNIONS, aliased, bare, identity, stands_for
from trio_rpc.services.annotations import Names
from trio_rpc.services.functions import STREAMS, FunctionTypes, function_types
from trio_rpc.services.records import Record, is_typed_dict, record_of
from trio_rpc.wire.simpler import model_fields, model_keys, simplifier
from trio_rpc.wire.to_msgpack import AsData, InPlaceOf, has_data

__all__ = [
    "Prepare",
    "PrepareAll",
    "ReferenceArgument",
    "is_reference_type",
    "prepare_all",
    "preparer",
    "preparer_of_arguments",
    "why_never_lent",
]

SEQUENCES: Final = (
    list,
    tuple,
    collections.deque,
    collections.abc.Collection,
    collections.abc.Iterable,
    collections.abc.Sequence,
    collections.abc.MutableSequence,
)
MAPPINGS: Final = (
    dict,
    collections.OrderedDict,
    collections.defaultdict,
    collections.abc.Mapping,
    collections.abc.MutableMapping,
)
DICTS: Final = (dict, collections.OrderedDict, collections.defaultdict)
LISTS: Final = (list, tuple, collections.deque)

NO_NAMES: Final = Names({}, {})

_SENDING: Final = (trio.abc.Channel, trio.abc.SendChannel)
_ONE_WAY: Final = (
    "but a handler can only receive from an argument: write Callable[[...], Awaitable[None]] and"
    " pass the channel's send method, or mark the method with @duplex"
)


class ReferenceArgument:
    """An argument that is lent, because its annotation says so.

    Attributes:
        value: the argument.
        given: the types in the annotation of the function; None for a stream.
    """

    __slots__ = ("given", "value")

    def __init__(self, value: Any, given: FunctionTypes | None) -> None:
        self.value = value
        self.given = given


Prepare: TypeAlias = Callable[[Any], Any]
PrepareAll: TypeAlias = Callable[
    [Sequence[Any], dict[str, Any]], tuple[Sequence[Any], dict[str, Any]]
]


def is_reference_type(
    annotation: Any, within: frozenset[Any] = frozenset(), *, in_fields: bool = False
) -> bool:
    """Return whether only functions and streams fit an annotation, or containers of them.

    Args:
        annotation: the annotation.
        within: the aliases and classes around this annotation.
        in_fields: whether a class counts as a container if it has a required field for a function
            or a stream. It does unless a TypeRegistry says how its objects are sent.
    """
    meaning = stands_for(annotation) if isinstance(annotation, TypeVar) else aliased(annotation)
    key = identity(annotation)
    origin, args = get_origin(annotation), get_args(annotation)

    def holds(one: Any) -> bool:
        return is_reference_type(one, within | {key}, in_fields=in_fields)

    if meaning is not None:
        return key not in within and holds(meaning)
    if origin in UNIONS:
        return all(holds(one) for one in args if one is not types.NoneType)
    if origin is Annotated:
        return holds(args[0])
    if key in STREAMS or origin in STREAMS or function_types(annotation) is not None:
        return True
    if origin is Literal:
        return False
    if in_fields and key not in within and (parts := _required_parts(annotation)):
        return any(holds(one) for one in parts)
    return any(holds(one) for one in args)


def _required_parts(annotation: Any) -> list[Any]:
    """Return the annotations of the fields that every object of a class has."""
    cls = get_origin(annotation) or annotation
    models = model_fields(cls) if isinstance(cls, type) else None
    if models is not None:
        return [field.annotation for field in models.values() if field.is_required()]
    try:
        record = record_of(annotation, NO_NAMES)
    except (TypeError, NameError):
        return []  # only a type checker can resolve an annotation of the class
    return [field.annotation for field in record.fields if field.is_required] if record else []


def why_never_lent(annotation: Any, within: frozenset[Any] = frozenset()) -> str | None:
    """Return why an argument could never be used as annotated, and what to do; None if it could.

    Only arguments are lent. So a function cannot return functions or streams, and the items of a
    stream cannot be functions or streams. A function is called at its own end, so calls of it have
    to be awaited. A stream goes one way, to the handler.
    """
    key = identity(annotation)
    if key in within:
        return None
    within |= {key}
    annotation = bare(annotation)
    origin, args = get_origin(annotation), get_args(annotation)
    given = None if origin in UNIONS else function_types(annotation)
    if given is not None:
        if is_reference_type(given.result):
            return f"a function that returns {_ONLY_ARGUMENTS}"
        if given.is_plain:
            is_none = given.result is types.NoneType
            shown = inspect.formatannotation(None if is_none else given.result)
            return (
                f"a function that returns {shown}, but it runs at the other end, so each call of it"
                f" has to be awaited: annotate its result as Awaitable[{shown}]"
            )
        parts = given.arguments
    elif (cls := identity(origin or annotation)) in STREAMS:
        if any(map(is_reference_type, args)):
            return f"a stream of {_ONLY_ARGUMENTS}"
        if cls in _SENDING:
            return f"a {cls.__name__}, {_ONE_WAY}"
        parts = ()
    else:
        parts = () if origin is None or origin is Literal else args
    return next(filter(None, (why_never_lent(one, within) for one in parts)), None)


_ONLY_ARGUMENTS: Final = (
    "functions or streams, but only an argument of a call can be one: give that function a"
    " parameter for a callback"
)


def prepare_all(
    by_position: Sequence[Prepare | None],
    by_name: Mapping[str, Prepare | None],
    more: Prepare | None = None,
    others: Prepare | None = None,
) -> PrepareAll | None:
    """Return a function that prepares all arguments of a call; None if there is nothing to do.

    Args:
        by_position: prepare the first positional arguments.
        by_name: prepare arguments by name.
        more: prepares the positional arguments after the first ones.
        others: prepares the arguments with other names.
    """
    if not any((*by_position, *by_name.values(), more, others)):
        return None

    def prepare(
        args: Sequence[Any], kwargs: dict[str, Any]
    ) -> tuple[Sequence[Any], dict[str, Any]]:
        each = chain(by_position, repeat(more))
        try:
            return [_prepared(how, value) for value, how in zip(args, each, strict=False)], {
                name: _prepared(by_name.get(name, others), value) for name, value in kwargs.items()
            }
        except RecursionError:
            raise EncodeError("nested too deeply, or contains itself") from None

    return prepare


class _Again:
    """An alias or a class that may contain itself.

    1. Its preparer is made while ``prepare`` is None: deeper parts count as lending nothing.
       This finds out whether it lends anything at all.
    2. If it does, and contains itself, its preparer is made again, with a ``prepare`` that leads
       back to the whole.
    """

    __slots__ = ("is_met", "prepare", "whole")

    def __init__(self) -> None:
        self.is_met = False
        self.prepare: Prepare | None = None
        self.whole: Prepare | None = None

    def inside(self) -> Prepare | None:
        self.is_met = True
        return self.prepare


NOWHERE: Final[Mapping[Any, _Again]] = types.MappingProxyType({})


def preparer_of_arguments(given: FunctionTypes, names: Names) -> PrepareAll | None:
    """Return a function that prepares the arguments of a callback by its annotation."""
    names = given.names or names
    by_name = {name: preparer(one, names) for name, one in given.named.items()}
    by_position = [preparer(one, names) for one in given.positional]
    return prepare_all(
        by_position, by_name, preparer(given.more, names), preparer(given.others, names)
    )


def preparer(
    annotation: Any, names: Names = NO_NAMES, within: Mapping[Any, _Again] = NOWHERE
) -> Prepare | None:
    """Return a function that marks the lent parts of an argument; None if it lends nothing.

    Data that could be taken for a stream is marked as data. An argument that does not fit is left
    as it is: the other end will refuse it.

    Args:
        annotation: the annotation of the argument.
        names: the names that the annotations of fields may use.
        within: the aliases and classes around this annotation, which may contain themselves.
    """
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return preparer(args[0], names, within)
    if origin in UNIONS:
        return _of_union(annotation, args, names, within)
    if identity(annotation) in STREAMS or origin in STREAMS:
        return _as_stream
    given = function_types(annotation)
    if given is not None:
        return _as_function(given, names)
    if isinstance(annotation, TypeVar):
        return preparer(stands_for(annotation), names, within)
    if origin in MAPPINGS and args:
        return _of_mapping(preparer(args[-1], names, within))
    if origin in SEQUENCES and args:
        return _of_sequence(origin, args, names, within)
    key = identity(annotation)
    return within[key].inside() if key in within else _of_name(annotation, names, within)


def _of_name(annotation: Any, names: Names, within: Mapping[Any, _Again]) -> Prepare | None:
    """Return the preparer for an alias or a class, which may contain itself."""
    again = _Again()
    inside = {**within, identity(annotation): again}
    how = _of_contents(annotation, names, inside)
    if how is None or not again.is_met:
        return how
    again.prepare = lambda value: _prepared(again.whole, value)
    again.whole = _of_contents(annotation, names, inside)
    return again.whole


def _of_contents(annotation: Any, names: Names, within: Mapping[Any, _Again]) -> Prepare | None:
    meaning = aliased(annotation)
    if meaning is not None:
        return preparer(meaning, names, within)
    return (
        _of_record(annotation, names, within)
        or _of_model(annotation, names, within)
        or _of_data(annotation)
    )


def _prepared(how: Prepare | None, value: Any) -> Any:
    return value if how is None else how(value)


def _as_stream(value: Any) -> Any:
    return ReferenceArgument(value, None) if isinstance(value, AsyncIterable) else value


def _as_function(given: FunctionTypes, names: Names) -> Prepare:
    given = given._replace(names=given.names or names)
    return lambda value: ReferenceArgument(value, given) if callable(value) else value


def _of_union(
    annotation: Any, members: tuple[Any, ...], names: Names, within: Mapping[Any, _Again]
) -> Prepare | None:
    given = function_types(annotation)  # the types that all its functions share
    rest = [one for one in members if function_types(one) is None]
    data = {one: preparer(one, names, within) for one in rest if _is_class(one)}
    others = [preparer(one, names, within) for one in rest if one not in data]
    function = None if given is None else _as_function(given, names)
    hows = [one for one in (function, *others) if one is not None]
    if not any((*hows, *data.values())):
        return None

    def prepare(value: Any) -> Any:
        for cls, how in data.items():
            if isinstance(value, cls):
                return _prepared(how, value)
        marked = [one for one in (how(value) for how in hows) if one is not value]
        kinds = {one.given is None for one in marked if type(one) is ReferenceArgument}
        if not marked or len(kinds) > 1:  # it may be a function or a stream
            return value
        return marked[0]

    return prepare


def _is_class(annotation: Any) -> bool:
    """Return whether an annotation is a class of data whose instances isinstance() recognises."""
    return (
        isinstance(annotation, type)
        and annotation not in (Any, object)
        and annotation not in STREAMS
        and not getattr(annotation, "_is_protocol", False)
        and not is_typed_dict(annotation)
        and get_origin(annotation) is None
    )


def _of_mapping(item: Prepare | None) -> Prepare | None:
    if item is None:
        return None
    return lambda value: (
        {key: item(one) for key, one in value.items()} if type(value) in DICTS else value
    )


def _of_sequence(
    origin: Any, args: tuple[Any, ...], names: Names, within: Mapping[Any, _Again]
) -> Prepare | None:
    if origin is tuple and args[-1:] != (...,):
        each = [preparer(arg, names, within) for arg in args]
    else:
        each = [preparer(args[0], names, within)]
    if not any(each):
        return None

    def prepare(value: Any) -> Any:
        if type(value) not in LISTS:
            return value
        several = each * len(value) if len(each) == 1 else each
        if len(several) < len(value):
            return value  # it does not fit
        return type(value)(_prepared(how, one) for one, how in zip(value, several, strict=False))

    return prepare


def _of_data(annotation: Any) -> Prepare | None:
    """Return the preparer that marks objects as data, if their class looks like a stream."""
    cls = get_origin(annotation) or annotation
    if not isinstance(cls, type) or not hasattr(cls, "__aiter__"):
        return None
    if issubclass(cls, trio.abc.AsyncResource) or not has_data(cls):
        return None
    return lambda value: AsData(value) if isinstance(value, cls) else value


def _of_record(annotation: Any, names: Names, within: Mapping[Any, _Again]) -> Prepare | None:
    """Return the preparer of an object with fields, if it lends some or looks like a stream."""
    try:
        record = record_of(annotation, names)
    except TypeError:
        return None  # only a type checker can resolve the annotation
    if record is None or issubclass(record.cls, trio.abc.AsyncResource):
        return None
    hows = {one.name: preparer(one.annotation, names, within) for one in record.fields}
    extra = next((preparer(one, names, within) for one in record.extra), None)
    if not hasattr(record.cls, "__aiter__") and not any((*hows.values(), extra)):
        return None
    if is_typed_dict(record.cls):
        return lambda value: (
            {key: _prepared(hows.get(key, extra), one) for key, one in value.items()}
            if type(value) is dict
            else value
        )
    return _of_instances(record, hows, _of_data(annotation), names)


def _of_instances(
    record: Record, hows: Mapping[str, Prepare | None], as_data: Prepare | None, names: Names
) -> Prepare:
    """Return the preparer of instances of a class with fields, and of its subclasses."""
    records: dict[type, Record | None] = {record.cls: record}

    def prepare(value: Any) -> Any:
        cls = type(value)
        if cls not in records:
            if not isinstance(value, record.cls):
                return _prepared(as_data, value)
            records[cls] = _record_or_none(cls, names)
        found = records[cls]
        if found is None:
            return _prepared(as_data, value)
        return InPlaceOf(value, _taken_apart(found, hows, value))

    return prepare


def _record_or_none(cls: type, names: Names) -> Record | None:
    try:
        return record_of(cls, names)
    except TypeError:
        return None  # only a type checker can resolve an annotation of the subclass


def _taken_apart(record: Record, hows: Mapping[str, Prepare | None], value: Any) -> Any:
    each = [(one, _prepared(hows.get(one.name), getattr(value, one.name))) for one in record.fields]
    config: Any = getattr(record.cls, "__struct_config__", None)
    tag = None if config is None else config.tag  # it tells the members of a union apart
    if record.is_array:
        return [*(() if tag is None else (tag,)), *(item for _, item in each)]
    tags = {} if tag is None else {config.tag_field: tag}
    return tags | {one.key: item for one, item in each if item is not msgspec.UNSET}


def _of_model(annotation: Any, names: Names, within: Mapping[Any, _Again]) -> Prepare | None:
    """Return the preparer of a Pydantic model, if it lends some of its fields."""
    cls = get_origin(annotation) or annotation
    fields = model_fields(cls) if isinstance(cls, type) else None
    hows = {
        name: how
        for name, field in (fields or {}).items()
        if (how := preparer(field.annotation, names, within)) is not None
    }
    if not hows:
        return None
    return lambda value: (
        InPlaceOf(value, _model_taken_apart(hows, value)) if isinstance(value, cls) else value
    )


def _model_taken_apart(hows: Mapping[str, Prepare], value: Any) -> Any:
    cls = type(value)
    simplify, keys = simplifier(cls), model_keys(cls)
    if simplify is None or keys is None:
        return value
    simpler = simplify(value)
    if getattr(cls, "__pydantic_root_model__", False):
        return hows["root"](simpler)
    prepared = {keys[name]: how(getattr(value, name)) for name, how in hows.items() if name in keys}
    return simpler | prepared

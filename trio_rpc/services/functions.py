"""What an annotation says of a function, or of anything else that stays where it is and is lent.

The callee's annotation of a parameter tells how the results of a callback are converted there. The same
annotation, in the interface that the caller has, tells how its arguments are converted where the callback
itself says nothing, and whether an argument is a function, a stream or data, where its looks allow several.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import inspect
import types
from collections.abc import AsyncIterable, Callable, Mapping
from inspect import Parameter
from typing import (
    Annotated,
    Any,
    Concatenate,
    Final,
    NamedTuple,
    TypeAlias,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import trio

__all__ = [
    "STREAMS",
    "Prepare",
    "Said",
    "Wanted",
    "awaited",
    "is_call_protocol",
    "preparer",
    "said_of",
    "written_in",
]

CALLABLE: Any = collections.abc.Callable
AWAITABLES: Final = (collections.abc.Awaitable, collections.abc.Coroutine, types.CoroutineType)
UNIONS: Final = (Union, types.UnionType)
SEQUENCES: Final = (
    list,
    tuple,
    collections.abc.Collection,
    collections.abc.Iterable,
    collections.abc.Sequence,
    collections.abc.MutableSequence,
)
MAPPINGS: Final = (dict, collections.abc.Mapping, collections.abc.MutableMapping)

STREAMS: Final = frozenset(
    {
        collections.abc.AsyncIterable,
        collections.abc.AsyncIterator,
        collections.abc.AsyncGenerator,
        trio.abc.ReceiveChannel,
        trio.abc.Channel,
    }
)
"""What a stream may be annotated as, with the type of its items."""

MAX_WRAPPERS: Final = 100
"""So many wrappers round one function are looked through; it may be a circle."""


class Said(NamedTuple):
    """What the annotation of a function says of it; ``Any`` where it says nothing."""

    positional: tuple[Any, ...] = ()
    """Annotations of its first arguments by position."""
    named: Mapping[str, Any] = types.MappingProxyType({})
    """Annotations of arguments by name."""
    result: Any = Any
    """What it returns, once that has been awaited."""


class Wanted:
    """An argument of which an interface says that it is lent, and as what.

    Attributes:
        value: the argument.
        said: what the interface says of a function; None for a stream.
    """

    __slots__ = ("said", "value")

    def __init__(self, value: Any, said: Said | None) -> None:
        self.value = value
        self.said = said


Prepare: TypeAlias = Callable[[Any], Any]


def said_of(annotation: Any) -> Said | None:
    """Take the annotation of a function apart, or of one among other things; None for anything else.

    A union of several functions says of arguments only what all of them say, and of results that one
    of theirs comes.
    """
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return said_of(args[0])
    if origin in UNIONS:
        return _said_of_several([said for said in map(said_of, args) if said is not None])
    if isinstance(annotation, TypeVar):
        return said_of(annotation.__bound__)
    if hasattr(annotation, "__value__"):  # a "type" statement's alias
        return said_of(annotation.__value__)
    if annotation is CALLABLE:
        return Said()
    if origin is CALLABLE:
        return Said(_positional(*args[:-1]), result=awaited(args[-1]))
    if is_call_protocol(origin or annotation):
        return _said_of_protocol(origin or annotation, args)
    return None


def is_call_protocol(wanted: Any) -> bool:
    """Say whether a class is a Protocol that describes a function."""
    return (
        isinstance(wanted, type)
        and getattr(wanted, "_is_protocol", False)
        and any("__call__" in vars(base) for base in wanted.__mro__[:-1])
    )


def awaited(annotation: Any) -> Any:
    """Return what a result is once it has been awaited, if it is awaitable."""
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation in AWAITABLES:
        return Any
    if origin in AWAITABLES:
        return args[-1]
    if origin in UNIONS:
        return Union.__getitem__(tuple(map(awaited, args)))
    return annotation


def written_in(function: Any) -> Any:
    """Return where a callable's annotations are written: a function, inside of whatever wraps it.

    Raises TypeError when wrappers go in a circle.
    """
    for _ in range(MAX_WRAPPERS):
        inner = _inside(function)
        if inner is function:
            return function
        function = inner
    raise TypeError("its wrappers wrap each other")


def _inside(function: Any) -> Any:
    if isinstance(function, (functools.partial, functools.partialmethod)):
        return function.func
    if inspect.ismethod(function):
        return function.__func__
    if inspect.isfunction(function) or inspect.isbuiltin(function):
        return getattr(function, "__wrapped__", function)
    if isinstance(function, type):
        init = inspect.getattr_static(function, "__init__")
        return init if inspect.isfunction(init) else function
    if hasattr(function, "__wrapped__"):
        return function.__wrapped__
    call = getattr(type(function), "__call__", None)  # noqa: B004 - how Python calls it
    return call if inspect.isfunction(call) else function


def _said_of_several(several: list[Said]) -> Said | None:
    if len(several) < 2:
        return several[0] if several else None
    first = several[0]
    result = Union.__getitem__(tuple(said.result for said in several))
    if all((said.positional, said.named) == (first.positional, first.named) for said in several):
        return first._replace(result=result)
    return Said(result=result)


def _positional(parameters: Any = ..., *_: Any) -> tuple[Any, ...]:
    if isinstance(parameters, list):
        return tuple(parameters)
    if get_origin(parameters) is Concatenate:
        return get_args(parameters)[:-1]
    return ()  # "..." or a ParamSpec


def _said_of_protocol(protocol: Any, args: tuple[Any, ...]) -> Said:
    function = protocol.__call__
    try:
        hints = get_type_hints(function, include_extras=True)
        parameters = list(inspect.signature(function).parameters.values())[1:]
    except (NameError, TypeError, ValueError):
        return Said()  # an annotation that only a checker can read
    known = dict(zip(getattr(protocol, "__parameters__", ()), args, strict=False))
    said = {name: _filled(hint, known) for name, hint in hints.items()}
    by_position = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    by_name = (Parameter.KEYWORD_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    return Said(
        tuple(said.get(one.name, Any) for one in parameters if one.kind in by_position),
        {
            one.name: said[one.name]
            for one in parameters
            if one.kind in by_name and one.name in said
        },
        awaited(said.get("return", Any)),
    )


def _filled(annotation: Any, known: Mapping[Any, Any]) -> Any:
    """Put what a generic Protocol was given in the place of its type variables."""
    if isinstance(annotation, TypeVar):
        return known.get(annotation, annotation)
    variables = getattr(annotation, "__parameters__", ())
    if not variables or isinstance(annotation, type):
        return annotation
    return annotation[tuple(known.get(one, one) for one in variables)]


# ── what an interface says of arguments ──────────────────────────────────────────────────────────


def preparer(annotation: Any, within: frozenset[Any] = frozenset()) -> Prepare | None:
    """Return a function that marks what an argument of that annotation lends; None where nothing is lent.

    What does not fit is left as it is: the other end says so.

    Args:
        annotation: of the argument.
        within: aliases and classes that this annotation is inside of, since they may hold themselves. What
            they lend at a deeper level is recognised by its looks.
    """
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return preparer(args[0], within)
    if origin in UNIONS:
        return _preparer_of_union(args, within)
    if annotation in STREAMS or origin in STREAMS:
        return lambda value: Wanted(value, None) if isinstance(value, AsyncIterable) else value
    said = said_of(annotation)
    if said is not None:
        return lambda value: Wanted(value, said) if callable(value) else value
    if origin in MAPPINGS:
        return _preparer_of_mapping(preparer(args[-1], within))
    if origin in SEQUENCES:
        return _preparer_of_sequence(origin, args, within)
    if annotation in within:
        return None
    if hasattr(annotation, "__value__"):
        return preparer(annotation.__value__, within | {annotation})
    return _preparer_of_record(annotation, within | {annotation})


def _preparer_of_union(members: tuple[Any, ...], within: frozenset[Any]) -> Prepare | None:
    by_member = {member: preparer(member, within) for member in members}
    prepares = [one for one in by_member.values() if one is not None]
    if not prepares:
        return None
    data = tuple(one for one in members if _is_data(one))

    def prepare(value: Any) -> Any:
        if isinstance(value, data) and not any(by_member[one] for one in data):
            return value
        for one in prepares:
            prepared = one(value)
            if prepared is not value:
                return prepared
        return value

    return prepare


def _is_data(annotation: Any) -> bool:
    return (
        isinstance(annotation, type) and annotation not in STREAMS and said_of(annotation) is None
    )


def _preparer_of_mapping(item: Prepare | None) -> Prepare | None:
    if item is None:
        return None
    return lambda value: (
        {key: item(one) for key, one in value.items()} if type(value) is dict else value
    )


def _preparer_of_sequence(
    origin: Any, args: tuple[Any, ...], within: frozenset[Any]
) -> Prepare | None:
    if origin is tuple and args[-1:] != (...,):
        each = [preparer(arg, within) for arg in args]
    else:
        each = [preparer(args[0], within)]
    if not any(each):
        return None

    def prepare(value: Any) -> Any:
        if type(value) not in (list, tuple):
            return value
        several = each * len(value) if len(each) == 1 else each
        if len(several) < len(value):
            return value  # it does not fit
        return type(value)(
            one if how is None else how(one) for one, how in zip(value, several, strict=False)
        )

    return prepare


def _preparer_of_record(cls: Any, within: frozenset[Any]) -> Prepare | None:
    """Return what takes an object of fields apart that lends some of them, or that looks like a stream."""
    if not isinstance(cls, type):
        return None
    if dataclasses.is_dataclass(cls):
        names = [field.name for field in dataclasses.fields(cls)]
    elif hasattr(cls, "__attrs_attrs__"):
        names = [field.name for field in cls.__attrs_attrs__]
    else:
        return None
    try:
        hints = get_type_hints(cls, include_extras=True)
    except (NameError, TypeError):
        hints = {}  # one that only a checker can read
    fields = {name: preparer(hints.get(name, Any), within) for name in names}
    if not hasattr(cls, "__aiter__") and not any(fields.values()):
        return None

    def prepare(value: Any) -> Any:
        if type(value) is not cls:
            return value
        each = ((name, how, getattr(value, name)) for name, how in fields.items())
        return {name: one if how is None else how(one) for name, how, one in each}

    return prepare

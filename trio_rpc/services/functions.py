"""Reading the annotations of functions: what they say about arguments and results.

Both ends use the annotation of a parameter that takes a callback. The callee converts the
callback's results to it. The caller finds it in its interface, and converts the callback's
arguments to it where the callback itself has no annotation.
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import types
from collections.abc import Mapping
from inspect import Parameter
from typing import (
    Annotated,
    Any,
    Concatenate,
    Final,
    Literal,
    NamedTuple,
    TypeVar,
    TypeVarTuple,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import trio

__all__ = [
    "CHANNELS",
    "ITERABLES",
    "STREAMS",
    "UNIONS",
    "Said",
    "aliased",
    "awaited",
    "bare",
    "identity",
    "is_call_protocol",
    "said_of",
    "substitute",
    "type_arguments",
    "written_in",
]

CALLABLE: Any = collections.abc.Callable
AWAITABLES: Final = (collections.abc.Awaitable, collections.abc.Coroutine, types.CoroutineType)
UNIONS: Final = (Union, types.UnionType)
STREAMS: Final = frozenset(
    {
        collections.abc.AsyncIterable,
        collections.abc.AsyncIterator,
        collections.abc.AsyncGenerator,
        trio.abc.ReceiveChannel,
        trio.MemoryReceiveChannel,
        trio.abc.Channel,
        trio.abc.SendChannel,
    }
)
"""The classes that a stream may be annotated with, as in ``AsyncIterator[int]``."""

ITERABLES: Final = STREAMS - {trio.abc.SendChannel}
"""The streams whose items are received."""

CHANNELS: Final = frozenset(cls for cls in STREAMS if issubclass(trio.abc.Channel, cls))
"""The classes that the channel of a duplex may be annotated with: that of a channel, and bases."""

MAX_WRAPPERS: Final = 100
"""The number of nested wrappers, or aliases, that are unwrapped: they may form a circle."""


class Said(NamedTuple):
    """What the annotation of a function says about it; ``Any`` where it says nothing."""

    positional: tuple[Any, ...] = ()
    """The annotations of its first positional arguments."""
    named: Mapping[str, Any] = types.MappingProxyType({})
    """The annotations of arguments by name."""
    result: Any = Any
    """The annotation of its result, after awaiting."""
    names: Any = None
    """The names that its annotations may use as text, such as those of recursive aliases."""
    is_plain: bool = False
    """Whether a call of it returns a value that cannot be awaited, according to its annotation."""


def said_of(annotation: Any) -> Said | None:
    """Take apart the annotation of a function, or of a union that contains functions.

    Returns None for anything else. A union of several functions says about arguments only what all
    of them say. Its result is the union of their results.
    """
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return said_of(args[0])
    if origin in UNIONS:
        return _said_of_several([said for said in map(said_of, args) if said is not None])
    if isinstance(annotation, TypeVar):
        return said_of(annotation.__bound__)
    stands_for = aliased(annotation)
    if stands_for is not None:
        return said_of(stands_for)
    if annotation is CALLABLE or (origin is CALLABLE and not args):
        return Said()
    if origin is CALLABLE:
        return Said(_positional(*args[:-1]), result=awaited(args[-1]), is_plain=_is_plain(args[-1]))
    if is_call_protocol(origin or annotation):
        return _said_of_protocol(origin or annotation, args)
    return None


def aliased(annotation: Any) -> Any:
    """Return the meaning of a NewType or of the alias of a ``type`` statement; None for others.

    The arguments of an alias replace its type variables.
    """
    origin = get_origin(annotation)
    if hasattr(origin, "__type_params__") and hasattr(origin, "__value__"):
        known = _known(origin.__type_params__, get_args(annotation))
        return substitute(origin.__value__, known)
    return getattr(annotation, "__value__", None) or getattr(annotation, "__supertype__", None)


def identity(annotation: Any) -> Any:
    """Return a hashable key for an annotation, which may have a list among its arguments."""
    try:
        hash(annotation)
    except TypeError:
        return repr(annotation)
    return annotation


def bare(annotation: Any) -> Any:
    """Return an annotation without aliases and without the additions of ``Annotated``."""
    for _ in range(MAX_WRAPPERS):
        inner = (
            get_args(annotation)[0] if get_origin(annotation) is Annotated else aliased(annotation)
        )
        if inner is None:
            return annotation
        annotation = inner
    raise TypeError(f"{annotation} is an alias of itself")


def is_call_protocol(wanted: Any) -> bool:
    """Return whether a class is a Protocol that describes a function."""
    return (
        isinstance(wanted, type)
        and getattr(wanted, "_is_protocol", False)
        and any("__call__" in vars(base) for base in wanted.__mro__[:-1])
    )


def awaited(annotation: Any) -> Any:
    """Return the annotation of a result after awaiting it, if it is awaitable."""
    inside = bare(annotation)
    if inside in AWAITABLES or get_origin(inside) in AWAITABLES:
        annotation = inside
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation in AWAITABLES or origin in AWAITABLES:
        return (Any, *args)[-1]
    if origin in UNIONS:
        return Union.__getitem__(tuple(map(awaited, args)))
    return annotation


def _is_plain(annotation: Any) -> bool:
    """Return whether no value of an annotation can be awaited, as far as can be known."""
    inside = bare(annotation)
    origin = get_origin(inside) or inside
    if origin in UNIONS:
        return all(map(_is_plain, get_args(inside)))
    if origin is None or origin is Literal:
        return True
    return (
        isinstance(origin, type)
        and origin not in (Any, object)
        and not hasattr(origin, "__await__")
    )


def written_in(function: Any) -> Any:
    """Return the innermost function of a callable, which has the annotations.

    Raises TypeError if wrappers form a circle.
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
        return Said()  # only a type checker can resolve these annotations
    known = _known(getattr(protocol, "__parameters__", ()), args)
    said = {name: substitute(hint, known) for name, hint in hints.items()}
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
        is_plain=not inspect.iscoroutinefunction(function) and _is_plain(said.get("return", Any)),
    )


def substitute(annotation: Any, arguments: Mapping[Any, Any]) -> Any:
    """Replace type variables with their arguments, which are a tuple for a TypeVarTuple."""
    if not arguments:
        return annotation
    if isinstance(annotation, TypeVar):
        return arguments.get(annotation, annotation)
    parameters = getattr(annotation, "__parameters__", ())
    if isinstance(annotation, type) or not parameters:
        return annotation
    filled: list[Any] = []
    for one in parameters:
        several = isinstance(one, TypeVarTuple) and one in arguments
        filled += arguments[one] if several else [arguments.get(one, one)]
    return annotation[tuple(filled)]


def type_arguments(annotation: Any) -> dict[Any, dict[Any, Any]]:
    """Map the class that ``annotation`` names, and each of its bases, to its type arguments."""
    cls = get_origin(annotation) or annotation
    own = dict(zip(getattr(cls, "__parameters__", ()), get_args(annotation), strict=False))
    found = {cls: own}
    for base in vars(cls).get("__orig_bases__", cls.__bases__) if isinstance(cls, type) else ():
        if isinstance(get_origin(base) or base, type):
            for one, mapping in type_arguments(base).items():
                found[one] = {key: substitute(value, own) for key, value in mapping.items()}
    return found


def _known(variables: tuple[Any, ...], arguments: tuple[Any, ...]) -> dict[Any, Any]:
    """Map type variables to their arguments. A TypeVarTuple gets those that the others leave."""
    known: dict[Any, Any] = {}
    rest = list(arguments)
    for index, one in enumerate(variables):
        if isinstance(one, TypeVarTuple):
            count = max(len(rest) - (len(variables) - index - 1), 0)
            known[one], rest = tuple(rest[:count]), rest[count:]
        elif rest:
            known[one] = rest.pop(0)
    return known

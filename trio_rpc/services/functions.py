"""Reading the annotations of functions: the types of their arguments and results.

Both ends use the annotation of a parameter that takes a callback. The callee converts the
callback's results to it. The caller finds it in its interface, and converts the callback's
arguments to it where the callback itself has no annotation.
"""

from __future__ import annotations

import collections.abc
import inspect
import types
from collections.abc import Mapping, Sequence
from inspect import Parameter
from typing import (
    Any,
    Concatenate,
    Final,
    Literal,
    NamedTuple,
    ParamSpecArgs,
    ParamSpecKwargs,
    TypeVar,
    TypeVarTuple,
    Union,
    Unpack,
    get_args,
    get_origin,
)

import trio

from trio_rpc.services.aliases import UNIONS, bare, stands_for, substitute, type_arguments
from trio_rpc.services.annotations import Annotations, is_unresolved
from trio_rpc.services.item_stream import ItemStream
from trio_rpc.services.records import record_of, unpacked
from trio_rpc.util.coroutines import is_coroutine_function

__all__ = [
    "CHANNELS",
    "ITERABLES",
    "STREAMS",
    "FunctionTypes",
    "awaited",
    "collected_types",
    "function_types",
    "is_call_protocol",
    "is_vaguer",
]

CALLABLE: Any = collections.abc.Callable
AWAITABLES: Final = (collections.abc.Awaitable, collections.abc.Coroutine, types.CoroutineType)
STREAMS: Final = frozenset(
    {
        collections.abc.AsyncIterable,
        collections.abc.AsyncIterator,
        collections.abc.AsyncGenerator,
        ItemStream,
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

_VARIABLES: Final = (TypeVar, ParamSpecArgs, ParamSpecKwargs)


class FunctionTypes(NamedTuple):
    """The types in the annotation of a function; ``Any`` where it names none."""

    positional: tuple[Any, ...] = ()
    """The annotations of its first positional arguments."""
    named: Mapping[str, Any] = types.MappingProxyType({})
    """The annotations of arguments by name."""
    result: Any = Any
    """The annotation of its result, after awaiting."""
    more: Any = Any
    """The annotation of the positional arguments after the first ones."""
    others: Any = Any
    """The annotation of arguments with other names."""
    names: Any = None
    """The names that its annotations may use as text, such as those of recursive aliases."""
    is_plain: bool = False
    """Whether a call of it returns a value that cannot be awaited, according to its annotation."""

    @property
    def arguments(self) -> tuple[Any, ...]:
        """The annotations of all its arguments."""
        return (*self.positional, *self.named.values(), self.more, self.others)


def function_types(annotation: Any) -> FunctionTypes | None:
    """Return the types in the annotation of a function, or of a union that contains functions.

    Returns None for anything else. The types of arguments of a union of functions are used only if
    all functions agree. Its result is the union of their results.
    """
    annotation = bare(annotation)
    if isinstance(annotation, TypeVar):
        return function_types(stands_for(annotation))
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in UNIONS:
        return _types_of_several([one for one in map(function_types, args) if one is not None])
    if annotation is CALLABLE or (origin is CALLABLE and not args):
        return FunctionTypes()
    if origin is CALLABLE:
        positional, more = _positional(*args[:-1])
        return FunctionTypes(
            positional, result=awaited(args[-1]), more=more, is_plain=_is_plain(args[-1])
        )
    if is_call_protocol(origin or annotation):
        return _types_of_protocol(annotation)
    return None


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


def is_vaguer(own: Any, wanted: Any) -> bool:
    """Return whether an annotation says less than another about the same value."""
    if wanted is Any or wanted is object:
        return False
    own, wanted = bare(own), bare(wanted)
    has_variables = bool(getattr(own, "__parameters__", ())) and not isinstance(own, type)
    if own is Any or isinstance(own, _VARIABLES) or has_variables:
        return True
    cls, other = get_origin(own) or own, get_origin(wanted) or wanted
    are_alike = any(cls in several and other in several for several in (UNIONS, STREAMS))
    if cls is not other and not are_alike and not _is_base(cls, other):
        return False
    mine, others = get_args(own), get_args(wanted)
    return any(map(is_vaguer, mine, others)) if mine else bool(others) or cls is not other


def _is_base(cls: Any, other: Any) -> bool:
    """Return whether a class is a base of another, or a Protocol that describes its instances."""
    if not isinstance(cls, type) or not isinstance(other, type):
        return False
    if getattr(cls, "_is_protocol", False):
        return not is_call_protocol(cls)
    try:
        return issubclass(other, cls)
    except TypeError:
        return False  # issubclass() does not accept it


def _types_of_several(several: list[FunctionTypes]) -> FunctionTypes | None:
    if len(several) < 2:
        return several[0] if several else None
    result = Union.__getitem__(tuple(one.result for one in several))
    first = several[0]._replace(result=result)
    if all(
        given._replace(result=result, names=first.names, is_plain=first.is_plain) == first
        for given in several
    ):
        return first
    return FunctionTypes(result=result)


def _positional(parameters: Any = ..., *_: Any) -> tuple[tuple[Any, ...], Any]:
    """Return the annotations of the first positional arguments, and that of all others."""
    if isinstance(parameters, (list, tuple)):
        return _spread(parameters)
    if get_origin(parameters) is Concatenate:
        return get_args(parameters)[:-1], Any
    return (), Any  # "..." or a ParamSpec


def _spread(annotations: Sequence[Any]) -> tuple[tuple[Any, ...], Any]:
    """Replace each unpacked tuple by its contents; see :func:`_positional`."""
    first: list[Any] = []
    for index, one in enumerate(annotations, 1):
        inside = unpacked(one)
        if inside is not None and inside[1:] == (...,):
            return tuple(first), inside[0] if index == len(annotations) else Any
        first += [one] if inside is None else _spread(inside)[0]
    return tuple(first), Any


def collected_types(annotation: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]] | None:
    """Return the types of the arguments that ``*args: *tuple[...]`` collects.

    The first tuple has the type of each of the first arguments. The second one has the type of all
    further arguments, and is empty if the number of arguments is fixed. Returns None if more
    arguments follow those whose number is open.
    """
    if get_origin(annotation) is not tuple:
        return (), (Any,)  # a TypeVarTuple without arguments, or a bare tuple
    args = get_args(annotation)
    if args[1:] == (...,):
        return (), args[:1]
    first: list[Any] = []
    for index, one in enumerate(args, 1):
        inside = unpacked(one)
        if inside is not None and inside[1:] == (...,):
            return (tuple(first), inside[:1]) if index == len(args) else None
        first += [one] if inside is None else inside
    return tuple(first), ()


def _types_of_protocol(annotation: Any) -> FunctionTypes:
    protocol = get_origin(annotation) or annotation
    definer = next(base for base in protocol.__mro__ if "__call__" in vars(base))
    function = vars(definer)["__call__"]
    try:
        parameters = list(inspect.signature(function).parameters.values())[1:]
    except (TypeError, ValueError):
        return FunctionTypes()  # it is not a function
    return _Protocol(function, definer, type_arguments(annotation).get(definer, {})).read(
        parameters
    )


class _Protocol:
    """The ``__call__`` of a Protocol, with the type arguments of the Protocol."""

    def __init__(self, function: Any, definer: type, arguments: Mapping[Any, Any]) -> None:
        self._annotations = Annotations(function, None, definer)
        self._arguments = arguments
        self._is_coroutine = is_coroutine_function(function)

    def read(self, parameters: Sequence[Parameter]) -> FunctionTypes:
        """Return the types of its arguments and its result."""
        positional: list[Any] = []
        named: dict[str, Any] = {}
        more = others = Any
        for one in parameters:
            given = self._annotation(one.name)
            if one.kind is Parameter.VAR_POSITIONAL:
                rest, more = self._rest(given)
                positional += rest
            elif one.kind is Parameter.VAR_KEYWORD:
                fields = self._fields(given, one.name)
                named |= fields or {}
                others = given if fields is None else Any
            elif one.kind is Parameter.KEYWORD_ONLY:
                named[one.name] = given
            else:
                positional.append(given)
                if one.kind is Parameter.POSITIONAL_OR_KEYWORD:
                    named[one.name] = given
        names = self._annotations.names("return")
        result = self._annotation("return")
        is_plain = not self._is_coroutine and _is_plain(result)
        return FunctionTypes(
            tuple(positional), named, awaited(result), more, others, names, is_plain
        )

    def _annotation(self, name: str) -> Any:
        try:
            return substitute(self._annotations.get(name), self._arguments)
        except TypeError as exc:
            if not is_unresolved(exc):
                raise
            return Any  # only a type checker can resolve it

    def _rest(self, given: Any) -> tuple[tuple[Any, ...], Any]:
        """Return the types of the arguments of ``*args``, as :func:`_positional` does."""
        if isinstance(given, ParamSpecArgs):
            return _positional(self._arguments.get(given.__origin__, ...))
        inside = get_args(given)[0] if get_origin(given) is Unpack else None
        if isinstance(inside, TypeVarTuple):
            return _spread(self._arguments.get(inside, (given,)))
        return ((), given) if unpacked(given) is None else _spread((given,))

    def _fields(self, given: Any, name: str) -> dict[str, Any] | None:
        """Return the annotations of ``**kwargs: Unpack[...]``; None for any other annotation."""
        if isinstance(given, ParamSpecKwargs):
            return {}
        if get_origin(given) is not Unpack:
            return None
        record = record_of(get_args(given)[0], self._annotations.names(name))
        return {} if record is None else {one.name: one.annotation for one in record.fields}

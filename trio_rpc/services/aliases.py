"""Aliases and type variables: their meaning, in the module that defines them."""

from __future__ import annotations

import builtins
import functools
import inspect
import sys
import types
from collections import ChainMap
from collections.abc import Mapping
from typing import (
    Annotated,
    Any,
    Final,
    ForwardRef,
    Literal,
    Never,
    NoReturn,
    TypeVar,
    TypeVarTuple,
    Union,
    Unpack,
    get_args,
    get_origin,
    get_type_hints,
)

__all__ = [
    "UNIONS",
    "aliased",
    "bare",
    "bound_to",
    "class_made",
    "class_of",
    "evaluate_aliases",
    "identity",
    "is_alias",
    "is_never",
    "paired",
    "stands_for",
    "substitute",
    "type_arguments",
    "written_in",
]

UNIONS: Final = (Union, types.UnionType)
MAX_WRAPPERS: Final = 100
"""The number of nested wrappers, or aliases, that are unwrapped: they may form a circle."""


def is_alias(annotation: Any) -> bool:
    """Return whether an annotation is the alias of a ``type`` statement, without arguments.

    Its value is not asked for: that evaluates it, and may raise NameError.
    """
    has_value = hasattr(type(annotation), "__value__") or "__value__" in getattr(
        annotation, "__dict__", ()
    )
    return has_value and hasattr(annotation, "__type_params__")


def evaluate_aliases(annotation: Any, seen: set[Any] | None = None) -> None:
    """Evaluate the values of all aliases in an annotation.

    Raises NameError, or another exception of such a value, for a name that only a type checker
    knows.
    """
    seen = set() if seen is None else seen
    origin = get_origin(annotation)
    if origin is Literal:
        return
    alias = origin if is_alias(origin) else annotation
    if is_alias(alias) and alias not in seen:
        seen.add(alias)
        evaluate_aliases(alias.__value__, seen)
    for one in annotation if isinstance(annotation, list) else get_args(annotation):
        evaluate_aliases(one, seen)


def aliased(annotation: Any) -> Any:
    """Return the meaning of a NewType or of the alias of a ``type`` statement; None for others.

    The arguments of an alias replace its type variables.
    """
    origin = get_origin(annotation)
    if is_alias(origin):
        value = _resolved(origin, origin.__value__)
        return substitute(value, paired(origin.__type_params__, get_args(annotation)))
    value = getattr(annotation, "__value__", None) or getattr(annotation, "__supertype__", None)
    return None if value is None else _resolved(annotation, value)


def is_never(annotation: Any) -> bool:
    """Return whether no value at all fits an annotation."""
    return bare(annotation) in (Never, NoReturn)


def stands_for(variable: TypeVar) -> Any:
    """Return the type that replaces a type variable without an argument; None if any type fits.

    It is its default, the union of its constraints, or its bound.
    """
    if getattr(variable, "has_default", bool)():
        return _resolved(variable, variable.__default__)  # type: ignore[attr-defined]
    if variable.__constraints__:
        return _resolved(variable, Union.__getitem__(variable.__constraints__))
    return None if variable.__bound__ is None else _resolved(variable, variable.__bound__)


class _Scope(ChainMap[str, Any]):
    """The names of a module. An unknown one is left as text, for another scope to resolve."""

    def __missing__(self, name: str) -> ForwardRef:
        return ForwardRef(name)


def _resolved(definer: Any, value: Any) -> Any:
    """Resolve the text in a value in the module of the alias or type variable that has it."""
    if not _has_text(value):
        return value
    own = {one.__name__: one for one in getattr(definer, "__type_params__", ())}
    module = vars(sys.modules.get(definer.__module__, types))
    scope = _Scope({definer.__name__: definer, **own}, module, vars(builtins))
    holder = types.SimpleNamespace(__annotations__={"value": value})
    try:
        return get_type_hints(holder, {}, scope, include_extras=True)["value"]
    except (NameError, TypeError, AttributeError, SyntaxError):
        return value  # adapting it will report the error


def _has_text(value: Any) -> bool:
    if isinstance(value, list):  # the arguments of a function
        return any(map(_has_text, value))
    if get_origin(value) is Literal:
        return False
    return isinstance(value, (str, ForwardRef)) or any(map(_has_text, get_args(value)))


def identity(annotation: Any) -> Any:
    """Return a hashable key for an annotation, which may have a list among its arguments."""
    try:
        hash(annotation)
    except TypeError:
        return repr(annotation)
    return annotation


def bare(annotation: Any) -> Any:
    """Return an annotation without aliases and without the additions of ``Annotated``.

    An alias of itself is returned as it is.
    """
    for _ in range(MAX_WRAPPERS):
        inner = (
            get_args(annotation)[0] if get_origin(annotation) is Annotated else aliased(annotation)
        )
        if inner is None:
            return annotation
        annotation = inner
    return annotation


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


def bound_to(function: Any) -> Any:
    """Return the object of the method in a callable, or the innermost callable without one."""
    for _ in range(MAX_WRAPPERS):
        if hasattr(function, "__self__"):
            return function.__self__
        is_partial = isinstance(function, functools.partial)
        inner = function.func if is_partial else getattr(function, "__wrapped__", None)
        if inner is None:
            return function
        function = inner
    return function


def substitute(annotation: Any, arguments: Mapping[Any, Any]) -> Any:
    """Replace type variables with their arguments, which are a tuple for a TypeVarTuple."""
    if not arguments:
        return annotation
    if isinstance(annotation, TypeVar):
        return arguments.get(annotation, annotation)
    if get_origin(annotation) is Unpack and isinstance(get_args(annotation)[0], TypeVarTuple):
        several = arguments.get(get_args(annotation)[0])
        return annotation if several is None else Unpack[tuple.__class_getitem__(several)]
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
    is_given = get_origin(annotation) is not None  # a TypeVarTuple may have no arguments at all
    own = paired(getattr(cls, "__parameters__", ()), get_args(annotation)) if is_given else {}
    found = {cls: own}
    for base in vars(cls).get("__orig_bases__", cls.__bases__) if isinstance(cls, type) else ():
        if isinstance(get_origin(base) or base, type):
            for one, mapping in type_arguments(base).items():
                found[one] = {key: substitute(value, own) for key, value in mapping.items()}
    return found


def class_of(annotation: Any) -> Any:
    """Return the class of a class with type arguments: ``Store`` of ``Store[Order]``."""
    origin = get_origin(annotation)
    return origin if isinstance(origin, type) and origin not in UNIONS else annotation


def class_made(obj: object) -> Any:
    """Return the class of an object, with the type arguments that it was made with, if any.

    Python keeps them in the object, unless this has slots or is frozen.
    """
    cls = type(obj)
    made = inspect.getattr_static(obj, "__orig_class__", None)  # runs no code of the object
    try:
        hash(made)
    except TypeError:
        return cls  # an argument such as Annotated[int, []]
    return made if get_origin(made) is cls else cls


def paired(variables: tuple[Any, ...], arguments: tuple[Any, ...]) -> dict[Any, Any]:
    """Map type variables to their arguments. A TypeVarTuple gets the remaining arguments."""
    found: dict[Any, Any] = {}
    rest = [one for argument in arguments for one in _spread(argument)]
    for index, one in enumerate(variables):
        if isinstance(one, TypeVarTuple):
            count = max(len(rest) - (len(variables) - index - 1), 0)
            found[one], rest = tuple(rest[:count]), rest[count:]
        elif rest:
            found[one] = rest.pop(0)
    return found


def _spread(argument: Any) -> tuple[Any, ...]:
    """Return the types in ``*tuple[...]``, which Python leaves whole as an argument."""
    inner = get_args(argument)[0] if get_origin(argument) is Unpack else argument
    is_unpacked = inner is not argument or getattr(argument, "__unpacked__", False)
    of = get_args(inner)
    return of if is_unpacked and get_origin(inner) is tuple and ... not in of else (argument,)

"""Fallbacks: methods of a service that handle calls of names that no table has.

A name that arrives is only passed to the fallback, and the code of the service decides what it
means. It never chooses an attribute (law 13).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any, Final, NamedTuple, TypeVar, overload

from trio_rpc.services.decorators import Raises, checked_raises, mark_of
from trio_rpc.services.interfaces import RESERVED

__all__ = ["Fallback", "fallback", "fallback_for", "fallback_of", "has_fallback"]

F = TypeVar("F", bound=Callable[..., Any])
FALLBACK: Final = "__trio_rpc_fallback__"
MAX_NAME: Final = 255
"""Characters of the longest name that a fallback gets. It is shown in logs and in the tree."""


@overload
def fallback(function: F, /) -> F: ...
@overload
def fallback(*, raises: Raises = ()) -> Callable[[F], F]: ...
def fallback(function: F | None = None, /, *, raises: Raises = ()) -> F | Callable[[F], F]:
    """Make a method handle the calls and notifications whose names no table has.

    It gets the :class:`trio_rpc.Call`, with its name and its arguments as they arrived, without a
    check. Its result is the result of the call. A call gets MethodNotFound, and counts as not
    started, if the fallback raises that. A notification has no ``id``, and gets no answer.

    A service's fallback handles the names that the service does not have. The fallback of the
    service without a name also handles names of services that are not there. It gets neither names
    that are not printable or longer than 255 characters, nor streams and duplexes.

    Args:
        function: a function in a class body, with the parameters ``self`` and ``call``. A class
            has at most one fallback.
        raises: as for :func:`trio_rpc.method`.

    Raises:
        TypeError: the function, or an entry of ``raises``, is not suitable.

    Example:
        >>> class Relay:
        ...     def __init__(self, other: trio_rpc.Session) -> None:
        ...         self.other = other
        ...
        ...     @trio_rpc.fallback
        ...     async def anything(self, call: trio_rpc.Call) -> Any:
        ...         if not call.method.startswith("market."):
        ...             raise trio_rpc.MethodNotFound(f"there is no method {call.method!r}")
        ...         return await self.other.call(call.method, *call.args, **call.kwargs)
    """
    declared = checked_raises(raises)

    def mark(function: F) -> F:
        if not isinstance(function, FunctionType):
            raise TypeError(f"a fallback must be a function in a class body, not {function!r}")
        name = function.__qualname__
        if mark_of(function) is not None:
            raise TypeError(f"{name} is a fallback, and cannot also be called by its own name")
        if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
            raise TypeError(f"{name} is a generator, and a fallback returns one result")
        try:
            inspect.signature(function).bind(None, None)
        except TypeError:
            raise TypeError(f"{name} must have two parameters: (self, call)") from None
        setattr(function, FALLBACK, declared)
        return function

    return mark if function is None else mark(function)


class Fallback(NamedTuple):
    """The fallback of one service object."""

    service: str
    function: Callable[..., Any]
    raises: Raises


def has_fallback(cls: type) -> bool:
    """Return whether a class has a fallback. Raises TypeError if it has two."""
    return _found(cls) is not None


def fallback_of(service: str, obj: object) -> Fallback | None:
    """Return the fallback of a service object, or None. Raises TypeError if it has two.

    Args:
        service: the name of the service.
        obj: the service.
    """
    cls: type = type(obj)
    found = _found(cls)
    if found is None:
        return None
    name, raises = found
    function = inspect.getattr_static(cls, name)  # an override need not be decorated again
    if not isinstance(function, FunctionType):
        raise TypeError(f"{cls.__name__}.{name} overrides a fallback: write a def that takes self")
    return Fallback(service, function.__get__(obj, cls), raises)


@functools.lru_cache(maxsize=256)  # each session may have service objects of its own
def _found(cls: type) -> tuple[str, Raises] | None:
    """Return the name of the fallback of a class, and the exceptions that it declares."""
    found: dict[str, Raises] = {}
    for base in cls.__mro__:
        for name, attribute in vars(base).items():
            raises = (
                getattr(attribute, FALLBACK, None) if isinstance(attribute, FunctionType) else None
            )
            if raises is not None:
                found.setdefault(name, raises)
    if len(found) > 1:
        raise TypeError(f"{cls.__name__} has two fallbacks: {' and '.join(sorted(found))}")
    return next(iter(found.items()), None)


def fallback_for(fallbacks: Mapping[str, Fallback], name: str) -> Fallback | None:
    """Return the fallback for a name that no table has, or None.

    Args:
        fallbacks: the fallbacks by the names of their services.
        name: the name that arrived.
    """
    service = name.rpartition(".")[0]
    if service == RESERVED or len(name) > MAX_NAME or not name.isprintable():
        return None
    return fallbacks.get(service) or fallbacks.get("")

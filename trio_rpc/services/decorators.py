"""The decorators that make a method of a plain class callable from the other end.

A decorator returns the very function it was given, so that the class stays an ordinary one: it can
be called locally, subclassed, and serve as the client's interface. All it does is to leave a
:class:`MethodMark` on the function. Nothing without a mark can ever be called (law 13).
"""

from __future__ import annotations

import builtins
import enum
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any, Final, TypeAlias, TypeVar, overload

__all__ = ["Kind", "MethodMark", "Raises", "mark_of", "method", "notification", "wire_name"]

F = TypeVar("F", bound=Callable[..., Any])
Raises: TypeAlias = tuple[type[Exception], ...]

MARK: Final = "__trio_rpc_mark__"
NAME: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


class Kind(enum.Enum):
    """What a method looks like to its caller."""

    METHOD = "method"
    """One Request, one terminal message."""
    NOTIFICATION = "notification"
    """One way: the caller does not learn how it ended."""


@dataclass(frozen=True, slots=True)
class MethodMark:
    """What a decorator leaves on a function."""

    kind: Kind
    raises: Raises = ()


@overload
def method(function: F, /) -> F: ...
@overload
def method(*, raises: Raises = ()) -> Callable[[F], F]: ...
def method(function: F | None = None, /, *, raises: Raises = ()) -> F | Callable[[F], F]:
    """Make a method callable from the other end: ``@method`` or ``@method(raises=(…,))``.

    ``async def`` handlers run as tasks; a plain ``def`` runs to completion at once, in arrival
    order, and must not block. Its caller awaits it all the same, so that type checkers see a
    plain ``def`` rightly only where an interface declares it to return an Awaitable.

    Args:
        function: a function in a class body whose name does not begin with an underscore.
        raises: the exception classes that arrive at the caller as themselves. Each must be
            rebuildable as ``cls(*exception.args)``; others arrive as RemoteError.

    Raises:
        TypeError: the function, or something in ``raises``, is not fit for this.
    """
    mark = MethodMark(Kind.METHOD, _checked_raises(raises))
    if function is None:
        return lambda function: _attach(function, mark)
    return _attach(function, mark)


def notification(function: F, /) -> F:
    """Make a method callable one way: the caller goes on once its message is on its way.

    Raises:
        TypeError: the function is not fit for this.
    """
    return _attach(function, MethodMark(Kind.NOTIFICATION))


def mark_of(attribute: object) -> MethodMark | None:
    """Return the mark a decorator left on ``attribute``, if any."""
    mark = getattr(attribute, MARK, None)
    return mark if isinstance(mark, MethodMark) else None


def wire_name(cls: type[BaseException]) -> str:
    """Return the name under which a declared or built-in exception class travels.

    Declared classes go by their bare name, since the two ends may import one class by different
    paths (``__main__.Gone``, ``market.Gone``). The prefix keeps ``class KeyError`` of a user's
    own apart from the built-in one.
    """
    name = cls.__name__
    return f"builtins.{name}" if getattr(builtins, name, None) is cls else name


def _attach(function: F, mark: MethodMark) -> F:
    if isinstance(function, (staticmethod, classmethod, property)):
        raise TypeError(f"a remote method cannot be a {type(function).__name__}")
    if not isinstance(function, FunctionType):
        raise TypeError(f"a remote method must be a function, not {type(function).__name__}")
    name = function.__name__
    if name.startswith("_") or not NAME.fullmatch(name):
        raise TypeError(
            f"{function.__qualname__} cannot be a remote method: its name must be of"
            " ASCII letters, digits and '_', and not begin with '_'"
        )
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise TypeError(f"{function.__qualname__} is a generator, not a {mark.kind.value}")
    if mark_of(function) is not None:
        raise TypeError(f"{function.__qualname__} is marked twice")
    setattr(function, MARK, mark)
    return function


def _checked_raises(raises: object) -> Raises:
    if not isinstance(raises, tuple):
        raise TypeError("raises= must be a tuple of exception classes: raises=(UnknownSymbol,)")
    for cls in raises:
        if not (isinstance(cls, type) and issubclass(cls, Exception)):
            raise TypeError(f"raises= holds {cls!r}, which is not a subclass of Exception")
        if issubclass(cls, BaseExceptionGroup):
            raise TypeError(
                f"raises= holds the group {cls.__name__}: groups travel anyway, declare their parts"
            )
    names = [wire_name(cls) for cls in raises]
    if len(set(names)) < len(set(raises)):
        raise TypeError(f"raises= holds two classes of one name: {', '.join(sorted(names))}")
    return raises

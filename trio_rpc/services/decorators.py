"""The decorators that make a method of a plain class callable from the other end.

A decorator returns the same function that it was given, so the class stays an ordinary one: it can
be called locally, subclassed, and used as the client's interface. The decorator only leaves a
:class:`MethodMark` on the function. Nothing without a mark can ever be called (law 13).
"""

from __future__ import annotations

import builtins
import enum
import inspect
import re
from collections.abc import AsyncIterable, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from inspect import Parameter
from types import FunctionType
from typing import Any, Concatenate, Final, ParamSpec, TypeAlias, TypeVar, overload

import trio

from trio_rpc.services.annotations import remember_names
from trio_rpc.services.exceptions import is_rebuildable
from trio_rpc.services.item_stream import ItemStream

__all__ = [
    "Kind",
    "MethodMark",
    "Raises",
    "checked_raises",
    "duplex",
    "inside",
    "mark_of",
    "method",
    "notification",
    "stream",
    "wire_name",
]

F = TypeVar("F", bound=Callable[..., Any])
P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")
Raises: TypeAlias = tuple[type[Exception], ...]

# The functions that stream decorators are given, and the type that a checker sees on a proxy.
Generates: TypeAlias = Callable[Concatenate[S, P], AsyncIterable[T]]
OpensStream: TypeAlias = Callable[Concatenate[S, P], AbstractAsyncContextManager[ItemStream[T]]]
Converses: TypeAlias = Callable[Concatenate[S, trio.abc.Channel[T], P], Awaitable[None]]
OpensChannel: TypeAlias = Callable[
    Concatenate[S, P], AbstractAsyncContextManager[trio.abc.Channel[T]]
]

MARK: Final = "__trio_rpc_mark__"
NAME: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


SIGNALS: Final = (StopIteration, StopAsyncIteration, trio.EndOfChannel)
"""Exceptions by which Python and Trio signal an end; so do classes outside of Exception."""


class Kind(enum.Enum):
    """The kind of a method: the way in which a caller uses it."""

    METHOD = "method"
    """One Request, one terminal message."""
    NOTIFICATION = "notification"
    """One way: the caller does not learn the outcome."""
    STREAM = "stream"
    """The caller opens it and then receives items."""
    DUPLEX = "duplex"
    """The caller opens it, and items go both ways."""

    @property
    def is_opened(self) -> bool:
        """Whether it is opened as a context manager, instead of awaited."""
        return self in (Kind.STREAM, Kind.DUPLEX)


@dataclass(frozen=True, slots=True)
class MethodMark:
    """The record that a decorator leaves on a function.

    Attributes:
        kind: its kind, such as a stream.
        raises: the exception classes that reach the caller as themselves.
        idempotent: whether a caller may call it again.
        name: the name by which it is called, if that is not the function's own.
    """

    kind: Kind
    raises: Raises = ()
    idempotent: bool = False
    name: str | None = None


@overload
def method(function: F, /) -> F: ...
@overload
def method(
    *, name: str | None = None, raises: Raises = (), idempotent: bool = False
) -> Callable[[F], F]: ...
def method(
    function: F | None = None,
    /,
    *,
    name: str | None = None,
    raises: Raises = (),
    idempotent: bool = False,
) -> F | Callable[[F], F]:
    """Make a method callable from the other end: ``@method`` or ``@method(raises=(…,))``.

    ``async def`` handlers run as tasks. A plain ``def`` runs to completion at once, in arrival
    order, and must not block. Its caller still awaits it, so type checkers see a plain ``def``
    correctly only if an interface declares that it returns an Awaitable.

    Args:
        function: a function in a class body whose name does not begin with an underscore.
        name: the name by which the other end calls it, of ASCII letters, digits, ``_`` and ``-``,
            such as ``"start-task"``; by default the function's own. A proxy with an interface
            has it under the function's own name in any case.
        raises: the exception classes that reach the caller as themselves, with their ``args`` and
            attributes, as far as those can be sent and the class declares them (annotations,
            fields, parameters of ``__init__``). Others arrive as RemoteError. Exceptions that mean
            the end of something to Python or Trio (StopIteration, trio.EndOfChannel) cannot be
            declared.
        idempotent: calling it twice has the same effect as calling it once. So a pool may call it
            again at another instance when it is unknown whether the first call ran: see
            :func:`trio_rpc.open_pool`. The interface that the client uses must say this.

    Raises:
        TypeError: the function, or an entry of ``raises``, is not suitable; or ``idempotent`` is
            not a bool.
        ValueError: ``name`` has other characters.

    Example:
        >>> class UnknownSymbol(Exception):
        ...     pass
        >>> class Market:
        ...     @trio_rpc.method
        ...     async def symbols(self) -> list[str]:
        ...         return ["BTC"]
        ...
        ...     @trio_rpc.method(raises=(UnknownSymbol,))
        ...     def price(self, symbol: str) -> float:
        ...         raise UnknownSymbol(symbol)
    """
    if not isinstance(idempotent, bool):
        raise TypeError(f"idempotent must be True or False, not {idempotent!r:.200}")
    mark = MethodMark(Kind.METHOD, checked_raises(raises), idempotent, _checked_name(name))
    if function is None:
        return lambda function: _attach(function, mark)
    return _attach(function, mark)


@overload
def notification(function: F, /) -> F: ...
@overload
def notification(*, name: str | None = None) -> Callable[[F], F]: ...
def notification(function: F | None = None, /, *, name: str | None = None) -> F | Callable[[F], F]:
    """Make a method callable one way: the caller continues once its message is on its way.

    Args:
        function: as for :func:`method`.
        name: as for :func:`method`.

    Raises:
        TypeError: the function is not suitable.
        ValueError: ``name`` has other characters than :func:`method` allows.
    """
    mark = MethodMark(Kind.NOTIFICATION, name=_checked_name(name))
    if function is None:
        return lambda function: _attach(function, mark)
    return _attach(function, mark)


@overload
def stream(function: Generates[S, P, T], /) -> OpensStream[S, P, T]: ...
@overload
def stream(
    *, name: str | None = None, raises: Raises = ()
) -> Callable[[Generates[S, P, T]], OpensStream[S, P, T]]: ...
def stream(function: Any = None, /, *, name: str | None = None, raises: Raises = ()) -> Any:
    """Make an async generator available as a stream: ``async with proxy.ticks() as ticks``.

    It is paused while its consumer is slow. When the consumer leaves, the generator is closed, and
    its ``finally`` is run and awaited. Cancel scopes and nurseries may stay open across its
    ``yield``, because a single task runs it from beginning to end. Type checkers see the caller's
    view of it.

    Args:
        function: an async generator function in a class body, or a plain ``def`` that returns an
            async iterable.
        name: as for :func:`method`.
        raises: as for :func:`method`.

    Raises:
        TypeError: the function, or an entry of ``raises``, is not suitable.
        ValueError: ``name`` has other characters than :func:`method` allows.

    Example:
        >>> class Counter:
        ...     @trio_rpc.stream
        ...     async def count(self, end: int) -> AsyncGenerator[int, None]:
        ...         for number in range(end):
        ...             yield number
    """
    mark = MethodMark(Kind.STREAM, checked_raises(raises), name=_checked_name(name))
    if function is None:
        return lambda function: _attach(function, mark)
    return _attach(function, mark)


@overload
def duplex(function: Converses[S, T, P], /) -> OpensChannel[S, P, T]: ...
@overload
def duplex(
    *, name: str | None = None, raises: Raises = ()
) -> Callable[[Converses[S, T, P]], OpensChannel[S, P, T]]: ...
def duplex(function: Any = None, /, *, name: str | None = None, raises: Raises = ()) -> Any:
    """Make an async method available as a channel: ``async with proxy.chat("lobby") as channel``.

    Its first parameter is the handler's end of that channel, a ``trio.abc.Channel``, and the caller
    does not pass it. Each end sends and receives, may close only its sending half (``send_eof``),
    and waits while the other end is slow. When the handler returns, the channel has ended. When the
    caller leaves the block, the handler is cancelled. Type checkers see the caller's view of it.

    Args:
        function: an ``async def`` in a class body, or a wrapper of one. An override without the
            decorator may also be a plain ``def`` that returns an awaitable.
        name: as for :func:`method`.
        raises: as for :func:`method`.

    Raises:
        TypeError: the function, or an entry of ``raises``, is not suitable.
        ValueError: ``name`` has other characters than :func:`method` allows.

    Example:
        >>> class Echo:
        ...     @trio_rpc.duplex
        ...     async def echo(self, channel: trio.abc.Channel[str], prefix: str) -> None:
        ...         async for line in channel:
        ...             await channel.send(prefix + line)
    """
    mark = MethodMark(Kind.DUPLEX, checked_raises(raises), name=_checked_name(name))
    if function is None:
        return lambda function: _attach(function, mark)
    return _attach(function, mark)


def mark_of(attribute: object) -> MethodMark | None:
    """Return the mark that a decorator left on ``attribute``, or None."""
    mark = getattr(attribute, MARK, None)
    return mark if isinstance(mark, MethodMark) else None


def wire_name(cls: type[BaseException]) -> str:
    """Return the name under which a declared or built-in exception class is sent.

    Declared classes are sent by their bare name, since the two ends may import one class by
    different paths (``__main__.Gone``, ``market.Gone``). The prefix keeps a user's ``class
    KeyError`` apart from the built-in one.
    """
    name = cls.__name__
    return f"builtins.{name}" if getattr(builtins, name, None) is cls else name


def _checked_name(name: object) -> str | None:
    if name is not None and not (isinstance(name, str) and NAME.fullmatch(name)):
        raise ValueError(
            f"name= must consist of ASCII letters, digits, '_' and '-', not {name!r:.200}"
        )
    return name


def inside(attribute: Any) -> Any:
    """Return the function inside a wrapper (staticmethod, property, partialmethod)."""
    for name in ("__func__", "fget", "func", "__wrapped__"):
        function = getattr(attribute, name, None)
        if isinstance(function, FunctionType):
            return function
    return attribute


def _attach(function: F, mark: MethodMark) -> F:
    if not isinstance(function, FunctionType):
        shown = getattr(inside(function), "__qualname__", repr(function))
        raise TypeError(
            f"{shown}: a remote method cannot be a {type(function).__name__}: decorate a def that"
            " takes self, and call this one from there"
        )
    name = function.__name__
    if name.startswith("_") or not NAME.fullmatch(name):
        raise TypeError(
            f"{function.__qualname__} cannot be a remote method: its name must consist of"
            " ASCII letters, digits and '_', and must not begin with '_'"
        )
    _check_fits(function, mark.kind)
    if mark_of(function) is not None:
        raise TypeError(f"{function.__qualname__} is marked twice")
    setattr(function, MARK, mark)
    remember_names(function)
    return function


def _check_fits(function: FunctionType, kind: Kind) -> None:
    """Raise TypeError if a function cannot be a method of that kind."""
    name = function.__qualname__
    if kind is Kind.STREAM:
        if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
            raise TypeError(f"{name} is not an async generator: a stream yields its items")
        return
    if inspect.isasyncgenfunction(function):
        raise TypeError(f"{name} is a generator, not a {kind.value}: mark it with @stream")
    if inspect.isgeneratorfunction(function):
        raise TypeError(f"{name} is a generator, not a {kind.value}")
    if kind is Kind.DUPLEX:
        if not inspect.iscoroutinefunction(inspect.unwrap(function)):
            raise TypeError(f"{name} must be an async def, since it uses a channel")
        if not _takes(function, 2):
            raise TypeError(f"{name} must have a parameter after self: its end of the channel")


def _takes(function: FunctionType, count: int) -> bool:
    """Return whether a function can be called with at least so many positional arguments."""
    kinds = [one.kind for one in inspect.signature(function).parameters.values()]
    by_position = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    return Parameter.VAR_POSITIONAL in kinds or sum(kind in by_position for kind in kinds) >= count


def checked_raises(raises: object) -> Raises:
    """Return the declared exceptions of a method. Raises TypeError for an unsuitable one."""
    if not isinstance(raises, tuple):
        shown = raises.__name__ if isinstance(raises, type) else "ValueError"
        raise TypeError(f"raises= must be a tuple of exception classes: raises=({shown},)")
    for cls in raises:
        if not (isinstance(cls, type) and issubclass(cls, BaseException)):
            raise TypeError(f"raises= contains {cls!r}, which is not a subclass of Exception")
        if issubclass(cls, SIGNALS) or not issubclass(cls, (Exception, BaseExceptionGroup)):
            raise TypeError(
                f"raises= contains {cls.__qualname__}, which signals something to Python or Trio,"
                " and would also do so at the caller: declare an exception of your own, and raise"
                " that"
            )
        if issubclass(cls, BaseExceptionGroup):
            raise TypeError(
                f"raises= contains the group {cls.__name__}: declare the exceptions in it instead"
            )
        if not is_rebuildable(cls):
            raise TypeError(
                f"raises= contains {cls.__qualname__}, which only its own module can make, so it"
                " cannot arrive as itself: catch it, and raise an exception of your own"
            )
    names = [wire_name(cls) for cls in raises]
    if len(set(names)) < len(set(raises)):
        raise TypeError(f"raises= contains two classes with one name: {', '.join(sorted(names))}")
    return raises

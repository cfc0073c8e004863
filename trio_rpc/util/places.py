"""Tracebacks that say where an exception was raised, and keep nothing alive.

An exception keeps the frames of its traceback with all their locals. If one of them holds what
keeps the exception, only the garbage collector frees them. Since Python 3.12 the frame of a
coroutine or a generator that has ended also keeps the frame that had resumed it, and so on up to
the first frame of the task. Two things follow:

* The cause of a session's end is kept, so it keeps only the places: :func:`keep_all_places`.
* A frame of ``contextlib`` throws an exception into a context manager that is a generator, and
  has the exception in a local. If the generator then swallows it or raises another one, there is
  a cycle: the exception, the generator's frame, the frame of ``contextlib``. So such a context
  manager cuts the frames out of the exception: :func:`catching`, :func:`keep_places`. Trio's
  socket streams use one, too, without cutting anything: :func:`untangled`.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, GeneratorType, TracebackType
from typing import Any, TypeAlias, cast

import trio

__all__ = ["catching", "end_context", "keep_all_places", "keep_places", "untangled"]

_Keep: TypeAlias = Callable[[str], bool]
_Generator: TypeAlias = "GeneratorType[Any, Any, Any]"
_NO_POSITION = -1  # the columns of the real code are not those of its stand-in


def _everything(_module: str) -> bool:
    return True


def keep_places(exc: BaseException, keep: _Keep = _everything) -> None:
    """Put stand-ins in the place of the frames that the traceback of an exception holds.

    A stand-in has the name, the file and the line of a frame, and neither locals nor a caller.

    Args:
        exc: the exception; nobody may need its frames any more.
        keep: says of the name of a module whether its frames stay in the traceback.
    """
    entries = []
    traceback = exc.__traceback__
    while traceback is not None:
        entries.append(traceback)
        traceback = traceback.tb_next
    places = None
    for entry in reversed(entries):
        module = str(entry.tb_frame.f_globals.get("__name__"))
        if keep(module):
            frame = _stand_in(entry.tb_frame.f_code, module)().gi_frame
            assert frame is not None  # noqa: S101 - the generator has not run
            places = TracebackType(places, frame, _NO_POSITION, entry.tb_lineno)
    exc.__traceback__ = places


def keep_all_places(exc: BaseException, keep: _Keep = _everything) -> None:
    """Do as :func:`keep_places` does for an exception, its parts, and all that it came from."""
    left, seen = [exc], {id(exc)}
    while left:
        each = left.pop()
        keep_places(each, keep)
        parts = each.exceptions if isinstance(each, BaseExceptionGroup) else ()
        for part in (each.__cause__, each.__context__, *parts):
            if part is not None and id(part) not in seen:
                seen.add(id(part))
                left.append(part)


def end_context(exc: BaseException, outer: BaseException | None) -> None:
    """Cut ``outer`` off the contexts of an exception that is kept.

    Args:
        exc: the exception.
        outer: what the task was handling, by ``sys.exception()``, before ``exc`` was raised.
    """
    inner: BaseException | None = exc
    while inner is not None and inner.__context__ is not outer:
        inner = inner.__context__
    if inner is not None:
        inner.__context__ = None


class catching:  # noqa: N801 - it is used as a function
    """Enter a cancel scope within a context manager that is a generator.

    What the scope catches, and no one sees any more, forgets its traceback: see above.
    """

    __slots__ = ("_scope",)

    def __init__(self, scope: trio.CancelScope) -> None:
        self._scope = scope

    def __enter__(self) -> trio.CancelScope:
        return self._scope.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        goes_on = False
        try:
            goes_on = not self._scope.__exit__(kind, exc, traceback)
        finally:
            if exc is not None and not goes_on:
                exc.__traceback__ = None
            del exc, traceback
        return not goes_on


class untangled:  # noqa: N801 - it is used as a function
    """Use a stream of Trio's, and cut the frames out of the exceptions that it has replaced."""

    __slots__ = ("_outer",)

    def __enter__(self) -> None:
        self._outer = sys.exception()

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        exc: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        inner = None if exc is None else exc.__context__
        while inner is not None and inner is not self._outer:
            keep_places(inner)
            inner = inner.__context__
        del self._outer, exc, inner, _traceback


# Bound: one for each function in which channels have raised, of the last so many.
@functools.lru_cache(maxsize=256)
def _stand_in(code: CodeType, module: str) -> Callable[[], _Generator]:
    """Return a function that makes generators, whose frames have the names of that code."""
    named = _never_run.__code__.replace(
        co_filename=code.co_filename,
        co_name=code.co_name,
        co_qualname=code.co_qualname,
        co_firstlineno=code.co_firstlineno,
    )
    return cast("Callable[[], _Generator]", FunctionType(named, {"__name__": module}))


def _never_run() -> Iterator[None]:
    yield

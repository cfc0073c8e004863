"""Tracebacks that say where an exception was raised, and keep nothing alive.

An exception keeps the frames of its traceback with all their locals. If one of them leads back to
the exception, only the garbage collector frees them. Since Python 3.12 the frame of a coroutine or
a generator that has ended also keeps the frame that had resumed it, and so on up to the first frame
of the task. Two things follow:

* The cause of a session's end is kept, so it keeps only the places: :func:`keep_all_places`.
* A frame of ``contextlib`` throws an exception into a context manager that is a generator, and
  has the exception in a local. If the generator then swallows it or raises another one, there is
  a cycle: the exception, the generator's frame, the frame of ``contextlib``. So such a context
  manager cuts the frames out of the exception: :func:`catching`, :func:`keep_places`. Trio's
  socket streams also use such a context manager, which does not do this: :func:`untangled`.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, GeneratorType, TracebackType
from typing import Any, TypeAlias, cast

import trio

from trio_rpc.util.raised import set_context, set_traceback

__all__ = ["catching", "end_context", "keep_all_places", "keep_places", "untangled"]

_Keep: TypeAlias = Callable[[str], bool]
_Generator: TypeAlias = "GeneratorType[Any, Any, Any]"
_NO_POSITION = -1  # the columns of the real code are not those of its stand-in


def _everything(_module: str) -> bool:
    return True


def keep_places(exc: BaseException, keep: _Keep = _everything) -> None:
    """Replace the frames in the traceback of an exception by stand-ins.

    A stand-in has the name, the file and the line of a frame, but no locals and no caller.

    Args:
        exc: the exception, whose frames must no longer be needed.
        keep: returns whether the frames of a module, given by name, stay in the traceback.
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
    set_traceback(exc, places)


def keep_all_places(exc: BaseException, keep: _Keep = _everything) -> None:
    """Call :func:`keep_places` for an exception, its parts, its causes and its contexts."""
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
    """Remove ``outer`` from the contexts of an exception that is kept.

    Args:
        exc: the exception.
        outer: the exception that the task was handling (``sys.exception()``) before ``exc``.
    """
    inner: BaseException | None = exc
    while inner is not None and inner.__context__ is not outer:
        inner = inner.__context__
    if inner is not None:
        set_context(inner, None)


class catching:  # noqa: N801 - it is used as a function
    """Enter a cancel scope within a context manager that is a generator.

    An exception that the scope catches loses its traceback: see above.
    """

    __slots__ = ("_scope",)

    def __init__(self, scope: trio.CancelScope) -> None:
        self._scope = scope

    @trio.lowlevel.enable_ki_protection
    def __enter__(self) -> trio.CancelScope:
        return self._scope.__enter__()

    @trio.lowlevel.enable_ki_protection
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
                set_traceback(exc, None)
            del exc, traceback
        return not goes_on


class untangled:  # noqa: N801 - it is used as a function
    """Use one of Trio's streams, and cut the frames out of the exceptions that it replaces."""

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


# Bound: the size of the cache; one entry for each function in which a channel has raised.
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

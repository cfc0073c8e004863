"""Eager steps: run a coroutine up to its first wait, and the rest in the task that it keeps.

Each step runs in the coroutine's own context, as it would in its own task.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import Context
from typing import Any, TypeVar

import trio

__all__ = ["EagerCoroutine", "begin", "is_awaitable"]


T = TypeVar("T")


class EagerCoroutine:
    """A coroutine that has run up to a point where it has to wait."""

    __slots__ = ("_context", "_coroutine", "_trap")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], context: Context, trap: Any) -> None:
        self._coroutine = coroutine
        self._context = context
        self._trap = trap

    @trio.lowlevel.enable_ki_protection
    @types.coroutine
    def rest(self) -> Generator[Any, Any, Any]:
        """Run the rest of the coroutine, and return its result."""
        coroutine, run, trap = self._coroutine, self._context.run, self._trap
        while True:
            try:
                value = yield trap
            except BaseException as exc:  # noqa: BLE001 - the coroutine handles it
                step: Callable[[Any], Any] = coroutine.throw
                value = exc
            else:
                step = coroutine.send
            try:
                trap = run(_next_step, coroutine, step, value)
            except StopIteration as stop:
                return stop.value
            finally:
                # The exception may be in it, whose traceback refers to this frame: a cycle.
                del value


def _next_step(coroutine: Coroutine[Any, Any, Any], step: Callable[[Any], Any], value: Any) -> Any:
    try:
        return _interruptible(step, value)
    except KeyboardInterrupt as exc:
        if coroutine.cr_frame is None:  # type: ignore[attr-defined]
            raise  # out of the coroutine
        # Ctrl-C came just before the step. A coroutine that is dropped could be woken later.
        return coroutine.throw(exc)
    finally:
        del value


@trio.lowlevel.disable_ki_protection
def _interruptible(step: Callable[[Any], Any], value: Any) -> Any:
    """Run a step of a handler. Ctrl-C can interrupt it, even in an endless loop."""
    try:
        return step(value)
    finally:
        del value


def begin(
    function: Callable[[T], Awaitable[Any]], argument: T, context: Context
) -> tuple[EagerCoroutine, None] | tuple[None, Any]:
    """Call an async function and run it to its first wait, or to its end.

    Args:
        function: the function.
        argument: its argument.
        context: the context that each step runs in.

    Returns:
        The suspended coroutine, or the result.
    """
    try:
        coroutine, trap = context.run(_first_step, function, argument)
    except StopIteration as stop:
        return None, stop.value
    return EagerCoroutine(coroutine, context, trap), None


@trio.lowlevel.disable_ki_protection
def _first_step(
    function: Callable[[T], Awaitable[Any]], argument: T
) -> tuple[Coroutine[Any, Any, Any], Any]:
    try:
        coroutine = function(argument)
    except StopIteration as exc:
        # A StopIteration would look like the end of the coroutine, and carry its result.
        raise RuntimeError("a function raised StopIteration before it could be awaited") from exc
    if not isinstance(coroutine, types.CoroutineType):
        coroutine = _await(coroutine)
    return coroutine, coroutine.send(None)


def is_awaitable(value: object) -> bool:
    """Return whether a value is an awaitable."""
    # This is fast for ordinary values, because Python caches the result for each class.
    return isinstance(value, Awaitable) or inspect.isawaitable(value)


async def _await(value: Any) -> Any:
    return await value if is_awaitable(value) else value

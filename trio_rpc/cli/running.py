"""Run the async part of a command."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Sequence
from contextvars import ContextVar
from typing import Any

import trio

from trio_rpc.cli.exits import CommandError

__all__ = ["trio_run", "typed_words"]

typed_words: ContextVar[Sequence[str]] = ContextVar("typed_words", default=())
"""The words of the command that runs."""


def trio_run(function: Callable[..., Coroutine[Any, Any, Any]], *args: Any, **kwargs: Any) -> Any:
    """Run an async function; raise the part of an exception group that ends a command."""
    try:
        return trio.run(functools.partial(function, *args, **kwargs))
    except BaseExceptionGroup as group:
        for kind in (KeyboardInterrupt, SystemExit, CommandError):
            found = _first(group, kind)
            if found is not None:
                raise found from group
        raise


def _first(group: BaseExceptionGroup[Any], kind: type[BaseException]) -> BaseException | None:
    found: BaseException | None = group.subgroup(kind)
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found

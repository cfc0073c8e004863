"""One object for each Trio run, made when it is first needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import trio

__all__ = ["PerRun"]

T = TypeVar("T")


class PerRun(Generic[T]):
    """Holds one object for each Trio run.

    Args:
        name: a name for debugging.
        make: makes the object of a run.
    """

    def __init__(self, name: str, make: Callable[[], T]) -> None:
        self._variable: trio.lowlevel.RunVar[T] = trio.lowlevel.RunVar(name)
        self._make = make

    def get(self) -> T:
        """Return the object of this run."""
        try:
            return self._variable.get()
        except LookupError:
            made = self._make()
            self._variable.set(made)
            return made

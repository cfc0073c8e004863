"""Show how far a soak is: a bar in a terminal if rich is installed, otherwise a line at times."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TypeAlias

from .traffic import Tally

__all__ = ["Show", "progress"]

Show: TypeAlias = Callable[[float, Tally], None]
"""Takes the seconds that have passed, and the tally."""

EVERY = 15
"""Seconds between two lines."""


@contextlib.contextmanager
def progress(seconds: float, *, quiet: bool) -> Iterator[Show]:
    """Show a soak during the block. Yield the function that takes its state."""
    if quiet:
        yield lambda _, __: None
        return
    if not sys.stderr.isatty():
        yield _Lines(seconds).show
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        yield _Lines(seconds).show
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=seconds)
        yield lambda passed, tally: bar.update(task, completed=passed, description=_text(tally))


class _Lines:
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._next = 0.0

    def show(self, passed: float, tally: Tally) -> None:
        if passed >= self._next:
            self._next = passed + EVERY
            print(f"{passed:4.0f} of {self._seconds:.0f} s: {_text(tally)}", file=sys.stderr)


def _text(tally: Tally) -> str:
    return f"{tally.calls} calls, {sum(tally.items.values())} items, {tally.wrong} faults"

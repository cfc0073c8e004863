"""Show the progress of a run: a bar in a terminal if rich is installed, otherwise lines."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from .running import Outcome

__all__ = ["progress"]


@contextlib.contextmanager
def progress(total: int, *, quiet: bool) -> Iterator[Callable[[Outcome], None]]:
    """Show a run of ``total`` faults during the block. Yield a function that takes an outcome."""
    if quiet:
        yield lambda _: None
        return
    try:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    except ImportError:
        rich_is_here = False
    else:
        rich_is_here = sys.stdout.isatty()
    if not rich_is_here:
        done = 0

        def tell(outcome: Outcome) -> None:
            nonlocal done
            done += 1
            print(f"[{done:3}/{total}] {_line(outcome)}", flush=True)

        yield tell
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns) as bar:
        task = bar.add_task("faults", total=total)

        def advance(outcome: Outcome) -> None:
            if outcome.kind != "noticed":
                bar.console.print(_line(outcome), markup=False, highlight=False)
            bar.update(task, advance=1, description=outcome.fault.what[:50])

        yield advance


def _line(outcome: Outcome) -> str:
    one = outcome.fault
    by = f" by {outcome.by}" if outcome.by else ""
    return f"{outcome.kind:8} {outcome.seconds:5.1f} s  {one.file}: {one.what}{by}"

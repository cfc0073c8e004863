"""`python -m benchmarks`, from the repository's root."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks import adapters, machine, report, runner
from benchmarks.adapter import Adapter
from benchmarks.parts import PARTS

DEFAULT_ROUNDS = 5
DEFAULT_PATIENCE = 30.0


def _rounds(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 1000")
    return int(text)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure trio_rpc against floors, client and server in two processes.",
    )
    parser.add_argument(
        "--only", action="append", choices=list(PARTS), help="this part; may be repeated"
    )
    parser.add_argument(
        "--adapter", action="append", metavar="NAME", help="this row and the floors it needs"
    )
    parser.add_argument("--rounds", type=_rounds, help=f"default {DEFAULT_ROUNDS}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measurement there")
    parser.add_argument(
        "--patience",
        type=float,
        default=DEFAULT_PATIENCE,
        metavar="SECONDS",
        help="wait so long, in all, for other programs to be quiet before turns (default %(default)s)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="one round of tiny loads, to see that it works"
    )
    return parser.parse_args(arguments)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str], None]]:
    """Give a function that shows what is measured next: a bar, if there is a terminal and rich."""
    try:
        from rich import progress  # noqa: PLC0415 - an extra that the benchmark does not need
    except ImportError:
        progress = None  # type: ignore[assignment]
    if progress is None or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415 - likewise

    # It is drawn between measurements only: a bar that turns by itself takes time from them.
    columns = (
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.description}"),
    )
    console = Console(stderr=True)
    with progress.Progress(*columns, console=console, auto_refresh=False, transient=True) as bar:
        task = bar.add_task("", total=total)
        done = -1

        def step(text: str) -> None:
            nonlocal done
            done += 1
            bar.update(task, description=text, completed=done, refresh=True)

        yield step


def _chosen(
    found: list[tuple[str, Adapter]], names: Sequence[str] | None
) -> list[tuple[str, Adapter]]:
    if names is None:
        return found
    known = [adapter.name for _, adapter in found]
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"no adapter {unknown[0]!r}; there are: {', '.join(known)}")
    wanted = {*names, *(part.floor for part in PARTS.values())}
    return [(module, adapter) for module, adapter in found if adapter.name in wanted]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print. Returns 1 if a measurement failed; a missed target is no failure."""
    options = _options(arguments)
    parts = [part for key, part in PARTS.items() if not options.only or key in options.only]
    found, absent = adapters.available()
    chosen = _chosen(found, options.adapter)
    rounds = options.rounds or (1 if options.quick else DEFAULT_ROUNDS)
    about = machine.describe()
    turns = [
        (part.quick if options.quick else part.load).turns
        for part in parts
        for _, adapter in chosen
        if part.key in adapter.parts
    ]
    with _progress(rounds * sum(turns)) as step:
        outcomes = runner.run(
            parts,
            chosen,
            rounds=rounds,
            quick=options.quick,
            patience=runner.Patience(0 if options.quick else options.patience),
            step=step,
        )
    print(report.as_text(outcomes, about, absent, quick=options.quick))
    if options.json:
        data = report.as_json(outcomes, about, absent, quick=options.quick)
        options.json.write_text(json.dumps(data, indent=1) + "\n")
    return int(any(outcome.failures for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())

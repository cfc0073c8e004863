"""`python -m benchmarks`, from the repository's root."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import adapters, compare, machine, plots, report, runner
from benchmarks.parts import GROUPS, PARTS, Part, expand
from benchmarks.runner import Outcome, Row

DEFAULT_ROUNDS = 5
DEFAULT_PATIENCE = 30.0


def _rounds(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 1000")
    return int(text)


def _common(**defaults: Any) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, **defaults)
    parser.add_argument(
        "--only",
        action="append",
        choices=[*PARTS, *GROUPS],
        metavar="PART",
        help="run only this part, or this group of parts; may be repeated",
    )
    parser.add_argument(
        "--adapter",
        action="append",
        metavar="NAME",
        help="run only this row and the floors that it needs",
    )
    parser.add_argument("--rounds", type=_rounds, help=f"default {DEFAULT_ROUNDS}")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write every measurement to this file"
    )
    parser.add_argument(
        "--patience",
        type=float,
        metavar="SECONDS",
        help="most seconds to wait, in all, for other programs to be idle before turns "
        f"(default {DEFAULT_PATIENCE:g})",
    )
    parser.add_argument(
        "--turns",
        type=_rounds,
        metavar="N",
        help="turns of each row in a round, of which none is repeated, for a machine that is always "
        "busy (default: the part's own number)",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="run one round of tiny loads, to check that the benchmark works",
    )
    return parser


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=(
            "Compare trio_rpc with floors and peers. Client and server are two processes."
        ),
        parents=[_common()],
    )
    parser.add_argument(
        "--plot", type=Path, metavar="FOLDER", help="draw PNGs and SVGs in this folder"
    )
    parser.add_argument(
        "--markdown",
        type=Path,
        metavar="FILE",
        help="write the table that compares the libraries to this file",
    )
    parser.add_argument(
        "--peer-rounds",
        type=_rounds,
        metavar="N",
        help="let the peers take part only in the first N rounds, which saves most of the time",
    )
    commands = parser.add_subparsers(dest="command", metavar="{compare REV, show FILE ...}")
    # An option may stand before or after the command, so a missing one must not set a default.
    comparing = commands.add_parser(
        "compare",
        help="measure the library at REV and in this tree",
        parents=[_common(argument_default=argparse.SUPPRESS)],
    )
    comparing.add_argument("revision", metavar="REV", help="a commit, a tag or a branch")
    showing = commands.add_parser("show", help="report and draw results that --json has written")
    showing.add_argument("files", nargs="+", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    if options.plot and not plots.possible():
        parser.error("--plot needs matplotlib: it is in the dependency group `plots`")
    return options


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str], None]]:
    """Return a function that shows the progress: as a bar, if there is a terminal and rich."""
    try:
        from rich import progress  # noqa: PLC0415 - an extra that the benchmark does not need
    except ImportError:
        progress = None  # type: ignore[assignment]
    if progress is None or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415 - likewise

    # It is drawn only between measurements, because drawing takes processor time from them.
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


def _chosen(rows: list[Row], names: Sequence[str] | None, floors: Sequence[str]) -> list[Row]:
    if names is None:
        return rows
    known = [row.name for row in rows]
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"no adapter {unknown[0]!r}; there are: {', '.join(known)}")
    return [row for row in rows if row.name in names or row.name in floors]


def _write(path: Path | None, data: object) -> None:
    if path is not None:
        path.write_text(json.dumps(data, indent=1) + "\n")


def _measure(options: argparse.Namespace, parts: list[Part], how: dict[str, Any]) -> list[Outcome]:
    found, absent = adapters.available()
    rows = [Row(module, adapter) for module, adapter in found]
    rows = _chosen(rows, options.adapter, [part.floor for part in PARTS.values()])
    about = machine.describe()
    how["peer_rounds"] = options.peer_rounds
    with _progress(how["rounds"] * runner.turns(parts, rows, how["loads"])) as step:
        outcomes = runner.run(parts, rows, step=step, **how)
    _publish(options, outcomes, about, absent)
    return outcomes


def _show(options: argparse.Namespace) -> list[Outcome]:
    """Report the results of several runs as if they were one run."""
    found = [json.loads(file.read_text()) for file in options.files]
    outcomes = [outcome for one in found for outcome in report.from_json(one)]
    options.quick = any(one["quick"] for one in found)
    _publish(options, outcomes, found[0]["machine"], found[0]["left_out"])
    return outcomes


def _publish(
    options: argparse.Namespace,
    outcomes: list[Outcome],
    about: dict[str, Any],
    absent: dict[str, str],
) -> None:
    quick = options.quick
    print(report.as_text(outcomes, about, absent, quick=quick))
    _write(options.json, report.as_json(outcomes, about, absent, quick=quick))
    if options.markdown:
        options.markdown.write_text(report.as_markdown(outcomes))
    if options.plot:
        plots.draw(outcomes, options.plot)


def _compare(options: argparse.Namespace, parts: list[Part], how: dict[str, Any]) -> list[Outcome]:
    found, _ = adapters.available()
    rows = [Row(module, adapter) for module, adapter in found if module in compare.MODULES]
    rows = _chosen(rows, options.adapter, ())
    about, quick = machine.describe(), options.quick
    turns = 2 * how["rounds"] * runner.turns(parts, rows, how["loads"])
    with compare.checkout(options.revision) as revision, _progress(turns) as step:
        outcomes = compare.run(parts, rows, revision, step=step, **how)
    print(compare.as_text(outcomes, about, revision[0], quick=quick))
    _write(options.json, compare.as_json(outcomes, about, revision[0], quick=quick))
    return [outcome for outcome in outcomes if not compare.is_skipped(outcome)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print. Return 1 if a measurement failed. A missed target is not a failure."""
    options = _options(arguments)
    if options.command == "show":
        return int(any(outcome.failures for outcome in _show(options)))
    only = set(expand(options.only or PARTS))
    parts = [part for key, part in PARTS.items() if key in only]
    patience = DEFAULT_PATIENCE if options.patience is None else options.patience
    how = {
        "rounds": options.rounds or (1 if options.quick else DEFAULT_ROUNDS),
        "loads": runner.Loads(quick=options.quick, turns=options.turns),
        "patience": runner.Patience(0 if options.quick else patience),
    }
    do = _compare if options.command else _measure
    return int(any(outcome.failures for outcome in do(options, parts, how)))


if __name__ == "__main__":
    sys.exit(main())

"""``python -m tests.mutations``: check that a test notices each fault of the table."""

from __future__ import annotations

import argparse
import json
import random
import secrets
import sys
from collections.abc import Sequence
from functools import partial

import trio

from .fault import PACKAGE, ROOT, Fault, complaint, missing_tests
from .faults import FAULTS
from .running import Outcome, TestsFailError, run_all
from .showing import progress


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program. Return 0 if all faults are noticed, 1 if one is not, 2 if it cannot run."""
    options = _parser().parse_args(arguments)
    faults = [one for one in FAULTS if options.file in one.file and options.match in one.what]
    problems = [text for one in faults if (text := complaint(one)) is not None]
    problems += [f"{one.where}: no test {test}" for one in faults for test in missing_tests(one)]
    if problems:
        print(*problems, sep="\n", file=sys.stderr)
        return 2
    if not faults:
        print("no fault of the table matches these options", file=sys.stderr)
        return 2
    if options.count is not None:
        seed = secrets.randbelow(10**6) if options.seed is None else options.seed
        if not options.json:
            print(f"drawn with --seed {seed}")
        faults = random.Random(seed).sample(faults, min(options.count, len(faults)))  # noqa: S311
    if options.list:
        _list(faults, as_json=options.json)
        return 0
    try:
        with progress(len(faults), quiet=options.json) as report:
            outcomes = trio.run(
                partial(
                    run_all, faults, workers=options.workers, seconds=options.timeout, report=report
                )
            )
    except TestsFailError as exc:
        print(exc, file=sys.stderr)
        return 2
    return _report(outcomes, as_json=options.json)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__)
    parser.add_argument("--count", type=int, help="draw this many faults at random (default: all)")
    parser.add_argument("--seed", type=int, help="the seed of the draw (default: random)")
    parser.add_argument("--file", default="", help="only faults in files whose path contains this")
    parser.add_argument("--match", default="", help="only faults whose description contains this")
    parser.add_argument(
        "--workers", type=int, default=2, help="number of parallel runs (default: 2)"
    )
    parser.add_argument(
        "--timeout", type=float, default=180.0, help="seconds for each run (default: 180)"
    )
    parser.add_argument("--list", action="store_true", help="show the faults, and run nothing")
    parser.add_argument("--json", action="store_true", help="print the outcomes as JSON")
    return parser


def _list(faults: Sequence[Fault], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([_row(one) for one in faults], indent=1))
        return
    for one in faults:
        print(f"{PACKAGE}/{one.file}:{_line_of(one)}: {one.what}")
        for test in one.tests:
            print(f"    {test}")


def _report(outcomes: Sequence[Outcome], *, as_json: bool) -> int:
    others = [each for each in outcomes if each.kind != "noticed"]
    if as_json:
        rows = [
            _row(each.fault)
            | {"outcome": each.kind, "by": each.by, "seconds": round(each.seconds, 1)}
            for each in outcomes
        ]
        print(json.dumps(rows, indent=1))
        return 1 if others else 0
    for each in others:
        one = each.fault
        print(f"\n{each.kind}: {PACKAGE}/{one.file}:{_line_of(one)}: {one.what} ({one.where})")
        print(*(f"    {test}" for test in one.tests), sep="\n")
        if each.kind != "survived":
            print(each.output)
    print(f"\n{len(outcomes) - len(others)} of {len(outcomes)} faults were noticed")
    return 1 if others else 0


def _row(one: Fault) -> dict[str, object]:
    return {
        "what": one.what,
        "file": f"{PACKAGE}/{one.file}",
        "line": _line_of(one),
        "tests": list(one.tests),
        "where": one.where,
    }


def _line_of(one: Fault) -> int:
    return one.line((ROOT / PACKAGE / one.file).read_text("utf-8"))


if __name__ == "__main__":
    sys.exit(main())

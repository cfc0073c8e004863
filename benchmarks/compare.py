"""`python -m benchmarks compare REV`: measure a revision of the library and this tree, in turns.

Both run the benchmarks of this tree. The revision's library is unpacked into a temporary folder, so
this tree does not change. Uncommitted changes are measured as part of this tree. A row whose feature
the revision lacks is skipped, with the error as the reason.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import adapters, report, runner
from benchmarks.parts import Part
from benchmarks.runner import ROOT, Outcome, Row

__all__ = ["MODULES", "as_json", "as_text", "checkout", "is_skipped", "run"]

MODULES = [name for name in adapters.MODULES if not name.startswith(("floor_", "peer_"))]
"""The adapters that measure the library. The others are the same at any revision."""


def _git(*arguments: str) -> bytes:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False)  # noqa: S603, S607 - git of the PATH
    if done.returncode:
        raise SystemExit(done.stderr.decode(errors="replace").strip())
    return done.stdout


@contextmanager
def checkout(revision: str) -> Iterator[tuple[str, Path]]:
    """Yield the short hash of a revision, and a folder with its library and these benchmarks."""
    name = _git("rev-parse", "--short", f"{revision}^{{commit}}").decode().strip()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place).resolve()
        archive = _git("archive", "--format=tar", name, "trio_rpc")
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(folder, filter="data")
        shutil.copytree(
            ROOT / "benchmarks",
            folder / "benchmarks",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        yield name, folder


def run(
    parts: Sequence[Part], rows: Sequence[Row], revision: tuple[str, Path], **options: Any
) -> list[Outcome]:
    """Measure these adapters in both checkouts. Return an outcome for each part and adapter."""
    name, folder = revision
    outcomes = []
    for part in parts:
        for row in rows:
            if part.key in row.adapter.parts:
                before = replace(row, root=folder, revision=name)
                pair = replace(part, floor=before.name)
                outcomes += runner.run([pair], [before, row], **options)
    return outcomes


def is_skipped(outcome: Outcome) -> bool:
    """Return whether only the revision could not run this row: it may lack the feature."""
    before, _ = outcome.titles
    return set(outcome.failures) == {before}


def _line(outcome: Outcome) -> list[str]:
    part = outcome.part
    before, now = outcome.titles
    what = f"{part.key}: {now}"
    if is_skipped(outcome):
        return [what, f"skipped: the revision cannot run it: {outcome.failures[before]}"]
    if outcome.failures:
        return [what, "; ".join(f"{name} failed: {why}" for name, why in outcome.failures.items())]
    metric = part.metrics[0]
    cells = [what, *_ratio(outcome, metric.key, more_is_better=part.more_is_better)]
    cells += _ratio(outcome, "cpu", more_is_better=False) if part.has_cpu else ["", ""]
    for name in (before, now):
        spread = report.Spread.of(report.values(outcome, name, metric.key))
        assert spread is not None
        cells.append(spread.text(metric.form))
    return [*cells, metric.name]


def _ratio(outcome: Outcome, metric: str, *, more_is_better: bool) -> list[str]:
    """Return the ratio of this tree to the revision, and the verdict on it."""
    before, now = outcome.titles
    ratio = report.Spread.of(report.values(outcome, now, metric, before))
    if ratio is None:
        return ["-", ""]
    return [ratio.text("{:.3f}"), _verdict(ratio, more_is_better=more_is_better)]


def _verdict(ratio: report.Spread, *, more_is_better: bool) -> str:
    """Return the verdict on which all rounds agree, if they do."""
    if ratio.least > 1:
        return "better" if more_is_better else "worse"
    if ratio.most < 1:
        return "worse" if more_is_better else "better"
    return "the same"


def as_text(
    outcomes: Sequence[Outcome], about: dict[str, Any], revision: str, *, quick: bool
) -> str:
    """Return a table of the ratios of this tree to the revision."""
    rounds = max((len(outcome.rounds) for outcome in outcomes), default=0)
    head = ["", "ratio", "in all rounds", "CPU ratio", "in all rounds", revision, "this tree", ""]
    lines = [*report.about_machine(about)]
    lines += [f"Median of {rounds} rounds [least .. most]; ratios are formed within each.", ""]
    lines += report.aligned([head, *map(_line, outcomes)])
    lines += ["", *report.remarks(outcomes, about, {}, quick=quick)]
    return "\n".join(lines).rstrip()


def as_json(
    outcomes: Sequence[Outcome], about: dict[str, Any], revision: str, *, quick: bool
) -> dict[str, Any]:
    """Return all measurements as JSON."""
    return {
        "machine": about,
        "quick": quick,
        "revision": revision,
        "measured": [
            {
                "part": outcome.part.key,
                "rounds": outcome.rounds,
                "turns": outcome.turns,
                "failures": outcome.failures,
                "skipped": is_skipped(outcome),
            }
            for outcome in outcomes
        ],
    }

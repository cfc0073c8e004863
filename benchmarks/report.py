"""Tables and verdicts. Ratios come first, because times differ from machine to machine."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.figures import FIGURES, Figure
from benchmarks.interface import Measurement
from benchmarks.parts import PARTS, THEMES, Load, Metric
from benchmarks.runner import DISTURBED, Outcome

__all__ = [
    "Spread",
    "about_machine",
    "aligned",
    "as_json",
    "as_markdown",
    "as_text",
    "from_json",
    "remarks",
    "values",
    "verdicts",
]


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of the rounds, and the least and the greatest value."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """Return the spread of these values, or None if there are no values."""
        if not values:
            return None
        return cls(statistics.median(values), min(values), max(values))

    def text(self, form: str) -> str:
        """Return the spread as text, with each number in that format."""
        low, middle, high = (form.format(x) for x in (self.least, self.median, self.most))
        return f"{middle} [{low} .. {high}]"


def values(
    outcome: Outcome,
    adapter: str,
    metric: str,
    against: str | Sequence[str] | None = None,
) -> list[float]:
    """Return one value per round. With `against`, divide it by the value of that adapter.

    Of several, the one with the least median counts.
    """
    if against is not None and not isinstance(against, str):
        found = [(values(outcome, name, metric), name) for name in against]
        against = min((statistics.median(all_), name) for all_, name in found if all_)[1]
    if adapter in outcome.failures or against in outcome.failures:
        return []
    return [
        one[adapter][metric] / (one[against][metric] if against else 1)
        for one in outcome.rounds
        if metric in one.get(adapter, {}) and (against is None or one.get(against, {}).get(metric))
    ]


def _row(outcome: Outcome, name: str) -> list[str]:
    part = outcome.part
    title = outcome.titles[name]
    if name in outcome.lacking:
        return [title, outcome.lacking[name]]
    if name in outcome.failures:
        return [title, "failed: " + outcome.failures[name]]
    ratio = Spread.of(values(outcome, name, part.metrics[0].key, part.floor))
    cells = [title, ratio.text("{:.2f}") if ratio else "-"]
    if part.has_cpu:
        by_cpu = Spread.of(values(outcome, name, "cpu", part.floor))
        cells.append(by_cpu.text("{:.2f}") if by_cpu else "-")
    for metric in part.metrics:
        spread = Spread.of(values(outcome, name, metric.key))
        cells.append(spread.text(metric.form) if spread else "-")
    return cells


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Return the lines of a table."""
    whole = [
        row for row in rows if len(row) == len(rows[0])
    ]  # the reason for a missing figure is not a column
    widths = [max(map(len, column)) for column in zip(*whole, strict=True)]
    widths[0] = max(len(row[0]) for row in rows)
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        if len(row) == len(widths):
            cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        else:
            cells += row[1:]
        yield "  " + "   ".join(cells).rstrip()


def _table(outcome: Outcome) -> Iterator[str]:
    part = outcome.part
    yield f"{part.title} ({part.note})"
    ratios = ["ratio to floor", "CPU to floor"] if part.has_cpu else ["ratio to floor"]
    head = ["", *ratios, *(metric.name for metric in part.metrics)]
    yield from aligned([head, *(_row(outcome, name) for name in outcome.titles)])
    yield ""


def _is_there(outcome: Outcome, against: str | Sequence[str]) -> bool:
    names = [against] if isinstance(against, str) else against
    return any(name in one for name in names for one in outcome.rounds)


def _judged(figure: Figure, outcome: Outcome | None) -> dict[str, Any]:
    """Return a figure with its measured value and a verdict: met, missed or not measured."""
    found = []
    if outcome and (not figure.against or _is_there(outcome, figure.against)):
        found = values(outcome, figure.adapter, figure.metric, figure.against)
    spread = Spread.of(found)
    judged: dict[str, Any] = {"figure": asdict(figure), "measured": None, "verdict": "not measured"}
    if spread is None:
        return judged
    least_is_worst = figure.at_least is not None
    worst, best = (spread.least, spread.most) if least_is_worst else (spread.most, spread.least)

    def holds(value: float) -> bool:
        if figure.at_least is not None:
            return value >= figure.at_least
        return figure.at_most is None or value <= figure.at_most

    met = holds(worst if figure.every_round else spread.median)
    judged["measured"] = asdict(spread)
    judged["verdict"] = "met" if met else "missed"
    judged["in_every_round"] = holds(worst) if met else not holds(best)
    return judged


def verdicts(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return every promised figure of the parts that ran, judged."""
    by_part = {outcome.part.key: outcome for outcome in outcomes}
    return [_judged(figure, by_part[figure.part]) for figure in FIGURES if figure.part in by_part]


def _verdict_row(judged: dict[str, Any]) -> list[str]:
    figure = judged["figure"]
    bound = figure["at_most"] if figure["at_most"] is not None else figure["at_least"]
    target = f"{'at most' if figure['at_most'] is not None else 'at least'} {bound:g}"
    if judged["measured"] is None:
        return [figure["text"], target, "-", "not measured"]
    measured = Spread(**judged["measured"]).text("{:.2f}")
    doubt = "" if judged["in_every_round"] else ", but not in every round"
    return [figure["text"], target, measured, judged["verdict"] + doubt]


def _turns(outcome: Outcome) -> Iterator[Measurement]:
    for one_round in outcome.turns:
        for turns in one_round.values():
            yield from turns


def remarks(
    outcomes: Sequence[Outcome], about: dict[str, Any], absent: dict[str, str], *, quick: bool
) -> Iterator[str]:
    """Return the remarks on all figures, one line each."""
    if quick:
        yield "Quick run: it only shows that the benchmark works. Its figures mean nothing."
    if about["pinned"] is None:
        yield "Client and server could not be pinned to separate cores."
    turns = [turn for outcome in outcomes for turn in _turns(outcome)]
    disturbed = sum(turn["waited"] > DISTURBED for turn in turns)
    if disturbed:
        yield (
            f"In {disturbed} of {len(turns)} turns other programs had the cores for more than "
            f"{DISTURBED:.0%} of the time, all tries included: times are too long."
        )
    for module, reason in absent.items():
        yield f"Left out: {module} ({reason})"


def about_machine(about: dict[str, Any]) -> Iterator[str]:
    """Return a description of the machine and the versions of the packages."""
    yield f"{about['processor']}, {about['cores']} cores; {about['system']}; {about['python']}"
    if about.get("revision"):
        yield f"trio_rpc at {about['revision']}"
    yield ", ".join(f"{name} {version}" for name, version in about["packages"].items())


def _rounds(outcomes: Sequence[Outcome]) -> str:
    counts = sorted({len(outcome.rounds) for outcome in outcomes})
    return f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])


def as_text(
    outcomes: Sequence[Outcome], about: dict[str, Any], absent: dict[str, str], *, quick: bool
) -> str:
    """Return the whole report."""
    lines = [
        *about_machine(about),
        f"Median of {_rounds(outcomes)} rounds [least .. most].",
        "CPU is the time that client and server together use of their cores; less is better.",
        "",
    ]
    for outcome in outcomes:
        lines += _table(outcome)
    if judged := verdicts(outcomes):
        lines.append("Figures promised")
        head = ["", "target", "measured", "verdict"]
        lines += aligned([head, *map(_verdict_row, judged)])
        lines.append("")
    lines += remarks(outcomes, about, absent, quick=quick)
    return "\n".join(lines).rstrip()


def as_markdown(outcomes: Sequence[Outcome]) -> str:
    """Return the tables that compare the libraries, with a row for each adapter."""
    by_key = {outcome.part.key: outcome for outcome in outcomes}
    tables = []
    for title, keys in THEMES.items():
        if parts := [by_key[key] for key in keys if key in by_key]:
            tables.append(f"### {title}\n\n{_markdown_table(parts)}")
    return "\n".join(tables)


def _markdown_table(parts: Sequence[Outcome]) -> str:
    titles = {name: title for outcome in parts for name, title in outcome.titles.items()}
    columns = [column for outcome in parts for column in _columns(outcome)]
    lines = [["", *(head for head, _ in columns)], ["---", *("---:" for _ in columns)]]
    for name, title in titles.items():
        cells = [cells.get(name, "") for _, cells in columns]
        if any(cell.strip("-") for cell in cells):
            lines.append([title, *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _columns(outcome: Outcome) -> Iterator[tuple[str, dict[str, str]]]:
    """Return the columns of one part: its first metric, and the CPU time with its ratio."""
    part = outcome.part
    first = part.metrics[0]
    yield (
        f"{part.title}: {first.name}",
        outcome.lacking | _cells(outcome, first, more_is_better=part.more_is_better),
    )
    if part.has_cpu:
        cpu = next(metric for metric in part.metrics if metric.key == "cpu")
        cells = _cells(outcome, cpu, more_is_better=False)
        for name in cells:
            if ratio := Spread.of(values(outcome, name, "cpu", part.floor)):
                cells[name] += f" ({ratio.median:.2f})"
        yield f"{cpu.name} (to floor)", cells


def _cells(outcome: Outcome, metric: Metric, *, more_is_better: bool) -> dict[str, str]:
    """Return the cells of all adapters. The best one that is not a floor is bold."""
    medians = {name: Spread.of(values(outcome, name, metric.key)) for name in outcome.titles}
    cells = {name: metric.form.format(one.median) for name, one in medians.items() if one}
    ranked = [
        (one.median, name)
        for name, one in medians.items()
        if one and not outcome.titles[name].startswith("floor:")
    ]
    if ranked:
        best = max(ranked)[1] if more_is_better else min(ranked)[1]
        cells[best] = f"**{cells[best]}**"
    return cells


def as_json(
    outcomes: Sequence[Outcome], about: dict[str, Any], absent: dict[str, str], *, quick: bool
) -> dict[str, Any]:
    """Return all measurements, round by round, and the verdicts, as JSON."""
    return {
        "machine": about,
        "quick": quick,
        "left_out": absent,
        "parts": {
            outcome.part.key: {
                "title": outcome.part.title,
                "floor": outcome.part.floor,
                "rows": outcome.titles,
                "load": asdict(outcome.load),
                "rounds": outcome.rounds,
                "turns": outcome.turns,
                "failures": outcome.failures,
                "lacking": outcome.lacking,
            }
            for outcome in outcomes
        },
        "figures": verdicts(outcomes),
    }


def from_json(found: dict[str, Any]) -> list[Outcome]:
    """Return the outcomes that `as_json` has written."""
    return [
        Outcome(
            PARTS[key],
            load=Load(**one["load"]),
            titles=one["rows"],
            rounds=one["rounds"],
            turns=one["turns"],
            failures=one["failures"],
            lacking=one["lacking"],
        )
        for key, one in found["parts"].items()
    ]

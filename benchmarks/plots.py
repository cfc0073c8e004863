"""Plots of a run: a PNG and an SVG for each part, and one of all in which peers are compared.

A bar is the median of the rounds, with a line from the least to the greatest; behind its figure is
the ratio to the floor.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from math import ceil
from pathlib import Path
from typing import Any

from benchmarks.report import Spread, values
from benchmarks.runner import Outcome

__all__ = ["draw", "possible"]

FLOOR, LIBRARY, PEER = "#b8bec6", "#c2410c", "#4f7cac"
FORMATS = ("png", "svg")


def possible() -> bool:
    """Tell whether there is matplotlib."""
    return find_spec("matplotlib") is not None


def _color(name: str, title: str) -> str:
    if title.startswith("floor:"):
        return FLOOR
    return LIBRARY if name.startswith("trio_rpc") else PEER


def _bars(axes: Any, outcome: Outcome) -> None:
    metric = outcome.part.metrics[0]
    said = [
        (name, title.removeprefix("floor: "), Spread.of(values(outcome, name, metric.key)))
        for name, title in outcome.titles.items()
    ]
    axes.set_title(outcome.part.title, loc="left", fontsize=10, fontweight="bold")
    better = "more is better" if outcome.part.more_is_better else "less is better"
    axes.set_xlabel(f"{metric.name}, {better}", fontsize=8)
    axes.set_yticks(range(len(said)), [title for _, title, _ in said], fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    for place, (name, _, spread) in enumerate(said):
        if spread is None:
            why = outcome.lacking.get(name, "failed")
            axes.text(0, place, f" {why}", va="center", fontsize=8, color="gray")
            continue
        whiskers = [[spread.median - spread.least], [spread.most - spread.median]]
        color = _color(name, outcome.titles[name])
        axes.barh(place, spread.median, color=color, xerr=whiskers, ecolor="black", capsize=2)
        text = "  " + metric.form.format(spread.median)
        if ratio := Spread.of(values(outcome, name, metric.key, outcome.part.floor)):
            text += f" ({ratio.median:.2f} \N{MULTIPLICATION SIGN})"
        axes.text(spread.most, place, text, va="center", fontsize=8)
    axes.margins(x=0.3)


def _save(outcomes: Sequence[Outcome], columns: int, path: Path) -> None:
    from matplotlib.figure import Figure  # noqa: PLC0415 - only plots need it

    lines = ceil(len(outcomes) / columns)
    longest = max(len(outcome.titles) for outcome in outcomes)
    size = (7.5 * columns, lines * (1.0 + 0.24 * longest))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False)
    places = list(grid.flat)
    for axes, outcome in zip(places, outcomes, strict=False):
        _bars(axes, outcome)
    for axes in places[len(outcomes) :]:
        axes.set_axis_off()
    for form in FORMATS:
        figure.savefig(path.with_suffix(f".{form}"), dpi=150)


def draw(outcomes: Sequence[Outcome], folder: Path) -> None:
    """Write the plots into that folder, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    for outcome in outcomes:
        _save([outcome], 1, folder / outcome.part.key)
    if compared := [outcome for outcome in outcomes if outcome.part.peers]:
        _save(compared, min(2, len(compared)), folder / "peers")

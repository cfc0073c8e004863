"""Plots of a run: a PNG and an SVG for each part, two that compare the peers, and the growth.

A bar shows the median of the rounds, with a line from the lowest round to the highest. Its label
is the median, and after it the ratio to the floor.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from math import ceil
from pathlib import Path
from typing import Any

from benchmarks.growth import draw_growth
from benchmarks.report import Spread, values
from benchmarks.runner import Outcome

__all__ = ["draw", "possible"]

FLOOR, LIBRARY, PEER = "#b8bec6", "#c2410c", "#4f7cac"
FORMATS = ("png", "svg")
MARKERS = "osv^<>pPX*dhH"
LABELS = {
    "Pyro5 (msgpack), a connection for each caller": "Pyro5, a connection for each caller",
    "multiprocessing.connection (pickle), a connection for each caller": (
        "multiprocessing, a connection for each caller"
    ),
}
"""Shorter names in legends."""


def possible() -> bool:
    """Tell whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def _color(name: str, title: str) -> str:
    if title.startswith("floor:"):
        return FLOOR
    return LIBRARY if name.startswith("trio_rpc") else PEER


def _bars(axes: Any, outcome: Outcome) -> None:
    metric = outcome.part.metrics[0]
    rows = [
        (name, title.removeprefix("floor: "), Spread.of(values(outcome, name, metric.key)))
        for name, title in outcome.titles.items()
    ]
    axes.set_title(outcome.part.title, loc="left", fontsize=10, fontweight="bold")
    better = "more is better" if outcome.part.more_is_better else "less is better"
    axes.set_xlabel(f"{metric.name}, {better}", fontsize=8)
    axes.set_yticks(range(len(rows)), [title for _, title, _ in rows], fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    for place, (name, _, spread) in enumerate(rows):
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


def _speeds(outcome: Outcome) -> dict[str, float]:
    """Return, by title, how many times as fast or as small as the library each peer is."""
    metric, more_is_better = outcome.part.compared
    # Through the floor, because a peer may have taken part in other rounds than the library.
    ratios = {
        name: ratio.median
        for name in outcome.titles
        if (ratio := Spread.of(values(outcome, name, metric.key, outcome.part.floor)))
    }
    own = ratios.get(outcome.part.own)
    if own is None:
        return {}
    return {
        title: ratios[name] / own if more_is_better else own / ratios[name]
        for name, title in outcome.titles.items()
        if name in ratios and not title.startswith("floor:")
    }


def _overview(outcomes: Sequence[Outcome], path: Path) -> None:
    """Draw all parts in one plot: a dot for each peer, left of the line if it is worse."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - only plots need it

    figure = Figure(figsize=(12, 1.4 + 0.3 * len(outcomes)), layout="constrained")
    axes = figure.subplots()
    titles = dict.fromkeys(title for outcome in outcomes for title in outcome.titles.values())
    for number, title in enumerate(title for title in titles if not title.startswith("floor:")):
        dots = [
            (speeds[title], place)
            for place, outcome in enumerate(outcomes)
            if title in (speeds := _speeds(outcome))
        ]
        if dots:
            ours = title.startswith("trio_rpc")
            color = LIBRARY if ours else f"C{number % 10}"
            axes.scatter(
                *zip(*dots, strict=True),
                edgecolor=color,
                facecolor="none" if "plain def" in title else color,
                marker="D" if ours else MARKERS[number % len(MARKERS)],
                s=46 if ours else 30,
                zorder=3 if ours else 2,
                label=LABELS.get(title, title),
            )
    axes.axvline(1, color=LIBRARY, linewidth=1, zorder=0)
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    ticks = [one * 10**power for power in range(-4, 4) for one in (1, 2, 5)]
    ticks = [tick for tick in ticks if low <= tick <= high]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], fontsize=8)
    axes.minorticks_off()
    axes.grid(color="#e5e7eb", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.set_yticks(range(len(outcomes)), [outcome.part.title for outcome in outcomes], fontsize=8)
    axes.set_ylim(len(outcomes) - 0.4, -0.6)
    axes.set_xlabel(
        "\N{LEFTWARDS ARROW} costs more          times as cheap as trio_rpc with an async def handler"
        "          costs less \N{RIGHTWARDS ARROW}\n"
        "CPU time of both ends; memory of an idle session; time of a small call beside large ones",
        fontsize=8,
    )
    axes.spines[["top", "right"]].set_visible(False)
    if axes.collections:
        axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    for form in FORMATS:
        figure.savefig(path.with_suffix(f".{form}"), dpi=150)


def draw(outcomes: Sequence[Outcome], folder: Path) -> None:
    """Write the plots into that folder, and make the folder if it does not exist."""
    folder.mkdir(parents=True, exist_ok=True)
    for outcome in outcomes:
        _save([outcome], 1, folder / outcome.part.key)
    if compared := [outcome for outcome in outcomes if outcome.part.peers]:
        _save(compared, min(2, len(compared)), folder / "peers")
        _overview(compared, folder / "overview")
    draw_growth(outcomes, folder / "growth")

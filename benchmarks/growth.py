"""The plot of growth: CPU time against calls in flight, payload and sessions.

Each panel has a line for each row that was measured at two points or more. The line goes through
the medians of the rounds. For the library, a band goes from the lowest round to the highest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.report import Spread, values
from benchmarks.runner import Outcome

__all__ = ["PANELS", "draw_growth"]

MIB = 1 << 20
FLOOR, LIBRARY = "#8a929c", "#c2410c"
COLORS = ("#2563eb", "#0d9488", "#7c3aed", "#db2777", "#65a30d", "#0891b2", "#a16207", "#4b5563")
STYLES = ("-", (0, (4, 1.5)), (0, (1, 1.2)))
MARKERS = "osv^<>pPX*dhH"
FORMATS = ("png", "svg")


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel: the parts along its horizontal axis, and the divisor of their CPU times."""

    title: str
    horizontal: str
    vertical: str
    points: Mapping[str, tuple[float, str]]
    """Part -> its place, and the text below it."""

    per: Mapping[str, float]
    """Part -> the divisor of the microseconds of CPU time."""


PANELS = (
    Panel(
        title="Calls in flight",
        horizontal="calls in flight on one connection",
        vertical="CPU µs a call, both ends",
        points={
            "one": (1, "1"),
            "flight-8": (8, "8"),
            "flight": (64, "64"),
            "flight-500": (500, "500"),
            "flight-2000": (2000, "2,000"),
        },
        per={},
    ),
    Panel(
        title="Payload",
        horizontal="bytes echoed in one call",
        vertical="CPU ms a MiB echoed, both ends",
        points={
            "large-16k": (1 / 64, "16 KiB"),
            "large-256k": (1 / 4, "256 KiB"),
            "large": (1, "1 MiB"),
            "large-15m": (15, "15 MiB"),
        },
        per={"large-16k": 1e3 / 64, "large-256k": 1e3 / 4, "large": 1e3, "large-15m": 15e3},
    ),
    Panel(
        title="Sessions",
        horizontal="sessions that are opened and kept open",
        vertical="CPU µs to open one and call once, both ends",
        points={
            "sessions-100": (100, "100"),
            "sessions-1000": (1000, "1,000"),
            "sessions-5000": (5000, "5,000"),
        },
        per={},
    ),
)


def _line(panel: Panel, outcomes: Mapping[str, Outcome], name: str) -> list[tuple[float, Spread]]:
    """Return the places of one row, and its spread at each."""
    points = []
    for key, (place, _) in panel.points.items():
        if key in outcomes:
            divisor = panel.per.get(key, 1.0)
            found = [value / divisor for value in values(outcomes[key], name, "cpu")]
            if spread := Spread.of(found):
                points.append((place, spread))
    return points if len(points) > 1 else []


def _style(name: str, title: str, number: int) -> dict[str, Any]:
    if name.startswith("trio_rpc"):
        dashes = "-" if name == "trio_rpc" else STYLES[1 if "inline" in name else 2]
        return {"color": LIBRARY, "linewidth": 2.2, "linestyle": dashes, "marker": "D", "zorder": 4}
    if title.startswith("floor:"):
        return {
            "color": FLOOR,
            "linewidth": 1.1,
            "linestyle": STYLES[1],
            "marker": MARKERS[number % len(MARKERS)],
            "markerfacecolor": "white",
            "zorder": 3,
        }
    return {
        "color": COLORS[number % len(COLORS)],
        "linewidth": 1.1,
        "linestyle": STYLES[number // len(COLORS) % len(STYLES)],
        "marker": MARKERS[number % len(MARKERS)],
        "zorder": 2,
    }


def _draw_panel(
    axes: Any, panel: Panel, outcomes: Mapping[str, Outcome], styles: Mapping[str, dict[str, Any]]
) -> None:
    for name, style in styles.items():
        line = _line(panel, outcomes, name)
        if not line:
            continue
        places = [place for place, _ in line]
        axes.plot(places, [spread.median for _, spread in line], markersize=4.5, **style)
        if name == "trio_rpc":
            least, most = [s.least for _, s in line], [s.most for _, s in line]
            axes.fill_between(places, least, most, color=LIBRARY, alpha=0.18, linewidth=0)
    axes.set_xscale("log")
    axes.set_yscale("log")
    shown = [point for key, point in panel.points.items() if key in outcomes]
    axes.set_xticks([place for place, _ in shown], [text for _, text in shown], fontsize=8)
    axes.minorticks_off()
    low, high = axes.get_ylim()
    ticks = [
        tick * 10**power
        for power in range(-3, 7)
        for tick in (1, 2, 5)
        if low <= tick * 10**power <= high
    ]
    axes.set_yticks(ticks, [f"{tick:,g}" for tick in ticks], fontsize=8)
    axes.grid(axis="y", color="#e5e7eb", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(panel.title, loc="left", fontsize=10, fontweight="bold")
    axes.set_xlabel(panel.horizontal, fontsize=8)
    axes.set_ylabel(f"{panel.vertical} (log)", fontsize=8)


def _titles(outcomes: Mapping[str, Outcome], panels: Sequence[Panel]) -> dict[str, str]:
    """Return the rows that have a line in a panel: the library's, then floors, then peers."""
    titles = {name: title for one in outcomes.values() for name, title in one.titles.items()}
    drawn = {
        name: title
        for name, title in titles.items()
        if any(_line(panel, outcomes, name) for panel in panels)
    }

    def kind(item: tuple[str, str]) -> int:
        name, title = item
        return 0 if name.startswith("trio_rpc") else 1 if title.startswith("floor:") else 2

    return dict(sorted(drawn.items(), key=kind))


def draw_growth(outcomes: Sequence[Outcome], path: Path) -> bool:
    """Draw the panels that have two points or more. Return whether there are any."""
    by_key = {outcome.part.key: outcome for outcome in outcomes}
    panels = [panel for panel in PANELS if sum(key in by_key for key in panel.points) > 1]
    titles = _titles(by_key, panels)
    if not titles:
        return False
    from matplotlib.figure import Figure  # noqa: PLC0415 - only plots need it
    from matplotlib.lines import Line2D  # noqa: PLC0415 - likewise

    first = sum(
        name.startswith("trio_rpc") or title.startswith("floor:") for name, title in titles.items()
    )
    styles = {
        name: _style(name, title, (number - first) % len(titles))
        for number, (name, title) in enumerate(titles.items())
    }
    figure = Figure(figsize=(4.2 * len(panels) + 3.2, 4.6), layout="constrained")
    for axes, panel in zip(
        figure.subplots(1, len(panels), squeeze=False).flat, panels, strict=True
    ):
        _draw_panel(axes, panel, by_key, styles)
    figure.legend(
        [Line2D([], [], markersize=4.5, **style) for style in styles.values()],
        list(titles.values()),
        loc="outside right center",
        fontsize=7.5,
        frameon=False,
        handlelength=3,
    )
    for form in FORMATS:
        figure.savefig(path.with_suffix(f".{form}"), dpi=150)
    return True

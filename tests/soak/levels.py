"""Whether memory stays level, and whether descriptors and tasks are left."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")
MIB = 2**20
MOST_SLOPE = 1.0
"""The most MiB a minute that a process may grow after the warm-up."""
NOISE = 6.0
"""MiB that a process may grow at once: an arena or a buffer more is no leak."""
LONG = 240.0
"""Seconds after the warm-up from which a slope says something. Before, four times NOISE is one."""
WINDOW = 5.0
"""Seconds whose least value counts as one measurement: garbage comes and goes."""


def resident(pid: int) -> float:
    """Return the resident memory of a process, in MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / MIB


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@dataclass
class Levels:
    """The memory of one process over time."""

    pid: int
    samples: list[tuple[float, float]] = field(default_factory=list)  # seconds, MiB

    def sample(self, at: float) -> None:
        self.samples.append((at, resident(self.pid)))

    def slope(self, warm_up: float) -> float:
        """Return the growth after ``warm_up`` seconds, in MiB a minute, by least squares."""
        return 60 * _slope(_floors([each for each in self.samples if each[0] >= warm_up]))

    def growth(self, warm_up: float) -> float:
        """Return how many MiB the floor of the last third is above that of the first third."""
        floors = [value for _, value in _floors([e for e in self.samples if e[0] >= warm_up])]
        third = max(1, len(floors) // 3)
        return min(floors[-third:]) - min(floors[:third]) if floors else 0.0

    def is_level(self, warm_up: float) -> bool:
        measured = self.samples[-1][0] - warm_up if self.samples else 0.0
        noise = NOISE if measured >= LONG else 4 * NOISE
        return self.slope(warm_up) <= MOST_SLOPE or self.growth(warm_up) <= noise


def _floors(samples: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    windows: dict[int, float] = {}
    for at, value in samples:
        number = int(at // WINDOW)
        windows[number] = min(value, windows.get(number, value))
    return [(number * WINDOW, value) for number, value in sorted(windows.items())]


def _slope(points: Sequence[tuple[float, float]]) -> float:
    if len(points) < 2:
        return 0.0
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread

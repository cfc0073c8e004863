"""Whether memory stays level, and whether descriptors and tasks are left.

The soak judges the memory *in use*: the resident memory without the free parts of malloc's heap.
The soak's large payloads (400,000 bytes, in buffers of many sizes) leave glibc's heap fragmented.
In eight minutes the free parts of a server's heap grew from 10 to 25 MiB, while the parts in use
stayed at 10 to 20 MiB and the number of Python's blocks did not change. So resident memory alone
tells more of malloc than of leaks. It is shown beside the memory in use.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")
MIB = 2**20
MOST_SLOPE = 1.0
"""The most MiB a minute that a process may grow after the warm-up."""
NOISE = 6.0
"""MiB that a process may grow at once: another arena or buffer is not a leak."""
LONG = 240.0
"""Seconds after the warm-up from which a slope counts; before, growth above four times NOISE."""
WINDOW = 5.0
"""Seconds whose least value counts as one measurement: garbage comes and goes."""


class _Mallinfo2(ctypes.Structure):
    """The result of glibc's mallinfo2: sizes in bytes."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    )


def memory() -> tuple[float, float]:
    """Return the resident memory of this process, and how much of it malloc holds free, in MiB.

    Without glibc 2.33 or later the second number is 0.
    """
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * PAGE / MIB, _free_heap() / MIB


def _free_heap() -> int:
    try:
        mallinfo2 = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        return 0
    mallinfo2.restype = _Mallinfo2
    return int(mallinfo2().fordblks)


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@dataclass
class Levels:
    """The memory of one process over time."""

    samples: list[tuple[float, float]] = field(default_factory=list)  # seconds, MiB in use
    resident: list[tuple[float, float]] = field(default_factory=list)  # seconds, MiB

    def add(self, at: float, resident: float, free: float) -> None:
        """Add the result of :func:`memory` in that process."""
        self.samples.append((at, resident - free))
        self.resident.append((at, resident))

    def slope(self, warm_up: float) -> float:
        """Return the growth after ``warm_up`` seconds, in MiB a minute, by least squares."""
        return _slope_of(self.samples, warm_up)

    def resident_slope(self, warm_up: float) -> float:
        """Return the same of the resident memory, with the free parts of the heap."""
        return _slope_of(self.resident, warm_up)

    def growth(self, warm_up: float) -> float:
        """Return how many MiB the floor of the last third is above that of the first third."""
        floors = [value for _, value in _floors([e for e in self.samples if e[0] >= warm_up])]
        third = max(1, len(floors) // 3)
        return min(floors[-third:]) - min(floors[:third]) if floors else 0.0

    def is_level(self, warm_up: float) -> bool:
        measured = self.samples[-1][0] - warm_up if self.samples else 0.0
        noise = NOISE if measured >= LONG else 4 * NOISE
        return self.slope(warm_up) <= MOST_SLOPE or self.growth(warm_up) <= noise


def _slope_of(samples: Sequence[tuple[float, float]], warm_up: float) -> float:
    return 60 * _slope(_floors([each for each in samples if each[0] >= warm_up]))


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

"""A summary of latencies."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["Latencies"]


class Latencies:
    """Collects latencies in seconds, and summarises them."""

    def __init__(self) -> None:
        self._seconds: list[float] = []

    def __len__(self) -> int:
        return len(self._seconds)

    def add(self, seconds: float) -> None:
        """Add one latency, in seconds."""
        self._seconds.append(seconds)

    def quantile(self, share: float) -> float:
        """Return the quantile ``share``, in seconds; NaN without latencies."""
        if not self._seconds:
            return math.nan
        ordered = sorted(self._seconds)
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

    def as_dict(self) -> dict[str, Any]:
        """Return count, minimum, median, 99th percentile and maximum; the times in milliseconds.

        The times are None without latencies.
        """
        return {
            "count": len(self),
            **{
                f"{name}_ms": round(self.quantile(share) * 1e3, 4) if self._seconds else None
                for name, share in (("min", 0.0), ("p50", 0.5), ("p99", 0.99), ("max", 1.0))
            },
        }

    def __str__(self) -> str:
        shown = self.as_dict()
        return " · ".join(
            f"{name} {shown[f'{name}_ms']:.2f} ms" for name in ("min", "p50", "p99", "max")
        )

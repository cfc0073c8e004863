"""A summary of latencies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

__all__ = ["Latencies"]

SHARES: Final = MappingProxyType({"min": 0.0, "p50": 0.5, "p99": 0.99, "max": 1.0})
"""The quantiles of a summary."""


class Latencies:
    """Collects latencies in seconds, and summarises them."""

    def __init__(self) -> None:
        self._seconds: list[float] = []

    def __len__(self) -> int:
        return len(self._seconds)

    def add(self, seconds: float) -> None:
        """Add one latency, in seconds."""
        self._seconds.append(seconds)

    def ordered(self) -> list[float]:
        """Return all latencies in seconds, the least first."""
        return sorted(self._seconds)

    def as_dict(self, shares: Mapping[str, float] = SHARES) -> dict[str, Any]:
        """Return the count, and the quantiles in milliseconds, which are None without latencies.

        Args:
            shares: each quantile by its name.
        """
        found = self._quantiles(shares)
        return {
            "count": len(self),
            **{
                f"{name}_ms": None if math.isnan(value) else round(value * 1e3, 4)
                for name, value in found.items()
            },
        }

    def summary(self, shares: Mapping[str, float] = SHARES) -> str:
        """Return the quantiles in one line."""
        found = self._quantiles(shares)
        return " · ".join(f"{name} {value * 1e3:.2f} ms" for name, value in found.items())

    def __str__(self) -> str:
        return self.summary()

    def _quantiles(self, shares: Mapping[str, float]) -> dict[str, float]:
        ordered = self.ordered()
        return {name: _quantile(ordered, share) for name, share in shares.items()}


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan

"""Hooks for ``json.loads`` that refuse values that it would not read exactly.

They raise ValueError with one line of text.
"""

from __future__ import annotations

import math
from typing import Any, NoReturn

__all__ = ["exact_float", "no_constant", "unique_keys"]


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dict of an object's pairs, without repeated keys: the ``object_pairs_hook``."""
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        twice = next(
            key
            for key, _ in pairs
            if key in seen or seen.add(key)  # type: ignore[func-returns-value]
        )
        raise ValueError(f"the key {twice!r:.200} appears twice")
    return made


def exact_float(digits: str) -> float:
    """Read a float, unless it would become zero or infinite: the ``parse_float``."""
    number = float(digits)
    if number == 0 and any(digit in "123456789" for digit in digits.lower().partition("e")[0]):
        raise ValueError(f"the number {digits:.40} is too small")
    if math.isinf(number):
        raise ValueError(f"the number {digits:.40} is too large")
    return number


def no_constant(name: str) -> NoReturn:
    """Refuse NaN and the infinities, which JSON does not have: the ``parse_constant``."""
    raise ValueError(f"JSON has no {name}")

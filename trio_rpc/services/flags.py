"""Combinations of flags that arrive, without keeping all of them forever.

Python keeps each combination of a ``Flag`` that it has ever made in a dict of the class, so that
equal combinations are one object. A peer can send any of them, and there are 2^n for n members, or
2^64 for an ``IntFlag``.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Callable
from typing import Any, Final

__all__ = ["MOST", "maker_of_flags"]

MOST: Final = 1024
"""Combinations that a class may keep before unused ones are removed."""

_HELD_ONCE: Final = [object()]
_UNUSED: Final = sys.getrefcount(_HELD_ONCE[0])
"""The reference count of an object to which only one container refers."""


def maker_of_flags(cls: type[enum.Flag]) -> Callable[[int], Any]:
    """Return a function that makes a combination, and that bounds the number of unused ones.

    It looks for unused combinations when their number has doubled, so the cost of looking is spread
    over all combinations. A combination that the program still uses stays, because Python
    compares combinations by identity.
    """
    kept: dict[Any, Any] = cls._value2member_map_
    limit = MOST

    def make(value: int) -> Any:
        nonlocal limit
        made = cls(value)
        if len(kept) > limit:
            _remove_unused(cls, kept)
            limit = max(MOST, 2 * len(kept))
        return made

    return make


def _remove_unused(cls: type[enum.Flag], kept: dict[Any, Any]) -> None:
    declared = {member.value for member in cls.__members__.values()}
    for value in [*kept]:
        if value not in declared and sys.getrefcount(kept[value]) <= _UNUSED:
            del kept[value]

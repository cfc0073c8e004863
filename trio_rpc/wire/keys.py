"""Sets and maps of keys that a peer chose.

Text and bytes hash with a secret of this process. Numbers do not: their hashes can be chosen, all
the same, or different and yet on one path through the table, so that each key is compared with
all before it. The first can be counted. The second depends on the table's inner life, and is told
from what it costs: by a factor of a thousand, where the bound is a factor of ten and a second.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Collection
from itertools import islice
from operator import eq
from typing import Any

from trio_rpc.errors import DecodeError

__all__ = ["KeyBuilder", "collide"]

MAX_COLLISIONS = 100
"""Keys of one map or set that may share a hash with another."""

CHUNK = 1024
"""Keys put in at once. So few are quick however they collide."""

BASE_SECONDS = 0.05
SECONDS_PER_KEY = 1e-6
"""Processor time for the sets and maps of one message: ten times what an ordinary machine needs.

No garbage is collected meanwhile: a collection takes as long as the whole program's memory asks for.
"""


def collide(keys: Collection[Any]) -> bool:
    """Say whether more keys share a hash than chance explains. Raises TypeError without one."""
    if len(keys) <= MAX_COLLISIONS:
        return False
    # Sorted, because a set of these hashes would be what is to be prevented.
    hashes = sorted(map(hash, keys))
    shared: int = sum(map(eq, hashes, islice(hashes, 1, None)))
    return shared > MAX_COLLISIONS


class KeyBuilder:
    """Builds the sets and maps of one message, as long as that takes no undue time."""

    __slots__ = ("_clock", "_keys", "_seconds")

    def __init__(self, clock: Callable[[], float] = time.thread_time) -> None:
        self._clock = clock
        self._keys = 0
        self._seconds = 0.0

    def set(self, items: list[Any]) -> set[Any]:
        """Make a set. Raises DecodeError for chosen hashes, TypeError for what has none."""
        if len(items) <= MAX_COLLISIONS:
            return set(items)
        made: set[Any] = set()
        self._fill(made.update, items, items)
        return made

    def map(self, keys: list[Any], values: list[Any]) -> dict[Any, Any]:
        """Make a dict. Raises as :meth:`set`, and DecodeError for a key that comes twice."""
        pairs = list(zip(keys, values, strict=True))
        made: dict[Any, Any] = {}
        self._fill(made.update, keys, pairs)
        if len(made) != len(keys):
            raise DecodeError("a map that has a key twice")
        return made

    def _fill(
        self, update: Callable[[list[Any]], None], keys: list[Any], entries: list[Any]
    ) -> None:
        if collide(keys):
            raise DecodeError("too many keys with the same hash")
        if len(entries) <= CHUNK:
            update(entries)
            return
        collects = gc.isenabled()
        gc.disable()
        try:
            self._fill_by_chunks(update, entries)
        finally:
            if collects:
                gc.enable()

    def _fill_by_chunks(self, update: Callable[[list[Any]], None], entries: list[Any]) -> None:
        for start in range(0, len(entries), CHUNK):
            began = self._clock()
            update(entries[start : start + CHUNK])
            self._seconds += self._clock() - began
            self._keys += CHUNK
            if self._seconds > BASE_SECONDS + self._keys * SECONDS_PER_KEY:
                raise DecodeError("keys whose hashes were chosen to take long")

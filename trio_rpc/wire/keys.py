"""Sets and maps whose keys a peer chose.

Text and bytes hash with a secret of this process. Numbers do not, so a peer can choose their
hashes: all equal, or different but on one path through the table, so that each key is compared
with all keys before it. Equal hashes can be counted. The other kind depends on how the table works
inside, and is recognised by its cost: a thousand times the ordinary one, against a bound of ten.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from itertools import groupby, islice
from operator import eq
from typing import Any

from trio_rpc.errors import DecodeError

__all__ = ["KeyBuilder", "collide"]

MAX_COLLISIONS = 100
"""Keys of one map or set that may share a hash with another."""

CHUNK = 1024
"""Keys inserted at once. So few are fast even if they all collide."""

BASE_SECONDS = 0.05
SECONDS_PER_KEY = 1e-6
"""Processor time allowed for keys: ten times the need of an ordinary machine, for each builder.

The garbage collector is off meanwhile, since a collection scans the whole program's memory.
"""


def collide(keys: Collection[Any]) -> bool:
    """Return whether more keys share a hash than chance explains.

    Equal keys do not count, since the first comparison finds them. Raises TypeError for an
    unhashable key.
    """
    return len(keys) > MAX_COLLISIONS and _share(list(map(hash, keys)), keys)


def _share(hashes: list[int], keys: Collection[Any]) -> bool:
    """Return whether more unequal keys share one of these hashes than chance explains."""
    hashes.sort()  # a set of them would be open to the same attack
    shared: int = sum(map(eq, hashes, islice(hashes, 1, None)))
    return shared > MAX_COLLISIONS and _differ(keys)


def _differ(keys: Collection[Any]) -> bool:
    """Return whether more unequal keys share a hash than chance explains."""
    comparisons = MAX_COLLISIONS**2 + 2 * len(keys)
    found = 0
    for _, same in groupby(sorted(keys, key=hash), hash):
        unequal: list[Any] = []
        for key in same:
            for number, one in enumerate(unequal, 1):
                if one is key or one == key:
                    comparisons -= number
                    break
            else:
                comparisons -= len(unequal)
                found += bool(unequal)
                unequal.append(key)
            if found > MAX_COLLISIONS or comparisons < 0:
                return True
    return False


@contextmanager
def _collector_off() -> Iterator[None]:
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


class KeyBuilder:
    """Builds the sets and maps of one message or thread, within a bounded time."""

    __slots__ = ("_clock", "_spare")

    def __init__(self, clock: Callable[[], float] = time.thread_time) -> None:
        self._clock = clock
        self._spare = BASE_SECONDS
        """Seconds by which keys may still exceed their time. Fast keys refill it up to the base."""

    def set(self, items: list[Any]) -> set[Any]:
        """Make a set. Raises DecodeError for chosen hashes, TypeError for an unhashable value."""
        if len(items) <= MAX_COLLISIONS:
            return set(items)
        self._check(items)
        made: set[Any] = set()
        self.fill(made.update, items, items)
        return made

    def map(self, keys: list[Any], values: list[Any]) -> dict[Any, Any]:
        """Make a dict. Raises as :meth:`set` does, and DecodeError for a repeated key."""
        pairs = list(zip(keys, values, strict=True))
        if len(keys) > MAX_COLLISIONS:
            self._check(keys)
        made: dict[Any, Any] = {}
        self.fill(made.update, pairs, keys)
        if len(made) != len(keys):
            raise DecodeError("a map that has a key twice")
        return made

    def fill(
        self, update: Callable[[list[Any]], None], entries: list[Any], keys: list[Any]
    ) -> None:
        """Insert the entries of those keys into a set or a dict, by its method.

        Raises DecodeError if that takes too long, TypeError for an unhashable key.
        """
        if len(entries) <= MAX_COLLISIONS:
            update(entries)
            return
        with _collector_off():
            self._fill_by_chunks(update, entries, keys)

    def _fill_by_chunks(
        self, update: Callable[[list[Any]], None], entries: list[Any], keys: list[Any]
    ) -> None:
        for start in range(0, len(entries), CHUNK):
            began = self._clock()
            update(entries[start : start + CHUNK])
            self._charge(self._clock() - began, keys[start : start + CHUNK])

    def _check(self, keys: list[Any]) -> None:
        """Compare the hashes of the keys.

        A Decimal with a great exponent takes ten times as long to hash as an ordinary one, once.
        """
        hashes: list[int] = []
        with _collector_off():
            for start in range(0, len(keys), CHUNK):
                chunk = keys[start : start + CHUNK]
                began = self._clock()
                hashes += map(hash, chunk)
                self._charge(self._clock() - began, chunk)
        if _share(hashes, keys):
            raise DecodeError("too many keys with the same hash")

    def _charge(self, seconds: float, keys: list[Any]) -> None:
        """Raise DecodeError if keys that took so many seconds have used up the time."""
        due = len(keys) * SECONDS_PER_KEY
        if seconds > due:  # the keys' own hash function may be slow: not the peer's fault
            due += self._seconds_to_hash(keys)
        self._spare = min(BASE_SECONDS, self._spare + due - seconds)
        if self._spare < 0:
            self._spare = BASE_SECONDS
            raise DecodeError("keys whose hashes were chosen to take long")

    def _seconds_to_hash(self, keys: list[Any]) -> float:
        began = self._clock()
        for _ in map(hash, keys):
            pass
        return self._clock() - began

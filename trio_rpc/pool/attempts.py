"""The rules for further attempts of a call, and the notes of its error about them.

The rules (laws 2, 3, 5 and 15)
===============================

1. An error that says that the handler has not begun is followed by an attempt at another instance.
   This holds for errors that another instance may not have: it is leaving, it is overloaded, its
   session is over. A method that does not exist, or arguments that do not fit, would be refused
   anywhere.
2. If it is unknown whether the handler ran, or an instance that leaves has stopped it, only a
   method that is declared idempotent is called again. The budget bounds how many such calls there
   are, so that an outage does not multiply the load. ``MOST_REPEATS`` bounds them for one call,
   since its own arguments may be the cause that ends each instance.
3. An async generator among the arguments can be used once, so there is one attempt.
4. The fate of the call is the worst of its attempts.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final, Protocol, TypeVar

from trio_rpc.errors import (
    Fate,
    Overloaded,
    RemoteCancelled,
    RpcError,
    SessionBroken,
    SessionClosed,
    Unavailable,
)
from trio_rpc.pool.seats import Seat
from trio_rpc.services.error_maps import set_fate
from trio_rpc.services.proxies import RemoteMethod
from trio_rpc.services.signatures import TASK_STATUS
from trio_rpc.util.raised import add_note, text_of
from trio_rpc.util.text import one_line

__all__ = ["Attempts", "Budget"]

E = TypeVar("E", bound=Exception)

ELSEWHERE: Final = (Unavailable, Overloaded, SessionBroken, SessionClosed)
"""Errors of a call that has not begun, which another instance may not have."""

MOST_REPEATS: Final = 3
"""The most repetitions of one call whose handler may have run."""

MOST_NOTES: Final = 8
"""Attempts that the notes of an error name; the others are counted."""

DEEPEST: Final = 8
"""Collections and objects inside each other that are searched for an async iterator."""

SHARE: Final = 0.1
"""The repetitions that each call that succeeds adds to the budget."""

GROWTH: Final = 10
"""The budget grows to at most this many times its size at the beginning."""


class Successes(Protocol):
    """Counts the calls of a pool."""

    @property
    def succeeded(self) -> int:
        """The calls so far that have not failed."""


class Budget:
    """Bounds how many calls are made again although their handlers may have run.

    Args:
        size: the number at the beginning. Every ten calls that succeed add one.
        successes: counts them.
    """

    def __init__(self, size: float, successes: Successes) -> None:
        self._left = size
        self._most = size * GROWTH
        self._successes = successes
        self._seen = 0

    def take(self) -> bool:
        """Use one repetition, and return True; or return False if none is left."""
        succeeded = self._successes.succeeded
        earned = max(0, succeeded - self._seen) * SHARE
        self._seen = succeeded
        self._left = min(self._most, self._left + earned)
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Attempts:
    """The attempts of one call that have failed.

    Args:
        method: the method.
        args: the positional arguments.
        kwargs: the arguments by name.
        budget: bounds the repetitions of calls that may have run.

    Attributes:
        tried: the sessions that were tried in this round.
        fate: the worst fate of the attempts.
        retry_after: the least seconds after which an instance that was tried in this round may take
            the call, if all of them have said that.
        pauses: how often each session had been tried, so that there was a pause.
    """

    def __init__(
        self,
        method: RemoteMethod,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        budget: Budget,
    ) -> None:
        self.method = method
        self.tried: set[Seat] = set()
        self.fate = Fate.NOT_STARTED
        self.retry_after = math.inf
        self.pauses = 0
        self._args = args
        self._kwargs = kwargs
        self._budget = budget
        self._repeats = 0
        self._count = 0
        self._notes: list[str] = []
        self._last = ""
        self._until: float | None = None

    def until(self, latest: float) -> float:
        """Return the time until which the call waits in all: ``latest`` when it first waits."""
        if self._until is None:
            self._until = latest
        return self._until

    def begin_round(self) -> float:
        """Forget the sessions that were tried; return the seconds to wait that they asked for."""
        self.tried.clear()
        retry_after, self.retry_after = self.retry_after, math.inf
        return 0.0 if retry_after == math.inf else retry_after

    def may_follow(self, seat: Seat, exc: Exception) -> bool:
        """Record that an attempt has failed, and return whether another one may follow."""
        self.tried.add(seat)
        fate = exc.fate if isinstance(exc, RpcError) else Fate.STOPPED
        if isinstance(exc, RpcError) and fate is not Fate.STOPPED:
            seat.counts.failures += 1
        asked = exc.retry_after if isinstance(exc, Overloaded) else None
        self.retry_after = min(self.retry_after, asked or 0.0)
        self._note(seat, exc, fate)
        may = self._may_follow(seat, exc, fate)
        if fate is Fate.UNKNOWN:
            self.fate = fate
        return may

    def _may_follow(self, seat: Seat, exc: Exception, fate: Fate) -> bool:
        if _is_used_up(self._args) or _is_used_up(self._kwargs.values()):
            return False
        if fate is Fate.NOT_STARTED:
            return isinstance(exc, ELSEWHERE)
        has_left = isinstance(exc, RemoteCancelled) and not seat.is_ready
        if not has_left and not (fate is Fate.UNKNOWN and isinstance(exc, ELSEWHERE)):
            return False
        if not self.method.idempotent or TASK_STATUS in self._kwargs:
            return False
        self._repeats += 1
        return self._repeats <= MOST_REPEATS and self._budget.take()

    def _note(self, seat: Seat, exc: Exception, fate: Fate) -> None:
        self._count += 1
        self._last = seat.counts.name
        if self._count <= MOST_NOTES:
            self._notes.append(
                f"attempt {self._count} at {seat.counts.name}: {type(exc).__name__} "
                f"({fate.value}): {one_line(text_of(exc), 200)}"
            )

    def explain(self, exc: E) -> E:
        """Add notes that name the attempts, and set the fate of the whole call; return ``exc``."""
        if self._count == 1:
            self._notes = [f"called at {self._last}"]
        elif self._count > MOST_NOTES:
            self._notes.append(f"and {self._count - MOST_NOTES} more attempts")
        for note in self._notes:
            add_note(exc, note)
        if self.fate is Fate.UNKNOWN:
            set_fate(exc, Fate.UNKNOWN)
        return exc


def _is_used_up(values: Iterable[Any], depth: int = 0) -> bool:
    """Return whether a value can be used only once: an async iterator, also inside of another."""
    return depth < DEEPEST and any(
        hasattr(value, "__anext__") or _is_used_up(_parts_of(value), depth + 1) for value in values
    )


def _parts_of(value: Any) -> Iterable[Any]:
    """Return the values in a collection, or in the fields of an object."""
    if isinstance(value, Mapping):
        return value.values()
    if isinstance(value, list | tuple | deque | AbstractSet):
        return value
    cls = type(value)
    attrs = getattr(cls, "__attrs_attrs__", ())
    names = (
        *getattr(cls, "__dataclass_fields__", ()),
        *(one.name for one in attrs),
        *getattr(cls, "__struct_fields__", ()),
        *getattr(cls, "__pydantic_fields__", ()),
    )
    return [getattr(value, name, None) for name in names]

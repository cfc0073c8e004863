"""Joins the traces of both ends: the steps of each call in order, with the time between them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import TypeAlias

from trio_rpc.tracing.events import STEPS, TraceEvent

__all__ = ["JoinedCall", "clock_offset", "join"]

_Key: TypeAlias = tuple[str, bool, int]
"""The session, whether the end of the first trace was called, and the id."""


@dataclass(frozen=True, slots=True)
class JoinedCall:
    """One call, as both ends have seen it.

    Attributes:
        session: the id of its session.
        call: its id.
        method: the full name of its method.
        is_incoming: whether the end of the first trace was called; otherwise it was the caller.
        steps: the events of both ends, by the number of the step, in order.
    """

    session: str
    call: int
    method: str
    is_incoming: bool
    steps: Mapping[int, TraceEvent]

    @property
    def is_complete(self) -> bool:
        """Whether all 19 steps are known."""
        return len(self.steps) == len(STEPS)

    @property
    def duration(self) -> float:
        """The seconds from the first known step to the last one."""
        times = [event.time for event in self.steps.values()]
        return times[-1] - times[0]

    @property
    def outcome(self) -> str:
        """The state at the last known step: ``"result"`` after a successful call."""
        return list(self.steps.values())[-1].state

    def gaps(self) -> dict[int, float]:
        """Return the seconds between each step and the known step before it.

        A difference between the clocks of two machines is part of the gaps before the steps 6 and
        15, where the trace passes from one end to the other.
        """
        pairs = itertools.pairwise(self.steps.values())
        return {event.step: event.time - before.time for before, event in pairs}


def join(
    first: Iterable[TraceEvent], second: Iterable[TraceEvent], *, offset: float = 0.0
) -> list[JoinedCall]:
    """Join the traces of the two ends of sessions.

    Each trace may be of many sessions, but of one end of each. Calls without an id (notifications,
    and calls that were never sent) are left out. A call of which only one end has a trace has the
    steps of that end.

    Args:
        first: the events of one end, in the order in which the trace got them.
        second: the events of the other end.
        offset: the seconds by which the clock of ``second`` is ahead; see :func:`clock_offset`.

    Returns:
        The calls, in the order of their first known steps.

    Example:
        >>> class Adder:
        ...     @trio_rpc.method
        ...     async def add(self, a: int, b: int) -> int:
        ...         return a + b
        >>> async def main() -> None:
        ...     here: list[trio_rpc.tracing.TraceEvent] = []
        ...     there: list[trio_rpc.tracing.TraceEvent] = []
        ...     async with trio_rpc.testing.open_session_pair(
        ...         Adder(), options_a={"trace": there.append}, options_b={"trace": here.append}
        ...     ) as (_, session):
        ...         await session.call("add", 2, 3)
        ...     [call] = trio_rpc.tracing.join(here, there)
        ...     assert list(call.steps) == list(range(1, 20))
        >>> trio.run(main)
    """
    found: dict[_Key, dict[int, TraceEvent]] = {}
    _collect(found, first, is_second=False)
    shifted = (replace(each, time=each.time - offset) for each in second) if offset else second
    _collect(found, shifted, is_second=True)
    calls = [_joined(key, steps) for key, steps in found.items()]
    return sorted(calls, key=lambda call: next(iter(call.steps.values())).time)


def clock_offset(calls: Iterable[JoinedCall]) -> float:
    """Estimate by how many seconds the second trace's clock is ahead of the first trace's clock.

    It assumes that a message takes as long in one direction as in the other, and is the median over
    all complete calls. Two programs on one machine have the same clock.

    Args:
        calls: calls that were joined without an offset.

    Raises:
        ValueError: none of the calls is complete.
    """
    found = []
    for call in calls:
        if call.is_complete:
            there = call.steps[6].time - call.steps[5].time
            back = call.steps[15].time - call.steps[14].time
            found.append((back - there if call.is_incoming else there - back) / 2)
    if not found:
        raise ValueError("no call has all its steps, so the clocks cannot be compared")
    return median(found)


def _collect(
    found: dict[_Key, dict[int, TraceEvent]], events: Iterable[TraceEvent], *, is_second: bool
) -> None:
    """Add the events of one end to the steps of their calls."""
    begun: dict[tuple[str, int], TraceEvent] = {}  # first steps, which have no ids
    for event in events:
        numbered = event.session, event.number
        if event.call is None:
            if event.step == 1:
                begun[numbered] = event
            continue
        key = event.session, event.is_incoming != is_second, event.call
        steps = found.setdefault(key, {})
        if event.step == 2 and numbered in begun:
            steps[1] = begun.pop(numbered)
        steps.setdefault(event.step, event)


def _joined(key: _Key, steps: dict[int, TraceEvent]) -> JoinedCall:
    session, is_incoming, call = key
    ordered = dict(sorted(steps.items()))
    method = next(iter(ordered.values())).method
    return JoinedCall(session, call, method, is_incoming, ordered)

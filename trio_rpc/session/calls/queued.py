"""The queue of one session: messages whose handlers may not begin yet, in the order of arrival."""

from __future__ import annotations

import math
from collections.abc import Iterable

from trio_rpc.session.calls.absent import Arrived
from trio_rpc.session.load import Load
from trio_rpc.wire import messages as m

__all__ = ["QueuedCalls", "time_of"]


class QueuedCalls(dict[int, Arrived]):
    """The messages by a local number, with their times of arrival. All are counted in the load.

    It is changed only by these methods. It is a dict because that is the smallest object for the
    many sessions that queue nothing.

    Bound: they hold the slots and the credit of ``max_calls`` and ``max_notifications``. Requests
    also hold slots of ``ServerLimits.max_queued``.
    """

    __slots__ = ("_load",)

    def __init__(self, load: Load) -> None:
        self._load = load

    def put(self, number: int, arrived: Arrived) -> None:
        """Append a message."""
        self[number] = arrived
        self._load.queued += 1

    def put_first(self, messages: Iterable[tuple[int, Arrived]]) -> None:
        """Insert messages before all others."""
        others = [*self.items()]
        self._load.queued -= len(self)
        self.clear()
        for number, arrived in (*messages, *others):
            self.put(number, arrived)

    def take(self, number: int) -> Arrived:
        """Remove and return one message."""
        self._load.queued -= 1
        return self.pop(number)

    def take_first(self) -> Arrived:
        """Remove and return the first message."""
        return self.take(next(iter(self)))


def time_of(request: m.Request) -> float:
    """Return the seconds that a Request had left when it arrived; infinite without a deadline."""
    return math.inf if request.context is None else request.context.get("deadline", math.inf)

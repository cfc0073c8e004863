"""A policy for processes that end: how often they are started again, and after which delays."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import trio

from trio_rpc.util.numbers import check_not_negative

__all__ = ["Restart", "Restarts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """The policy by which :func:`keep_process` starts a process again. Times are in seconds.

    Attributes:
        times: the number of restarts that any period of ``within`` seconds may have. If the process
            ends once more in that period, it stays ended. With 0 it is never started again.
        within: the length of that period.
        first_delay: the longest wait before the first restart. It doubles after each process that
            does not last for ``max_delay``. The actual wait is random.
        max_delay: the limit of the growing wait.

    Raises:
        TypeError: ``times`` is not an int, or another value is not a number.
        ValueError: a value is negative, or ``within`` is 0.
    """

    times: int = 3
    within: float = 60.0
    first_delay: float = 0.1
    max_delay: float = 10.0

    def __post_init__(self) -> None:
        if not isinstance(self.times, int):
            raise TypeError(f"Restart.times must be an int, not {self.times!r:.200}")
        for name in self.__slots__:
            check_not_negative(f"Restart.{name}", getattr(self, name))
        if self.within == 0:
            raise ValueError("Restart.within must be positive")


class Restarts:
    """Counts the restarts of one process.

    Args:
        policy: says how many of them are allowed.
    """

    def __init__(self, policy: Restart) -> None:
        self._policy = policy
        # Bound: policy.times, since no restart is counted when they are used up.
        self._times: deque[float] = deque()

    def count(self) -> None:
        """Count a restart, which happens now."""
        self._times.append(trio.current_time())

    @property
    def are_used_up(self) -> bool:
        """Whether another restart would be one too many."""
        oldest = trio.current_time() - self._policy.within
        while self._times and self._times[0] <= oldest:
            self._times.popleft()
        return len(self._times) >= self._policy.times

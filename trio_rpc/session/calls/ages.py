"""The age of a Request that arrives: how long it has waited since its caller made the call.

The two clocks need not agree. A Request says when it was made, on its caller's clock, and it is
read at a time on ours. The difference of the two is the difference of the clocks, and the time that
the Request was on its way. The smallest difference seen lately stands for a Request that did not
wait. So a larger one has waited for as long as it exceeds it: in a queue at either end, or in a
socket that this program has not read.

1. Clocks drift, so an old minimum is forgotten, after one to two times ``WINDOW`` seconds.
2. A computer that sleeps stops its clock, which makes all later Requests look old. But it sends
   nothing meanwhile. So after a silence of at least ``SILENCE`` seconds, and as long as the
   Request seems to have waited, that Request is the new minimum. The age of a rare Request is
   therefore not known.
"""

from __future__ import annotations

import math
from typing import Any, Final

__all__ = ["CallAges"]

WINDOW: Final = 30.0
SILENCE: Final = 1.0


class CallAges:
    """Finds out how long the Requests of one session have waited."""

    __slots__ = ("_before", "_least", "_read", "_since")

    def __init__(self) -> None:
        self._least = math.inf
        """The smallest difference since ``_since``."""
        self._before = math.inf
        """The smallest difference in the window before."""
        self._since = self._read = -math.inf

    def subtract(self, context: dict[str, Any], now: float) -> float:
        """Return how long a Request has waited, and subtract that from its deadline.

        Args:
            context: its context.
            now: when it was read, on our clock.
        """
        if "sent" not in context or "deadline" not in context:
            return 0.0
        age = self.age_of(context["sent"], now)
        context["deadline"] -= age
        return age

    def age_of(self, sent: float, now: float) -> float:
        """Return how long a Request has waited, in seconds.

        Args:
            sent: when it was made, on its caller's clock.
            now: when it was read, on our clock.
        """
        difference = now - sent
        age = difference - min(self._least, self._before)
        silence, self._read = now - self._read, now
        if now - self._since > WINDOW:  # (1)
            self._since, self._before, self._least = now, self._least, math.inf
        if silence >= SILENCE and silence >= age:  # (2)
            self._before, self._least = math.inf, difference
            return 0.0
        self._least = min(self._least, difference)
        return max(0.0, age)

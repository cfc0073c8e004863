"""Calls that wait for services that have not been set yet, in bounded time and number."""

from __future__ import annotations

import math
from typing import TypeAlias

from trio_rpc.services.interfaces import RESERVED, is_service_name
from trio_rpc.services.registration import service_of
from trio_rpc.services.tables import Table
from trio_rpc.wire import messages as m

__all__ = ["NO_CALLS", "Arrived", "CallsOfAbsentServices"]

Arrived: TypeAlias = tuple[m.Request | m.Notification, float]
"""A message, and the time of its arrival."""


class CallsOfAbsentServices:
    """Requests and notifications that wait until their service is set, in the order of arrival.

    Args:
        patience: seconds that each waits; 0 if none waits.
        most: the number that may wait at once.

    Attributes:
        waiting: the messages by a local number. Bound: ``Limits.max_waiting_calls``.
    """

    def __init__(self, patience: float, most: int) -> None:
        self.waiting: dict[int, Arrived] = {}
        self._patience = patience
        self._most = most

    def keeps(
        self, number: int, message: m.Request | m.Notification, table: Table, now: float
    ) -> bool:
        """Keep a message whose service is not there, if it may wait; return whether it does.

        Args:
            number: its local number.
            message: the message.
            table: the methods that there are.
            now: the time of its arrival.
        """
        service = service_of(message.method)
        if (
            not self._patience
            or len(self.waiting) >= self._most
            or message.problem is not None
            or "callback" in (message.context or {})
            or service == RESERVED
            or not is_service_name(service)
            or any(service_of(name) == service for name in table)
        ):
            return False
        self.waiting[number] = message, now
        return True

    @property
    def first_to_expire(self) -> float:
        """The time when the first of them has waited long enough."""
        if not self.waiting:
            return math.inf
        arrivals = (arrived for _, arrived in self.waiting.values())
        return min(arrivals) + self._patience

    def take_expired(self, now: float) -> list[m.Request | m.Notification]:
        """Remove and return the messages that have waited long enough."""
        if not self.waiting:
            return []
        expired = [
            number
            for number, (_, arrived) in self.waiting.items()
            if arrived + self._patience <= now
        ]
        return [self.waiting.pop(number)[0] for number in expired]

    def take_calls_of(self, service: str) -> list[tuple[int, Arrived]]:
        """Remove and return the messages of a service that has been set."""
        found = [
            (number, arrived)
            for number, arrived in self.waiting.items()
            if service_of(arrived[0].method) == service
        ]
        for number, _ in found:
            del self.waiting[number]
        return found


NO_CALLS = CallsOfAbsentServices(0.0, 0)
"""Keeps no calls: shared by all sessions in which none waits."""

"""Calls that may outlive their clients, and their results."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import trio

from trio_rpc.gateway.limits import GatewayLimits
from trio_rpc.gateway.server.browser import Client
from trio_rpc.gateway.server.call import GatewayCall

__all__ = ["Held", "Results", "is_outliving", "outlives"]

F = TypeVar("F", bound=Callable[..., Any])

_OUTLIVES = "__trio_rpc_outlives__"


def outlives(function: F) -> F:
    """Mark a method, below ``@method``, whose calls keep running after their client disconnects.

    The result can be fetched later, by the call's ``request_uuid``.

    Args:
        function: the method.

    Example:
        >>> class Reports:
        ...     @trio_rpc.method
        ...     @trio_rpc.gateway.outlives
        ...     async def build(self) -> str:
        ...         return "the report"
    """
    setattr(function, _OUTLIVES, True)
    return function


def is_outliving(function: object) -> bool:
    """Return whether a method is marked with :func:`outlives`."""
    return getattr(function, _OUTLIVES, False)


class Held(NamedTuple):
    """A call and the client that made it."""

    work: GatewayCall
    client: Client


class Results:
    """Holds calls while they run, and for ``result_ttl`` seconds after that.

    Bound: ``max_results`` calls, and ``result_bytes`` bytes or one larger result. When they are all
    in use, a new call or result replaces the one that ended first.

    Args:
        limits: the gateway's limits.
    """

    def __init__(self, limits: GatewayLimits) -> None:
        self._limits = limits
        self._held: OrderedDict[str, Held] = OrderedDict()
        self._ended: OrderedDict[str, float] = OrderedDict()
        """When each call that has ended will be forgotten; the earliest first."""
        self._size = 0

    def make_room(self) -> bool:
        """Make room for one more call if possible; return whether there is room."""
        self._forget()
        if len(self._held) >= self._limits.max_results and self._ended:
            self._drop(next(iter(self._ended)))
        return len(self._held) < self._limits.max_results

    def hold(self, work: GatewayCall, client: Client) -> None:
        """Hold a call that is about to run. There must be room."""
        self._held[work.uuid] = Held(work, client)

    def ended(self, work: GatewayCall) -> None:
        """Record that a call has ended. If it is held, its ``result_ttl`` starts now."""
        if work.uuid in self._held:
            self._ended[work.uuid] = trio.current_time() + self._limits.result_ttl
            self._size += len(work.outcome or b"")
            while self._size > self._limits.result_bytes and len(self._ended) > 1:
                self._drop(next(iter(self._ended)))

    def get(self, name: str) -> Held | None:
        """Return the call with this request_uuid, if it is held."""
        self._forget()
        return self._held.get(name)

    def _forget(self) -> None:
        now = trio.current_time()
        while self._ended and next(iter(self._ended.values())) <= now:
            self._drop(next(iter(self._ended)))

    def _drop(self, name: str) -> None:
        del self._ended[name]
        self._size -= len(self._held.pop(name).work.outcome or b"")

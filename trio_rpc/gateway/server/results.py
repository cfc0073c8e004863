"""Calls that may outlive their clients, and the results that can be collected of them."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import trio

from trio_rpc.gateway.limits import GatewayLimits
from trio_rpc.gateway.server.browser import Client
from trio_rpc.gateway.server.call import GatewayCall

__all__ = ["Held", "Results"]


class Held(NamedTuple):
    """A call, and whose it is."""

    work: GatewayCall
    client: Client


class Results:
    """Holds calls while they run, and for some time after that.

    Bound: ``max_results``. Those that have ended are forgotten when their time is over, or the oldest of them
    when the place is needed.

    Args:
        limits: of the gateway.
    """

    def __init__(self, limits: GatewayLimits) -> None:
        self._limits = limits
        self._held: OrderedDict[str, Held] = OrderedDict()
        self._ended: OrderedDict[str, float] = OrderedDict()
        """When each that has ended is forgotten; the oldest first."""

    def make_room(self) -> bool:
        """Forget what can be forgotten; return whether there is a place for one more."""
        self._forget()
        if len(self._held) >= self._limits.max_results and self._ended:
            self._drop(next(iter(self._ended)))
        return len(self._held) < self._limits.max_results

    def hold(self, work: GatewayCall, client: Client) -> None:
        """Hold a call that begins to run; there must be room."""
        self._held[work.uuid] = Held(work, client)

    def ended(self, work: GatewayCall) -> None:
        """A call has ended: if it is held, its time begins."""
        if work.uuid in self._held:
            self._ended[work.uuid] = trio.current_time() + self._limits.result_ttl

    def get(self, name: str) -> Held | None:
        """Return what is held by that request_uuid."""
        self._forget()
        return self._held.get(name)

    def _forget(self) -> None:
        now = trio.current_time()
        while self._ended and next(iter(self._ended.values())) <= now:
            self._drop(next(iter(self._ended)))

    def _drop(self, name: str) -> None:
        del self._ended[name]
        del self._held[name]

"""Calls that may outlive their clients, and their results."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import trio

from trio_rpc.gateway.limits import GatewayLimits
from trio_rpc.gateway.server.browser import Client
from trio_rpc.gateway.server.call import GatewayCall
from trio_rpc.gateway.server.job_caller import JobCaller

__all__ = ["Held", "Results"]


@dataclass(frozen=True, slots=True)
class Held:
    """A call that is held.

    Attributes:
        work: the call.
        owner: the client that made it, or its job. A request must have the token of the owner.
        key: the idempotency key of the request that has started the job.
    """

    work: GatewayCall
    owner: Client | JobCaller
    key: str | None = None

    @property
    def size(self) -> int:
        """The bytes of its result, and of the latest arguments of a job's callbacks."""
        progress = self.owner.size if isinstance(self.owner, JobCaller) else 0
        return len(self.work.outcome or b"") + progress

    def has_progress(self, after: int | None) -> bool:
        """Return whether the job has called a callback after this number, if there is one."""
        return after is not None and isinstance(self.owner, JobCaller) and self.owner.number > after

    def has_news(self, after: int | None) -> bool:
        """Return whether the call has ended, or has progress."""
        return self.work.outcome is not None or self.has_progress(after)

    async def wait_changed(self) -> None:
        """Wait until a callback has been called or the call has ended."""
        if isinstance(self.owner, JobCaller):
            await self.owner.wait_changed()
        else:
            await self.work.ended.wait()


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
        """The time when each ended call will be forgotten; the earliest first."""
        # Bound: one for each call that is held.
        self._keys: dict[str, str] = {}
        self._size = 0

    def make_room(self) -> bool:
        """Make room for one more call if possible; return whether there is room."""
        self._forget()
        if len(self._held) >= self._limits.max_results and self._ended:
            self._drop(next(iter(self._ended)))
        return len(self._held) < self._limits.max_results

    def hold(self, held: Held) -> None:
        """Hold a call that is about to run. There must be room."""
        self._held[held.work.uuid] = held
        if held.key is not None:
            self._keys[held.key] = held.work.uuid

    def ended(self, work: GatewayCall) -> None:
        """Record that a call has ended. If it is held, its ``result_ttl`` starts now."""
        held = self._held.get(work.uuid)
        if held is not None:
            self._ended[work.uuid] = trio.current_time() + self._limits.result_ttl
            self._size += held.size
            while self._size > self._limits.result_bytes and len(self._ended) > 1:
                self._drop(next(iter(self._ended)))

    def get(self, name: str) -> Held | None:
        """Return the call with this request_uuid, if it is held."""
        self._forget()
        return self._held.get(name)

    def started_with(self, key: str | None) -> Held | None:
        """Return the job that an earlier request with this key has started, if it is held."""
        return None if key is None else self.get(self._keys.get(key, ""))

    def _forget(self) -> None:
        now = trio.current_time()
        while self._ended and next(iter(self._ended.values())) <= now:
            self._drop(next(iter(self._ended)))

    def _drop(self, name: str) -> None:
        del self._ended[name]
        held = self._held.pop(name)
        self._size -= held.size
        if held.key is not None:
            del self._keys[held.key]

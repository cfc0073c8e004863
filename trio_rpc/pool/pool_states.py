"""The states of a pool's instances, as an async iterator."""

from __future__ import annotations

import trio

from trio_rpc.pool.instances import InstanceStatus
from trio_rpc.pool.roster import Roster
from trio_rpc.pool.seats import Balancer

__all__ = ["PoolStates"]


class PoolStates:
    """An async iterator over the statuses of all instances. A slow reader misses older ones.

    Args:
        roster: knows the instances.
        balancer: tells each change.
    """

    def __init__(self, roster: Roster, balancer: Balancer) -> None:
        self._roster = roster
        self._balancer = balancer
        self._seen: object = None

    def __aiter__(self) -> PoolStates:
        return self

    async def __anext__(self) -> list[InstanceStatus]:
        await trio.lowlevel.checkpoint()
        while not self._balancer.is_over:
            statuses = self._roster.statuses()
            states = [(each.name, each.state, each.error) for each in statuses]
            if states != self._seen:
                self._seen = states
                return statuses
            await self._balancer.wait_changed()
        raise StopAsyncIteration

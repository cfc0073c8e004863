"""The states of a pool's instances, as an async iterator."""

from __future__ import annotations

import trio

from trio_rpc.pool.instances import InstanceStatus
from trio_rpc.pool.roster import Roster
from trio_rpc.pool.seats import Balancer
from trio_rpc.util.owner import Owner

__all__ = ["PoolStates"]


class PoolStates:
    """An async iterator over the statuses of all instances. A slow reader misses older ones.

    Args:
        roster: knows the instances.
        balancer: reports each change.
        owner: the Trio run of the pool.
    """

    def __init__(self, roster: Roster, balancer: Balancer, owner: Owner) -> None:
        self._roster = roster
        self._balancer = balancer
        self._owner = owner
        self._seen: object = None

    def __aiter__(self) -> PoolStates:
        return self

    async def __anext__(self) -> list[InstanceStatus]:
        self._owner.check()
        await trio.lowlevel.checkpoint()
        while not self._balancer.is_over:
            statuses = self._roster.statuses()
            states = [(each.name, each.state, each.error) for each in statuses]
            if states != self._seen:
                self._seen = states
                return statuses
            await self._balancer.wait_changed()
        raise StopAsyncIteration

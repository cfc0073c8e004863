"""The instances of a pool, as its sources name them, and a task for each instance."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import trio

from trio_rpc.pool.instances import InstanceStatus, Reachable
from trio_rpc.pool.keeper import Keeper, Opener
from trio_rpc.pool.seats import Balancer, Seat
from trio_rpc.pool.sources import Source
from trio_rpc.session.session import Session
from trio_rpc.util.rate_limited_log import RateLimitedLog
from trio_rpc.util.text import one_line

__all__ = ["Roster"]

MOST_SHOWN = 5
"""Instances that the text of an error describes."""


class Roster:
    """Runs the sources of a pool, and a task for each instance that they name.

    Args:
        sources: tell which instances there are.
        opener: opens sessions.
        balancer: gets the open sessions.
        nursery: the nursery of the tasks.
        complaints: logs errors of sources and instances.
    """

    def __init__(
        self,
        sources: list[Source],
        opener: Opener,
        balancer: Balancer,
        nursery: trio.Nursery,
        complaints: RateLimitedLog,
    ) -> None:
        self._sources = sources
        self._opener = opener
        self._balancer = balancer
        self._nursery = nursery
        self._complaints = complaints
        # Bound: the instances that the sources name, and older ones whose calls have not ended.
        self._keepers: dict[str, Keeper] = {}
        self._told: dict[Source, dict[str, Reachable]] = {}

    def start(self) -> None:
        """Start the sources."""
        for source in self._sources:
            self._nursery.start_soon(self._run_source, source, name="trio_rpc pool source")

    async def _run_source(self, source: Source) -> None:
        def update(instances: Iterable[Reachable]) -> None:
            self._told[source] = {each.name: each for each in instances}
            self._meet()

        await source.run(update, self._balancer.tell, self._complaints)
        self._told.setdefault(source, {})
        self._balancer.tell()

    def _meet(self) -> None:
        """Start and stop tasks, so that there is one for each instance that a source names."""
        wanted = {name: each for told in self._told.values() for name, each in told.items()}
        for name, instance in wanted.items():
            keeper = self._keepers.get(name)
            if keeper is None:
                self._keepers[name] = keeper = Keeper(
                    instance, self._opener, self._balancer, self.ask_again, self._complaints
                )
                self._nursery.start_soon(self._keep, keeper, name=f"trio_rpc pool {name}"[:100])
            else:
                keeper.want(instance)
        for name, keeper in self._keepers.items():
            if name not in wanted:
                keeper.unwant()
        self._balancer.tell()

    async def _keep(self, keeper: Keeper) -> None:
        await keeper.run()
        if not keeper.has_failed:  # a failed instance stays in view
            del self._keepers[keeper.name]

    def ask_again(self) -> None:
        """Ask the sources now which instances there are."""
        for source in self._sources:
            source.ask_again()

    # ── the pool's view ──────────────────────────────────────────────────────────────────────

    @property
    def seats(self) -> list[Seat]:
        """All sessions that are not over."""
        return [seat for keeper in self._keepers.values() for seat in keeper.seats]

    def sessions_with(self, name: str) -> list[Session]:
        """Return the sessions with the instance of this name that take calls, the oldest first."""
        keeper = self._keepers.get(name)
        seats = () if keeper is None else keeper.seats
        return [seat.session for seat in seats if seat.session.is_open]

    @property
    def names(self) -> Collection[str]:
        """The names of the instances."""
        return self._keepers.keys()

    @property
    def are_fixed(self) -> bool:
        """Whether all instances are known, and there will be no others."""
        return all(source.is_fixed and source in self._told for source in self._sources)

    @property
    def is_hopeless(self) -> bool:
        """Whether no instance has a session, and waiting will not help."""
        none_will_come = all(
            each.was_refused or (each.is_fixed and each in self._told) for each in self._sources
        )
        return none_will_come and all(each.is_hopeless for each in self._keepers.values())

    @property
    def were_refused(self) -> bool:
        """Whether some instance has refused the last session, or a source this program."""
        return any(each.was_refused for each in self._keepers.values()) or any(
            each.was_refused for each in self._sources
        )

    @property
    def have_failed(self) -> bool:
        """Whether there are instances, and none of them will have a session again."""
        keepers = self._keepers.values()
        return (
            bool(keepers)
            and self.are_fixed
            and all(each.has_failed and not each.seats for each in keepers)
        )

    @property
    def succeeded(self) -> int:
        """The calls so far that have not failed, at the instances that there are now."""
        return sum(each.calls - each.failures for each in self._keepers.values())

    def statuses(self) -> list[InstanceStatus]:
        """Return the status of each instance."""
        return [keeper.status() for keeper in self._keepers.values()]

    def describe(self) -> str:
        """Describe in one line why there is no session."""
        texts = [source.error for source in self._sources if source.error]
        statuses = self.statuses()
        texts += [f"{each.name}: {each.error or each.state}" for each in statuses[:MOST_SHOWN]]
        if len(statuses) > MOST_SHOWN:
            texts.append(f"and {len(statuses) - MOST_SHOWN} more")
        return one_line("; ".join(texts), 1000) or "no instances are known"

"""The sessions between the instances of a gateway, found by the names of their homes.

The name in an id comes from a client, which may have made it up. It is only looked up among the
names from the operator or NATS, and never becomes a part of a subject, a host or an attribute.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import trio

from trio_rpc.channels.instance import Instance
from trio_rpc.errors import RpcError
from trio_rpc.gateway.limits import GatewayLimits
from trio_rpc.gateway.server.checks import Refusal, home_is_gone
from trio_rpc.nats.addresses import is_nats, parse_nats_url
from trio_rpc.nats.any_url import InstancesAt
from trio_rpc.nats.names import check_name
from trio_rpc.nats.nats_options import NatsOptions
from trio_rpc.one_to_one.restart import Restart
from trio_rpc.pool.instances import InstanceStatus, Reachable
from trio_rpc.pool.roster import Roster
from trio_rpc.pool.seats import Balancer
from trio_rpc.pool.sources import FixedSource, GivenSource, Source
from trio_rpc.pool.targets import Targets
from trio_rpc.session.session import Session
from trio_rpc.wire.limits import Limits

__all__ = ["LINK_ERRORS", "PART", "Links", "Plan", "link_limits", "plan"]

PART: Final = 64 * 1024
"""Bytes of one part of an answer or of a WebSocket's message."""

RETRY: Final = 0.5
"""Seconds of the longest pause between two attempts to open a session with an instance."""

FRESH: Final = 2.0
"""Seconds that a request waits at least for a disconnected instance, which may be back.

That is enough for NATS to tell it again, and for another attempt to open a session.
"""

MOST_GONE: Final = 1000
"""Names of lost instances, for which the time of the loss is kept."""

LINK_ERRORS: Final = (RpcError, trio.BrokenResourceError, trio.EndOfChannel)
"""Errors of a call to another instance that is lost, or breaks the protocol of instances."""

MORE_CALLS: Final = 1024
"""Requests of one instance at once, in addition to its WebSockets."""


def link_limits(limits: GatewayLimits) -> Limits:
    """Return the limits of a session between two instances.

    An instance carries at most ``max_clients`` WebSockets, each of which is one call in either
    direction. A request has at most ``max_body`` bytes, and headers that its server has bounded.
    """
    defaults = Limits()
    return Limits(
        max_calls=int(min(limits.max_clients, 2**30)) + MORE_CALLS,
        max_message=max(defaults.max_message, 2 * limits.max_body),
        stream_bytes=2 * PART,
        keepalive_interval=3.0,
        keepalive_pings=2,
        handshake_timeout=3.0,
        cancel_grace=5.0,
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """The addresses of this instance and of the others.

    Attributes:
        listen: the URL to serve the other instances at; None if the user serves them.
        source: reports the other instances.
    """

    listen: str | None
    source: Source


def plan(
    home: str,
    links: str | Mapping[str, str | Instance],
    limits: Limits,
    nats: NatsOptions | None,
) -> Plan:
    """Return a plan for the arguments of :func:`open_spread`.

    Raises:
        ValueError: a name or a URL is not valid.
        TypeError: an argument has the wrong type.
    """
    targets = Targets(ssl_context=None, limits=limits, resume=None, restart=Restart(), nats=nats)
    if isinstance(links, str):
        if not is_nats(links):
            raise ValueError(
                f"one URL for all instances must be nats://host/service, not {links!r:.200}: give"
                " other URLs by name, such as {'a': 'tcp://10.0.0.1:7000'}"
            )
        address = parse_nats_url(links, needs_service=True)
        if address.instance:
            raise ValueError(f"the URL must name no instance, since home= does: {links!r:.200}")

        def others(told: Any) -> list[Reachable]:
            named = {each.name.rpartition("/")[2]: each for each in told}
            return [
                Reachable(name, targets.instance(each).open)
                for name, each in named.items()
                if name != home
            ]

        found = InstancesAt(links, nats)
        return Plan(f"{links.rstrip('/')}/{home}", GivenSource(found, others, found.ask_again))
    if not isinstance(links, Mapping):
        raise TypeError(f"links must be URLs by name, or a nats:// URL, not {links!r:.200}")
    for name in links:
        check_name(name, "a home")
    own = links.get(home)
    if not (own is None or isinstance(own, str)):
        raise TypeError(f"this instance, {home!r}, is reached at a URL, not {own!r:.200}")
    reachable = [
        Reachable(name, targets.instance(each).open) for name, each in links.items() if name != home
    ]
    return Plan(own, FixedSource(reachable))


class Links:
    """The sessions with the other instances.

    Args:
        roster: keeps the sessions open.
        balancer: reports each change.
        patience: seconds after which clients of a disconnected instance are told that it is lost.
        max_waiting: the most requests and WebSockets that wait for a session at once.
    """

    def __init__(
        self, roster: Roster, balancer: Balancer, *, patience: float, max_waiting: int
    ) -> None:
        self._roster = roster
        self._balancer = balancer
        self._patience = patience
        self._max_waiting = max_waiting
        self._waiting = 0
        # Bound: the instances, and MOST_GONE that were there once.
        self._away_since: dict[str, float] = {}

    def statuses(self) -> list[InstanceStatus]:
        """Return the status of each other instance."""
        return self._roster.statuses()

    async def watch(self) -> None:
        """Note the time when each instance is lost, until cancelled."""
        while True:
            now, names = trio.current_time(), set(self._roster.names)
            for name in names:
                if self._roster.sessions_with(name):
                    self._away_since.pop(name, None)
                else:
                    self._away_since.setdefault(name, now)
            gone = [name for name in self._away_since if name not in names]
            for name in gone[:-MOST_GONE]:
                del self._away_since[name]
            await self._balancer.wait_changed()

    async def find(self, home: str) -> Session:
        """Return an open session with an instance; wait for it if it may reconnect.

        Raises Refusal: 410 if the instance is unknown or was disconnected for too long, 503 if
        too many requests wait.
        """
        await trio.lowlevel.checkpoint()
        sessions = self._roster.sessions_with(home)
        if not sessions and self._may_come(home):
            with self._place(), trio.move_on_at(self._deadline(home)):
                while not sessions and not self._balancer.is_over:
                    await self._balancer.wait_changed()
                    sessions = self._roster.sessions_with(home)
        if not sessions:
            raise home_is_gone()
        return sessions[-1]

    def _may_come(self, home: str) -> bool:
        """Return whether to wait for an instance. If it is unknown, ask NATS for the instances."""
        if home in self._roster.names:
            return True
        self._roster.ask_again()
        return not self._roster.are_fixed

    def _deadline(self, home: str) -> float:
        now = trio.current_time()
        since = self._away_since.get(home, now)
        return max(since + self._patience, now + FRESH)

    @contextlib.contextmanager
    def _place(self) -> Any:
        if self._waiting >= self._max_waiting:
            raise Refusal(503, "too many requests wait for another instance", retry_after=1)
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

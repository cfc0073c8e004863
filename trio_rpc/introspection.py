"""A service that shows the sessions and the calls in flight of a program, for its operators."""

from __future__ import annotations

import heapq
import itertools
import logging
import operator
from collections import Counter
from dataclasses import dataclass
from typing import Final, Protocol
from weakref import WeakKeyDictionary

import trio

from trio_rpc.services.decorators import method
from trio_rpc.session.inspection import Direction, Inspected, InspectedSession, ScopeNode
from trio_rpc.util.text import one_line

__all__ = ["CallInFlight", "Inspectable", "Introspection", "OpenSession", "Snapshot"]

logger = logging.getLogger("trio_rpc.introspection")

MOST: Final = 1_000
"""The most sessions, and the most calls, of one snapshot."""

TURN: Final = 100
"""Sessions that are looked at before other tasks get their turn."""

WHY: Final = "cancelled through the introspection service"
"""The reason that the caller of a cancelled call gets."""


class Inspectable(Protocol):
    """A program's part that has sessions: a server or a gateway."""

    def inspect(self) -> Inspected:
        """Return its figures, and its sessions with their calls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSession:
    """One open session of a server, or one client of a gateway."""

    key: str
    """Names it in :class:`CallInFlight`."""
    peer: str
    """The name of the other end, such as its address."""
    calls_in: int
    """Handlers that run here for it."""
    calls_out: int
    """Calls that this program makes to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallInFlight:
    """One call in flight."""

    key: str
    """Names it in :meth:`Introspection.cancel` and in ``parent``: "3-in-17"."""
    session: str
    """The key of its session."""
    direction: str
    """"in" for a call that this program handles, "out" for one that it makes."""
    method: str
    """The full name of the method, ``"service.method"``."""
    kind: str
    """"call", "notification", "stream", "duplex" or "scope"."""
    state: str
    """As :class:`trio_rpc.ScopeNode` has it: "running", "cancelling" or "waiting"."""
    age: float
    """Seconds since it began in this program."""
    parent: str | None
    """The key of the call that it is made in, if that is on the same session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The sessions and calls of a program at one moment."""

    sessions: list[OpenSession]
    """The open sessions, beginning with the one that has the most calls."""
    calls: list[CallInFlight]
    """The calls in flight, the oldest first."""
    sessions_in_all: int
    """The number of sessions, of which ``sessions`` may have only some."""
    calls_in_all: int
    """The number of calls, of which ``calls`` may have only some."""
    figures: dict[str, int]
    """As :class:`trio_rpc.ServerStatistics` has them, of all servers and gateways together."""
    may_cancel: bool
    """Whether :meth:`Introspection.cancel` is allowed."""


class Introspection:
    """The sessions and calls of a program, as a service for its operators.

    Nothing is visible before :meth:`add`. It shows names of methods and addresses of clients, but
    no arguments, results, metadata, credentials or tokens. Any caller of the service sees all of
    that, so offer it to operators only: at a URL of its own, or with filters that check the
    caller.

    Args:
        may_cancel: whether callers may also cancel the handlers that they see.

    Example:
        >>> async def main(market: object, stop: trio.Event) -> None:
        ...     introspection = trio_rpc.introspection.Introspection()
        ...     async with (
        ...         trio_rpc.open_server({"market": market}, "tcp://0.0.0.0:5000") as server,
        ...         trio_rpc.open_server({"introspection": introspection}, "unix:///run/top.sock"),
        ...     ):
        ...         introspection.add(server)  # trio-rpc top unix:///run/top.sock
        ...         await stop.wait()
    """

    def __init__(self, *, may_cancel: bool = False) -> None:
        self._may_cancel = may_cancel
        # Bound: the servers and gateways that the program adds.
        self._sources: list[Inspectable] = []
        self._numbers: WeakKeyDictionary[object, int] = WeakKeyDictionary()
        self._next = itertools.count(1)

    def add(self, source: Inspectable) -> None:
        """Show the sessions of a server or a gateway. The other end cannot call this.

        Args:
            source: a :class:`trio_rpc.Server` or a :class:`trio_rpc.gateway.Gateway`.

        Raises:
            TypeError: ``source`` is neither.
        """
        if not callable(getattr(source, "inspect", None)):
            raise TypeError(f"a server or a gateway can be added, not {source!r:.200}")
        self._sources.append(source)

    @method
    async def snapshot(self, most: int = MOST) -> Snapshot:
        """Return the sessions and calls in flight, except this call itself.

        Args:
            most: the most sessions, and the most calls, to return; 1,000 at most.

        Raises:
            ValueError: ``most`` is negative.
        """
        if most < 0:
            raise ValueError("most must not be negative")
        most = min(most, MOST)
        sessions: list[OpenSession] = []
        calls: list[CallInFlight] = []
        figures: Counter[str] = Counter()
        for source in self._sources:
            inspected = source.inspect()
            figures.update(inspected.figures)
            for number, one in enumerate(inspected.sessions):
                key, nodes = self._number(one), one.tree()
                sessions.append(_session(key, one, nodes))
                calls += [_call(key, node) for node in nodes]
                if number % TURN == TURN - 1:
                    await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        busiest = heapq.nlargest(most, sessions, lambda one: one.calls_in + one.calls_out)
        return Snapshot(
            sessions=busiest,
            calls=heapq.nlargest(most, calls, operator.attrgetter("age")),
            sessions_in_all=len(sessions),
            calls_in_all=len(calls),
            figures=dict(figures),
            may_cancel=self._may_cancel,
        )

    @method
    def cancel(self, key: str) -> bool:
        """Cancel the handler of a call in flight; return whether there was one.

        Its caller gets :class:`trio_rpc.RemoteCancelled`. A handler may take its time to end.

        Args:
            key: the key of the call, as in a snapshot.

        Raises:
            PermissionError: this program does not allow it.
            ValueError: the call is one that this program makes. Cancel the one that it is made in.
        """
        if not self._may_cancel:
            raise PermissionError("this server shows its calls, but does not allow cancelling them")
        found = self._find(key)
        if found is None:
            return False
        one, node = found
        if node.direction == "out":
            raise ValueError(f"{key} is a call that this server makes: cancel its parent")
        logger.warning("%s of %s is %s", one_line(node.method, 200), one.name, WHY)
        return one.cancel(node.id, WHY)

    def _find(self, key: str) -> tuple[InspectedSession, ScopeNode] | None:
        for source in self._sources:
            for one in source.inspect().sessions:
                number = self._number(one)
                if key.startswith(f"{number}-"):
                    for node in one.tree():
                        if _key(number, node.direction, node.id) == key:
                            return one, node
        return None

    def _number(self, one: InspectedSession) -> int:
        """Return the number of a session, which no other session of this program has."""
        number = self._numbers.get(one.session)
        if number is None:
            number = self._numbers[one.session] = next(self._next)
        return number


def _session(number: int, one: InspectedSession, nodes: list[ScopeNode]) -> OpenSession:
    calls_in = sum(node.direction == "in" for node in nodes)
    return OpenSession(
        key=str(number),
        peer=one_line(one.name, 200),
        calls_in=calls_in,
        calls_out=len(nodes) - calls_in,
    )


def _call(number: int, node: ScopeNode) -> CallInFlight:
    return CallInFlight(
        key=_key(number, node.direction, node.id),
        session=str(number),
        direction=node.direction,
        method=one_line(node.method, 200),
        kind=node.kind,
        state=node.state,
        age=node.age,
        parent=None if node.parent is None else _key(number, *node.parent),
    )


def _key(number: int, direction: Direction, call: int) -> str:
    """Return the key of a call, which a shell takes as it is; a notification has no id."""
    return f"{number}-{direction}-{call}" if call >= 0 else f"{number}-note-{-call}"

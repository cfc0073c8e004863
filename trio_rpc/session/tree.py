"""The live scope tree of a session, as data (law 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import trio

from trio_rpc.services.decorators import Kind
from trio_rpc.services.proxies import RemoteMethod
from trio_rpc.services.tables import BoundMethod
from trio_rpc.session.streams.scopes import SCOPE

if TYPE_CHECKING:
    from trio_rpc.session.calls.outgoing import OutgoingCalls
    from trio_rpc.session.dispatch import IncomingCalls

__all__ = ["ScopeNode", "scope_tree"]

Direction: TypeAlias = Literal["out", "in"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeNode:
    """One call that is alive: at its caller (``"out"``) or at its callee (``"in"``)."""

    direction: Direction
    id: int
    """Unique within its direction; a notification, which has none on the wire, has a negative one."""
    method: str
    age: float
    """Seconds since it began here."""
    state: str
    """"waiting", "cancelling" or "running"."""
    parent: tuple[Direction, int] | None
    """Direction and id of the call that this one is made in, where that is on this session."""
    kind: str = "call"
    """"call", "notification", "stream", "duplex" or "scope"."""


def scope_tree(outgoing: OutgoingCalls, incoming: IncomingCalls) -> list[ScopeNode]:
    """Take the picture of both directions, oldest first."""
    now = trio.current_time()
    nodes = [
        ScopeNode(
            direction="out",
            id=call.id,
            method=call.method.title,
            age=now - call.started,
            state="cancelling" if outgoing.is_cancelling(call) else "waiting",
            parent=_parent(
                "out",
                None if call.remote_scope is None else call.remote_scope.id,
                "in",
                call.parent,
            ),
            kind=_kind(call.method),
        )
        for call in outgoing.calls.values()
    ]
    nodes += [
        ScopeNode(
            direction="in",
            id=call.id,
            method=call.method.name,
            age=now - call.started,
            state="running" if call.cancelled is None else "cancelling",
            parent=_parent("in", call.scope_id, "out", call.parent),
            kind=_kind(call.method),
        )
        for call in incoming.running.values()
    ]
    return sorted(nodes, key=lambda node: -node.age)


def _parent(
    own: Direction, scope: int | None, other: Direction, call: int | None
) -> tuple[Direction, int] | None:
    """What a call lives in: the remote scope that it is made in, or the call of the other direction."""
    if scope is not None:
        return own, scope
    return None if call is None else (other, call)


def _kind(method: RemoteMethod | BoundMethod) -> str:
    if method.name == SCOPE:
        return "scope"
    return "call" if method.kind is Kind.METHOD else method.kind.value

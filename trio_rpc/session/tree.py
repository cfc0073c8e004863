"""The live scope tree of a session, as data (law 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import trio

if TYPE_CHECKING:
    from trio_rpc.session.incoming import Incoming
    from trio_rpc.session.outgoing import Outgoing

__all__ = ["ScopeNode", "scope_tree"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeNode:
    """One call that is alive: at its caller (``"out"``) or at its callee (``"in"``)."""

    direction: Literal["out", "in"]
    id: int
    """Unique within its direction; a notification, which has none on the wire, has a negative one."""
    method: str
    age: float
    """Seconds since it began here."""
    state: str
    """"waiting", "cancelling" or "running"."""
    parent: tuple[Literal["out", "in"], int] | None
    """Direction and id of the call that this one is made in, where that is on this session."""
    kind: str = "call"


def scope_tree(outgoing: Outgoing, incoming: Incoming) -> list[ScopeNode]:
    """Take the picture of both directions, oldest first."""
    now = trio.current_time()
    nodes = [
        ScopeNode(
            direction="out",
            id=pending.id,
            method=pending.method,
            age=now - pending.started,
            state="waiting" if pending.raise_cancel is None else "cancelling",
            parent=None if pending.parent is None else ("in", pending.parent),
        )
        for pending in outgoing.pending.values()
    ]
    nodes += [
        ScopeNode(
            direction="in",
            id=handled.id,
            method=handled.method.name,
            age=now - handled.started,
            state="running" if handled.cancelled is None else "cancelling",
            parent=None if handled.parent is None else ("out", handled.parent),
            kind="call" if handled.id > 0 else "notification",
        )
        for handled in incoming.running.values()
    ]
    return sorted(nodes, key=lambda node: -node.age)

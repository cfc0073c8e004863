"""The scope tree of both ends in one, since each end knows only half of a call."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from trio_rpc.session.inspection import ScopeNode

__all__ = ["End", "Key", "LiveCall", "join_trees"]

End: TypeAlias = Literal["client", "server"]
Key: TypeAlias = tuple[End, int]
"""The calling end, and the call's number in that direction."""


@dataclass(slots=True)
class LiveCall:
    """One call in flight, seen from both ends.

    Attributes:
        caller: the end that made it.
        id: its number in that direction.
        method: its full name.
        parent: the call inside which it is made, or None.
        age: seconds since it began, at the end that has known it longer.
        at_caller: the caller's state, or "" if the caller did not list it.
        at_callee: the handler's state, or "" if the callee did not list it.
    """

    caller: End
    id: int
    method: str
    parent: Key | None
    age: float
    at_caller: str = ""
    at_callee: str = ""

    @property
    def key(self) -> Key:
        """Its caller and its number, which identify it."""
        return self.caller, self.id


def join_trees(client: Iterable[ScopeNode], server: Iterable[ScopeNode]) -> list[LiveCall]:
    """Join the trees of the two ends. Parents come before the calls made inside them."""
    calls: dict[Key, LiveCall] = {}
    _add(calls, client, "client", "server")
    _add(calls, server, "server", "client")
    return sorted(calls.values(), key=lambda call: (call.parent is not None, -call.age))


def _add(calls: dict[Key, LiveCall], nodes: Iterable[ScopeNode], here: End, there: End) -> None:
    for node in nodes:
        caller = here if node.direction == "out" else there
        call = calls.get((caller, node.id))
        if call is None:
            call = LiveCall(caller, node.id, node.method, _parent(node, here, there), node.age)
            calls[call.key] = call
        call.age = max(call.age, node.age)
        if node.direction == "out":
            call.at_caller = node.state
        else:
            call.at_callee = node.state


def _parent(node: ScopeNode, here: End, there: End) -> Key | None:
    if node.parent is None:
        return None
    direction, number = node.parent
    return (here if direction == "out" else there), number

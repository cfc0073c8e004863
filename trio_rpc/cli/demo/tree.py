"""The scope tree of both ends as one: what each end sees of a call is half of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from trio_rpc.session.tree import ScopeNode

__all__ = ["End", "Key", "LiveCall", "join_trees"]

End: TypeAlias = Literal["client", "server"]
Key: TypeAlias = tuple[End, int]
"""Who called, and the call's number in that direction."""


@dataclass(slots=True)
class LiveCall:
    """One call that is alive, seen from both ends.

    Attributes:
        caller: the end that made it.
        id: its number in that direction.
        method: its full name.
        parent: the call inside which it is made, or None.
        age: seconds since it began, at the end that has seen it longer.
        at_caller: the caller's state, or "" where the caller was not seen with it.
        at_callee: likewise of the handler.
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
        """What names it."""
        return self.caller, self.id


def join_trees(client: Iterable[ScopeNode], server: Iterable[ScopeNode]) -> list[LiveCall]:
    """Join what the two ends see. Parents come before what is made inside them."""
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

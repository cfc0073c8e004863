"""The clients and calls of a gateway, as an Introspection sees them.

The ids of clients and calls stay here, because a client proves its identity with them.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator

import trio

from trio_rpc.gateway.server.call import GatewayCall, current_work
from trio_rpc.gateway.server.gateway_state import GatewayState
from trio_rpc.session.calls.context import handled_call
from trio_rpc.session.inspection import Inspected, InspectedSession, ScopeNode

__all__ = ["inspect"]


def inspect(state: GatewayState) -> Inspected:
    """Return the figures of a gateway, its clients, and the calls that belong to no client."""
    figures = {
        "sessions": len(state.clients),
        "handlers": len(state.works),
        "bytes_unsent": state.unsent.size,
    }
    return Inspected(figures, _sessions(state))


def _sessions(state: GatewayState) -> Iterator[InspectedSession]:
    alone = state.works - {_own()}
    for client in tuple(state.clients.values()):
        calls = tuple(client.works.values())
        alone.difference_update(calls)
        yield _session(client, "a browser", calls)
    if alone:
        yield _session(state, "requests without a WebSocket", alone)


def _session(session: object, name: str, calls: Collection[GatewayCall]) -> InspectedSession:
    addresses = sorted({call.address for call in calls if call.address is not None})
    return InspectedSession(
        session,
        f"{name} at {', '.join(addresses)}" if addresses else name,
        functools.partial(_tree, calls),
        functools.partial(_cancel, calls),
    )


def _tree(calls: Collection[GatewayCall]) -> list[ScopeNode]:
    own, now = _own(), trio.current_time()
    nodes = [
        ScopeNode(
            direction="in",
            id=call.number,
            method=call.name,
            age=now - call.started,
            state="cancelling" if call.is_cancelling else "running",
            parent=None,
        )
        for call in calls
        if call is not own and not call.ended.is_set()
    ]
    return sorted(nodes, key=lambda node: -node.age)


def _own() -> GatewayCall | None:
    """Return the call that this task handles, if it came from a gateway's client."""
    current = current_work.get()
    return None if current is None or handled_call.get() is not current[1] else current[0]


def _cancel(calls: Collection[GatewayCall], number: int, reason: str) -> bool:
    for call in calls:
        if call.number == number and not call.ended.is_set():
            call.cancel_here(reason)
            return True
    return False

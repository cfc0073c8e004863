"""Inspection of a session: its statistics, its connection, its live scope tree as data (law 1)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Literal, Protocol, TypeAlias

import trio

from trio_rpc.channels import ConnectionState, ConnectionStates, ResumableChannel
from trio_rpc.protocol import protocol
from trio_rpc.services.decorators import Kind
from trio_rpc.services.proxies import RemoteMethod
from trio_rpc.services.tables import BoundMethod
from trio_rpc.session.answers import Answers
from trio_rpc.session.calls.incoming_call import IncomingCall
from trio_rpc.session.calls.outgoing import OutgoingCalls
from trio_rpc.session.calls.outgoing_call import OutgoingCall
from trio_rpc.session.lifecycle import Lifecycle
from trio_rpc.session.streams.scopes import SCOPE

__all__ = [
    "Direction",
    "Inspected",
    "InspectedSession",
    "RunningHandlers",
    "ScopeNode",
    "ServerStatistics",
    "SessionStatistics",
    "cancel_handler",
    "connection_states",
    "scope_tree",
    "take_statistics",
]


class RunningHandlers(Protocol):
    """The attributes of the incoming calls that are inspected."""

    running: dict[int, IncomingCall]
    notifications_running: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStatistics:
    """The traffic of a session so far, and its calls and queues at this moment."""

    state: str
    """"opening", "open", "closing" or "over"."""
    packets_sent: int
    """Packets sent so far."""
    packets_received: int
    """Packets received so far."""
    bytes_sent: int
    """Bytes of these packets, without the overhead of the transport."""
    bytes_received: int
    """Bytes of these packets, without the overhead of the transport."""
    messages_received: int
    """Messages received so far; one packet has one or more."""
    late_replies: int
    """Terminal messages that arrived for abandoned calls."""
    late_cancels: int
    """Cancels that crossed the end of their call."""
    late_calls: int
    """Requests and notifications that crossed our Goodbye and were not started."""
    calls_out: int
    """Outgoing calls without a terminal message, including abandoned ones."""
    calls_in: int
    """Incoming calls whose terminal message has not left."""
    notifications_in: int
    """Incoming notifications whose handler is running."""
    tasks_waiting: int
    """Tasks that wait for credit, or for room in the queue."""
    bytes_waiting: int
    """Bytes queued for sending."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatistics:
    """The sessions of a server, and the queues of all of them together, at this moment."""

    sessions: int
    """Open sessions."""
    opening: int
    """Connections whose handshakes are not finished."""
    sessions_refused: int
    """Sessions refused so far because the server was full."""
    handshakes_given_up: int
    """Unfinished handshakes that newer clients have displaced so far."""
    handlers: int
    """Handlers that have begun and not ended, in all sessions."""
    calls_queued: int
    """Calls and notifications that wait for their turn, or until their session may begin them."""
    calls_refused: int
    """Calls refused so far, because they would have waited for too long."""
    calls_too_late: int
    """Calls refused so far, because their deadline had passed before they could begin."""
    bytes_unsent: int
    """Bytes that all sessions hold for their peers."""


def take_statistics(
    lifecycle: Lifecycle,
    rules: protocol.Protocol,
    outgoing: OutgoingCalls,
    incoming: RunningHandlers,
) -> SessionStatistics:
    """Collect the statistics of a session."""
    return SessionStatistics(
        state=lifecycle.stage.state,
        calls_out=len(rules.outgoing),
        calls_in=len(rules.incoming),
        notifications_in=incoming.notifications_running,
        tasks_waiting=outgoing.waiting,
        bytes_waiting=rules.bytes_waiting,
        **asdict(rules.counters),
    )


Direction: TypeAlias = Literal["out", "in"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeNode:
    """One call in flight: at its caller (``"out"``) or at its callee (``"in"``)."""

    direction: Direction
    """"out" for a call that this end makes, "in" for one that it handles."""
    id: int
    """Unique within its direction. A notification has no id on the wire; here it is negative."""
    method: str
    """The full name of the method, ``"service.method"``."""
    age: float
    """Seconds since it began at this end."""
    state: str
    """"running", "cancelling" or "waiting".

    A call that this end makes is "waiting" until the other end is known to have read it: by a
    message of its handler, or by the Pong for a later Ping.
    """
    parent: tuple[Direction, int] | None
    """Direction and id of the call that this one is made in, if that is on this session."""
    kind: str = "call"
    """"call", "notification", "stream", "duplex" or "scope"."""


@dataclass(frozen=True, slots=True)
class InspectedSession:
    """One session of a server, or one client of a gateway, as an Introspection sees it.

    Attributes:
        session: the session itself, which tells it from all others.
        name: the name of the other end.
        tree: returns the calls in flight, except the one that this task handles.
        cancel: cancels the handler with this id for this reason; returns whether there is one.
    """

    session: object
    name: str
    tree: Callable[[], list[ScopeNode]]
    cancel: Callable[[int, str], bool]


@dataclass(frozen=True, slots=True)
class Inspected:
    """The figures of a server or a gateway, and its sessions.

    Attributes:
        figures: named as in :class:`ServerStatistics`.
        sessions: the sessions.
    """

    figures: Mapping[str, int]
    sessions: Iterator[InspectedSession]


def cancel_handler(incoming: RunningHandlers, number: int, reason: str) -> bool:
    """Cancel the handler of an incoming call; return whether there is one."""
    call = incoming.running.get(number)
    if call is not None:
        call.cancel(reason)
    return call is not None


def scope_tree(outgoing: OutgoingCalls, incoming: RunningHandlers) -> list[ScopeNode]:
    """Return the calls of both directions, oldest first."""
    now = trio.current_time()
    nodes = [
        ScopeNode(
            direction="out",
            id=call.id,
            method=call.method.title,
            age=now - call.started,
            state=_state(outgoing, call),
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


def _state(outgoing: OutgoingCalls, call: OutgoingCall) -> str:
    if outgoing.is_cancelling(call):
        return "cancelling"
    return "running" if outgoing.is_running(call) else "waiting"


def _parent(
    own: Direction, scope: int | None, other: Direction, call: int | None
) -> tuple[Direction, int] | None:
    """Return a call's parent: its remote scope, or the call of the other direction."""
    if scope is not None:
        return own, scope
    return None if call is None else (other, call)


def _kind(method: RemoteMethod | BoundMethod) -> str:
    if method.name == SCOPE:
        return "scope"
    return "call" if method.kind is Kind.METHOD else method.kind.value


def connection_states(
    channel: trio.abc.Channel[bytes], lifecycle: Lifecycle, answers: Answers | None
) -> ConnectionStates:
    """Iterate over the states of a session's connection; see :meth:`Session.connection_states`."""
    if isinstance(channel, ResumableChannel):
        states = channel.states()
    else:
        states = ConnectionStates(functools.partial(_state_of, lifecycle), lifecycle.wait_changed)
    return states if answers is None else states.while_answering(answers)


def _state_of(lifecycle: Lifecycle) -> ConnectionState | None:
    if not lifecycle.is_over:
        return ConnectionState.CONNECTED
    return ConnectionState.LOST if lifecycle.cause is not None else None

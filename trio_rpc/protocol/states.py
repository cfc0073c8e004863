r"""The rules for when each message may be sent: the theory, then the tables.

Theory of operation
===================

A session is two *halves*, one for each direction. A half is named after its sender, and both ends
keep the state of both. A channel neither loses nor reorders packets, so the receiver's state of a
half is the sender's state of it some time ago. Both ends use the same tables, with the roles
exchanged: a message that is illegal to send is also illegal to receive.

A half begins SILENT. Its first message is Hello, so that two incompatible programs notice this
before they misread anything else. Then comes Welcome, which says: "I have read *your* Hello and
accept you: you may call." An end that checks credentials may take time before its Welcome. Any
other end sends it together with its Hello, or as soon as the other Hello has arrived. An end may
call once the *other* half has sent its Welcome, so a Request that arrives before the receiver has
sent its Welcome is illegal.

Goodbye says: "I start nothing new." It is answered by a Goodbye. The answer proves to the end that
spoke first that no unseen Request is on its way, because a Goodbye never overtakes a call, not
even one that is sent in pieces. Calls in flight may end in both directions. Until they have, a
call made *inside* one of them is still served, since the outer call could not end without it. Then
the end that is idle first closes the channel. So after a Goodbye

* its sender makes calls only if their context names a parent; any other call is illegal;
* a call that arrives after the receiver's own Goodbye, and has no parent in flight, crossed that
  Goodbye or the end of its parent: a Request is answered "unavailable", a Notification is dropped
  and its credit returned.

A Ping is answered where a Pong may be sent; before Hello and after the end it is dropped.

A call is kept in two tables, one at each end::

    at the caller (outgoing)                      at the callee (incoming)

       send Request                                  receive Request
           |                                             |
         WAITING ----- cancel -----> CANCELLING        RUNNING --- Cancel ---> CANCELLED
           |   \                          |   \             |                        |
           |    abandon                  |    grace over  | Reply or ReplyErr is queued
           |        \                     |     /          |                        |
           |         `--> ABANDONED <----------'        ANSWERED <-----------------'
           |                  |          |                |
           terminal message received: removed           the terminal message left: removed

An id is taken when its Request is encoded, and means nothing after its terminal message has
arrived. A caller never uses one twice, so a late message names either a known call or one that has
ended. The callee only has to look at the calls in flight. That gives every crossing its rule:

* A Cancel that arrives when the call is ANSWERED or removed crossed the terminal message: dropped.
* A Reply for an ABANDONED call is late: dropped, and the slot is free again.
* A Reply for an id that is not outstanding cannot come from a correct peer: RemoteProtocolError.

While a call is WAITING at its caller and RUNNING at its callee, more messages than its Request and
its terminal message may pass: Items and EndOfItems from the callee, if the Request gave credit for
them; Credit for Items from the caller; and one Started, if the Request asked for it. None of them
overtakes another, or the terminal message, of the same call. Items and credit that arrive for a
call that has been cancelled or abandoned, or has ended, crossed that event: they are dropped. Both
ends count the credit for Items by the same rule (``streams.py``), and the sender's count is never
above the receiver's.

A call holds its slot (the credit of ``Limits.max_calls``) in both tables until it is removed. The
callee frees the slot when the terminal message is handed to the channel. The caller frees it when
that message arrives, which is later. So the caller's count is never below the callee's, and a
caller that respects the credit never seems to overdraw it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from trio_rpc.errors import DecodeError, LocalProtocolError
from trio_rpc.wire import messages as m

__all__ = [
    "IN_PIECES",
    "LEGAL",
    "NEXT",
    "TURNING",
    "UNWELCOME",
    "Half",
    "IncomingState",
    "OutgoingState",
    "check_in_pieces",
    "step",
]


class Half(enum.Enum):
    """The state of one half: the last of its messages that changed it."""

    SILENT = "silent"
    GREETED = "greeted"
    OPEN = "open"
    LEAVING = "leaving"
    ENDED = "ended"

    # Members are compared by identity. Enum's own hash is that of the name, made in Python.
    __hash__ = object.__hash__


class OutgoingState(enum.Enum):
    """The state of a call at its caller."""

    WAITING = "waiting"
    CANCELLING = "cancelling"
    ABANDONED = "abandoned"


class IncomingState(enum.Enum):
    """The state of a call at its callee."""

    RUNNING = "running"
    CANCELLED = "cancelled"
    ANSWERED = "answered"


_ANY_TIME: Final[frozenset[type[m.Message]]] = frozenset({m.Ping, m.Pong})
_TRAFFIC: Final[frozenset[type[m.Message]]] = _ANY_TIME | {
    m.Request,
    m.Notification,
    m.Reply,
    m.ReplyErr,
    m.Cancel,
    m.Credit,
    m.Piece,
    m.LastPiece,
    m.Item,
    m.EndOfItems,
    m.Started,
}

LEGAL: Final[Mapping[Half, frozenset[type[m.Message]]]] = {
    Half.SILENT: frozenset({m.Hello, m.Goodbye}),
    Half.GREETED: _ANY_TIME | {m.Welcome, m.Goodbye},
    Half.OPEN: _TRAFFIC | {m.Goodbye},
    Half.LEAVING: _TRAFFIC,
    Half.ENDED: frozenset(),
}
"""The messages that a half may send in each state."""

NEXT: Final[Mapping[tuple[Half, type[m.Message]], Half]] = {
    (Half.SILENT, m.Hello): Half.GREETED,
    (Half.SILENT, m.Goodbye): Half.ENDED,
    (Half.GREETED, m.Welcome): Half.OPEN,
    (Half.GREETED, m.Goodbye): Half.ENDED,
    (Half.OPEN, m.Goodbye): Half.LEAVING,
}
"""The state of a half after a message. Messages that are not listed do not change it."""

TURNING: Final = frozenset(kind for _, kind in NEXT)
"""Messages that change a half's state. While both halves are OPEN, all others are legal."""

UNWELCOME: Final[Mapping[Half, frozenset[type[m.Message]]]] = {
    Half.SILENT: _TRAFFIC - _ANY_TIME,
    Half.GREETED: _TRAFFIC - _ANY_TIME,
    Half.OPEN: frozenset(),
    Half.LEAVING: frozenset(),
    Half.ENDED: frozenset({m.Request, m.Notification}),
}
"""The messages that must not be sent to a half in that state, in any state of the sender."""

IN_PIECES: Final[frozenset[type[m.Message]]] = frozenset(
    {m.Request, m.Notification, m.Reply, m.ReplyErr, m.Item, m.EndOfItems, m.Started}
)
"""Messages that may be larger than a packet, or must not overtake one that is."""


def check_in_pieces(kind: type[m.Message]) -> None:
    """Raise DecodeError for a message of a kind that must not come in pieces."""
    if kind not in IN_PIECES:
        raise DecodeError(f"a {kind.__name__} must not come in pieces")


# Looking up a member in an Enum class takes longer than everything done with it here.
_OPEN = Half.OPEN


def step(half: Half, other: Half, kind: type[m.Message]) -> Half:
    """Return the state of ``half`` after it has sent a message of that kind.

    Args:
        half: the sender's state.
        other: the receiver's state.
        kind: the message's class.

    Raises LocalProtocolError if the message must not be sent.
    """
    if half is other is _OPEN and kind not in TURNING:
        return half
    if kind not in LEGAL[half]:
        if half is Half.SILENT:
            raise LocalProtocolError(
                f"{kind.__name__} where Hello must come first, "
                f"of version {m.PROTOCOL_VERSION} of the protocol"
            )
        raise LocalProtocolError(f"{kind.__name__} is not allowed when {half.value}")
    if kind in UNWELCOME[other]:
        raise LocalProtocolError(
            f"{kind.__name__} is not allowed when its receiver is {other.value}"
        )
    return NEXT.get((half, kind), half)

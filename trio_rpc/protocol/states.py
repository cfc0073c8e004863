r"""Which message may be sent when: the theory, and then the tables.

Theory of operation
===================

A session is two *halves*, one for each direction. A half is named after its sender, and both
ends keep both: what I have sent, and what I have received. Since a channel neither loses nor
reorders, my record of what you sent is yours of what you sent, some time ago. The two ends run
the same tables, with the roles exchanged; what is illegal to send is exactly what is illegal to
receive, and one table says so for both.

A half begins SILENT. Its first message is Hello, so that two programs that do not fit find out
before anything else can be misread. Then Welcome, which says: "I have read *your* Hello, I accept
you, you may call." An end that checks credentials takes its time over it; any other end sends
it together with its Hello or as soon as the other Hello is there. Calls may go out once the *other* half
has sent its Welcome, and so a Request that arrives before I said Welcome is illegal.

Goodbye says: "I start nothing new." It is answered by a Goodbye, and the answer proves to the one
who spoke first that no unseen Request is on its way: a Goodbye never overtakes a call, not even
one that travels in pieces. What is in flight may end in both
directions, and until it has, a call that is made *inside* one of them is still served, since the
one could not end without the other. Then whoever is idle closes the channel. So after a Goodbye

* its sender makes calls only if their context names a parent; one that does not is illegal;
* a call without a living parent that arrives after my own Goodbye crossed it, or the end of its
  parent: a Request is answered "unavailable", a Notification is dropped and its credit given back.

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
           terminal message received: gone              the terminal message left: gone

An id is taken when its Request is encoded and is free of meaning when its terminal message has
arrived; a caller never uses one twice, so a late message can only ever name a call that is
known or one that is over. The callee has to look at the calls in flight alone. That gives every
crossing its rule:

* A Cancel that arrives when the call is ANSWERED or gone crossed the terminal message: dropped.
* A Reply for an ABANDONED call is late: dropped, and the slot is free again.
* A Reply for an id that is not outstanding cannot come from a correct peer: RemoteProtocolError.

While a call is WAITING, and its callee has it RUNNING, more may pass than its two ends: Items and the
end of them, from the callee, if the Request asked for them by giving credit; Credit for them, from the
caller; Started, once, if the Request asked for it. None of them passes another one, or the terminal message,
of the same call. Items and credit that arrive for a call that has been cancelled or abandoned, or has ended,
crossed that: they are dropped. Credit for Items is counted at both ends by the same rule (``streams.py``), the sender's
count being never above the receiver's.

A call holds its slot (the credit of ``Limits.max_calls``) in both tables until it is gone. The callee
frees the slot when the terminal message is handed to the channel, the caller when it arrives,
which is later: so the caller's count is never below the callee's, and a caller that keeps to the
credit can never be seen to overdraw it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from trio_rpc.errors import LocalProtocolError
from trio_rpc.wire import messages as m

__all__ = [
    "IN_PIECES",
    "LEGAL",
    "NEXT",
    "UNWELCOME",
    "Half",
    "IncomingState",
    "OutgoingState",
    "step",
]


class Half(enum.Enum):
    """What one end has said so far."""

    SILENT = "silent"
    GREETED = "greeted"
    OPEN = "open"
    LEAVING = "leaving"
    ENDED = "ended"


class OutgoingState(enum.Enum):
    """A call, at its caller."""

    WAITING = "waiting"
    CANCELLING = "cancelling"
    ABANDONED = "abandoned"


class IncomingState(enum.Enum):
    """A call, at its callee."""

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

LEGAL: Final[Mapping[Half, frozenset[type[m.Message]]]] = MappingProxyType(
    {
        Half.SILENT: frozenset({m.Hello, m.Goodbye}),
        Half.GREETED: _ANY_TIME | {m.Welcome, m.Goodbye},
        Half.OPEN: _TRAFFIC | {m.Goodbye},
        Half.LEAVING: _TRAFFIC,
        Half.ENDED: frozenset(),
    }
)
"""What a half may send in each state."""

NEXT: Final[Mapping[tuple[Half, type[m.Message]], Half]] = MappingProxyType(
    {
        (Half.SILENT, m.Hello): Half.GREETED,
        (Half.SILENT, m.Goodbye): Half.ENDED,
        (Half.GREETED, m.Welcome): Half.OPEN,
        (Half.GREETED, m.Goodbye): Half.ENDED,
        (Half.OPEN, m.Goodbye): Half.LEAVING,
    }
)
"""Where a message takes its half; one that is not here changes nothing."""

_TURNING: Final = frozenset(kind for _, kind in NEXT)
"""Messages that take a half somewhere. While both halves are OPEN all others are legal."""

UNWELCOME: Final[Mapping[Half, frozenset[type[m.Message]]]] = MappingProxyType(
    {
        Half.SILENT: _TRAFFIC - _ANY_TIME,
        Half.GREETED: _TRAFFIC - _ANY_TIME,
        Half.OPEN: frozenset(),
        Half.LEAVING: frozenset(),
        Half.ENDED: frozenset({m.Request, m.Notification}),
    }
)
"""What a half may not be sent while it is in that state, whatever the sender's own."""

IN_PIECES: Final[frozenset[type[m.Message]]] = frozenset(
    {m.Request, m.Notification, m.Reply, m.ReplyErr, m.Item, m.EndOfItems, m.Started}
)
"""What may be larger than a packet, or has to stay behind something that is."""

# To look a member of an Enum up in its class takes longer than all that is done with it here.
_OPEN = Half.OPEN


def step(half: Half, other: Half, kind: type[m.Message]) -> Half:
    """Say where ``half`` goes by sending a message of that kind.

    Args:
        half: the sender's.
        other: the receiver's.
        kind: of the message.

    Raises LocalProtocolError when it must not be sent.
    """
    if half is other is _OPEN and kind not in _TURNING:
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

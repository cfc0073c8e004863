"""The events that a trace receives: one for each step of a call, and one for each message.

The steps 1 to 5 and 15 to 19 happen at the caller, the steps 6 to 14 at the callee::

    caller                                       callee
     1 called
     2 prepared (it gets its id)
     3 encoded
     4 queued
     5 sent  ----------------------------------->  6 arrived
                                                   7 decoded
                                                   8 handled as a call
                                                   9 matched with a method
                                                  10 running
                                                  11 finished
                                                  12 answer encoded
                                                  13 answer queued
    15 answer arrived  <-------------------------  14 answer sent
    16 answer decoded
    17 waiter found
    18 waiter woken
    19 continues
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeAlias

__all__ = ["STEPS", "Trace", "TraceEvent", "WireEvent"]

STEPS: Final[Mapping[int, str]] = MappingProxyType(
    {
        1: "called",
        2: "prepared",
        3: "encoded",
        4: "queued",
        5: "sent",
        6: "arrived",
        7: "decoded",
        8: "handled as a call",
        9: "matched with a method",
        10: "running",
        11: "finished",
        12: "answer encoded",
        13: "answer queued",
        14: "answer sent",
        15: "answer arrived",
        16: "answer decoded",
        17: "waiter found",
        18: "waiter woken",
        19: "continues",
    }
)
"""The name of each step."""


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """One step of a call.

    Attributes:
        step: its number, 1 to 19; ``STEPS`` has their names.
        time: when it happened, in seconds since 1970. Within one session the differences are
            exact, since the clock of the Trio run measures them.
        session: the id of the session, which both ends have agreed on (``Session.id``).
        is_incoming: whether the other end made the call.
        call: the call's id; None for a notification, and before step 2.
        number: the number of the call at this end, counted separately for each direction. It joins
            step 1, which has no id, to the other steps.
        method: the full name of the method.
        size: the bytes of the encoded message, from step 3 to 7 and from step 12 to 16; else 0.
        state: the state of the call: ``"new"``, ``"waiting"``, ``"running"``. From step 11 on, how
            it ended: ``"result"``, or the code of its error such as ``"raised"`` or
            ``"cancelled"``. In step 19, ``"result"`` or the class of the caller's exception. A
            call that the end of its session leaves without an answer ends with a step 11 whose
            state is ``"session over"``.
        peer: the other end's name in logs.
    """

    step: int
    time: float
    session: str
    is_incoming: bool
    call: int | None
    number: int
    method: str
    size: int
    state: str
    peer: str = ""


@dataclass(frozen=True, slots=True)
class WireEvent:
    """One message that left or arrived, of any type.

    Attributes:
        time: when it was passed to the channel, or decoded; as in :class:`TraceEvent`.
        session: the id of the session. Before both ends have agreed on one, this end's part of it.
        is_sent: whether it left.
        size: its bytes.
        message: its type, such as ``"Request"`` or ``"Ping"``.
        call: the id of the call that it belongs to, or None.
        method: the full name of that call's method, or "".
        payload: its bytes, if the trace asked for them with ``payloads``; else empty.
    """

    time: float
    session: str
    is_sent: bool
    size: int
    message: str
    call: int | None
    method: str
    payload: bytes


Trace: TypeAlias = Callable[[TraceEvent], None]
"""A function that gets each step of each call. It must neither wait nor take long.

If it also has a method ``on_message``, that gets a :class:`WireEvent` for each message, with the
message's bytes if the attribute ``payloads`` is true. :class:`WireLog` is such an object.
"""

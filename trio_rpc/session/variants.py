"""The classes of a session's parts: the plain ones, or the traced ones."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

from trio_rpc.protocol.protocol import Protocol
from trio_rpc.session.calls.outgoing import OutgoingCalls
from trio_rpc.session.dispatch import IncomingCalls
from trio_rpc.session.io.writer import Writer
from trio_rpc.session.session import Session
from trio_rpc.session.traced.traced_calls import TracedIncomingCalls, TracedOutgoingCalls
from trio_rpc.session.traced.traced_protocol import TracedProtocol
from trio_rpc.session.traced.traced_session import TracedSession
from trio_rpc.session.traced.traced_writer import TracedWriter
from trio_rpc.session.traced.tracer import Tracer
from trio_rpc.tracing.events import Trace
from trio_rpc.util.rate_limited_log import RateLimitedLog

__all__ = ["Variant", "choose_variant"]


class Variant(NamedTuple):
    """Makes the parts of one session, so that the plain ones need not check for a trace."""

    protocol: Callable[..., Protocol] = Protocol
    writer: Callable[..., Writer] = Writer
    outgoing: Callable[..., OutgoingCalls] = OutgoingCalls
    incoming: Callable[..., IncomingCalls] = IncomingCalls
    session: Callable[..., Session] = Session
    session_id: str = ""
    """This end's part of the session's id, which Hello states; "" for none."""


_PLAIN = Variant()


def choose_variant(trace: Trace | None, complaints: RateLimitedLog, name: str) -> Variant:
    """Return the classes for a session with that trace.

    Args:
        trace: the user's function, or None.
        complaints: logs errors of the trace.
        name: the other end's name in logs.
    """
    if trace is None:
        return _PLAIN
    tracer = Tracer(trace, complaints, name)
    return Variant(
        functools.partial(TracedProtocol, tracer),
        functools.partial(TracedWriter, tracer),
        functools.partial(TracedOutgoingCalls, tracer),
        functools.partial(TracedIncomingCalls, tracer),
        functools.partial(TracedSession, tracer),
        tracer.part,
    )

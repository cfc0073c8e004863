"""A trace of every step of a call, and a log of all messages: ``trace=`` of a session."""

from __future__ import annotations

from trio_rpc.tracing.events import STEPS, Trace, TraceEvent, WireEvent
from trio_rpc.tracing.printing import (
    WireLog,
    all_of,
    format_event,
    format_message,
    print_trace,
)

__all__ = [
    "STEPS",
    "Trace",
    "TraceEvent",
    "WireEvent",
    "WireLog",
    "all_of",
    "format_event",
    "format_message",
    "print_trace",
]

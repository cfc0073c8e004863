"""A trace of every step of a call, and a log of all messages: ``trace=`` of a session."""

from __future__ import annotations

from trio_rpc.tracing.access import AccessLog
from trio_rpc.tracing.diagrams import draw_sequence, sequence_text
from trio_rpc.tracing.events import STEPS, Trace, TraceEvent, WireEvent
from trio_rpc.tracing.joining import JoinedCall, clock_offset, join
from trio_rpc.tracing.printing import (
    WireLog,
    all_of,
    format_event,
    format_message,
    print_trace,
)

__all__ = [
    "STEPS",
    "AccessLog",
    "JoinedCall",
    "Trace",
    "TraceEvent",
    "WireEvent",
    "WireLog",
    "all_of",
    "clock_offset",
    "draw_sequence",
    "format_event",
    "format_message",
    "join",
    "print_trace",
    "sequence_text",
]

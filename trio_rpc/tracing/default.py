"""The trace of sessions that were opened without one: ``TRIO_RPC_TRACE`` chooses it."""

from __future__ import annotations

import os
from collections.abc import Mapping

from trio_rpc.tracing.events import Trace
from trio_rpc.tracing.printing import WireLog, print_trace

__all__ = ["DEFAULT_TRACE", "trace_of"]


def trace_of(environment: Mapping[str, str]) -> Trace | None:
    """Return the trace that the variable ``TRIO_RPC_TRACE`` asks for.

    Args:
        environment: the environment variables. ``1`` prints the steps of calls on standard error,
            ``wire`` the messages. Without the variable, or with ``0``, there is no trace.
    """
    wanted = environment.get("TRIO_RPC_TRACE", "0")
    if wanted in ("", "0"):
        return None
    return WireLog() if wanted == "wire" else print_trace


DEFAULT_TRACE = trace_of(os.environ)
"""The trace of each session that is opened without ``trace``. It is chosen once, at the import."""

"""A log of the calls that a program serves: one line for each, when its answer is queued."""

from __future__ import annotations

import logging

from trio_rpc.errors import Fate
from trio_rpc.tracing.events import TraceEvent
from trio_rpc.util.text import one_line

__all__ = ["AccessLog"]

ARRIVED, RUNNING, FINISHED, ANSWERED = 6, 10, 11, 13
SESSION_OVER = "session over"


class _Call:
    """An incoming call that has not been answered."""

    __slots__ = ("arrived", "has_begun", "received")

    def __init__(self, arrived: float, received: int) -> None:
        self.arrived = arrived
        self.received = received
        self.has_begun = False


class AccessLog:
    """A trace that logs each call and notification of the other end, as one line.

    The lines go to the logger ``trio_rpc.access`` at the level INFO. They have the other end's
    name, the method, the outcome, the fate of the handler, the time from the call's arrival to its
    answer, and the sizes of both messages. They have no arguments, results or texts of errors.
    Nothing limits their number.

    Args:
        logger: the logger, in place of ``trio_rpc.access``.

    Example:
        >>> async def main(services: object) -> None:
        ...     log = trio_rpc.tracing.AccessLog()
        ...     await trio_rpc.serve(services, "tcp://127.0.0.1:5000", trace=log)
    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logger or logging.getLogger("trio_rpc.access")
        # Bound: the calls in flight. Each session ends its own with a last event.
        self._calls: dict[tuple[str, str, int], _Call] = {}

    def __call__(self, event: TraceEvent) -> None:
        """Handle one step of a call; a session calls this."""
        if not event.is_incoming:
            return
        key = event.peer, event.session, event.number
        if event.step == ARRIVED:
            self._calls[key] = _Call(event.time, event.size)
        elif event.step == RUNNING:
            if key in self._calls:
                self._calls[key].has_begun = True
        elif event.step == ANSWERED or (
            event.step == FINISHED and (event.call is None or event.state == SESSION_OVER)
        ):
            call = self._calls.pop(key, None)
            if call is not None:
                self._log(event, call)

    def _log(self, event: TraceEvent, call: _Call) -> None:
        fate = Fate.STOPPED if call.has_begun else Fate.NOT_STARTED
        if event.state == SESSION_OVER and call.has_begun:
            fate = Fate.UNKNOWN  # to the caller, who gets no answer
        outcome = one_line(event.state, 100)
        method = one_line(event.method, 200)
        milliseconds = (event.time - call.arrived) * 1000
        self._logger.info(
            "%s %s: %s, %s, %.1f ms, %d bytes in, %d bytes out",
            event.peer,
            method,
            outcome,
            fate.value,
            milliseconds,
            call.received,
            event.size,
            extra={
                "rpc_session": event.peer,
                "rpc_method": method,
                "rpc_call": event.call,
                "rpc_outcome": outcome,
                "rpc_fate": fate.value,
                "rpc_ms": milliseconds,
                "rpc_bytes_in": call.received,
                "rpc_bytes_out": event.size,
            },
        )

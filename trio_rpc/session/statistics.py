"""The figures of one session."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trio_rpc.session.core import Core

__all__ = ["SessionStatistics"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStatistics:
    """What has gone through a session so far, and what is in it at this moment."""

    state: str
    """"opening", "open", "closing" or "over"."""
    packets_sent: int
    packets_received: int
    bytes_sent: int
    bytes_received: int
    messages_received: int
    late_replies: int
    """Terminal messages that came for calls nobody waited for any more."""
    late_cancels: int
    """Cancels that crossed the end of their call."""
    late_calls: int
    """Requests and notifications that crossed our Goodbye and were not started."""
    calls_out: int
    """Calls of ours without a terminal message, abandoned ones included."""
    calls_in: int
    """Calls of the peer's whose terminal message has not left."""
    notifications_in: int
    """Notifications of the peer's whose handler is running."""
    tasks_waiting: int
    """Tasks that wait for credit, or for room in the queue."""
    bytes_waiting: int
    """Bytes queued for sending."""

    @classmethod
    def of(cls, core: Core) -> SessionStatistics:
        """Take the figures."""
        return cls(
            state=core.lifecycle.stage.value,
            calls_out=len(core.protocol.outgoing),
            calls_in=len(core.protocol.incoming),
            notifications_in=core.incoming.notifications_running,
            tasks_waiting=core.outgoing.waiting,
            bytes_waiting=core.protocol.bytes_waiting,
            **asdict(core.protocol.counters),
        )

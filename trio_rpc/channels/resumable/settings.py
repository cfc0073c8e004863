"""The settings of resumable sessions."""

from __future__ import annotations

from dataclasses import dataclass

from trio_rpc.channels.resumable.replay import LEAST_KEPT

__all__ = ["Resume"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """Settings for sessions that survive the loss of their connection. Times are in seconds.

    Attributes:
        grace: how long a session may be without a connection before it is lost. If a connection
            goes silent instead of breaking, one end may notice much later than the other
            (``Limits.keepalive_interval`` times ``keepalive_pings``, and a little more). The grace
            time must be longer than that.
        buffer: bytes that are kept until their arrival is known. Sending waits while there are
            more. At least 512 KiB.
        first_delay: the longest wait of a client before it connects again. It doubles after each
            failure. The actual wait is random, so that a thousand clients of one server do not
            reconnect at the same moment.
        max_delay: the limit of the growing wait.
        max_waiting: the number of sessions without a connection that a server keeps. Beyond that it
            gives up the oldest of them.

    Raises:
        ValueError: a value is not positive, or ``buffer`` is too small.
    """

    grace: float = 120.0
    buffer: int = 4 * 1024 * 1024
    first_delay: float = 0.1
    max_delay: float = 10.0
    max_waiting: int = 4096

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not getattr(self, name) > 0:
                raise ValueError(f"Resume.{name} must be positive")
        if self.buffer < LEAST_KEPT:
            raise ValueError(f"Resume.buffer must be at least {LEAST_KEPT}")

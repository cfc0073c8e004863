"""State shared by the sessions of one server; a session without a server has its own."""

from __future__ import annotations

import logging

from trio_rpc.protocol.counters import Tally
from trio_rpc.session.calls.bugs import Bugs
from trio_rpc.util.rate_limited_log import RateLimitedLog

__all__ = ["Shared"]

logger = logging.getLogger("trio_rpc")


class Shared:
    """Bounds that hold for all sessions of one server together.

    Attributes:
        bugs: logs undeclared exceptions of handlers.
        complaints: logs errors of peers; a peer that reconnects gets no further lines.
        unsent: counts the bytes queued for sending, for ``Limits.max_unsent_total``.
    """

    def __init__(self) -> None:
        self.bugs = Bugs()
        self.complaints = RateLimitedLog(logger)
        self.unsent = Tally()

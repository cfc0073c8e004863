"""What the sessions of one server have in common; a session without a server has its own."""

from __future__ import annotations

import logging

from trio_rpc.protocol.counters import Tally
from trio_rpc.session.calls.bugs import Bugs
from trio_rpc.util.rate_limited_log import RateLimitedLog

__all__ = ["Shared"]

logger = logging.getLogger("trio_rpc")


class Shared:
    """Bounds and limits that hold for all sessions of one server together.

    Attributes:
        bugs: logs what handlers raise by mistake.
        complaints: logs what peers do wrong, so a peer that connects anew gets no further lines.
        unsent: counts the bytes that wait to be sent, for ``Limits.max_unsent_total``.
    """

    def __init__(self) -> None:
        self.bugs = Bugs()
        self.complaints = RateLimitedLog(logger)
        self.unsent = Tally()

"""State shared by the sessions of one server, or by all sessions of a Trio run without a server."""

from __future__ import annotations

import logging

from trio_rpc.session.calls.bugs import Bugs
from trio_rpc.session.load import Load
from trio_rpc.util.per_run import PerRun
from trio_rpc.util.rate_limited_log import RateLimitedLog
from trio_rpc.util.unsent_budget import UnsentBudget
from trio_rpc.wire.limits import DEFAULT_SERVER_LIMITS, ServerLimits

__all__ = ["Shared", "shared_of_this_run"]

logger = logging.getLogger("trio_rpc")


class Shared:
    """Bounds that hold for many sessions together.

    Sessions without a server are those of clients and child processes, over forwarded channels and
    over listeners that the user made. A peer may be able to open as many of them as it likes.

    Attributes:
        bugs: logs undeclared exceptions of handlers.
        complaints: logs errors of peers, so a peer that reconnects cannot exceed the rate limit.
        load: counts the handlers and the queued calls, and gives turns to sessions.
        unsent: counts the bytes queued, or kept to be sent again, for ``Limits.max_unsent_total``.
    """

    def __init__(self, limits: ServerLimits = DEFAULT_SERVER_LIMITS) -> None:
        self.load = Load(limits)
        self.bugs = Bugs()
        self.complaints = RateLimitedLog(logger)
        self.unsent = UnsentBudget()


_of_this_run = PerRun("trio_rpc sessions", Shared)


def shared_of_this_run() -> Shared:
    """Return the objects shared by the sessions of this Trio run that have no server."""
    return _of_this_run.get()

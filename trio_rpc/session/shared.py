"""What the sessions of one server have in common; a session without a server has its own."""

from __future__ import annotations

from trio_rpc.protocol.counters import Tally
from trio_rpc.session.bugs import Bugs

__all__ = ["Shared"]


class Shared:
    """Bounds and limits that hold for all sessions of one server together.

    Attributes:
        bugs: logs what handlers raise by mistake.
        unsent: counts the bytes that wait to be sent, for ``Limits.max_unsent_total``.
    """

    def __init__(self) -> None:
        self.bugs = Bugs()
        self.unsent = Tally()

"""A call of the peer's: what is known of it from its arrival until its handler has ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from trio_rpc.services.tables import BoundMethod
    from trio_rpc.session.calls.eager import EagerCoroutine
    from trio_rpc.session.calls.outgoing_call import OutgoingCall
    from trio_rpc.session.session import Session
    from trio_rpc.session.streams.items import ItemSender
    from trio_rpc.session.streams.scopes import HeldScope

__all__ = ["IncomingCall"]


class IncomingCall:
    """A call of the peer's, from its arrival until its handler has ended."""

    __slots__ = (
        "args",
        "cancelled",
        "context",
        "has_begun",
        "held_scope",
        "id",
        "keeps_scope",
        "kwargs",
        "method",
        "parent_call",
        "references",
        "remote_scope",
        "result",
        "scope",
        "sender",
        "session",
        "started",
        "suspended",
    )

    def __init__(  # noqa: PLR0917 - made in one place, for each call
        self,
        session: Session | None,
        number: int,
        method: BoundMethod,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        context: Mapping[str, Any] | None,
    ) -> None:
        self.session = session
        self.id = number
        self.method = method
        self.args = args
        self.kwargs = kwargs
        self.context = context
        self.scope: trio.CancelScope | None = None
        """Where the handler runs, once it does."""
        self.keeps_scope = False
        """It has had to wait, so the scope is its own, and the reader's no more."""
        self.cancelled: str | None = None
        """The reason for which it has been cancelled."""
        self.suspended: EagerCoroutine | None = None
        self.parent_call: OutgoingCall | None = None
        """The call of ours that this one is a callback of."""
        self.result: object = None
        self.started = 0.0
        self.has_begun = False
        """The handler's function has been called, and not only filters round it."""
        self.references: Sequence[Any] = ()
        """Callbacks and streams that came with it, and live as long."""
        self.sender: ItemSender | None = None
        """Where its items go, if it is a stream or a duplex."""
        self.remote_scope: HeldScope | None = None
        """The remote scope that it was made in."""
        self.held_scope: HeldScope | None = None
        """What it holds, if it is a remote scope itself."""

    @property
    def parent(self) -> int | None:
        """The id of the call of ours that this one is made in."""
        return self.context.get("parent") if self.context else None

    @property
    def scope_id(self) -> int | None:
        """The id of the remote scope that this one is made in."""
        return self.context.get("scope") if self.context else None

    @property
    def depth(self) -> int:
        """How many calls this one is made in."""
        return self.context.get("depth", 0) if self.context else 0

    def cancel(self, reason: str) -> None:
        """Cancel the handler, or see to it that it never begins; in its first step, once it has to wait."""
        if self.cancelled is None:
            self.cancelled = reason
            if self.scope is not None and self.keeps_scope:
                self.scope.cancel(reason=reason)
            if self.sender is not None:
                self.sender.stop()

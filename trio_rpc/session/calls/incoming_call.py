"""A call of the peer's: what is known of it from its arrival until its handler has ended.

A call of the built-in method ``trio_rpc.scope`` holds a :class:`HeldScope`, in which other calls are made: each of
the two knows the other, so they share this file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import trio

from trio_rpc.services.proxies import Caller
from trio_rpc.services.tables import BoundMethod
from trio_rpc.session.calls.eager import EagerCoroutine
from trio_rpc.session.calls.outgoing_call import OutgoingCall

__all__ = ["CallSession", "HeldScope", "IncomingCall", "ItemSink"]


class CallSession(Caller, Protocol):
    """What a call needs of the session that it came in on."""

    @property
    def name(self) -> str:
        """What the other end is called in logs and errors."""


class ItemSink(Protocol):
    """What a call needs of the producer's end of its stream."""

    async def put(self, value: Any) -> None:
        """Send one item; wait while its consumer is slow."""

    def let_in(self) -> None:
        """Wake those who wait for credit, which has come."""

    def stop(self) -> None:
        """Send no more: nobody takes items."""


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
        session: CallSession | None,
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
        self.sender: ItemSink | None = None
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


class HeldScope:
    """A scope of the peer's, at this end.

    Attributes:
        nursery: for what is to live as long as the scope; None before the handler has begun.
    """

    def __init__(self, call: IncomingCall) -> None:
        self.nursery: trio.Nursery | None = None
        self._handled = call
        # Bound: the calls of the peer's that are in flight.
        self._members: set[IncomingCall] = set()
        self._left = trio.Event()

    @property
    def is_ending(self) -> bool:
        """Whether nothing more may begin in it."""
        return self._handled.cancelled is not None

    def enter(self, call: IncomingCall) -> None:
        """A call has been made in this scope."""
        self._members.add(call)

    def leave(self, call: IncomingCall) -> None:
        """One of them is over."""
        self._members.discard(call)
        self._left.set()

    async def hold(self) -> None:
        """Last until cancelled; then cancel what was made in this scope, and wait until it has ended."""
        try:
            async with trio.open_nursery() as self.nursery:
                await trio.sleep_forever()
        finally:
            reason = self._handled.cancelled or "the remote scope of this call has ended"
            self._handled.cancelled = reason
            for member in tuple(self._members):
                member.cancel(reason)
            with trio.CancelScope(shield=True):
                while self._members:
                    self._left = trio.Event()
                    await self._left.wait()

"""An incoming call, from its arrival until its handler has ended.

A call of the built-in method ``trio_rpc.scope`` holds a :class:`HeldScope`, in which other calls
are made. Each of the two refers to the other, so they share this file.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import trio

from trio_rpc.services.proxies import Caller, RemoteMethod
from trio_rpc.services.tables import BoundMethod
from trio_rpc.session.calls.eager import EagerCoroutine
from trio_rpc.session.calls.outgoing_call import OutgoingCall
from trio_rpc.session.http_request import HttpRequest

__all__ = ["CallSession", "HeldScope", "IncomingCall", "ItemSink"]


class CallSession(Caller, Protocol):
    """The attributes that a call needs of its session."""

    @property
    def name(self) -> str:
        """The name of the other end in logs and errors."""

    @property
    def is_filtered(self) -> bool:
        """Whether the calls that this end makes need :meth:`around`."""

    async def around(
        self,
        method: RemoteMethod,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        make_call: Callable[..., Awaitable[Any]],
    ) -> Any:
        """Make a call inside the filters; ``make_call`` gets their view of it as ``view``."""


class ItemSink(Protocol):
    """The methods that a call needs of its ItemSender."""

    async def put(self, value: Any) -> None:
        """Send one item; wait while the consumer is slow."""

    def let_in(self) -> None:
        """Wake the tasks that wait for credit, which has arrived."""

    def stop(self) -> None:
        """Stop sending, since the consumer takes no more items."""


class IncomingCall:
    """An incoming call, from its arrival until its handler has ended."""

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
        "request",
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
        """The cancel scope of the handler, once it runs."""
        self.keeps_scope = False
        """Whether the handler has had to wait, so that the reader no longer owns the scope."""
        self.cancelled: str | None = None
        """The reason of its cancellation, or None."""
        self.suspended: EagerCoroutine | None = None
        self.parent_call: OutgoingCall | None = None
        """The outgoing call that this one is a callback of, or None."""
        self.result: object = None
        self.started = 0.0
        self.has_begun = False
        """Whether the handler's function has been called, and not only the filters around it."""
        self.references: Sequence[Any] = ()
        """Callbacks and streams that arrived with it, and live as long."""
        self.sender: ItemSink | None = None
        """The sender of its items, if it is a stream or a duplex."""
        self.remote_scope: HeldScope | None = None
        """The remote scope that it was made in."""
        self.request: HttpRequest | None = None
        """The HTTP request that it came with, if a browser made it."""
        self.held_scope: HeldScope | None = None
        """The scope that it holds, if it is a call of ``trio_rpc.scope``."""

    @property
    def parent(self) -> int | None:
        """The id of the outgoing call that this one is made in, or None."""
        return self.context.get("parent") if self.context else None

    @property
    def scope_id(self) -> int | None:
        """The id of the remote scope that this one is made in, or None."""
        return self.context.get("scope") if self.context else None

    @property
    def depth(self) -> int:
        """The number of calls that this one is nested in."""
        return self.context.get("depth", 0) if self.context else 0

    def cancel(self, reason: str) -> None:
        """Cancel the handler. One that has not started never will.

        A handler in its eager step is cancelled at its first wait.
        """
        if self.cancelled is None:
            self.cancelled = reason
            if self.scope is not None and self.keeps_scope:
                self.scope.cancel(reason=reason)
            if self.sender is not None:
                self.sender.stop()


class HeldScope:
    """The callee's side of a remote scope.

    Attributes:
        nursery: the nursery of tasks that live as long as the scope; None before the handler runs.
    """

    def __init__(self, call: IncomingCall) -> None:
        self.nursery: trio.Nursery | None = None
        self._handled = call
        # Bound: the peer's calls in flight.
        self._members: set[IncomingCall] = set()
        self._left = trio.Event()

    @property
    def is_ending(self) -> bool:
        """Whether no call may begin in it any more."""
        return self._handled.cancelled is not None

    def enter(self, call: IncomingCall) -> None:
        """Record a call that is made in this scope."""
        self._members.add(call)

    def leave(self, call: IncomingCall) -> None:
        """Forget a call that has ended."""
        self._members.discard(call)
        self._left.set()

    async def hold(self) -> None:
        """Wait until cancelled; then cancel the calls in this scope, and wait for their ends."""
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

"""Which call is being handled here, and what travels with the calls that are made."""

from __future__ import annotations

import contextlib
from collections.abc import Container, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from trio_rpc.session.calls.incoming_call import IncomingCall
    from trio_rpc.session.session import Session
    from trio_rpc.session.streams.scopes import HeldScope

__all__ = [
    "Call",
    "call_context",
    "call_of",
    "callback_context",
    "current_call",
    "handled_call",
    "metadata",
    "outgoing_metadata",
]


class Call:
    """One call, as its handler (:func:`current_call`) or a filter sees it.

    Attributes:
        session_or_none: the session it came in on, or goes out on; None if a browser has called.
        method: its full name, ``"service.method"``.
        metadata: what travels with it.
        args: its positional arguments.
        kwargs: its keyword arguments.
    """

    __slots__ = ("_remote_scope", "args", "kwargs", "metadata", "method", "session_or_none")

    def __init__(  # noqa: PLR0917 - made by us alone
        self,
        session: Session | None,
        method: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        metadata: Mapping[str, Any],
        remote_scope: HeldScope | None = None,
    ) -> None:
        self._remote_scope = remote_scope
        self.session_or_none = session
        self.method = method
        self.args = args
        self.kwargs = kwargs
        self.metadata = metadata

    def __repr__(self) -> str:
        return f"<trio_rpc.Call {self.method} on {self.session_or_none or 'a gateway'}>"

    @property
    def session(self) -> Session:
        """The session it came in on, or goes out on.

        Raises:
            RuntimeError: a browser has called, by a gateway: its callbacks are all that reaches it.
        """
        if self.session_or_none is None:
            raise RuntimeError(
                f"{self.method} was called by a browser, which has no session: call back by its callbacks"
            )
        return self.session_or_none

    @property
    def nursery(self) -> trio.Nursery:
        """The nursery of the remote scope that this call was made in, for what is to outlive the call.

        Its tasks are cancelled when the caller leaves the scope, which waits for them. What one of them
        raises ends the scope, and is raised at the caller's block.

        Raises:
            RuntimeError: the call was not made in a remote scope.
        """
        if self._remote_scope is None or self._remote_scope.nursery is None:
            raise RuntimeError(f"{self.method} was not called in a remote scope")
        return self._remote_scope.nursery


def call_of(call: IncomingCall) -> Call:
    """Return what handlers and filters see of a call."""
    metadata = call.context.get("metadata", {}) if call.context else {}
    return Call(call.session, call.method.name, call.args, call.kwargs, metadata, call.remote_scope)


handled_call: ContextVar[IncomingCall | None] = ContextVar("trio_rpc.handled_call", default=None)
outgoing_metadata: ContextVar[Mapping[str, Any] | None] = ContextVar(
    "trio_rpc.outgoing_metadata", default=None
)


def current_call() -> Call:
    """Return the call that this task is handling.

    Raises:
        RuntimeError: this task was not started by a handler.
    """
    call = handled_call.get()
    if call is None:
        raise RuntimeError("no remote call is being handled here")
    return call_of(call)


@contextlib.contextmanager
def metadata(**entries: Any) -> Iterator[None]:
    """Let ``entries`` travel with the calls and notifications that are made inside this block.

    Blocks nest: an inner one adds to, or replaces, what an outer one says. What a handler finds in
    ``current_call().metadata`` does not travel on by itself, since it may be meant for nobody else.
    """
    token = outgoing_metadata.set({**(outgoing_metadata.get() or {}), **entries})
    try:
        yield
    finally:
        outgoing_metadata.reset(token)


def call_context(session: Session | None, incoming: Container[int]) -> dict[str, Any] | None:
    """Make the context of a call from here: its place in the tree, and what travels with it.

    Args:
        session: what the call is made on; None if that is over.
        incoming: the calls that ``session`` is handling.
    """
    call, entries = handled_call.get(), outgoing_metadata.get()
    if call is None and not entries:
        return None
    context: dict[str, Any] = {}
    if entries:
        context["metadata"] = dict(entries)
    if call is not None:
        context["depth"] = call.depth + 1
        if call.session is session and call.id in incoming:
            context["parent"] = call.id
    return context


def callback_context(call: IncomingCall, number: int) -> dict[str, Any]:
    """Make what the context of a callback says besides: which call, and which of its callbacks."""
    return {"parent": call.id, "callback": number, "depth": call.depth + 1}

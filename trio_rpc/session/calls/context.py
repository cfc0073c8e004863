"""The current call of a task, and the context that is sent with the calls it makes."""

from __future__ import annotations

import contextlib
from collections.abc import Container, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from trio_rpc.session.calls.incoming_call import IncomingCall
from trio_rpc.session.calls.outgoing_call import OutgoingCall

__all__ = [
    "add_place",
    "call_context",
    "handled_call",
    "metadata",
    "outgoing_metadata",
]


handled_call: ContextVar[IncomingCall | None] = ContextVar("trio_rpc.handled_call", default=None)
outgoing_metadata: ContextVar[Mapping[str, Any] | None] = ContextVar(
    "trio_rpc.outgoing_metadata", default=None
)


@contextlib.contextmanager
def metadata(**entries: Any) -> Iterator[None]:
    """Attach ``entries`` to the calls and notifications that are made inside this block.

    Blocks nest: an inner block adds or replaces entries. A handler's ``current_call().metadata``
    is not passed on automatically, since it may be meant only for that handler.

    Args:
        **entries: values by name; any values that may be arguments.

    Example:
        >>> async def traced(session: trio_rpc.Session) -> None:
        ...     with trio_rpc.metadata(user="ann"):
        ...         await session.call("market.price", "BTC")
    """
    token = outgoing_metadata.set({**(outgoing_metadata.get() or {}), **entries})
    try:
        yield
    finally:
        outgoing_metadata.reset(token)


def call_context(session: object | None, incoming: Container[int]) -> dict[str, Any] | None:
    """Make the context of a call from this task: its place in the tree, and its metadata.

    Args:
        session: the session that the call is made on; None if that is over.
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


def add_place(
    context: dict[str, Any] | None,
    callback: tuple[IncomingCall, int] | None,
    remote_scope: OutgoingCall | None,
) -> dict[str, Any] | None:
    """Add the place of a call to its context.

    Args:
        context: the context so far.
        callback: the incoming call whose callback it is, and the callback's number in that call.
        remote_scope: the remote scope that it is made in.
    """
    if callback is not None:
        call, number = callback
        place = {"parent": call.id, "callback": number, "depth": call.depth + 1}
        context = {**(context or {}), **place}
    if remote_scope is not None:
        context = {**(context or {}), "scope": remote_scope.id}
    return context

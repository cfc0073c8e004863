"""The call that a task is handling, as its user sees it."""

from __future__ import annotations

from typing import cast

from trio_rpc.session.calls.context import handled_call
from trio_rpc.session.calls.incoming_call import IncomingCall
from trio_rpc.session.session import Call, Session

__all__ = ["call_of", "current_call"]


def call_of(call: IncomingCall) -> Call:
    """Return the view of a call that handlers and filters get."""
    metadata = call.context.get("metadata", {}) if call.context else {}
    session = cast("Session | None", call.session)  # no other class implements CallSession
    return Call(session, call.method.name, call.args, call.kwargs, metadata, call)


def current_call() -> Call:
    """Return the call that this task is handling.

    Raises:
        RuntimeError: this task was not started by a handler.

    Example:
        >>> class Log:
        ...     @trio_rpc.notification
        ...     def write(self, line: str) -> None:
        ...         call = trio_rpc.current_call()
        ...         print(call.session.name, call.metadata.get("user"), line)
    """
    call = handled_call.get()
    if call is None:
        raise RuntimeError("no remote call is being handled here")
    return call_of(call)

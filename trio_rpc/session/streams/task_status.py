"""``task_status`` in a handler whose caller has used ``nursery.start``."""

from __future__ import annotations

import math
from typing import Any

from trio_rpc.errors import LocalProtocolError, Overloaded
from trio_rpc.session.calls.incoming_call import IncomingCall
from trio_rpc.session.calls.outgoing import OutgoingCalls

__all__ = ["RemoteTaskStatus"]


class RemoteTaskStatus:
    """The ``task_status`` of a handler. Its caller continues when ``started`` is called.

    Args:
        call: the handler's call.
        outgoing: the outgoing calls, which know whether the session is over.
    """

    def __init__(self, call: IncomingCall, outgoing: OutgoingCalls) -> None:
        self._handled: IncomingCall | None = call
        self._method = call.method.name
        self._outgoing = outgoing
        self._was_called = False

    def __repr__(self) -> str:
        return f"<task_status of {self._method}>"

    def expire(self, _owner: str) -> None:
        """End it, since its handler has ended."""
        self._handled = None  # it refers to this object

    def started(self, value: Any = None) -> None:
        """Continue the caller of ``nursery.start`` with ``value``.

        This removes the handler's deadline. It was for ``start`` only, and the task has a new
        parent.

        Raises:
            RuntimeError: it was called before, or is used in another Trio run or thread.
            LocalProtocolError: the handler has ended.
            SessionClosed, SessionBroken: the session is over.
            EncodeError: the value cannot be sent.
            Overloaded: the peer does not read, and too much data waits in all sessions together
                (``Limits.max_unsent_total``).
        """
        self._outgoing.check_run()
        if self._was_called:
            raise RuntimeError("called 'started' twice on the same task status")
        call = self._handled
        if call is None:
            raise LocalProtocolError(f"the handler of {self._method} has ended")
        self._outgoing.check_over()
        if not self._outgoing.protocol.may_answer:
            raise Overloaded("the peer does not read, and too much data waits to be sent")
        self._outgoing.protocol.started(call.id, value)
        self._was_called = True
        if call.scope is not None:
            call.scope.deadline = math.inf
        self._outgoing.writer.wake()

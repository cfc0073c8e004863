"""``task_status`` in a handler whose caller has used ``nursery.start``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from trio_rpc.errors import LocalProtocolError
from trio_rpc.protocol.protocol import Protocol
from trio_rpc.session.calls.incoming_call import IncomingCall

__all__ = ["RemoteTaskStatus"]


class RemoteTaskStatus:
    """What a handler is given as ``task_status``: its caller goes on when ``started`` is called.

    Args:
        handled: the call.
        protocol: where Started is queued.
        wake: has it written.
        check_run: raises in another Trio run than the session's.
        check_over: raises for a session that is over.
    """

    def __init__(
        self,
        call: IncomingCall,
        protocol: Protocol,
        wake: Callable[[], None],
        check_run: Callable[[], None],
        check_over: Callable[[], None],
    ) -> None:
        self._check_run = check_run
        self._handled: IncomingCall | None = call
        self._method = call.method.name
        self._protocol = protocol
        self._wake = wake
        self._check_over = check_over
        self._was_called = False

    def __repr__(self) -> str:
        return f"<task_status of {self._method}>"

    def expire(self, _owner: str) -> None:
        """The handler that it was given to has ended."""
        self._handled = None  # which knows this object

    def started(self, value: Any = None) -> None:
        """Let the caller of ``nursery.start`` go on with ``value``.

        The handler's deadline is lifted: it was that of the start, and the task has a new parent now.

        Raises:
            RuntimeError: it has been called before, or is used in another Trio run or thread.
            LocalProtocolError: the handler has ended.
            SessionClosed, SessionBroken: the session is over.
            EncodeError: the value cannot be sent.
        """
        self._check_run()
        if self._was_called:
            raise RuntimeError("called 'started' twice on the same task status")
        call = self._handled
        if call is None:
            raise LocalProtocolError(f"the handler of {self._method} has ended")
        self._check_over()
        self._protocol.started(call.id, value)
        self._was_called = True
        if call.scope is not None:
            call.scope.deadline = math.inf
        self._wake()

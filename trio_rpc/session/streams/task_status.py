"""``task_status`` in a handler whose caller has used ``nursery.start``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from trio_rpc.errors import LocalProtocolError, RpcError
from trio_rpc.protocol.protocol import Protocol
from trio_rpc.session.calls.context import Handled

__all__ = ["RemoteTaskStatus"]


class RemoteTaskStatus:
    """What a handler is given as ``task_status``: its caller goes on when ``started`` is called.

    Args:
        handled: the call.
        protocol: where Started is queued.
        wake: has it written.
        check_run: raises in another Trio run than the session's.
        over: makes the error for a session that is over.
    """

    def __init__(
        self,
        handled: Handled,
        protocol: Protocol,
        wake: Callable[[], None],
        check_run: Callable[[], None],
        over: Callable[[], RpcError | None],
    ) -> None:
        self._check_run = check_run
        self._handled = handled
        self._protocol = protocol
        self._wake = wake
        self._over = over
        self._was_called = False

    def __repr__(self) -> str:
        return f"<task_status of {self._handled.method.name}>"

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
        handled = self._handled
        if handled.has_ended:
            raise LocalProtocolError(f"the handler of {handled.method.name} has ended")
        over = self._over()
        if over is not None:
            raise over
        self._protocol.started(handled.id, value)
        self._was_called = True
        if handled.scope is not None:
            handled.scope.deadline = math.inf
        self._wake()

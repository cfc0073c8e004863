"""The callee's side: a Request arrives, a handler runs, one terminal message leaves (law 4).

The reader calls the functions here, so none of them waits (law 11). A handler's cancel scope is
made here, before its task runs, so that a Cancel that comes in the same packet finds it (law 9).
Trio starts new tasks in no particular order; so a new task does not know which call it will
handle, and takes the first of the queue when it runs.
"""

from __future__ import annotations

import functools
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import trio

from trio_rpc.errors import EncodeError, InvalidArguments, MethodNotFound
from trio_rpc.protocol.protocol import Protocol
from trio_rpc.protocol.states import Half
from trio_rpc.protocol.states import Incoming as CallState
from trio_rpc.services.decorators import Kind
from trio_rpc.services.faults import Detail, refusal, to_error
from trio_rpc.services.tables import BoundMethod, Table, missing, wrong_kind
from trio_rpc.session.context import Call, handled_call
from trio_rpc.wire import messages as m

if TYPE_CHECKING:
    from trio_rpc.session.session import Session

__all__ = ["Filter", "Handled", "Incoming"]

logger = logging.getLogger("trio_rpc")

Filter: TypeAlias = Callable[[Call, Callable[[], Awaitable[Any]]], Awaitable[Any]]


class Handled:
    """A call of the peer's that has a task, from its arrival until its handler has ended."""

    __slots__ = ("call", "is_request", "method", "parent", "peer_cancelled", "scope", "started")

    def __init__(self, call: Call, method: BoundMethod, context: dict[str, Any]) -> None:
        self.call = call
        self.method = method
        self.is_request = method.kind is not Kind.NOTIFICATION
        self.parent: int | None = context.get("parent")
        self.started = trio.current_time()
        self.scope = trio.CancelScope()
        if "deadline" in context:
            self.scope.deadline = self.started + context["deadline"]


class Incoming:
    """The calls of the peer's that run here.

    ``session``, ``nursery`` and ``table`` are set before the first message is read.

    Args:
        protocol: where terminal messages are queued.
        filters: run round each handler, the first one outermost.
        detail: how much of an exception the peer is told.
        send: has what a handler's task has queued written; the reader sees to the rest.
        wait_for_room: waits while too much is queued already.
        ended: called after each end of a handler that had a task or was a notification's.
    """

    def __init__(
        self,
        protocol: Protocol,
        *,
        filters: Sequence[Filter],
        detail: Detail,
        send: Callable[[], None],
        wait_for_room: Callable[[], Awaitable[None]],
        ended: Callable[[], None],
    ) -> None:
        self.session: Session
        self.nursery: trio.Nursery
        self.table: Table = {}
        self.running: dict[int, Handled] = {}
        """Handlers that have a task, by a number of their own."""
        self.notifications_running = 0
        self._protocol = protocol
        self._filters = tuple(filters)
        self._detail = detail
        self._send = send
        self._wait_for_room = wait_for_room
        self._queue: deque[Handled] = deque()  # no longer than ``running``, which is credit's
        self._ended = ended
        self._last_notification = 0

    # ── starting: called by the reader ───────────────────────────────────────────────────────

    def start_request(self, request: m.Request) -> None:
        """Start the handler of a Request, or answer it with the reason why not."""
        method = self.table.get(request.method)
        try:
            args, kwargs = self._check(request, method, Kind.METHOD)
        except (MethodNotFound, InvalidArguments) as exc:
            self._answer_error(request.id, refusal(exc))
            return
        assert method is not None  # noqa: S101 - _check has looked
        self._start(request.id, method, args, kwargs, request.context or {})

    def start_notification(self, message: m.Notification) -> None:
        """Start the handler of a Notification, or log why not (F24)."""
        method = self.table.get(message.method)
        try:
            args, kwargs = self._check(message, method, Kind.NOTIFICATION)
        except (MethodNotFound, InvalidArguments) as exc:
            logger.warning("a notification from %r was dropped: %s", self.session, exc)
            self._end_notification()
            return
        assert method is not None  # noqa: S101 - _check has looked
        self._last_notification -= 1
        self.notifications_running += 1
        self._start(self._last_notification, method, args, kwargs, message.context or {})

    def _check(
        self, message: m.Request | m.Notification, method: BoundMethod | None, kind: Kind
    ) -> tuple[Sequence[Any], dict[str, Any]]:
        if method is None:
            raise missing(self.table, message.method)
        if method.kind is not kind:
            raise wrong_kind(method)
        if message.problem is not None:
            raise InvalidArguments(message.problem)
        return method.signature.bind(message.args, message.kwargs)

    def _start(
        self,
        number: int,
        method: BoundMethod,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        context: dict[str, Any],
    ) -> None:
        metadata, depth = context.get("metadata", {}), context.get("depth", 0)
        call = Call(self.session, number, method.name, args, kwargs, metadata, depth)
        handled = Handled(call, method, context)
        if not method.is_async and not self._filters:
            self._run_inline(handled)
            return
        self.running[number] = handled
        self._queue.append(handled)
        self.nursery.start_soon(self._run_next, name=method.name)

    # ── running ──────────────────────────────────────────────────────────────────────────────

    def _run_inline(self, handled: Handled) -> None:
        """Run a plain ``def`` to completion, here and now."""
        token = handled_call.set(handled.call)
        try:
            result = handled.method.function(*handled.call.args, **handled.call.kwargs)
        except BaseException as exc:
            self._end_with_error(handled, exc)
            if not isinstance(exc, Exception):
                raise
        else:
            self._end_with_result(handled, result)
        finally:
            handled_call.reset(token)

    async def _run_next(self) -> None:
        """Run the first handler of the queue, and see to it that its call ends (laws 4 and 7)."""
        handled = self._queue.popleft()
        handled_call.set(handled.call)
        result = None
        try:
            with handled.scope:
                if not handled.scope.cancel_called:
                    result = await self._run_handler(handled)
                    await self._wait_for_room()
                else:
                    await trio.lowlevel.checkpoint()
        except BaseException as exc:
            self._end_with_error(handled, exc)
            if not isinstance(exc, Exception):
                raise
        else:
            if handled.scope.cancelled_caught:
                self._end_cancelled(handled)
            else:
                self._end_with_result(handled, result)
        finally:
            del self.running[handled.call.id]
            self._ended()
            self._send()

    def _run_handler(self, handled: Handled) -> Awaitable[Any]:
        call, function = handled.call, handled.method.function
        if not self._filters:
            return function(*call.args, **call.kwargs)  # type: ignore[no-any-return]

        async def run() -> Any:
            result = function(*call.args, **call.kwargs)
            return await result if handled.method.is_async else result

        return apply_filters(self._filters, call, run)

    # ── ending: exactly one terminal message for each Request ────────────────────────────────

    def _end_with_result(self, handled: Handled, result: object) -> None:
        if not handled.is_request:
            self._end_notification(handled)
            return
        if self._protocol.ours is Half.ENDED:
            return  # the session is over: its end was the answer
        try:
            self._protocol.reply(handled.call.id, result)
        except EncodeError as exc:
            message = f"the result of {handled.method.name} cannot be sent: {exc}"
            self._answer_error(handled.call.id, {"code": "internal", "message": message})

    def _end_with_error(self, handled: Handled, exc: BaseException) -> None:
        if isinstance(exc, trio.Cancelled):
            self._end_cancelled(handled)
        elif handled.is_request:
            error = to_error(exc, handled.method.raises, self._detail)
            self._answer_error(handled.call.id, error)
        else:
            logger.error("the notification %s failed", handled.method.name, exc_info=exc)
            self._end_notification(handled)

    def _end_cancelled(self, handled: Handled) -> None:
        if not handled.is_request:
            self._end_notification(handled)
            return
        call = handled.call.id
        by_peer = self._protocol.incoming.get(call) is CallState.CANCELLED
        expired = not by_peer and handled.scope.deadline <= trio.current_time()
        code = "deadline" if expired else "cancelled"
        messages = {
            "deadline": "its deadline is over",
            "cancelled": "cancelled at its caller's wish" if by_peer else "this session is ending",
        }
        self._answer_error(call, {"code": code, "message": messages[code]})

    def _end_notification(self, handled: Handled | None = None) -> None:
        if handled is not None:
            self.notifications_running -= 1
        self._ended()
        if self._protocol.ours is not Half.ENDED:
            self._protocol.grant_notifications(1)

    def _answer_error(self, call: int, error: dict[str, Any]) -> None:
        if self._protocol.ours is Half.ENDED:
            return  # the session is over: its end was the answer
        try:
            self._protocol.reply_error(call, error)
        except EncodeError as exc:
            # Nothing in a fault is unknown to the codec, but a peer may accept very little.
            logger.warning("an error was too large to send: %s", exc)
            self._protocol.reply_error(call, {"code": error["code"], "message": ""})

    # ── cancelling and waiting ───────────────────────────────────────────────────────────────

    def cancel(self, message: m.Cancel) -> None:
        """Cancel the handler that the peer no longer wants (law 2)."""
        handled = self.running.get(message.id)
        if handled is not None:
            handled.scope.cancel(reason=message.reason or "the caller cancelled this call")

    def cancel_all(self, reason: str) -> None:
        """Cancel every handler: the session is over (law 6)."""
        for handled in self.running.values():
            handled.scope.cancel(reason=reason)


def apply_filters(
    filters: Sequence[Filter], call: Call, proceed: Callable[[], Awaitable[Any]]
) -> Awaitable[Any]:
    """Run ``proceed`` inside all filters; the first one is outermost."""
    for each in reversed(filters):
        proceed = functools.partial(each, call, proceed)
    return proceed()

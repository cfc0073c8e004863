"""The callee's side of one call, without the wire: how a handler runs, and its outcome.

Sessions and the gateway share this:

1. :func:`call_handler` makes the call the current one, and calls the handler inside its filters.
2. An :class:`Outcome` is a result, an error or a cancellation: exactly one of them.
3. :func:`error_of` makes the error map for the caller; it says whether the handler had begun
   (law 15).
4. :func:`log_bug` logs undeclared exceptions.
5. :func:`is_for_its_caller` tells errors for the caller from errors that end the program (law 7).

:func:`run_handler` does all of this in the call's own task, as the gateway needs it. A session does
not use it. It runs the eager step of a handler inside the reader's task and scope, and enters that
scope before the call exists (``reader.py``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio

from trio_rpc.errors import CallError, InvalidArguments
from trio_rpc.services.costs import REFERENCE, TooCostly
from trio_rpc.services.decorators import Kind
from trio_rpc.services.error_maps import Detail, ErrorMap, not_started, to_error
from trio_rpc.services.tables import BoundMethod
from trio_rpc.session.calls.bugs import Bugs
from trio_rpc.session.calls.context import handled_call
from trio_rpc.session.calls.eager import is_awaitable
from trio_rpc.session.calls.filters import apply_filters
from trio_rpc.session.calls.incoming_call import IncomingCall
from trio_rpc.session.current import call_of
from trio_rpc.session.session import Call, Filter
from trio_rpc.session.streams.items import pump
from trio_rpc.wire.messages import Notification, Request
from trio_rpc.wire.one_pass import as_plain

__all__ = [
    "CANCELLED",
    "Outcome",
    "arrived_arguments",
    "bound_arguments",
    "call_handler",
    "error_of",
    "has_expired",
    "invoke",
    "is_for_its_caller",
    "is_refusal",
    "log_bug",
    "outcome_of",
    "run_handler",
]


def arrived_arguments(method: BoundMethod, message: Request | Notification) -> list[Any]:
    """Return the arguments of a message: bound if it has a shape, and as they arrived otherwise."""
    args, shape = message.args, message.shape
    if shape is not None and shape is not method.signature.shape(len(args)):
        args, message.shape = as_plain(args), None  # it was read for another method of this name
    return args


def bound_arguments(
    method: BoundMethod,
    message: Request | Notification,
    most: int,
    args: list[Any] | None = None,
) -> tuple[Sequence[Any], dict[str, Any]]:
    """Check and convert the arguments, unless the message has a shape; see ``Signature.bind``.

    Args:
        method: the method.
        message: the message.
        most: as in ``Signature.bind``.
        args: the arguments, if they differ from those of the message.
    """
    if len(message.references) * REFERENCE > most:
        raise InvalidArguments(str(TooCostly(most)))
    args = arrived_arguments(method, message) if args is None else args
    if message.shape is not None:
        return args, {}
    return method.signature.bind(args, message.kwargs, most)


class Outcome:
    """The outcome of a handler.

    Attributes:
        result: its result, if it returned.
        error: its exception without cancellations, or None.
        is_cancelled: whether it ended because it was cancelled.
    """

    __slots__ = ("error", "is_cancelled", "result")

    def __init__(
        self,
        result: object = None,
        *,
        error: BaseException | None = None,
        is_cancelled: bool = False,
    ) -> None:
        self.result = result
        self.error = error
        self.is_cancelled = is_cancelled


CANCELLED = Outcome(is_cancelled=True)


def outcome_of(exc: BaseException) -> Outcome:
    """Return the outcome of a handler that raised ``exc``."""
    error: BaseException | None = exc
    if isinstance(exc, BaseExceptionGroup):
        error = exc.split(trio.Cancelled)[1]
    elif isinstance(exc, trio.Cancelled):
        error = None
    return CANCELLED if error is None else Outcome(error=error)


@trio.lowlevel.disable_ki_protection
def invoke(call: IncomingCall) -> Any:
    """Call the handler's function. If it makes a stream, its items go to the call's sender."""
    call.has_begun = True
    result = call.method.function(*call.args, **call.kwargs)
    if call.sender is not None and call.method.kind is Kind.STREAM:
        return pump(result, call.sender)
    return result


def call_handler(
    filters: Sequence[Filter],
    call: IncomingCall,
    invoke: Callable[[IncomingCall], Any] = invoke,
) -> Awaitable[Any]:
    """Call the handler inside all filters, as the current call; return an awaitable."""
    handled_call.set(call)
    if call.method.is_async and not filters:
        return invoke(call)  # type: ignore[no-any-return]

    return _call_filtered(filters, call) if filters else _proceed(call)


async def _proceed(call: IncomingCall) -> Any:
    result = invoke(call)
    return await result if is_awaitable(result) else result


async def _call_filtered(filters: Sequence[Filter], call: IncomingCall) -> Any:
    """Call the handler inside all filters, unless they refuse it or answer in its place."""
    name, is_over = call.method.name, False

    async def proceed() -> Any:
        if call.has_begun:
            raise RuntimeError(f"{name}: a filter of the serving end proceeded twice")
        if is_over:
            raise RuntimeError(f"{name}: a filter proceeded after it had answered the call")
        return await _proceed(call)

    try:
        result = await apply_filters(filters, call_of(call), proceed)
    finally:
        is_over = True
    if not call.has_begun and (call.sender is not None or call.held_scope is not None):
        # Without this error, the caller would see a complete stream without items.
        raise RuntimeError(f"{name}: a filter returned without proceeding, so nothing was opened")
    return result


async def _checkpoint_before(_call: Call, proceed: Callable[[], Awaitable[Any]]) -> Any:
    """Run a checkpoint. This is the innermost filter, since the filters around it may not wait."""
    await trio.lowlevel.checkpoint()
    return await proceed()


async def run_handler(
    filters: Sequence[Filter],
    call: IncomingCall,
    scope: trio.CancelScope,
    end: Callable[[Outcome], None],
) -> None:
    """Run a handler in this task, and report its outcome exactly once (law 4).

    There is a checkpoint before it, so a call that has been cancelled by now never starts it.

    Args:
        filters: the filters; the first one is outermost.
        call: the call.
        scope: the scope that cancels the handler.
        end: called with the outcome, after the scope has been left.

    Raises:
        BaseException: an exception that is not for the caller: see :func:`is_for_its_caller`.
    """
    call.scope = scope
    try:
        with scope:
            if not filters:
                await trio.lowlevel.checkpoint()
                result = await call_handler((), call)
            else:
                result = await call_handler((*filters, _checkpoint_before), call)
    except BaseException as exc:
        end(outcome_of(exc))
        if not is_for_its_caller(exc):
            raise
    else:
        end(CANCELLED if scope.cancelled_caught else Outcome(result))


def error_of(call: IncomingCall, exc: BaseException, detail: Detail) -> ErrorMap:
    """Make the error map for the exception of a handler, or of a filter before it."""
    make = to_error if call.has_begun else not_started
    return make(exc, call.method.raises, detail)


def has_expired(call: IncomingCall) -> bool:
    """Return whether the deadline of a call has passed."""
    return call.scope is not None and call.scope.deadline <= trio.current_time()


def is_refusal(call: IncomingCall, exc: BaseException) -> bool:
    """Return whether a filter refused the call, which is not a bug."""
    return isinstance(exc, CallError) and not call.has_begun


def log_bug(
    bugs: Bugs,
    call: IncomingCall,
    exc: BaseException,
    *,
    session: str,
    number: int | str | None,
    is_cancelled: bool,
) -> None:
    """Log the undeclared exceptions in ``exc``, if any; see :meth:`Bugs.raised`."""
    if not is_refusal(call, exc):
        method = call.method
        bugs.raised(
            exc,
            method.name,
            method.raises,
            limited_as=method.own_name,
            session=session,
            call=number,
            is_cancelled=is_cancelled,
        )


def is_for_its_caller(exc: BaseException) -> bool:
    """Return whether an exception is for the caller alone (law 7).

    An exception that ends the program, or a cancellation from outside, is not. In a group, that
    part is raised here.
    """
    if isinstance(exc, BaseExceptionGroup):
        rest = exc.split(Exception)[1]
        if rest is not None:
            raise rest from None
        return True
    return isinstance(exc, Exception)

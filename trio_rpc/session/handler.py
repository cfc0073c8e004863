"""The callee's side of one call, with no wire in it: how a handler runs, and what has become of it.

Sessions and the gateway share this:

1. :func:`call_handler` makes the call the current one, and calls the handler inside its filters.
2. An :class:`Outcome` says what has become of it: a result, an error or a cancellation, exactly one of them.
3. :func:`error_of` makes the error map that the caller is told, by whether the handler had begun (law 15).
4. :func:`log_bug` logs what is nobody's declared error.
5. :func:`is_for_its_caller` says what goes no further, and what ends the program (law 7).

:func:`run_handler` is all of it in a task of the call's own, as the gateway does. A session does not use it: it runs the
first step of a handler inside the reader's task and scope, and enters that scope before there is a call (``reader.py``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio

from trio_rpc.errors import CallError
from trio_rpc.services.decorators import Kind
from trio_rpc.services.error_maps import Detail, ErrorMap, not_started, to_error
from trio_rpc.session.calls.bugs import Bugs
from trio_rpc.session.calls.context import handled_call
from trio_rpc.session.calls.eager import is_awaitable
from trio_rpc.session.calls.filters import apply_filters
from trio_rpc.session.calls.incoming_call import IncomingCall
from trio_rpc.session.session import Filter, call_of
from trio_rpc.session.streams.items import pump

__all__ = [
    "CANCELLED",
    "Outcome",
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


class Outcome:
    """What has become of a handler.

    Attributes:
        result: what it returned, if it did.
        error: what it raised, without its cancellations; None if it did not.
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
    """Say what has become of a handler that raised ``exc``."""
    error: BaseException | None = exc
    if isinstance(exc, BaseExceptionGroup):
        error = exc.split(trio.Cancelled)[1]
    elif isinstance(exc, trio.Cancelled):
        error = None
    return CANCELLED if error is None else Outcome(error=error)


def call_handler(filters: Sequence[Filter], call: IncomingCall) -> Awaitable[Any]:
    """Call the handler inside all filters, as the current call; return what is to be awaited."""
    handled_call.set(call)
    if call.method.is_async and not filters:
        return invoke(call)  # type: ignore[no-any-return]

    async def proceed() -> Any:
        result = invoke(call)
        return await result if is_awaitable(result) else result

    return apply_filters(filters, call_of(call), proceed)


def invoke(call: IncomingCall) -> Any:
    """Call the handler's function; its stream, if it makes one, is sent where the call says."""
    call.has_begun = True
    result = call.method.function(*call.args, **call.kwargs)
    if call.sender is not None and call.method.kind is Kind.STREAM:
        return pump(result, call.sender)
    return result


async def run_handler(
    filters: Sequence[Filter],
    call: IncomingCall,
    scope: trio.CancelScope,
    end: Callable[[Outcome], None],
) -> None:
    """Run a handler in this task, and say what has become of it, exactly once (law 4).

    Args:
        filters: the first one is outermost.
        call: the call.
        scope: what the handler is cancelled by.
        end: is told the outcome, after the scope has been left.

    Raises:
        BaseException: what is not for the caller: see :func:`is_for_its_caller`.
    """
    call.scope = scope
    try:
        with scope:
            result = await call_handler(filters, call)
    except BaseException as exc:
        end(outcome_of(exc))
        if not is_for_its_caller(exc):
            raise
    else:
        end(CANCELLED if scope.cancelled_caught else Outcome(result))


def error_of(call: IncomingCall, exc: BaseException, detail: Detail) -> ErrorMap:
    """Make the error map of what a handler raised, or a filter before it had begun."""
    make = to_error if call.has_begun else not_started
    return make(exc, call.method.raises, detail)


def has_expired(call: IncomingCall) -> bool:
    """Whether the deadline of a call is over."""
    return call.scope is not None and call.scope.deadline <= trio.current_time()


def is_refusal(call: IncomingCall, exc: BaseException) -> bool:
    """Whether a filter refused the call, which is no bug."""
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
    """Log what of ``exc`` is a bug, if anything is; see :meth:`Bugs.raised`."""
    if not is_refusal(call, exc):
        method = call.method
        bugs.raised(
            exc,
            method.name,
            method.raises,
            session=session,
            call=number,
            is_cancelled=is_cancelled,
        )


def is_for_its_caller(exc: BaseException) -> bool:
    """Whether an exception goes no further (law 7): not so what ends the program, and a cancellation from outside.

    Of a group, that part is raised here.
    """
    if isinstance(exc, BaseExceptionGroup):
        rest = exc.split(Exception)[1]
        if rest is not None:
            raise rest from None
        return True
    return isinstance(exc, Exception)

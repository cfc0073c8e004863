"""A log of handlers' bugs for the operators of the program.

Only the caller of a failed call gets the handler's exception. So the logger ``trio_rpc.handlers``
logs every undeclared exception at ERROR with its traceback, including a built-in exception that
travels as itself. A declared exception is expected: its class is logged at DEBUG.

These are not logged: a cancellation; this library's own answer to a bad call; and, once the call is
cancelled or its session over, the error that tells the handler so.
"""

from __future__ import annotations

import logging
from typing import Final

import trio

from trio_rpc.errors import RemoteCancelled
from trio_rpc.services.decorators import Raises
from trio_rpc.util.raised import text_of
from trio_rpc.util.rate_limited_log import RateLimitedLog

__all__ = ["Bugs"]

logger = logging.getLogger("trio_rpc.handlers")

MAX_METHODS: Final = 1000
"""Methods with their own rate limit. The names come from this program; the rest share one limit."""

_NOBODY_LISTENS: Final = (
    trio.BrokenResourceError,  # SessionBroken is one
    trio.ClosedResourceError,  # SessionClosed is one
    RemoteCancelled,
)


class Bugs:
    """Logs handlers' bugs for one server, gateway or client, with a rate limit for each method.

    A caller that makes one method fail again and again neither fills the log nor hides the bug of
    another method.
    """

    def __init__(self) -> None:
        # Bound: MAX_METHODS and one more.
        self._limits: dict[str, RateLimitedLog] = {}

    def raised(
        self,
        exc: BaseException,
        method: str,
        raises: Raises = (),
        *,
        limited_as: str | None = None,
        session: str,
        call: int | str | None,
        is_cancelled: bool = False,
    ) -> None:
        """Log the undeclared exceptions in ``exc``, or else the class of a declared one.

        Args:
            exc: the handler's exception, or a group.
            method: the method's full name.
            raises: the exceptions it declares; none for a notification, whose caller gets no error.
            limited_as: the name that has the rate limit; by default, the method's.
            session: the caller's name in logs.
            call: the id of the call; None for a notification.
            is_cancelled: whether the call is cancelled, or its session over.
        """

        def is_bug(one: BaseException) -> bool:
            return (
                isinstance(one, Exception)
                and not isinstance(one, (BaseExceptionGroup, *raises))
                and not (is_cancelled and isinstance(one, _NOBODY_LISTENS))
            )

        limit = limited_as or method
        if isinstance(exc, BaseExceptionGroup):
            bug: BaseException | None = exc.subgroup(is_bug)
        else:
            bug = exc if is_bug(exc) else None
        if bug is not None:
            what = "raised %s, which it does not declare"
            self._log(limit, method, what, type(bug).__qualname__, session, call, bug)
        elif isinstance(exc, (BaseExceptionGroup, *raises)) and logger.isEnabledFor(logging.DEBUG):
            self._log(limit, method, "raised %s", type(exc).__qualname__, session, call)

    def unsendable(
        self,
        exc: Exception,
        method: str,
        *,
        limited_as: str | None = None,
        session: str,
        call: int | str | None,
    ) -> None:
        """Log that the result of a method cannot be sent. The arguments are as for `raised`."""
        what, limit = "has a result that cannot be sent: %s", limited_as or method
        self._log(limit, method, what, text_of(exc), session, call, exc)

    def _log(  # noqa: PLR0917 - called from here alone
        self,
        limited_as: str,
        method: str,
        what: str,
        detail: object,
        session: str,
        call: int | str | None,
        exc: BaseException | None = None,
    ) -> None:
        is_known = limited_as in self._limits or len(self._limits) < MAX_METHODS
        key = limited_as if is_known else ""
        limit = self._limits.get(key)
        if limit is None:
            limit = self._limits[key] = RateLimitedLog(logger)
        extra = {"rpc_session": session, "rpc_method": method, "rpc_call": call}
        text = f"%s, called by %s, {what}"
        level = logging.DEBUG if exc is None else logging.ERROR
        limit.log(level, text, method, session, detail, exc_info=exc, extra=extra)

"""Options of a session: the keywords of every function that opens one."""

from __future__ import annotations

import difflib
import functools
import inspect
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypedDict

from trio_rpc.services.error_maps import Detail, check_detail
from trio_rpc.session.calls.filters import check_filters
from trio_rpc.session.session import Filter, Session
from trio_rpc.tracing.default import DEFAULT_TRACE
from trio_rpc.tracing.events import Trace
from trio_rpc.util.coroutines import is_coroutine_function
from trio_rpc.util.option_checks import check_type
from trio_rpc.wire.coded import UserCodec, check_codec
from trio_rpc.wire.limits import DEFAULT_LIMITS, Limits
from trio_rpc.wire.registry import TypeRegistry

__all__ = ["Authenticate", "Options", "SessionOptions", "check_options", "make_options"]

# Made once: a union takes longer to make than to check, and many sessions have options.
_FUNCTION = (Callable, type(None))
_NUMBER = (int, float)
_REGISTRY = (TypeRegistry, type(None))

Authenticate: TypeAlias = Callable[[Session, Any], Awaitable[None]]
"""Checks the credentials of the other end: an async function of the session and the credentials.

It returns None to accept the session, and raises :class:`trio_rpc.Refused` to refuse it. Any other
result is an error, and also refuses it.
"""


class SessionOptions(TypedDict, total=False):
    """The keywords ``**options`` of functions such as :func:`trio_rpc.open_session`.

    :class:`Options` describes each of them and has their defaults.
    """

    limits: Limits
    registry: TypeRegistry | None
    filters: Sequence[Filter]
    credentials: Any
    authenticate: Authenticate | None
    error_detail: Detail
    trace: Trace | None
    wait_for_service: float
    unresponsive_after: float
    codec: UserCodec | None


_NAMES = SessionOptions.__annotations__


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of one session.

    Attributes:
        limits: the limits of this end, in bytes, counts and seconds.
        registry: the application's own types that may travel; both ends need the same.
        filters: async functions ``(call, proceed)`` that run around each call that this end handles
            and around each call that it makes; the first one is outermost. A filter returns
            ``await proceed()``, or raises to refuse the call.
        credentials: the value for the other end's ``authenticate``; any value that may be an
            argument.
        authenticate: checks the other end's credentials before the session opens.
        error_detail: how much of an undeclared exception is sent to the other end: ``"none"``,
            ``"message"`` or ``"traceback"``.
        trace: a function that gets a :class:`trio_rpc.tracing.TraceEvent` for each step of each
            call, such as :func:`trio_rpc.tracing.print_trace`. An exception that it raises is
            logged once for each session, and otherwise ignored. By default a session has none,
            unless the environment variable ``TRIO_RPC_TRACE`` asks for one.
        wait_for_service: seconds that a call of a service that is not there waits for
            :meth:`Session.set`, before it fails with MethodNotFound; 0 lets it fail at once.
            ``limits.max_waiting_calls`` bounds their number.
        unresponsive_after: seconds without an answer from the other end, while calls wait for it,
            after which it counts as unresponsive: a warning is logged, and
            :meth:`Session.connection_states` gives ``unresponsive``. The session goes on. By
            default this is turned off.
        codec: writes and reads the messages with values of the application, in place of
            MessagePack: see :class:`trio_rpc.codecs.Codec`. Both ends need the same name and
            version; otherwise both raise Refused.

    Raises:
        TypeError: an option is of the wrong type.
        ValueError: ``error_detail`` is not one of the three, ``codec`` has an invalid name or
            version, ``wait_for_service`` is negative or infinite, or
            ``unresponsive_after`` is not positive.

    Example:
        >>> async def log(call: trio_rpc.Call, proceed: Any) -> Any:
        ...     print(call.method, "begins")
        ...     try:
        ...         return await proceed()
        ...     finally:
        ...         print(call.method, "has ended")
        >>> async def check(session: trio_rpc.Session, credentials: object) -> None:
        ...     if credentials != {"token": "secret"}:
        ...         raise trio_rpc.Refused("unknown token")
        >>> server = trio_rpc.Options(filters=[log], authenticate=check, error_detail="none")
        >>> client = trio_rpc.Options(credentials={"token": "secret"})
    """

    limits: Limits = DEFAULT_LIMITS
    registry: TypeRegistry | None = None
    filters: Sequence[Filter] = ()
    credentials: Any = None
    authenticate: Authenticate | None = None
    error_detail: Detail = "message"
    trace: Trace | None = DEFAULT_TRACE
    wait_for_service: float = 0.0
    unresponsive_after: float = math.inf
    codec: UserCodec | None = None

    def __post_init__(self) -> None:
        check_type("limits", self.limits, Limits, "a trio_rpc.Limits")
        check_type("registry", self.registry, _REGISTRY, "a trio_rpc.TypeRegistry or None")
        check_type("authenticate", self.authenticate, _FUNCTION, "an async function or None")
        check_type("trace", self.trace, _FUNCTION, "a function or None")
        if self.trace is not DEFAULT_TRACE and is_coroutine_function(self.trace):
            raise TypeError(f"trace must be a plain def, which cannot wait: {self.trace!r}")
        check_type("unresponsive_after", self.unresponsive_after, _NUMBER, "seconds")
        if not self.unresponsive_after > 0:
            raise ValueError(f"unresponsive_after must be positive: {self.unresponsive_after}")
        check_codec(self.codec)
        check_filters(self.filters)
        check_detail(self.error_detail)
        check_type("wait_for_service", self.wait_for_service, _NUMBER, "a number of seconds")
        if not 0 <= self.wait_for_service < math.inf:
            raise ValueError(
                f"wait_for_service must be a number of seconds, not {self.wait_for_service!r}"
            )


def make_options(function: Callable[..., Any], options: Mapping[str, Any]) -> Options:
    """Check the ``**options`` of a public function, and return them with the defaults.

    Args:
        function: the function that the user has called, for the texts of errors.
        options: its ``**options``.

    Raises:
        TypeError: as :func:`check_options`, or as :class:`Options`.
        ValueError: as :class:`Options`.
    """
    if not options:
        return _defaults()  # most sessions have no options, and checking them takes longer
    check_options(function, options)
    return Options(**options)


@functools.cache
def _defaults() -> Options:
    return Options()


def check_options(function: Callable[..., Any], options: Mapping[str, object]) -> None:
    """Raise TypeError for an option that does not exist, as Python does for a call of ``function``.

    Functions that pass their options on to another public function call this by itself.

    Args:
        function: the function that the user has called.
        options: its ``**options``.
    """
    for name in options:
        if name not in _NAMES:
            raise TypeError(_unknown(function, name))


def _unknown(function: Callable[..., Any], option: str) -> str:
    text = f"{function.__name__}() got an unexpected keyword argument {option!r}"
    own = inspect.signature(function).parameters.values()
    known = [one.name for one in own if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    near = difflib.get_close_matches(option, [*known, *_NAMES], 1)
    return f"{text}. Did you mean {near[0]!r}?" if near else text

"""Options of a session: the keywords that every function which opens one takes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

from trio_rpc.services.error_maps import Detail
from trio_rpc.session.calls.filters import Filter
from trio_rpc.wire.limits import DEFAULT_LIMITS, Limits
from trio_rpc.wire.registry import TypeRegistry

if TYPE_CHECKING:
    from trio_rpc.session.session import Session

__all__ = ["Authenticate", "Options", "SessionOptions"]

Authenticate: TypeAlias = Callable[["Session", Any], Awaitable[None]]
"""Checks the credentials of the other end: an async function of the session and the credentials.

It returns to accept the session, and raises :class:`trio_rpc.Refused` to refuse it.
"""


class SessionOptions(TypedDict, total=False):
    """The keywords ``**options`` of :func:`trio_rpc.open_session` and its kin, for editors and type checkers.

    :class:`Options` describes each of them and has their defaults.
    """

    limits: Limits
    registry: TypeRegistry | None
    filters: Sequence[Filter]
    credentials: Any
    authenticate: Authenticate | None
    error_detail: Detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of one session.

    Attributes:
        limits: what this end accepts, in bytes, counts and seconds.
        registry: the application's own types that may travel; both ends need the same.
        filters: async functions that run round each call, on either side of it; the first one is outermost.
        credentials: a value that the other end's ``authenticate`` gets; anything that may be an argument.
        authenticate: checks the other end's credentials before the session opens.
        error_detail: how much of an undeclared exception the other end is told: ``"none"``, ``"message"``
            or ``"traceback"``.
    """

    limits: Limits = DEFAULT_LIMITS
    registry: TypeRegistry | None = None
    filters: Sequence[Filter] = ()
    credentials: Any = None
    authenticate: Authenticate | None = None
    error_detail: Detail = "message"

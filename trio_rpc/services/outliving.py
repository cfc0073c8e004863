"""The mark of methods whose calls may outlive their clients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

__all__ = ["is_outliving", "outlives"]

F = TypeVar("F", bound=Callable[..., Any])

_OUTLIVES: Final = "__trio_rpc_outlives__"


def outlives(function: F) -> F:
    """Mark a method, below ``@method``, whose calls keep running after their client disconnects.

    Clients of a gateway start such a call as a job with ``Message.start``, in Python and in
    JavaScript. They find it again by the job's id.

    Args:
        function: the method.

    Example:
        >>> class Reports:
        ...     @trio_rpc.method
        ...     @trio_rpc.gateway.outlives
        ...     async def build(self) -> str:
        ...         return "the report"
    """
    setattr(function, _OUTLIVES, True)
    return function


def is_outliving(function: object) -> bool:
    """Return whether a method is marked with :func:`outlives`."""
    return getattr(function, _OUTLIVES, False)

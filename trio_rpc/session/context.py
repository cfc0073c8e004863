"""Which call is being handled here, and what travels with the calls that are made."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trio_rpc.session.session import Session

__all__ = ["Call", "current_call", "handled_call", "metadata", "outgoing_metadata"]


class Call:
    """One call, as its handler (:func:`current_call`) or a filter sees it.

    Attributes:
        session: the session it came in on, or goes out on.
        method: its full name, ``"service.method"``.
        metadata: what travels with it.
        args: its positional arguments.
        kwargs: its keyword arguments.
    """

    __slots__ = ("args", "depth", "id", "kwargs", "metadata", "method", "session")

    def __init__(  # noqa: PLR0917 - made by this package alone, for each call
        self,
        session: Session,
        call_id: int,
        method: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        metadata: Mapping[str, Any],
        depth: int,
    ) -> None:
        self.session = session
        self.id = call_id
        self.method = method
        self.args = args
        self.kwargs = kwargs
        self.metadata = metadata
        self.depth = depth

    def __repr__(self) -> str:
        return f"<trio_rpc.Call {self.method} on {self.session!r}>"


handled_call: ContextVar[Call | None] = ContextVar("trio_rpc.handled_call", default=None)
outgoing_metadata: ContextVar[Mapping[str, Any] | None] = ContextVar(
    "trio_rpc.outgoing_metadata", default=None
)


def current_call() -> Call:
    """Return the call that this task is handling.

    Raises:
        RuntimeError: this task was not started by a handler.
    """
    call = handled_call.get()
    if call is None:
        raise RuntimeError("no remote call is being handled here")
    return call


@contextlib.contextmanager
def metadata(**entries: Any) -> Iterator[None]:
    """Let ``entries`` travel with the calls and notifications that are made inside this block.

    Blocks nest: an inner one adds to, or replaces, what an outer one says. What a handler finds in
    ``current_call().metadata`` does not travel on by itself, since it may be meant for nobody else.
    """
    token = outgoing_metadata.set({**(outgoing_metadata.get() or {}), **entries})
    try:
        yield
    finally:
        outgoing_metadata.reset(token)

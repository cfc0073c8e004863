"""The traced session: the first and the last step of its calls."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from trio_rpc.services.proxies import RemoteMethod
from trio_rpc.session.calls.filters import Proceed
from trio_rpc.session.core_view import SessionCore
from trio_rpc.session.session import Call, Filter, Session
from trio_rpc.session.traced.tracer import Traced, Tracer

__all__ = ["TracedSession"]

T = TypeVar("T")


class TracedSession(Session):
    """A session that tells the tracer when a call is made, and when its caller continues."""

    def __init__(self, tracer: Tracer, core: SessionCore, filters: Sequence[Filter]) -> None:
        super().__init__(core, filters)
        self._is_filtered = True  # each call needs a view, which joins its first and last step
        self._tracer = tracer

    def _outgoing_call(
        self, method: RemoteMethod, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Call:
        self._core.owner.check()  # another thread has no clock for the first step
        call = super()._outgoing_call(method, args, kwargs)
        call.number = self._tracer.begin(method.title, is_incoming=False).number
        self._note(1, call, "new")
        return call

    async def _call_filtered(self, call: Call, proceed: Proceed) -> Any:
        with self._noting(call):
            return await super()._call_filtered(call, proceed)

    def _open_filtered(
        self, call: Call, opening: AbstractAsyncContextManager[T]
    ) -> AbstractAsyncContextManager[T]:
        return self._open_noting(call, super()._open_filtered(call, opening))

    @contextlib.asynccontextmanager
    async def _open_noting(
        self, call: Call, opening: AbstractAsyncContextManager[T]
    ) -> AsyncIterator[T]:
        with self._noting(call):
            async with opening as opened:
                yield opened

    @contextlib.contextmanager
    def _noting(self, call: Call) -> Iterator[None]:
        try:
            yield
        except BaseException as exc:
            self._note(19, call, type(exc).__name__)
            raise
        self._note(19, call, "result")

    def _note(self, step: int, call: Call, state: str) -> None:
        traced = Traced(call.number, call.method, False, call.id, state)
        self._tracer.note(step, traced)
        self._tracer.flush()

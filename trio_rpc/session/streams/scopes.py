"""Remote scopes: long calls that other calls are made in.

At the caller a :class:`RemoteScope` is a block. At the callee it is a call of the built-in method
``trio_rpc.scope``. Its handler waits until it is cancelled, then ends all calls made in the scope,
and ends last: a ``HeldScope``. A function lent to a call in a scope is lent to the scope.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar, overload

import trio

from trio_rpc.errors import RemoteCancelled
from trio_rpc.services.decorators import Kind
from trio_rpc.services.error_maps import from_error
from trio_rpc.services.interfaces import RESERVED, Identifier, name_and_interface
from trio_rpc.services.item_stream import ItemStream
from trio_rpc.services.proxies import Caller, Proxy, RemoteMethod
from trio_rpc.services.signatures import Signature
from trio_rpc.services.tables import BoundMethod
from trio_rpc.session.calls.context import handled_call
from trio_rpc.session.calls.outgoing import OutgoingCalls
from trio_rpc.session.calls.outgoing_call import OutgoingCall, describe_exception
from trio_rpc.util.one_exception import raise_alone
from trio_rpc.util.places import catching, keep_places
from trio_rpc.util.raised import add_note, repr_of, text_of
from trio_rpc.wire import messages as m

__all__ = ["SCOPE", "RemoteScope", "ScopedCaller", "open_scope", "scope_method"]

SCOPE = f"{RESERVED}.scope"
T = TypeVar("T")


def scope_method() -> BoundMethod:
    """Make the built-in method that a peer opens a scope with."""
    return BoundMethod(
        name=SCOPE,
        kind=Kind.METHOD,
        function=_hold,
        is_async=True,
        signature=_NO_ARGUMENTS,
        doc="Wait until cancelled. Meanwhile, calls may be made in this scope.",
    )


async def _hold() -> None:
    call = handled_call.get()
    assert call is not None  # noqa: S101 - it runs as a handler and nothing else
    assert call.held_scope is not None  # noqa: S101 - made when the call arrived
    try:
        await call.held_scope.hold()
    except BaseExceptionGroup as group:
        if len(group.exceptions) > 1:
            raise  # several tasks have failed, and the caller gets all their errors
        raise_alone(group.exceptions[0])


_NO_ARGUMENTS = Signature(lambda: None, skip_self=False, name=SCOPE)


class ScopedCaller(Caller, Protocol):
    """The methods that a remote scope needs of its session."""

    def invoke_in(
        self,
        remote_scope: OutgoingCall,
        method: object,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        kind: Kind | None = None,
    ) -> Any:
        """Call, notify or open in a remote scope; ``method`` may be a name if ``kind`` is given."""


class RemoteScope:
    """A block whose calls lend callbacks and streams for as long as it lasts.

    :meth:`Session.open_scope` makes it.

    The other end may use callbacks and streams of calls in this scope until the block ends, and not
    only until their call ends (law 8). Use :meth:`proxy` to make every call in this scope, or pass
    one method of a session's proxy to :meth:`call`.
    """

    def __init__(self, session: ScopedCaller, body: trio.CancelScope) -> None:
        self._session = session
        self._body = body
        self._pending: OutgoingCall | None = None

    def __repr__(self) -> str:
        return f"<trio_rpc.RemoteScope on {self._session!r}>"

    def begin(self, call: OutgoingCall) -> None:
        """Set the call that holds this scope.

        :meta private:
        """
        self._pending = call

    def ended(self) -> None:
        """End the block, since the other end has ended the scope or the session is over.

        :meta private:
        """
        self._body.cancel(reason="the remote scope has ended")

    @overload
    def proxy(self, service: str = "", interface: None = None) -> Proxy: ...
    @overload
    def proxy(self, service: str, interface: Callable[..., T]) -> T: ...
    @overload
    def proxy(self, service: Identifier[T], interface: None = None) -> T: ...
    def proxy(self, service: str | Identifier[Any] = "", interface: Any = None) -> Any:
        """Return a proxy whose calls are made in this scope.

        Args:
            service: as in :meth:`Session.proxy`.
            interface: as in :meth:`Session.proxy`.

        Raises:
            TypeError: ``service`` is neither a str nor an identifier, or ``interface`` has no
                decorated methods.
        """
        return Proxy(self, *name_and_interface(service, interface))

    @overload
    async def call(self, method: str, /, *args: Any, **kwargs: Any) -> Any: ...
    @overload
    async def call(
        self, method: Callable[..., Awaitable[T]], /, *args: Any, **kwargs: Any
    ) -> T: ...
    async def call(
        self, method: str | Callable[..., Awaitable[Any]], /, *args: Any, **kwargs: Any
    ) -> Any:
        """Call a method in this scope and return its result.

        Args:
            method: its full name, ``"service.method"``, or a method of a proxy.
            *args: the method's positional arguments. The other end can use callbacks and async
                iterables among them until the scope ends.
            **kwargs: the method's keyword arguments.

        Raises:
            LocalProtocolError: the scope has ended.
            RemoteCancelled: the scope ended meanwhile.
            Exception: the other exceptions that :meth:`Session.call` raises.
        """
        return await self._session.invoke_in(self._remote_scope, method, args, kwargs, Kind.METHOD)

    @overload
    def stream(
        self, method: str, /, *args: Any, **kwargs: Any
    ) -> AbstractAsyncContextManager[ItemStream[Any]]: ...
    @overload
    def stream(
        self,
        method: Callable[..., AbstractAsyncContextManager[trio.abc.ReceiveChannel[T]]],
        /,
        *args: Any,
        **kwargs: Any,
    ) -> AbstractAsyncContextManager[ItemStream[T]]: ...
    def stream(self, method: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Open a stream in this scope, as :meth:`Session.stream` does.

        Args:
            method: as in :meth:`Session.stream`.
            *args: the method's positional arguments.
            **kwargs: the method's keyword arguments.
        """
        return self._session.invoke_in(self._remote_scope, method, args, kwargs, Kind.STREAM)

    @overload
    def duplex(
        self, method: str, /, *args: Any, **kwargs: Any
    ) -> AbstractAsyncContextManager[trio.abc.Channel[Any]]: ...
    @overload
    def duplex(
        self,
        method: Callable[..., AbstractAsyncContextManager[trio.abc.Channel[T]]],
        /,
        *args: Any,
        **kwargs: Any,
    ) -> AbstractAsyncContextManager[trio.abc.Channel[T]]: ...
    def duplex(self, method: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Open a duplex in this scope, as :meth:`Session.duplex` does.

        Args:
            method: as in :meth:`Session.duplex`.
            *args: the method's positional arguments.
            **kwargs: the method's keyword arguments.
        """
        return self._session.invoke_in(self._remote_scope, method, args, kwargs, Kind.DUPLEX)

    def invoke(self, method: RemoteMethod, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call, notify or open a method of one of the scope's proxies.

        :meta private:
        """
        return self._session.invoke_in(self._remote_scope, method, args, kwargs)

    @property
    def _remote_scope(self) -> OutgoingCall:
        assert self._pending is not None  # noqa: S101 - its call is made before it is handed out
        return self._pending


@contextlib.asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def open_scope(session: ScopedCaller, outgoing: OutgoingCalls) -> AsyncIterator[RemoteScope]:
    """Open a remote scope while the block lasts. Its calls have ended when the block ends."""
    body = trio.CancelScope()
    scope = RemoteScope(session, body)
    call = await outgoing.open(RemoteMethod(session, SCOPE), (), {}, listener=scope)
    call.take_callbacks([])
    scope.begin(call)
    try:
        with catching(body):
            yield scope
    except BaseException as exc:  # noqa: BLE001 - it is raised again
        await outgoing.close(call, describe_exception(exc))
        error = await _error_of(outgoing, call)
        try:
            if error is not None and isinstance(exc, RemoteCancelled):
                keep_places(exc)
                raise error from exc  # a call in the scope was the first to see its end
            if error is not None:
                add_note(exc, f"and the remote scope has failed: {repr_of(error)}")
            raise
        finally:
            del error  # its traceback holds this frame
    ended_early = call.answer is not None
    await outgoing.close(call, "its block has been left")
    error = await _error_of(outgoing, call)
    if error is None and ended_early:
        error = _ended_by_the_other_end(call.answer)
    try:
        if error is not None:
            raise error
    finally:
        del error  # its traceback holds this frame


def _ended_by_the_other_end(answer: object) -> RemoteCancelled:
    text = "the other end has ended the remote scope"
    if isinstance(answer, m.ReplyErr):
        text += f": {text_of(from_error(answer.error, {}))}"
    return RemoteCancelled(text)


async def _error_of(outgoing: OutgoingCalls, call: OutgoingCall) -> Exception | None:
    """Return the error that a scope failed with; our own cancellation is not a failure."""
    answer = call.answer
    if answer is None or isinstance(answer, m.Reply):
        return None
    if isinstance(answer, m.ReplyErr) and answer.error.get("code") in ("cancelled", "deadline"):
        return None
    return await outgoing.failure(call)

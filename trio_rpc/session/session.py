"""The public objects: a session, and a call as handlers and filters see it.

Each of the two refers to the other, so they share this file. The core above does the work: it makes
the session, and the session knows it only as a :class:`SessionCore` (``core_view.py``).
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias, TypeVar, overload

import trio

from trio_rpc.channels import ConnectionStates
from trio_rpc.errors import Fate
from trio_rpc.protocol.hello import session_id
from trio_rpc.services.decorators import Kind
from trio_rpc.services.interfaces import Identifier, name_and_interface
from trio_rpc.services.item_stream import ItemStream
from trio_rpc.services.proxies import Proxy, RemoteMethod, remote_method
from trio_rpc.session.calls.context import outgoing_metadata
from trio_rpc.session.calls.filters import Proceed, call_filtered, filtered
from trio_rpc.session.calls.incoming_call import IncomingCall
from trio_rpc.session.calls.outgoing_call import OutgoingCall
from trio_rpc.session.core_view import SessionCore
from trio_rpc.session.draining import DrainingEvent
from trio_rpc.session.end import ClosedEvent, SessionEnd
from trio_rpc.session.inspection import (
    ScopeNode,
    SessionStatistics,
    connection_states,
    scope_tree,
    take_statistics,
)
from trio_rpc.session.peer import Peer
from trio_rpc.session.streams.open import open_duplex, open_stream
from trio_rpc.session.streams.scopes import RemoteScope, ScopedCaller, open_scope
from trio_rpc.wire.limits import Limits

__all__ = ["Call", "Filter", "Session"]

T = TypeVar("T")
_METHOD = Kind.METHOD


class Session:
    """Both directions of one connection: call the other end, and be called by it.

    Functions such as :func:`trio_rpc.connect`, :func:`trio_rpc.serve` and
    :func:`trio_rpc.open_session` make it; never make one directly.

    It belongs to the Trio run that opened it. Elsewhere its methods, proxies, callbacks and streams
    raise RuntimeError. :meth:`statistics` and the attributes can be read anywhere.
    """

    def __init__(self, core: SessionCore, filters: Sequence[Filter]) -> None:
        self._core = core
        self._outgoing = core.outgoing
        self._filters = filters
        self._is_filtered = bool(filters)
        self._proxies: dict[tuple[str, type | None], Proxy] = {}

    def __repr__(self) -> str:
        return f"<trio_rpc.Session with {self._core.name}, {self._core.lifecycle.stage.state}>"

    @property
    def credentials(self) -> Any:
        """The ``credentials`` that the other end gave when it opened the session, or None."""
        return self._core.protocol.peer.credentials

    @property
    def id(self) -> str | None:
        """The id that both ends have agreed on, to join their traces; None if neither is traced."""
        return session_id(self._core.session_id, self._core.protocol.peer.session)

    @property
    def limits(self) -> Limits:
        """The limits of this end."""
        return self._core.limits

    @property
    def name(self) -> str:
        """The name of the other end in logs and errors."""
        return self._core.name

    @property
    def peer(self) -> Peer:
        """The other end: its name, and the id and exit code of a child process."""
        return Peer(self._core.name, self._core.channel)

    # ── calling ──────────────────────────────────────────────────────────────────────────────

    @overload
    def proxy(self, service: str = "", interface: None = None) -> Proxy: ...
    @overload
    def proxy(self, service: str, interface: Callable[..., T]) -> T: ...
    @overload
    def proxy(self, service: Identifier[T], interface: None = None) -> T: ...
    def proxy(self, service: str | Identifier[Any] = "", interface: Any = None) -> Any:
        """Return a proxy of a service at the other end.

        Args:
            service: its name there, "" for the service without a name; or an
                :class:`Identifier`, which also has the interface.
            interface: the class that declares its methods. With it, editors and type checkers see
                its signatures, and results are converted to its annotations.

        Raises:
            TypeError: ``service`` is neither a str nor an identifier, or ``interface`` has no
                decorated methods.
        """
        key = name, interface = name_and_interface(service, interface)
        proxy = self._proxies.get(key)
        if proxy is None:
            proxy = Proxy(self, name, interface)
            if not self._core.lifecycle.is_closed:
                self._proxies[key] = proxy
        return proxy

    @overload
    async def call(
        self, method: str, /, *args: Any, abandon_on_cancel: bool = False, **kwargs: Any
    ) -> Any: ...
    @overload
    async def call(
        self,
        method: Callable[..., Awaitable[T]],
        /,
        *args: Any,
        abandon_on_cancel: bool = False,
        **kwargs: Any,
    ) -> T: ...
    async def call(
        self,
        method: str | Callable[..., Awaitable[Any]],
        /,
        *args: Any,
        abandon_on_cancel: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Call a method of the other end and return its result.

        Args:
            method: its full name, ``"service.method"``, or a method of a proxy.
            *args: the method's positional arguments.
            abandon_on_cancel: when the caller is cancelled, leave at once, without waiting until
                the handler has ended (law 2).
            **kwargs: the method's keyword arguments.

        Raises:
            Exception: an exception of the handler that the method declares, or a built-in one.
            RemoteError: any other exception of the handler.
            CallError: the call was refused or cancelled at the other end; see the subclasses.
            LocalProtocolError: the method of the proxy is not one that is called.
            EncodeError: an argument cannot be sent.
            DecodeError: the result does not have the annotated type.
            SessionClosed: this end has closed the session, or closes it meanwhile.
            SessionBroken: the other end or the network ended the session.
        """
        remote = remote_method(self, method, Kind.METHOD)
        return await self.request(remote, args, kwargs, abandon_on_cancel=abandon_on_cancel)

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
        """Open a stream of the other end: ``async with session.stream("ticks") as ticks``.

        The block gets an :class:`ItemStream`. The generator is paused when this end is slow:
        ``limits.stream_items`` and ``limits.stream_bytes`` bound how far it may run ahead. Its
        exception is raised after the items that preceded it. It is closed when the block ends.

        Args:
            method: its full name, or a stream of a proxy; ``proxy.ticks("BTC")`` does the same.
            *args: the method's positional arguments. The other end can call a function among them,
                and pull an async iterable, until the block ends.
            **kwargs: the method's keyword arguments.

        Raises:
            Exception: in the block, from ``receive``: the exceptions that :meth:`call` raises.
            LocalProtocolError: the method is not a stream.
        """
        return self._open(remote_method(self, method, Kind.STREAM), args, kwargs)

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
        """Open a duplex of the peer: ``async with session.duplex("chat", "room") as channel``.

        The block gets a ``trio.abc.Channel`` that also has ``send_eof()``, which closes only its
        sending half. To let the handler finish, receive until the end: leaving the block cancels
        it.

        Args:
            method: its full name, or a duplex of a proxy; ``proxy.chat("room")`` does the same.
            *args: the method's positional arguments, without its own end of the channel.
            **kwargs: the method's keyword arguments.

        Raises:
            Exception: in the block, from ``receive``: the exceptions that :meth:`call` raises.
            LocalProtocolError: the method is not a duplex.
        """
        return self._open(remote_method(self, method, Kind.DUPLEX), args, kwargs)

    def open_scope(self) -> AbstractAsyncContextManager[RemoteScope]:
        """Open a remote scope: ``async with session.open_scope() as scope``.

        Callbacks and streams passed to calls in this scope live until the block ends. So do tasks
        that their handlers start in ``current_call().nursery``. Leaving the block cancels all of
        them, by one message that states the reason, and waits for them. When the other end ends the
        scope, or the session ends, the block is cancelled and raises the reason.

        Raises:
            Exception: the exception that ended it at the other end, as for :meth:`call`.
            RemoteCancelled: the other end ended it without a reason.
            SessionClosed: this end has closed the session.
            SessionBroken: the other end or the network ended the session.

        Example:
            >>> async def watch(session: trio_rpc.Session) -> None:
            ...     async with session.open_scope() as scope:
            ...         await scope.call("market.subscribe", "BTC", print)
            ...         await trio.sleep(10)  # the market calls print until the block ends
        """
        return self.open_scope_for(self)

    def open_scope_for(self, caller: ScopedCaller) -> AbstractAsyncContextManager[RemoteScope]:
        """Open a remote scope whose calls ``caller`` makes.

        :meta private:
        """
        return open_scope(caller, self._outgoing)

    async def notify(
        self, method: str | Callable[..., Awaitable[Any]], /, *args: Any, **kwargs: Any
    ) -> None:
        """Send a notification; return once it is queued for sending.

        Its outcome is not reported. Use a method if the outcome matters.

        Args:
            method: its full name, or a method of a proxy.
            *args: the method's positional arguments.
            **kwargs: the method's keyword arguments.

        Raises:
            EncodeError: an argument cannot be sent.
            SessionClosed: this end has closed the session.
            SessionBroken: the other end or the network ended the session.
        """
        await self._notify(remote_method(self, method, Kind.NOTIFICATION), args, kwargs)

    def request(
        self,
        method: RemoteMethod,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        abandon_on_cancel: bool,
    ) -> Coroutine[Any, Any, Any]:
        """Call a method, which may be one of another caller's proxy.

        :meta private:
        """
        make = self._call if self._is_filtered else self._outgoing.request
        return make(method, args, kwargs, abandon_on_cancel=abandon_on_cancel)

    def invoke(
        self, method: RemoteMethod, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Coroutine[Any, Any, Any] | AbstractAsyncContextManager[Any]:
        """Call, notify or open, according to the method's kind: a call of a proxy's method.

        :meta private:
        """
        if method.kind is not _METHOD:
            if method.kind is Kind.NOTIFICATION:
                return self._notify(method, args, kwargs)
            return self._open(method, args, kwargs)
        if self._is_filtered:
            return self._call(method, args, kwargs)
        return self._outgoing.request(method, args, kwargs)

    def invoke_in(
        self,
        remote_scope: OutgoingCall,
        method: object,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        kind: Kind | None = None,
    ) -> Any:
        """Call, notify or open in a remote scope; ``method`` may be a name if ``kind`` is given.

        :meta private:
        """
        remote = (
            method
            if isinstance(method, RemoteMethod) and kind is None
            else remote_method(self, method, kind or _METHOD)
        )
        if remote.kind is Kind.NOTIFICATION:
            return self._notify(remote, args, kwargs)
        if remote.kind is not _METHOD:
            return self._open(remote, args, kwargs, remote_scope)
        return self._call(remote, args, kwargs, remote_scope=remote_scope)

    @property
    def is_filtered(self) -> bool:
        """Whether the calls that this end makes need :meth:`around`.

        :meta private:
        """
        return self._is_filtered

    async def around(
        self,
        method: RemoteMethod,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        make_call: Callable[..., Awaitable[Any]],
    ) -> Any:
        """Make a call inside the filters; ``make_call`` gets their view of it as ``view``.

        :meta private:
        """
        call = self._outgoing_call(method, args, kwargs)
        return await self._call_filtered(call, functools.partial(make_call, view=call))

    async def _call(
        self,
        method: RemoteMethod,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        **settings: Any,
    ) -> Any:
        request = functools.partial(self._outgoing.request, method, args, kwargs, **settings)
        return await self.around(method, args, kwargs, request)

    async def _call_filtered(self, call: Call, proceed: Proceed) -> Any:
        return await call_filtered(self._filters, call, proceed)

    def _open(
        self,
        method: RemoteMethod,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        remote_scope: OutgoingCall | None = None,
    ) -> AbstractAsyncContextManager[Any]:
        call = self._outgoing_call(method, args, kwargs)
        opener = open_duplex if method.kind is Kind.DUPLEX else open_stream
        opening = opener(self._outgoing, method, args, kwargs, remote_scope=remote_scope, view=call)
        return self._open_filtered(call, opening)

    def _open_filtered(
        self, call: Call, opening: AbstractAsyncContextManager[T]
    ) -> AbstractAsyncContextManager[T]:
        return filtered(self._filters, call, opening) if self._filters else opening

    async def _notify(
        self, method: RemoteMethod, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        call = self._outgoing_call(method, args, kwargs)
        proceed = functools.partial(self._outgoing.notify, method, args, kwargs, call)
        await call_filtered(self._filters, call, proceed, done=Fate.UNKNOWN)

    def _outgoing_call(
        self, method: RemoteMethod, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Call:
        return Call(self, method.title, args, kwargs, outgoing_metadata.get() or {})

    async def ping(self) -> float:
        """Send a Ping, wait for its Pong, and return the seconds that it took.

        Raises:
            SessionClosed: this end has closed the session, or closes it meanwhile.
            SessionBroken: the other end or the network ended the session.
        """
        return await self._core.ping()

    def connection_states(self) -> ConnectionStates:
        """Iterate over the states of the connection: the current one, then each change, to the end.

        The states are ``connected``, ``unresponsive`` (with that option), ``reconnecting``,
        ``resumed``, and ``lost`` at the end unless this end has closed the session. Only a session
        opened with ``resume`` reconnects. A slow reader misses intermediate states.

        Example:
            >>> async def show(session: trio_rpc.Session) -> None:
            ...     async for state in session.connection_states():
            ...         print(state.value)
        """
        core = self._core
        core.owner.check()
        return connection_states(core.channel, core.lifecycle, core.answers)

    # ── serving ──────────────────────────────────────────────────────────────────────────────

    def set(self, service: str | Identifier[Any], implementation: T) -> T:
        """Add a service to this session, for the other end to call; return the service.

        Calls that wait for it (``wait_for_service`` of :class:`trio_rpc.Options`) begin.

        Args:
            service: its name; or an :class:`Identifier`, whose interface its class must fit.
            implementation: the service, an object with decorated methods.

        Raises:
            TypeError: ``implementation`` is not a service, or does not fit the interface.
            ValueError: the name is not legal, or this session has a service with this name.
            SessionClosed: this end has closed the session.
            SessionBroken: the other end or the network ended the session.
        """
        self._core.set_service(service, implementation)
        return implementation

    def remove(self, service: str | Identifier[Any]) -> None:
        """Remove a service from this session; its running calls go on.

        Args:
            service: its name, or its identifier.

        Raises:
            LookupError: the session is not over, and has no such service.
        """
        self._core.remove_service(service)

    # ── closing ──────────────────────────────────────────────────────────────────────────────

    async def aclose(self, *, reason: str = "", grace: float | None = None) -> None:
        """Close the session: say Goodbye, let calls in flight end, then close the channel.

        If it is cancelled, it closes at once: handlers are cancelled, and calls in flight raise.

        Args:
            reason: the reason, for people. The other end gets its first thousand characters with
                the Goodbye, and errors and the :class:`SessionEnd` of both ends have it. If a
                session is closed twice, the first reason counts.
            grace: seconds that calls in flight get; ``limits.close_grace`` by default.

        Raises:
            TypeError: ``reason`` is not a str, or ``grace`` is not a number.
            ValueError: ``grace`` is negative. In both cases the session goes on.
        """
        self._core.owner.check()
        await self._core.lifecycle.aclose(reason=reason, grace=grace)

    @property
    def is_open(self) -> bool:
        """Whether calls can be made: the session is open, and neither end has sent Goodbye."""
        return self._core.lifecycle.is_open

    @property
    def draining(self) -> DrainingEvent:
        """An event: the other end leaves soon, or has left. ``await session.draining.wait()``."""
        return DrainingEvent(self._core.lifecycle, self._core.owner.check)

    @property
    def calls_in_flight(self) -> int:
        """The number of calls that this end has made, and that have not ended."""
        return len(self._outgoing.calls)

    async def wait_closed(self) -> SessionEnd:
        """Wait until the session is over and its channel closed; return how it ended, and why."""
        return await self.closed.wait()

    @property
    def closed(self) -> ClosedEvent:
        """The end of the session as an event: ``closed.is_set()``, ``await closed.wait()``."""
        return ClosedEvent(self._core.lifecycle, self._core.owner)

    def let_go(self) -> None:
        """Drop the references to this object, once the session is over.

        :meta private:
        """
        self._proxies.clear()

    # ── looking inside ───────────────────────────────────────────────────────────────────────

    def statistics(self) -> SessionStatistics:
        """Return the traffic so far, and the calls and queues at this moment."""
        core = self._core
        return take_statistics(core.lifecycle, core.protocol, core.outgoing, core.incoming)

    def tree(self) -> list[ScopeNode]:
        """Return the calls in flight of both directions, each with its parent, oldest first."""
        self._core.owner.check()
        return scope_tree(self._core.outgoing, self._core.incoming)


class Call:
    """One call, as its handler (:func:`current_call`) or a filter sees it.

    Attributes:
        id: its id, which names it at both ends. None for a notification and for a browser's call,
            and at the calling end before its Request is queued.
        is_incoming: whether the other end has made it.
        session_or_none: the session it arrived on or is made on; None for a browser's call.
        method: its full name, ``"service.method"``. For a callback, ``"callback 0 of jobs.run"``.
        metadata: its metadata; see :func:`trio_rpc.metadata`.
        args: its positional arguments.
        kwargs: its keyword arguments.
        request: the HTTP request of a browser's call; None for a call on a session.
        identity: the value that the gateway's ``authenticate`` returned for it, or None.
    """

    __slots__ = (
        "_remote_scope",
        "args",
        "id",
        "identity",
        "is_incoming",
        "kwargs",
        "metadata",
        "method",
        "number",
        "request",
        "session_or_none",
    )

    def __init__(  # noqa: PLR0917 - made by us alone
        self,
        session: Session | None,
        method: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        metadata: Mapping[str, Any],
        handled: IncomingCall | None = None,
    ) -> None:
        self.id = None if handled is None or handled.id <= 0 else handled.id
        self.is_incoming = handled is not None
        self.number = 0  # in the trace of the session, if there is one
        self._remote_scope = None if handled is None else handled.remote_scope
        self.request = None if handled is None else handled.request
        self.identity = None if self.request is None else self.request.identity
        self.session_or_none = session
        self.method = method
        self.args = args
        self.kwargs = kwargs
        self.metadata = metadata

    def __repr__(self) -> str:
        return f"<trio_rpc.Call {self.method} on {self.session_or_none or 'a gateway'}>"

    @property
    def peer(self) -> Peer | None:
        """The other end, as ``Session.peer``; None for a browser, which has no session."""
        return None if self.session_or_none is None else self.session_or_none.peer

    @property
    def session(self) -> Session:
        """The session it arrived on or is made on.

        Raises:
            RuntimeError: a browser called through a gateway; only its callbacks reach the browser.
        """
        if self.session_or_none is None:
            raise RuntimeError(
                f"{self.method} was called by a browser, which has no session: use its callbacks"
            )
        return self.session_or_none

    @property
    def nursery(self) -> trio.Nursery:
        """The nursery of this call's remote scope, for tasks that outlive the call.

        Leaving the scope cancels its tasks and waits for them. An exception of a task ends the
        scope, and is raised at the caller's block.

        Raises:
            RuntimeError: the call was not made in a remote scope.
        """
        if self._remote_scope is None or self._remote_scope.nursery is None:
            raise RuntimeError(f"{self.method} was not called in a remote scope")
        return self._remote_scope.nursery


Filter: TypeAlias = Callable[[Call, Proceed], Awaitable[Any]]
"""An async function ``(call, proceed)`` that runs around each call."""

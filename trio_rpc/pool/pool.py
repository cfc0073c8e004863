"""A pool: it is called as a session is, and shares the calls among the sessions of its instances.

The calls are made on the sessions themselves. The pool only chooses one, and decides after an error
whether another attempt may follow (``attempts.py``).
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Final, TypeVar, overload

import trio

from trio_rpc.errors import Fate, Overloaded, SessionBroken, SessionClosed, Unavailable
from trio_rpc.pool.attempts import Attempts, Budget
from trio_rpc.pool.instances import InstanceStatus
from trio_rpc.pool.pool_states import PoolStates
from trio_rpc.pool.roster import Roster
from trio_rpc.pool.scope_caller import ScopeCaller
from trio_rpc.pool.seats import Balancer, Seat
from trio_rpc.services.decorators import Kind
from trio_rpc.services.interfaces import Identifier, name_and_interface
from trio_rpc.services.proxies import Proxy, RemoteMethod, remote_method
from trio_rpc.session.session import Session
from trio_rpc.session.streams.scopes import RemoteScope
from trio_rpc.util.owner import Owner
from trio_rpc.util.places import catching
from trio_rpc.util.reconnect import full_jitter

__all__ = ["Pool"]

T = TypeVar("T")
_METHOD, _NOTIFICATION = Kind.METHOD, Kind.NOTIFICATION
_OPEN_SESSION: Final = "a block of a session"

FIRST_PAUSE: Final = 0.01
MAX_PAUSE: Final = 1.0
"""Seconds of the longest pause when each instance has refused a call. The pauses are random."""


class Pool:
    """Sessions with the instances of a service, called as one. :func:`open_pool` makes it.

    It has the methods of a :class:`Session` that make calls. A call goes to one instance, and may
    be repeated at another one: see :func:`open_pool`. It belongs to the Trio run that opened it.
    """

    def __init__(
        self,
        roster: Roster,
        balancer: Balancer,
        *,
        patience: float,
        budget: float,
        max_waiting: int,
    ) -> None:
        self._roster = roster
        self._balancer = balancer
        self._choose = balancer.choose
        self._budget = Budget(budget, roster)
        self._patience = patience
        self._max_waiting = max_waiting
        self._waiting = 0
        self._owner = Owner("this pool")
        self._proxies: dict[tuple[str, type | None], Proxy] = {}

    def __repr__(self) -> str:
        statuses = self._roster.statuses()
        is_open = sum(each.state == "open" for each in statuses)
        return f"<trio_rpc.Pool, {is_open} of {len(statuses)} instances open>"

    # ── calling ──────────────────────────────────────────────────────────────────────────────

    @overload
    def proxy(self, service: str = "", interface: None = None) -> Proxy: ...
    @overload
    def proxy(self, service: str, interface: Callable[..., T]) -> T: ...
    @overload
    def proxy(self, service: Identifier[T], interface: None = None) -> T: ...
    def proxy(self, service: str | Identifier[Any] = "", interface: Any = None) -> Any:
        """Return a proxy of a service that each instance has.

        Args:
            service: as in :meth:`Session.proxy`.
            interface: as in :meth:`Session.proxy`. Its methods that are declared with
                ``@method(idempotent=True)`` may be called again after an unknown fate.

        Raises:
            TypeError: as :meth:`Session.proxy`.
        """
        key = name, interface = name_and_interface(service, interface)
        proxy = self._proxies.get(key)
        if proxy is None:
            proxy = self._proxies[key] = Proxy(self, name, interface)
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
        """Call a method of an instance and return its result.

        Args:
            method: its full name, ``"service.method"``, or a method of this pool's proxy.
            *args: the method's positional arguments.
            abandon_on_cancel: as in :meth:`Session.call`.
            **kwargs: the method's keyword arguments.

        Raises:
            Unavailable: no instance took the call within ``patience``; the text says why.
            Overloaded: too many calls are waiting for an instance.
            SessionClosed: the block of the pool is over.
            Exception: the exceptions that :meth:`Session.call` raises. Notes name the attempts.
        """
        remote = remote_method(self, method, Kind.METHOD)
        if not abandon_on_cancel:
            return await self._call(remote, args, kwargs)

        def request(seat: Seat) -> Coroutine[Any, Any, Any]:
            return seat.session.request(remote, args, kwargs, abandon_on_cancel=True)

        return await self._repeat(Attempts(remote, args, kwargs, self._budget), request)

    @overload
    def stream(
        self, method: str, /, *args: Any, **kwargs: Any
    ) -> AbstractAsyncContextManager[trio.abc.ReceiveChannel[Any]]: ...
    @overload
    def stream(
        self,
        method: Callable[..., AbstractAsyncContextManager[trio.abc.ReceiveChannel[T]]],
        /,
        *args: Any,
        **kwargs: Any,
    ) -> AbstractAsyncContextManager[trio.abc.ReceiveChannel[T]]: ...
    def stream(self, method: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Open a stream of an instance: ``async with pool.stream("ticks") as ticks``.

        It stays at its instance, and ends with it.

        Args:
            method: as in :meth:`Session.stream`.
            *args: as in :meth:`Session.stream`.
            **kwargs: as in :meth:`Session.stream`.

        Raises:
            Exception: the exceptions that :meth:`call` and :meth:`Session.stream` raise.
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
        """Open a duplex of an instance: ``async with pool.duplex("chat", "room") as channel``.

        It stays at its instance, and ends with it.

        Args:
            method: as in :meth:`Session.duplex`.
            *args: as in :meth:`Session.duplex`.
            **kwargs: as in :meth:`Session.duplex`.

        Raises:
            Exception: the exceptions that :meth:`call` and :meth:`Session.duplex` raise.
        """
        return self._open(remote_method(self, method, Kind.DUPLEX), args, kwargs)

    async def notify(
        self, method: str | Callable[..., Awaitable[Any]], /, *args: Any, **kwargs: Any
    ) -> None:
        """Send a notification to one instance; return once it is queued for sending.

        Args:
            method: its full name, or a method of this pool's proxy.
            *args: the method's positional arguments.
            **kwargs: the method's keyword arguments.

        Raises:
            EncodeError: an argument cannot be sent.
            Unavailable: no instance took it within ``patience``.
            SessionClosed: the block of the pool is over.
        """
        await self._call(remote_method(self, method, Kind.NOTIFICATION), args, kwargs)

    @contextlib.asynccontextmanager
    async def open_scope(self) -> AsyncIterator[RemoteScope]:
        """Open a remote scope at one instance; see :meth:`Session.open_scope`.

        All calls of the scope go to that instance, and the scope ends with it. Its ``call`` also
        accepts methods of this pool's proxies.

        Raises:
            Exception: the exceptions that :meth:`call` and :meth:`Session.open_scope` raise.
        """
        method = RemoteMethod(self, "trio_rpc.scope")
        attempts = Attempts(method, (), {}, self._budget)

        def opening(seat: Seat) -> AbstractAsyncContextManager[RemoteScope]:
            return seat.session.open_scope_for(ScopeCaller(self, seat.session))

        async with AsyncExitStack() as stack:
            yield await self._enter(stack, attempts, opening)

    @contextlib.asynccontextmanager
    @trio.lowlevel.enable_ki_protection
    async def session(self) -> AsyncIterator[Session]:
        """Use one instance for a block: ``async with pool.session() as session``.

        The session belongs to the pool, and stays open. No call in the block is repeated.
        If the session ends and this end has not closed it, the body is cancelled, and the block
        raises SessionBroken (law 17).

        Raises:
            Unavailable: there was no instance within ``patience``.
            SessionBroken: the other end or the network ended the session.
            SessionClosed: the block of the pool is over.
        """
        attempts = Attempts(RemoteMethod(self, _OPEN_SESSION), (), {}, self._budget)
        seat = await self._next(attempts)
        body = trio.CancelScope()
        seat.blocks.add(body)
        try:
            with catching(body):
                yield seat.session
        finally:
            seat.blocks.discard(body)
        if body.cancelled_caught:
            end = await seat.session.wait_closed()
            raise SessionBroken(end.reason, orderly=end.cause is None) from end.cause

    # ── looking inside ───────────────────────────────────────────────────────────────────────

    def instances(self) -> list[InstanceStatus]:
        """Return the status of each instance that the pool knows."""
        return self._roster.statuses()

    def states(self) -> AsyncIterator[list[InstanceStatus]]:
        """Iterate over the statuses of all instances: now, and after each change of a state.

        The iteration ends with the pool. A slow reader misses older ones. Counts of calls are as
        new as the last change.

        Example:
            >>> async def watch(pool: trio_rpc.Pool) -> None:
            ...     async for instances in pool.states():
            ...         print({each.name: each.state for each in instances})
        """
        self._owner.check()
        return PoolStates(self._roster, self._balancer, self._owner)

    # ── attempts ─────────────────────────────────────────────────────────────────────────────

    def invoke(
        self, method: RemoteMethod, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Coroutine[Any, Any, Any] | AbstractAsyncContextManager[Any]:
        """Call, notify or open, according to the method's kind: a call of a proxy's method.

        :meta private:
        """
        if method.kind is _METHOD or method.kind is _NOTIFICATION:
            return self._call(method, args, kwargs)
        return self._open(method, args, kwargs)

    async def _call(
        self, method: RemoteMethod, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Call or notify. The first attempt has a shorter path: most calls need no other."""
        attempts: Attempts | None = None
        seat = self._choose()
        if seat is not None:
            seat.calls += 1
            try:
                return await seat.invoke(method, args, kwargs)  # type: ignore[misc]
            except Exception as exc:
                attempts = Attempts(method, args, kwargs, self._budget)
                if not self._may_follow(attempts, seat, exc):
                    raise
        return await self._call_again(method, args, kwargs, attempts)

    async def _call_again(
        self,
        method: RemoteMethod,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        attempts: Attempts | None,
    ) -> Any:
        """Call or notify, after an attempt that has failed, or because there is no instance."""

        def make(seat: Seat) -> Any:
            return seat.invoke(method, args, kwargs)

        return await self._repeat(attempts or Attempts(method, args, kwargs, self._budget), make)

    def _may_follow(self, attempts: Attempts, seat: Seat, exc: Exception) -> bool:
        """Record a failed attempt; return whether another one may follow, or explain its error."""
        may_follow = attempts.may_follow(seat, exc)
        if not seat.session.is_open:
            self._balancer.place(seat)
        if not may_follow:
            attempts.explain(exc)
        return may_follow

    async def _repeat(
        self, attempts: Attempts, make: Callable[[Seat], Coroutine[Any, Any, T]]
    ) -> T:
        """Make a call until an instance has ended it."""
        while True:
            seat = await self._next(attempts)
            seat.calls += 1
            try:
                return await make(seat)
            except Exception as exc:
                if not self._may_follow(attempts, seat, exc):
                    raise

    @contextlib.asynccontextmanager
    async def _open(
        self, method: RemoteMethod, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> AsyncIterator[Any]:
        """Open a stream or a duplex. Only its opening may be repeated."""

        def opening(seat: Seat) -> Any:
            return seat.invoke(method, args, kwargs)

        async with AsyncExitStack() as stack:
            attempts = Attempts(method, args, kwargs, self._budget)
            yield await self._enter(stack, attempts, opening)

    async def _enter(
        self,
        stack: AsyncExitStack,
        attempts: Attempts,
        opening: Callable[[Seat], AbstractAsyncContextManager[T]],
    ) -> T:
        async def enter(seat: Seat) -> T:
            return await stack.enter_async_context(opening(seat))

        return await self._repeat(attempts, enter)

    async def _next(self, attempts: Attempts) -> Seat:
        """Wait for a session that the call has not been tried on in this round.

        1. Take a session that was not tried.
        2. If there are sessions, and all were tried, begin another round after a random pause, or
           when an instance changes.
        3. If there is none, wait for one, for ``patience`` seconds in all.
        """
        self._owner.check()
        seat = self._balancer.choose_other(attempts.tried)
        if seat is not None and not self._balancer.is_over:
            return seat
        await trio.lowlevel.checkpoint()  # a caller that tries again and again stops nobody else
        self._check_hope(attempts)
        if self._waiting >= self._max_waiting:
            text = f"{self._waiting} calls wait for an instance, and max_waiting allows no more"
            raise attempts.explain(Overloaded(text))
        until = attempts.until(trio.current_time() + self._patience)
        self._waiting += 1
        try:
            with trio.CancelScope(deadline=until):
                while True:
                    self._check_hope(attempts)
                    seat = self._balancer.choose_other(attempts.tried)
                    if seat is not None:
                        return seat
                    await self._pause(attempts)
        finally:
            self._waiting -= 1
        raise self._unavailable(attempts, f"no instance within {self._patience:g} s")

    async def _pause(self, attempts: Attempts) -> None:
        """Wait for an instance; or for some time, if each was tried in this round."""
        if self._balancer.is_empty:
            attempts.begin_round()
            await self._balancer.wait_changed()
            return
        asked = attempts.begin_round() * random.uniform(1, 1.5)  # noqa: S311 - it is not a secret
        await trio.sleep(max(asked, full_jitter(attempts.pauses, FIRST_PAUSE, MAX_PAUSE)))
        attempts.pauses += 1

    def _check_hope(self, attempts: Attempts) -> None:
        """Raise if waiting is of no use."""
        if self._balancer.is_over:
            raise attempts.explain(SessionClosed("this pool is closed", fate=Fate.NOT_STARTED))
        if self._balancer.is_empty and self._roster.is_hopeless:
            raise self._unavailable(attempts, "no instance is left, and none will be added")

    def _unavailable(self, attempts: Attempts, text: str) -> Unavailable:
        text = f"{text} for {attempts.method.title}: {self._roster.describe()}"
        return attempts.explain(Unavailable(text))

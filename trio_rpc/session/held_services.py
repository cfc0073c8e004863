"""Services that are async context managers: entered, held and left, each by a task of its own.

A service may open a nursery when it is entered. So one task enters it, waits, and leaves it:

1. The task is shielded, so that a cancellation from outside, which also cancels the handlers, does
   not leave the service before them.
2. It enters the service. The owner, which bounds that in time, may cancel it.
3. It waits until the owner says :meth:`HeldService.leave`, and then until the service is free: its
   handlers have ended, and the services that were entered after it have been left.
4. It leaves the service within a bounded time. If the session broke, ``__aexit__`` gets the error.

An error of the service itself, such as that of a task in its nursery, is raised in the task.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import trio

from trio_rpc.util.one_exception import one_exception, raise_alone
from trio_rpc.util.raised import check_repr
from trio_rpc.util.rate_limited_log import RateLimitedLog

__all__ = ["HeldService", "held_services"]


class HeldService:
    """One service that is an async context manager, and the task that holds it.

    Args:
        service: the service.
        patience: seconds that leaving it may take.
        complaints: logs that it took longer.

    Attributes:
        has_begun: set when it has been entered, or could not be.
        has_left: set when it has been left, or could not be entered.
    """

    def __init__(self, service: object, patience: float, complaints: RateLimitedLog) -> None:
        self.has_begun = trio.Event()
        self.has_left = trio.Event()
        self._service: Any = service
        self._patience = patience
        self._complaints = complaints
        self._leaving = trio.Event()
        self._scope = trio.CancelScope(shield=True)
        self._is_entered = False
        self._error: Exception | None = None

    def leave(self) -> None:
        """Leave the service once it is free; give up entering it, or do not begin to."""
        self._leaving.set()
        if not self._is_entered:
            self._scope.cancel(reason="the service is no longer wanted")

    async def hold(
        self,
        entered: Callable[[], None],
        until_free: Callable[[], Awaitable[None]],
        why_broken: Callable[[], Exception | None],
    ) -> None:
        """Enter the service, wait, and leave it.

        Args:
            entered: called when it has been entered, and need not be left at once.
            until_free: waits until it may be left.
            why_broken: returns the error for ``__aexit__``, or None.

        Raises:
            Exception: an error of the service, unless it is the one that it was given.
        """
        try:
            with self._scope:
                if not self._leaving.is_set():
                    await self._hold(entered, until_free, why_broken)
        except BaseException as exc:
            rest = _without(exc, self._error)
            if rest is not None:
                check_repr(rest)
            if rest is exc:
                raise
            if rest is not None:
                raise_alone(rest)
        finally:
            self._error = None  # its traceback holds frames that hold this object
            self.has_begun.set()
            self.has_left.set()
        if self._scope.cancelled_caught and self._scope.deadline < math.inf:
            text = "a service of type %s was not left within %g s, and is cancelled"
            kind = type(self._service).__name__
            self._complaints.log(logging.WARNING, text, kind, self._patience)

    async def _hold(
        self,
        entered: Callable[[], None],
        until_free: Callable[[], Awaitable[None]],
        why_broken: Callable[[], Exception | None],
    ) -> None:
        async with self._service:
            self._is_entered = True
            self.has_begun.set()
            if not self._leaving.is_set():
                entered()
            await self._leaving.wait()
            await until_free()
            self._scope.deadline = trio.current_time() + self._patience
            self._error = why_broken()
            if self._error is not None:
                raise self._error


def _without(exc: BaseException, error: Exception | None) -> BaseException | None:
    """Return the exception without ``error``, or None if nothing remains."""
    if exc is error:
        return None
    if error is None or not isinstance(exc, BaseExceptionGroup):
        return exc
    return exc.split(lambda each: each is error)[1]


@contextlib.asynccontextmanager
async def held_services(
    services: Sequence[object], patience: float, complaints: RateLimitedLog
) -> AsyncIterator[None]:
    """Hold services for the duration of a block: enter all in order, and leave them in reverse.

    Args:
        services: async context managers.
        patience: seconds that leaving one of them may take.
        complaints: logs that one took longer.
    """
    if not services:
        yield
        return
    held: list[HeldService] = []

    async def until_last(mine: HeldService) -> None:
        for other in held[held.index(mine) + 1 :]:
            await other.has_left.wait()

    with one_exception() as body:
        async with trio.open_nursery() as nursery:
            try:
                for service in services:
                    one = HeldService(service, patience, complaints)
                    held.append(one)
                    until_free = functools.partial(until_last, one)
                    nursery.start_soon(one.hold, _nothing, until_free, _nothing)
                    await one.has_begun.wait()
                    await trio.lowlevel.checkpoint_if_cancelled()  # if it could not be entered
                yield
            except BaseException as exc:
                body.append(exc)
                raise
            finally:
                for one in held:
                    one.leave()


def _nothing() -> None:
    """Do nothing, and return no error."""

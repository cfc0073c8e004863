"""Trio inside the event loop of a host on asyncio, such as uvicorn: Trio's guest mode.

Both share one thread, and take turns in the host's loop. So plain functions of either can be called
from the other one, and only an ``await`` has to be carried across:

- :func:`run_in_trio` awaits a Trio function from asyncio. The gateway runs each ASGI connection so.
- :func:`run_in_asyncio` awaits a function of asyncio from Trio. The connection's ``receive`` and
  ``send`` are such functions.

A loop can have one guest run only:

1. The first gateway that is run in a loop starts the guest run, or uses one that is there.
2. More gateways use the same :class:`AsyncioHost`, which the run holds in a ``RunVar``.
3. When the last one has left, the remaining connections get ``GOODBYE_TIMEOUT`` seconds. Then the
   guest run ends, if it was started here.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar, TypeVarTuple

import trio
from outcome import Outcome

__all__ = ["AsyncioHost", "entered_in_trio", "is_asyncio", "run_in_asyncio", "run_in_trio"]

logger = logging.getLogger("trio_rpc.gateway")

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

GOODBYE_TIMEOUT = 1
"""Seconds that connections have to end by themselves when the last gateway has ended."""

LINGER = 1
"""Turns for which a Trio task that waits for asyncio stays runnable.

While no Trio task is runnable, a thread waits for Trio's events, and waking it costs two switches
between threads. Most awaits of a host's ``receive`` and ``send`` end within one turn of its loop,
so they need no thread.
"""

NO_HOST = "no gateway is running in an event loop of asyncio here"


def is_asyncio() -> bool:
    """Return whether the caller is a coroutine of asyncio, and not a Trio task."""
    if trio.lowlevel.in_trio_task():
        return False
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class AsyncioHost:
    """An event loop of asyncio, and the Trio nursery for the work that it gives to Trio.

    Args:
        loop: the event loop.

    Attributes:
        users: the number of gateways that run in it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.users = 0
        self._loop = loop
        self._nursery: trio.Nursery
        self._stop = trio.Event()
        self._started: asyncio.Future[None] = loop.create_future()
        self._ended: asyncio.Future[None] = loop.create_future()

    # ── its life, on the side of asyncio ─────────────────────────────────────────────────────

    async def start(self) -> None:
        """Start the nursery in the guest run of this loop. Start the run first if it is missing."""
        if trio.lowlevel.in_trio_run():
            trio.lowlevel.spawn_system_task(self._run_as_system_task)
        else:
            trio.lowlevel.start_guest_run(
                self._main,
                run_sync_soon_threadsafe=self._loop.call_soon_threadsafe,
                run_sync_soon_not_threadsafe=self._loop.call_soon,
                done_callback=self._guest_run_ended,
                host_uses_signal_set_wakeup_fd=True,
            )
        _HOST.set(self)
        await _until(self._started)

    async def stop(self) -> None:
        """End the nursery, and the guest run if it was started here; wait for the end."""
        self._stop.set()
        await _until(self._ended)

    @property
    def is_stopping(self) -> bool:
        """Whether the last gateway has left, or the nursery has ended."""
        return self._stop.is_set()

    async def wait_ended(self) -> None:
        """Wait until the nursery, or the guest run, has ended."""
        await _until(self._ended)

    async def _main(self) -> None:
        """Hold the nursery. None of its tasks raises: their exceptions belong to their callers."""
        try:
            async with trio.open_nursery() as self._nursery:
                self._started.set_result(None)
                await self._stop.wait()
                self._nursery.cancel_scope.deadline = trio.current_time() + GOODBYE_TIMEOUT
        finally:
            self._stop.set()
            _HOST.set(None)

    async def _run_as_system_task(self) -> None:
        try:
            await self._main()
        finally:
            self._ended.set_result(None)

    def _guest_run_ended(self, result: Outcome[None]) -> None:
        self._ended.set_result(None)
        result.unwrap()  # a KeyboardInterrupt ends the host's loop

    # ── from asyncio to Trio, and back ───────────────────────────────────────────────────────

    async def run_in_trio(self, function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
        """Await a Trio function from asyncio; see :func:`run_in_trio`."""
        done: asyncio.Future[T] = self._loop.create_future()
        scope = trio.CancelScope()

        async def run() -> None:
            try:
                with scope:
                    done.set_result(await function(*args))
            except trio.Cancelled:  # the host is stopping
                raise
            except BaseException as exc:  # noqa: BLE001 - it belongs to the caller
                done.set_exception(exc)
            finally:
                if not done.done():
                    done.cancel()

        self._nursery.start_soon(run, name=getattr(function, "__qualname__", None))
        await _until(done, lambda: scope.cancel(reason="its task of asyncio was cancelled"))
        return done.result()

    async def run_in_asyncio(self, function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
        """Await a function of asyncio from Trio; see :func:`run_in_asyncio`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        caller = trio.lowlevel.current_task()
        raise_cancelled: Callable[[], Any] | None = None

        async def run() -> T:
            return await function(*args)

        task = self._loop.create_task(run(), context=contextvars.copy_context())

        def wake(_task: object) -> None:
            trio.lowlevel.reschedule(caller)

        def abort(raise_: Callable[[], Any]) -> trio.lowlevel.Abort:
            nonlocal raise_cancelled
            raise_cancelled = raise_
            task.cancel()
            return trio.lowlevel.Abort.FAILED  # it goes on when the task has ended (law 2)

        for _ in range(LINGER):
            await trio.lowlevel.cancel_shielded_checkpoint()
            if task.done():
                break
        else:
            task.add_done_callback(wake)
            await trio.lowlevel.wait_task_rescheduled(abort)
        if not task.cancelled():
            return task.result()  # also a result that has won the race (law 3)
        if raise_cancelled is not None:
            raise_cancelled()
        raise RuntimeError("the host's loop cancelled the task that this one waits for")


_HOST: trio.lowlevel.RunVar[AsyncioHost | None] = trio.lowlevel.RunVar(
    "trio_rpc.gateway.asyncio_host"
)


def _current_host() -> AsyncioHost | None:
    try:
        return _HOST.get(None)
    except RuntimeError:  # there is no Trio run in this thread
        return None


async def _until(
    future: asyncio.Future[Any], on_cancel: Callable[[], object] = lambda: None
) -> None:
    """Wait until a future is done, even if this task is cancelled; then raise the cancellation."""
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as exc:
            cancelled = exc
            on_cancel()
    if cancelled is not None:
        if not future.cancelled():
            future.exception()  # otherwise asyncio logs that nobody has looked
        raise cancelled


async def _join() -> AsyncioHost:
    """Return the host of this loop, made if there is none, with one user more."""
    host = _current_host()
    while host is not None and host.is_stopping:
        await host.wait_ended()
        host = _current_host()
    if host is None:
        host = AsyncioHost(asyncio.get_running_loop())
        host.users += 1
        await host.start()
    else:
        host.users += 1
    return host


@contextlib.asynccontextmanager
async def entered_in_trio(
    block: Callable[[], AbstractAsyncContextManager[None]],
) -> AsyncIterator[AsyncioHost]:
    """Enter a context manager of Trio from asyncio, and leave it at the end of this block.

    It is entered and left in one Trio task. If its body is cancelled, which means that a task of
    its nursery has failed, the exception is logged at once, and raised at the end of this block.

    Args:
        block: makes the context manager.

    Yields the host, for :meth:`AsyncioHost.run_in_trio`.
    """
    host = await _join()
    entered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    leave = trio.Event()

    async def keep() -> None:
        try:
            async with block():
                entered.set_result(None)
                await leave.wait()
        except Exception:
            logger.exception("a gateway has failed, and answers no more requests")
            raise

    try:
        task = asyncio.ensure_future(host.run_in_trio(keep))
        try:
            await asyncio.wait([task, entered], return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                yield host
        finally:
            leave.set()
            await _until(task)
        task.result()
    finally:
        host.users -= 1
        if not host.users:
            await host.stop()


async def run_in_trio(function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
    """Await a Trio function from a coroutine of asyncio, in an application that runs a gateway.

    Cancelling the coroutine cancels the function, and waits for its end.

    Args:
        function: an async function of Trio.
        *args: its arguments.

    Raises:
        RuntimeError: no gateway is running in this event loop.
        Exception: an exception of the function.
    """
    host = _current_host()
    if host is None or not is_asyncio():
        raise RuntimeError(NO_HOST)
    return await host.run_in_trio(function, *args)


async def run_in_asyncio(function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
    """Await a function of asyncio from a Trio task, such as the handler of a gateway's call.

    The function runs in the event loop of the host, as a task with a copy of this context. When the
    Trio task is cancelled, that task is cancelled, and this returns when it has ended. A result
    that has won the race is returned.

    Args:
        function: an async function of asyncio. It runs to its end in one task: enter and leave
            context managers of asyncio inside of it.
        *args: its arguments.

    Raises:
        RuntimeError: the application is not a host on asyncio, or the host's loop has cancelled
            the function.
        Exception: an exception of the function.

    Example:
        >>> class Shop:
        ...     @trio_rpc.method
        ...     async def stock(self, item: str) -> int:
        ...         async def query() -> int:  # uses a driver for asyncio
        ...             await asyncio.sleep(0)
        ...             return 7
        ...
        ...         return await trio_rpc.gateway.run_in_asyncio(query)
    """
    host = _current_host()
    if host is None or not trio.lowlevel.in_trio_task():
        raise RuntimeError(NO_HOST)
    return await host.run_in_asyncio(function, *args)

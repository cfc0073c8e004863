"""A child process that is started again when it ends, and a client of the service in it.

Theory of operation
===================

One task starts the process, runs a session with it until that ends, reaps it, waits, and starts
the next one. The :class:`ServiceClient` has one proxy for all of these sessions, and its calls wait
while no session is open. A call in flight raises with its fate when its session ends.

The task ends in three ways:

- The block is over. Its session is closed in order, and so is the process.
- The process has ended too often. That is the end of a session (law 17): the body is cancelled, and
  the block raises SessionBroken, unless the body raises its own exception.
- No process can serve: the command cannot be started, the session is refused, or the program does
  not speak the protocol. The body is cancelled, and the block raises that error, even if the body
  raises the error of a call, which only reports it.

Objects that stay (the client, the state) refer to errors without frames only, so that no cycle is
left for the garbage collector.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Generic, TypeVar, Unpack, overload

import trio

from trio_rpc.channels.process import ProcessChannel, check_command, open_process_channel
from trio_rpc.channels.supervised import Patience
from trio_rpc.errors import (
    Fate,
    Refused,
    RemoteProtocolError,
    RpcError,
    SessionBroken,
    SessionClosed,
)
from trio_rpc.one_to_one.process_states import CurrentState, ProcessState, ProcessStates
from trio_rpc.one_to_one.restart import Restart, Restarts
from trio_rpc.one_to_one.service_client import ServiceClient
from trio_rpc.services.proxies import Proxy
from trio_rpc.session.end import SessionEnd
from trio_rpc.session.options import SessionOptions, check_options
from trio_rpc.session.session import Session
from trio_rpc.util.one_exception import one_exception
from trio_rpc.util.places import catching, keep_all_places
from trio_rpc.util.reconnect import keep_connected

__all__ = ["KeptProcess", "keep_open", "keep_process"]

T = TypeVar("T")


class KeptProcess(Generic[T]):
    """A child process that is started again when it ends. :func:`keep_process` makes it."""

    def __init__(self, client: ServiceClient[T], current: CurrentState) -> None:
        self._client = client
        self._current = current

    def __repr__(self) -> str:
        session = self._client.session
        return f"<trio_rpc.KeptProcess, {self.state.kind}{f', {session}' if session else ''}>"

    @property
    def proxy(self) -> T:
        """The proxy of the service in the process, also for each new process."""
        return self._client.proxy

    @property
    def session(self) -> Session | None:
        """The session with the process that runs now, or None.

        Closing it with :meth:`Session.aclose` ends this process, and the next one is started.
        """
        return self._client.session

    @property
    def target(self) -> object:
        """The service for the process, as :attr:`ServiceClient.target`; it may be set at any time.

        Raises:
            TypeError: when it is set: it is not a service. The previous target remains.
        """
        return self._client.target

    @target.setter
    def target(self, target: object) -> None:
        self._client.target = target

    @property
    def state(self) -> ProcessState:
        """The current state."""
        return self._current.state

    def states(self) -> AsyncIterator[ProcessState]:
        """Iterate over the states of the process, from the current one on.

        The iteration ends after "failed", or when the block is over. A slow reader misses states.

        Example:
            >>> async def watch(plugin: trio_rpc.KeptProcess[trio_rpc.Proxy]) -> None:
            ...     async for state in plugin.states():
            ...         print(state.kind, state.end.reason if state.end else "")
        """
        self._current.owner.check()
        return ProcessStates(self._current)


@overload
def keep_process(
    command: Sequence[str | os.PathLike[str]],
    interface: None = None,
    target: object = None,
    *,
    restart: Restart = ...,
    name: str = "",
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    goodbye_time: float = 5.0,
    terminate_time: float = 5.0,
    max_waiting: int = 1024,
    **options: Unpack[SessionOptions],
) -> contextlib.AbstractAsyncContextManager[KeptProcess[Proxy]]: ...
@overload
def keep_process(
    command: Sequence[str | os.PathLike[str]],
    interface: Callable[..., T],
    target: object = None,
    *,
    restart: Restart = ...,
    name: str = "",
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    goodbye_time: float = 5.0,
    terminate_time: float = 5.0,
    max_waiting: int = 1024,
    **options: Unpack[SessionOptions],
) -> contextlib.AbstractAsyncContextManager[KeptProcess[T]]: ...
@contextlib.asynccontextmanager
async def keep_process(
    command: Sequence[str | os.PathLike[str]],
    interface: Any = None,
    target: object = None,
    *,
    restart: Restart = Restart(),  # noqa: B008 - it is frozen
    name: str = "",
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    goodbye_time: float = 5.0,
    terminate_time: float = 5.0,
    max_waiting: int = 1024,
    **options: Unpack[SessionOptions],
) -> AsyncIterator[KeptProcess[Any]]:
    """Start a program that calls :func:`serve_parent`, and start it again when it ends.

    The block is entered at once, and the process is started meanwhile. Calls of the proxy wait
    while no process serves, and then go out in order. A call in flight when a process ends raises,
    and its ``fate`` says whether the handler ran. It is not repeated.

    Each end of a session, an orderly one included, leads to a restart if ``restart`` allows it.
    Otherwise the body is cancelled, and the block raises SessionBroken (law 17). Then
    waiting and later calls raise SessionBroken with the fate NOT_STARTED.

    Leaving the block closes the session and ends the process, as :func:`open_process` does.

    Args:
        command: as in :func:`open_process`.
        interface: the class that declares the methods of the process's service, as in
            :class:`ServiceClient`.
        target: the service for the process, as in :class:`ServiceClient`, or None.
        restart: how often the process is started again, and after which delays.
        name: as in :func:`open_process`.
        env: as in :func:`open_process`.
        cwd: as in :func:`open_process`.
        goodbye_time: seconds from the end of a session to SIGTERM.
        terminate_time: seconds from SIGTERM to SIGKILL.
        max_waiting: the number of calls that may wait, as in :class:`ServiceClient`.
        **options: as in :func:`open_process`, for each session.

    Raises:
        OSError: the program cannot be started, the first time or again; there is no other attempt.
        SessionBroken: the process has ended, and ``restart`` does not allow another one. The text
            says how the last one ended.
        Refused: one of the ends refused the session; there is no other attempt.
        RemoteProtocolError: the program does not speak the protocol; there is no other attempt.
        TypeError: an argument or an option has the wrong type, or the option does not exist.
        ValueError: an argument or an option has a value that is not allowed.
    """
    check_options(keep_process, options)
    if not isinstance(restart, Restart):
        raise TypeError(f"restart must be a Restart, not {restart!r:.200}")
    words = check_command(command)
    Patience(goodbye=goodbye_time, terminate=terminate_time)  # so that a wrong time raises here
    client: ServiceClient[Any] = ServiceClient(
        interface, target, max_waiting=max_waiting, grace=math.inf, **options
    )
    opens = functools.partial(
        open_process_channel,
        words,
        name=name,
        env=env,
        cwd=cwd,
        limits=client.limits,
        goodbye_time=goodbye_time,
        terminate_time=terminate_time,
    )
    async with keep_open(opens, client, restart) as kept:
        yield kept


@contextlib.asynccontextmanager
async def keep_open(
    open_channel: Callable[[], contextlib.AbstractAsyncContextManager[ProcessChannel]],
    client: ServiceClient[T],
    restart: Restart,
) -> AsyncIterator[KeptProcess[T]]:
    """Keep a client connected with a process, while the block lasts.

    Args:
        open_channel: starts a process, and owns it and the channel to it.
        client: the client, whose grace is unlimited.
        restart: when to start another process.
    """
    keeper = _Keeper(open_channel, client, restart)
    client.expect()
    try:
        with one_exception() as raised:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(keeper.run, name="trio_rpc kept process")
                try:
                    with keeper.body:
                        yield KeptProcess(client, keeper.current)
                except BaseException as exc:
                    raised.append(exc)
                    raise
                await keeper.leave()
    finally:
        keeper.end()


class _Body:
    """The body of the block: a failure cancels it, and is raised at its end."""

    def __init__(self) -> None:
        self._failure: Exception | None = None
        self._replaced: Exception | None = None
        self._scope = trio.CancelScope()
        self._catching = catching(self._scope)

    def fail(self, failure: Exception, *, replacing: Exception | None = None) -> None:
        """Raise an exception at the end of the body, if :meth:`cancel` ends it.

        Args:
            failure: the exception.
            replacing: ``failure`` is also raised in place of an error of the body with this cause.
        """
        self._failure, self._replaced = failure, replacing

    def cancel(self) -> None:
        """Cancel the body. No frame of the caller may refer to the failure."""
        self._scope.cancel(reason="the process of this block will not be started again")

    def __enter__(self) -> None:
        self._catching.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        goes_on = self._catching.__exit__(kind, exc, traceback)
        failure, self._failure = self._failure, None
        try:
            if failure is not None and (self._scope.cancelled_caught or self._only_reports(exc)):
                raise failure from failure.__cause__  # not from our own Cancelled
        finally:
            del failure, exc, traceback  # they hold this frame
        return goes_on

    def _only_reports(self, exc: BaseException | None) -> bool:
        """Tell whether an error of the body is that of a call, and only reports the failure."""
        cause = exc.__cause__ if isinstance(exc, SessionBroken) else None
        return cause is not None and cause is self._replaced


class _Keeper:
    """Starts a process, and another one whenever it ends.

    Args:
        open_channel: as in :func:`keep_open`.
        client: as in :func:`keep_open`.
        restart: as in :func:`keep_open`.

    Attributes:
        current: the current state.
        body: the body of the block.
    """

    def __init__(
        self,
        open_channel: Callable[[], contextlib.AbstractAsyncContextManager[ProcessChannel]],
        client: ServiceClient[Any],
        restart: Restart,
    ) -> None:
        self.current = CurrentState()
        self.body = _Body()
        self._open_channel = open_channel
        self._client = client
        self._restart = restart
        self._restarts = Restarts(restart)
        self._scope = trio.CancelScope()
        """The task that starts processes."""
        self._error: Callable[[Fate], RpcError] | None = None
        """Makes the errors after a failure."""
        self._opened_at = math.inf
        """The time when the session with this process opened."""
        self._is_leaving = False

    # ── the block ────────────────────────────────────────────────────────────────────────────

    async def leave(self) -> None:
        """Close the session and end the process, since the body is over."""
        self._is_leaving = True
        if (session := self._client.session) is None:
            self._scope.cancel(reason="the block is over")
        else:
            await session.aclose()  # then the task ends the process, and itself

    def end(self) -> None:
        """Make all calls raise, since the block is over."""
        self.current.stay()
        error = self._error or _closed
        self._client.fail(functools.partial(error, Fate.NOT_STARTED), is_final=True)

    # ── the task ─────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Start processes until the block is over, or until another one would be of no use."""
        with self._scope:
            try:
                await keep_connected(
                    self._use,
                    first_delay=self._restart.first_delay,
                    max_delay=self._restart.max_delay,
                )
            except OSError as exc:
                self._cannot_serve(exc, SessionEnd("us", str(exc), _copy(exc)))
            self._stop_if_failed()

    async def _use(self) -> bool:
        """Start a process and use it until it ends; return whether it lasted for some time."""
        if self.current.state.end is not None:
            self._restarts.count()
        self._opened_at = math.inf
        async with self._open_channel() as channel:
            await self._listen(channel)
            self._stop_if_failed()
            lasted = trio.current_time() - self._opened_at > self._restart.max_delay
            # After a failure, the process gets less time to end.
            await trio.lowlevel.checkpoint_if_cancelled()
        if self._is_leaving:
            self._scope.cancel(reason="the block is over")
        return lasted

    async def _listen(self, channel: ProcessChannel) -> None:
        """Run a session with the process until it ends, and decide about a next one."""
        core = self._client.new_core(channel, channel.name)
        try:
            self._ended(await self._client.run(core, self._opened))
        except (SessionBroken, SessionClosed):  # before it was open
            self._ended(core.lifecycle.record())
        except (Refused, RemoteProtocolError) as exc:
            self._cannot_serve(exc, core.lifecycle.record())

    def _opened(self, _session: Session) -> None:
        self._opened_at = trio.current_time()
        self.current.enter(ProcessState("running"))

    def _ended(self, end: SessionEnd) -> None:
        """Decide, at the end of a session, whether there will be another one."""
        if self._is_leaving:
            return
        if not self._restarts.are_used_up:
            self.current.enter(ProcessState("restarting", end))
            return
        policy = self._restart
        text = (
            f"the process is not started again ({policy.times} restarts within {policy.within:g} s "
            f"are allowed): {end.reason}"
        )
        self._fail(functools.partial(_broken, text, end.cause), end)
        self.body.fail(_broken(text, end.cause, Fate.UNKNOWN))

    def _cannot_serve(self, exc: Exception, end: SessionEnd) -> None:
        """Fail, since another process cannot serve either."""
        keep_all_places(exc)
        self._fail(functools.partial(_broken, f"no process can be used: {exc}", end.cause), end)
        self.body.fail(exc, replacing=end.cause)

    def _fail(self, error: Callable[[Fate], RpcError], end: SessionEnd) -> None:
        self._error = error
        self._client.fail(functools.partial(error, Fate.NOT_STARTED), is_final=True)
        self.current.enter(ProcessState("failed", end))

    def _stop_if_failed(self) -> None:
        """Cancel the body and this task after a failure.

        This is not part of :meth:`_fail`, since the Cancelled of the body refers to all frames that
        lead to the cancellation. None of them may refer to the exception that the block raises.
        """
        if self.current.state.kind == "failed":
            self.body.cancel()
            self._scope.cancel(reason="the process will not be started again")


def _broken(text: str, cause: Exception | None, fate: Fate) -> RpcError:
    error = SessionBroken(text, fate=fate, orderly=cause is None)
    error.__cause__ = cause
    return error


def _closed(fate: Fate) -> RpcError:
    return SessionClosed("the process was closed by this end", fate=fate)


def _copy(exc: OSError) -> OSError:
    """Copy an error without its traceback, whose frames refer to the client."""
    copy = type(exc)(*exc.args)
    copy.errno = exc.errno
    return copy

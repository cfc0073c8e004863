"""A service client: one service at each end of a connection that may not exist yet."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any, Generic, TypeVar, Unpack, overload

import trio

from trio_rpc.errors import Fate, Refused, RpcError, SessionBroken, SessionClosed
from trio_rpc.one_to_one.waiting_calls import WaitingCalls
from trio_rpc.services.aliases import class_of
from trio_rpc.services.proxies import Proxy
from trio_rpc.services.registration import Services
from trio_rpc.session.core import Core
from trio_rpc.session.end import SessionEnd
from trio_rpc.session.lifecycle import Lifecycle
from trio_rpc.session.opening import make_tables, run_session
from trio_rpc.session.options import SessionOptions, make_options
from trio_rpc.session.session import Session
from trio_rpc.util.conflict_detector import ConflictDetector
from trio_rpc.util.numbers import check_count, check_not_negative
from trio_rpc.wire.limits import Limits

__all__ = ["ServiceClient", "check_packets"]

T = TypeVar("T")


class ServiceClient(Generic[T]):
    """One service at each end of a connection that may not exist yet.

    Its :attr:`proxy` can be used at once. :meth:`listen` runs a session over a channel. Calls that
    are made before it is open wait, and then go out in the order in which they were made. After the
    session has ended, another one can be opened with :meth:`listen`.

    A call that waits is bounded by the deadline of its caller. A call that was passed to a session
    is never repeated: if the session ends, it raises, and its ``fate`` says whether the handler
    ran.

    Args:
        interface: the class that declares the methods of the service at the other end, as in
            :meth:`Session.proxy`. None leaves names, arguments and results unchecked.
        target: the service for the other end, whose class has decorated methods, or None.
        max_waiting: the number of calls that may wait. One more raises :class:`Overloaded`.
        grace: seconds after the end of a session in which calls wait for the next one. With 0 they
            raise at once, as calls of the session do.
        **options: as in :func:`open_session`, for each session.

    Raises:
        TypeError: ``interface`` has no decorated methods, or ``target`` is not a service; or an
            option does not exist, or ``max_waiting`` or ``grace`` is not a number.
        ValueError: ``max_waiting`` or ``grace`` is negative.

    Example:
        >>> class Greeter:
        ...     @trio_rpc.method
        ...     async def greet(self, name: str) -> str:
        ...         return f"hello, {name}"
        >>> async def main() -> None:
        ...     ours, theirs = trio_rpc.channels.memory_channel_pair()
        ...     client = trio_rpc.ServiceClient(Greeter)
        ...     async with trio.open_nursery() as nursery:
        ...         nursery.start_soon(trio_rpc.serve_session, theirs, Greeter())
        ...         nursery.start_soon(client.listen, ours)
        ...         print(await client.proxy.greet("Ann"))
        ...         nursery.cancel_scope.cancel()
        >>> trio.run(main)
        hello, Ann
    """

    @overload
    def __init__(
        self: ServiceClient[Proxy],
        interface: None = None,
        target: object = None,
        *,
        max_waiting: int = 1024,
        grace: float = 0.0,
        **options: Unpack[SessionOptions],
    ) -> None: ...
    @overload
    def __init__(
        self,
        interface: Callable[..., T],
        target: object = None,
        *,
        max_waiting: int = 1024,
        grace: float = 0.0,
        **options: Unpack[SessionOptions],
    ) -> None: ...
    def __init__(
        self,
        interface: Any = None,
        target: object = None,
        *,
        max_waiting: int = 1024,
        grace: float = 0.0,
        **options: Unpack[SessionOptions],
    ) -> None:
        self._options = make_options(ServiceClient, options)
        check_count("max_waiting", max_waiting)
        check_not_negative("grace", grace)
        self._calls = WaitingCalls(max_waiting, grace)
        self._proxy: Any = Proxy(self._calls, "", interface)
        self._interface = interface
        self._listening = ConflictDetector("this service client is listening to another channel")
        self._served: Session | None = None
        self._target: object = None
        self.target = target

    def __repr__(self) -> str:
        name = "" if self._interface is None else f" of {class_of(self._interface).__name__}"
        return f"<trio_rpc.ServiceClient{name}, {self._calls.session or 'not connected'}>"

    @property
    def proxy(self) -> T:
        """The proxy of the service at the other end, which can be used before it is connected."""
        return self._proxy  # type: ignore[no-any-return]

    @property
    def limits(self) -> Limits:
        """The limits of this end, for each session."""
        return self._options.limits

    @property
    def session(self) -> Session | None:
        """The session that calls are made on now, or None."""
        return self._calls.session

    @property
    def target(self) -> object:
        """The service for the other end, or None.

        It may be set at any time. While a session is open, the other end's next call uses the
        new target, and calls that are running go on.

        A target that is an async context manager is entered before a session opens, and left when
        the session is over. If it is set while a session is open, it serves once it is entered.

        Raises:
            TypeError: when it is set: it is not a service. The previous target remains.
        """
        return self._target

    @target.setter
    def target(self, target: object) -> None:
        made = make_tables(None if target is None else {"": target}, self._options.registry)
        previous, self._target, self._make_services = self._target, target, made
        if self._served is not None:
            with contextlib.suppress(SessionClosed, SessionBroken):  # the session has just ended
                if previous is not None:
                    self._served.remove("")
                if target is not None:
                    self._served.set("", target)

    async def listen(
        self,
        channel: trio.abc.Channel[bytes],
        *,
        name: str = "",
        task_status: trio.TaskStatus[Session] = trio.TASK_STATUS_IGNORED,
    ) -> SessionEnd:
        """Run a session over ``channel`` until it ends, and return the record of its end.

        Calls that wait go out once the session is open. Start this in a nursery to go on meanwhile.
        A cancellation ends the session.

        Args:
            channel: a fresh channel of whole packets; the session owns it from now on.
            name: the name of the other end in logs and errors.
            task_status: gets the session once it is open.

        Raises:
            trio.BusyResourceError: this client is listening to another channel.
            Refused: one of the ends refused the session. Calls that wait also raise it, without
                waiting for another session.
            RemoteProtocolError: the other end does not speak the protocol.
            SessionBroken: the connection was lost, or the other end left, before the session was
                open.
        """
        return await self.run(self.new_core(channel, name or repr(channel)), task_status.started)

    def new_core(self, channel: trio.abc.Channel[bytes], name: str) -> Core:
        """Make a session over ``channel`` that does not run yet.

        :meta private:
        """
        return Core(channel, self._services_of, self._options, name)

    async def run(self, core: Core, opened: Callable[[Session], None]) -> SessionEnd:
        """Run a session until it ends, as :meth:`listen` does.

        :meta private:
        """
        self._calls.check_run()
        with self._listening:
            self._calls.begin()
            try:
                async with run_session(core, on_end="keep") as session:
                    self._calls.open(session)
                    opened(session)
                    return await session.wait_closed()
            finally:
                self._served = None
                is_final = isinstance(core.lifecycle.cause, Refused)
                self._calls.end(functools.partial(_error, core.lifecycle), is_final=is_final)

    def prepare(self) -> None:
        """Refuse calls of this task until :meth:`listen`: it makes the target.

        :meta private:
        """
        self._calls.prepare()

    def expect(self) -> None:
        """Make calls wait, since a channel will be there soon.

        :meta private:
        """
        self._calls.begin()

    def fail(self, error: Callable[[], RpcError], *, is_final: bool = False) -> None:
        """Make calls raise, or wait as long as they may, since there is no channel to listen to.

        :meta private:
        """
        self._calls.end(error, is_final=is_final)

    def _services_of(self, session: Session) -> Services:
        self._served = session  # from now on, a new target is also set in this session
        return self._make_services(session)


def _error(lifecycle: Lifecycle) -> RpcError:
    """Make the error of a call that was not made, because that session has ended."""
    if lifecycle.stage.was_open:
        return lifecycle.error(Fate.NOT_STARTED)
    error = lifecycle.opening_error()
    error.fate = Fate.NOT_STARTED
    return error


def check_packets(what: str, limits: Limits, connection: Limits) -> None:
    """Raise ValueError if a session accepts packets that its connection does not carry.

    Args:
        what: the owner of the session, for the text.
        limits: the limits of the session.
        connection: the limits of the connection.
    """
    if limits.max_packet > connection.max_packet:
        raise ValueError(
            f"{what} has max_packet={limits.max_packet}, and the connection only "
            f"max_packet={connection.max_packet}: give the connection larger limits"
        )

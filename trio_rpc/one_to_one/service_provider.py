"""A provider of proxies by path, over one connection that is made again when it is lost."""

from __future__ import annotations

import functools
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, Unpack, overload

import trio

from trio_rpc.channels import Forwarding, ForwardingChannel, Resume, connect_forwarding
from trio_rpc.channels.carriers import resume_settings
from trio_rpc.channels.errors import CHANNEL_ERRORS
from trio_rpc.channels.forwarding.frames import check_name
from trio_rpc.errors import (
    Fate,
    Refused,
    RemoteProtocolError,
    RpcError,
    SessionBroken,
    SessionClosed,
)
from trio_rpc.one_to_one.service_client import ServiceClient, check_packets
from trio_rpc.services.proxies import Proxy
from trio_rpc.session.options import SessionOptions, make_options
from trio_rpc.util.conflict_detector import ConflictDetector
from trio_rpc.util.one_exception import one_exception
from trio_rpc.util.owner import Owner
from trio_rpc.util.reconnect import keep_connected
from trio_rpc.util.time_limits import time_limit
from trio_rpc.wire.limits import Limits

__all__ = ["ServiceProvider"]

T = TypeVar("T")


class ServiceProvider:
    """Proxies of services by path, all over one connection, which is made again when it is lost.

    The server calls :func:`serve_connections`. A proxy can be made before there is a connection.
    :meth:`run` connects, and opens a channel for each path.

    When the connection is lost, it is made again, after a random delay that grows with each
    failure, and a channel is opened for each path again. The same holds for a channel that ends by
    itself. Calls in flight raise with their fate, unless ``resume`` carries them over. Calls made
    meanwhile raise, or wait for at most ``grace`` seconds. A path that the server refuses is opened
    again after the next connection. Until then its calls raise :class:`Refused`.

    Args:
        url: the server's address, as in :func:`connect`.
        ssl_context: as in :func:`connect`.
        resume: continue with all sessions and calls in flight when the connection is lost, as in
            :func:`connect`. Only if that fails does a new connection begin new sessions.
        max_waiting: as in :class:`ServiceClient`, for each proxy.
        grace: as in :class:`ServiceClient`, for each proxy.
        **options: as in :func:`open_session`, for each session. The limits are also those of the
            connection.

    Raises:
        TypeError: an option does not exist, or is of the wrong type.
        ValueError: ``max_waiting`` or ``grace`` is negative.

    Example:
        >>> async def main() -> None:
        ...     provider = trio_rpc.ServiceProvider("ws://localhost:8000", resume=True)
        ...     market = provider.proxy("market", Market)
        ...     async with trio.open_nursery() as nursery:
        ...         await nursery.start(provider.run)
        ...         print(await market.price("BTC"))
        ...         nursery.cancel_scope.cancel()
    """

    def __init__(
        self,
        url: str,
        *,
        ssl_context: ssl.SSLContext | None = None,
        resume: bool | Resume = False,
        max_waiting: int = 1024,
        grace: float = 0.0,
        **options: Unpack[SessionOptions],
    ) -> None:
        self._url = url
        self._ssl_context = ssl_context
        self._resume = resume_settings(resume)
        self._delays = self._resume or Resume()
        self._limits = make_options(ServiceProvider, options).limits
        self._max_waiting = max_waiting
        self._grace = grace
        self._options = options
        self._clients: dict[str, ServiceClient[Any]] = {}
        self._connection: _Connection | None = None
        self._owner: Owner | None = None
        """The run that :meth:`run` is called in, while it runs."""
        self._running = ConflictDetector("this service provider is running")
        self._new_client(None, None)  # so that a wrong argument raises here

    def __repr__(self) -> str:
        state = "not connected" if self._connection is None else "connected"
        return f"<trio_rpc.ServiceProvider of {self._url}, {len(self._clients)} paths, {state}>"

    @overload
    def proxy(self, path: str, interface: None = None, target: object = None) -> Proxy: ...
    @overload
    def proxy(self, path: str, interface: Callable[..., T], target: object = None) -> T: ...
    def proxy(self, path: str, interface: Any = None, target: object = None) -> Any:
        """Return the proxy of the service at ``path``, and open the channel when connected.

        Args:
            path: the path of the server's handler, with its parameters filled in.
            interface: the class that declares the methods of that service, as in
                :meth:`Session.proxy`.
            target: the service that the server may call over this channel, or None.

        Raises:
            ValueError: as for :meth:`add`.
            TypeError: the path is not a str; or as for :class:`ServiceClient`.
        """
        return self.add(path, self._new_client(interface, target)).proxy

    def _new_client(self, interface: Any, target: object) -> ServiceClient[Any]:
        return ServiceClient(
            interface,
            target,
            max_waiting=self._max_waiting,
            grace=self._grace,
            **self._options,
        )

    def add(self, path: str, client: ServiceClient[T]) -> ServiceClient[T]:
        """Connect a client of your own with the handler of ``path``; return it.

        Use this for a client whose options differ, or whose target is set later.

        Args:
            path: as in :meth:`proxy`.
            client: a client that is connected with nothing else. One that was removed may be added
                again.

        Raises:
            TypeError: the path is not a str.
            ValueError: there is a proxy for this path, the path is empty or too long, or the client
                accepts larger packets than the provider's connection.
        """
        self._check_run()
        check_name(path)
        check_packets(f"the client for {path!r}", client.limits, self._limits)
        if path in self._clients:
            raise ValueError(f"there is a proxy for the path {path!r}")
        self._clients[path] = client
        if self._connection is None:
            client.expect()  # it may have been removed before, and then its calls raise
        else:
            self._connection.add(path, client)
        return client

    def remove(self, path: str) -> None:
        """Close the channel of ``path``, and forget its proxy, whose calls raise from now on.

        The session says Goodbye, and its calls in flight raise :class:`SessionClosed`.

        Args:
            path: as in :meth:`proxy`. It may be used for another proxy.

        Raises:
            ValueError: there is no proxy for this path.
        """
        self._check_run()
        client = self._clients.pop(path, None)
        if client is None:
            raise ValueError(f"there is no proxy for the path {path!r}")
        if self._connection is None:
            client.fail(_removed, is_final=True)
        else:
            self._connection.remove(client)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Connect, and stay connected until cancelled.

        Start this in a nursery: ``await nursery.start(provider.run)`` returns when the first
        connection has been made. A cancellation ends all sessions.

        Args:
            task_status: gets None when the first connection has been made.

        Raises:
            OSError: the first connection could not be made; calls that wait still wait. Later ones
                are tried again.
            Refused: ``resume`` is given, and the server does not resume.
            ValueError: the URL is not valid.
            trio.BusyResourceError: this provider is running already.
        """
        self._check_run()
        with self._running:
            self._owner = Owner("this service provider, while it runs,")
            attempts = _Attempts(self._connect, task_status)
            for client in self._clients.values():
                client.expect()
            try:
                await keep_connected(
                    attempts.make,
                    first_delay=self._delays.first_delay,
                    max_delay=self._delays.max_delay,
                )
            finally:
                self._owner = None
                if attempts.have_connected:
                    for client in self._clients.values():
                        client.fail(_ended)

    def _check_run(self) -> None:
        """Raise RuntimeError in another Trio run than that of :meth:`run`."""
        if self._owner is not None:
            self._owner.check()

    async def _connect(self, connected: Callable[[], None]) -> None:
        """Make one connection, and use it until it is lost."""
        async with connect_forwarding(
            self._url,
            ssl_context=self._ssl_context,
            resume=self._resume or False,
            limits=self._limits,
        ) as forwarding:
            with one_exception():
                async with trio.open_nursery() as nursery:
                    connection = _Connection(forwarding, nursery, self._delays, self._limits)
                    try:
                        self._connection = connection
                        for path, client in self._clients.items():
                            connection.add(path, client)
                        connected()
                        await forwarding.wait_closed()
                    finally:
                        self._connection = None
                    nursery.cancel_scope.cancel(reason="the connection is lost")


class _Attempts:
    """Attempts to connect: the first one may raise, and later ones are tried again.

    Args:
        connect: makes a connection, says when it has, and uses it until it is lost.
        task_status: gets None when the first connection has been made.

    Attributes:
        have_connected: whether any attempt has made a connection.
    """

    def __init__(
        self,
        connect: Callable[[Callable[[], None]], Awaitable[None]],
        task_status: trio.TaskStatus[None],
    ) -> None:
        self.have_connected = False
        self._connect = connect
        self._task_status = task_status
        self._has_connected = False

    async def make(self) -> bool:
        """Make one attempt; return whether there was a connection."""
        self._has_connected = False
        try:
            await self._connect(self._connected)
        except (OSError, *CHANNEL_ERRORS):
            if not self.have_connected:
                raise
        return self._has_connected

    def _connected(self) -> None:
        self._has_connected = True
        if not self.have_connected:
            self.have_connected = True
            self._task_status.started()


class _Opened:
    """The channel of one client, from :meth:`_Connection.add` to its removal."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.ended = trio.Event()


class _Connection:
    """One connection to the server: keeps the channel of each path open while it lasts.

    Args:
        forwarding: opens the channels.
        nursery: runs a task for each path. Its cancellation ends the connection.
        delays: the delays before a channel that has ended by itself is opened again.
        limits: for ``handshake_timeout``.
    """

    def __init__(
        self, forwarding: Forwarding, nursery: trio.Nursery, delays: Resume, limits: Limits
    ) -> None:
        self._forwarding = forwarding
        self._nursery = nursery
        self._delays = delays
        self._limits = limits
        self._clients: dict[ServiceClient[Any], _Opened] = {}

    def add(self, path: str, client: ServiceClient[Any]) -> None:
        """Keep a channel for ``path`` open."""
        earlier, opened = self._clients.get(client), _Opened()
        self._clients[client] = opened
        self._nursery.start_soon(
            self._keep_open, path, client, opened, earlier, name=f"trio_rpc path {path}"
        )

    def remove(self, client: ServiceClient[Any]) -> None:
        """Close the channel of a client, and end its calls."""
        self._clients[client].scope.cancel(reason="its path has been removed")

    async def _keep_open(
        self, path: str, client: ServiceClient[Any], opened: _Opened, earlier: _Opened | None
    ) -> None:
        """Open the channel whenever it is not open, until the client is removed.

        A client that was removed and is added again first ends its earlier session.
        """
        if earlier is not None:
            await earlier.ended.wait()
            client.expect()
        with opened.scope as removed:
            try:
                await keep_connected(
                    functools.partial(self._use, path, client),
                    first_delay=self._delays.first_delay,
                    max_delay=self._delays.max_delay,
                )
            except Refused as exc:  # it is opened again over the next connection
                client.fail(functools.partial(Refused, str(exc)), is_final=True)
            await trio.sleep_forever()
        opened.ended.set()
        if removed.cancelled_caught and self._clients[client] is opened:
            del self._clients[client]
            client.fail(_removed, is_final=True)

    async def _use(self, path: str, client: ServiceClient[Any]) -> bool:
        """Open the channel, and use it until it ends; return whether it lasted for some time."""
        channel = await self._open(path, client)
        if channel is None:
            return False
        begun = trio.current_time()
        async with channel:
            try:
                await client.listen(channel, name=path)
            except (RemoteProtocolError, SessionBroken, SessionClosed):
                return False  # the client's calls raise it
        return trio.current_time() - begun > self._delays.max_delay

    async def _open(self, path: str, client: ServiceClient[Any]) -> ForwardingChannel | None:
        try:
            async with time_limit(self._limits.handshake_timeout, f"no answer for {path!r}"):
                return await self._forwarding.open(path)
        except (TimeoutError, *CHANNEL_ERRORS) as exc:
            client.fail(functools.partial(_not_opened, str(exc)))
            if isinstance(exc, TimeoutError) and not any(each.session for each in self._clients):
                self._nursery.cancel_scope.cancel(reason="the connection seems to be dead")
        return None


def _not_opened(reason: str) -> RpcError:
    return SessionBroken(f"the channel could not be opened: {reason}", fate=Fate.NOT_STARTED)


def _removed() -> RpcError:
    return SessionClosed("its path was removed from the service provider", fate=Fate.NOT_STARTED)


def _ended() -> RpcError:
    return SessionClosed("the service provider has ended", fate=Fate.NOT_STARTED)

"""A handler of connections: makes a client and its target for each channel of a path."""

from __future__ import annotations

import inspect
import ssl
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Any, Generic, TypeAlias, TypeVar, Unpack, cast, overload

import trio

from trio_rpc.channels import ChannelHandler, Resume, serve_forwarding
from trio_rpc.channels.forwarding.routes import parameters_of
from trio_rpc.one_to_one.service_client import ServiceClient, check_packets
from trio_rpc.services.proxies import Proxy
from trio_rpc.session.options import SessionOptions, check_options
from trio_rpc.util.time_limits import time_limit
from trio_rpc.wire.limits import DEFAULT_LIMITS, Limits

__all__ = ["ConnectionHandler", "serve_connections"]

T = TypeVar("T")

MakeTarget: TypeAlias = Callable[..., object]
"""Makes the target of a connection from the client's proxy; may be async."""


class ConnectionHandler(Generic[T]):
    """Serves each connection of one path with a target that can call its client.

    It is a handler of forwarded channels (:func:`serve_connections`), and it can be called with any
    fresh channel. For each channel it makes, in this order:

    1. a :class:`ServiceClient`,
    2. its proxy of the service at the other end,
    3. the target, by ``make_target(proxy, **parameters)``,
    4. the session, which lasts until the channel ends.

    ``make_target`` can keep the proxy, and the target can call it once the session is open. A
    target that is an async context manager is entered before, and left when the session is over.

    Args:
        path: the name by which clients open the channel. ``"plugins/{name}"`` has a parameter, as
            in :func:`trio_rpc.channels.open_forwarding`.
        make_target: a function of the proxy, and of the parameters by name, that returns the
            target. It may be async, and may then take ``limits.handshake_timeout`` seconds. To
            refuse the connection it raises :class:`Refused`; the client gets the reason.
        interface: the class that declares the methods of the client's own service, or None.
        make_client: is called with ``interface`` and the options, and makes the client.
        **options: as in :func:`open_session`.

    Attributes:
        path: the path.
        limits: the limits of this end, for each session.

    Raises:
        ValueError: ``path`` is not valid.
        TypeError: ``make_target`` cannot be called with the proxy and the parameters of ``path``;
            ``interface`` has no decorated methods; or an option does not exist.

    Example:
        >>> class Screen:
        ...     @trio_rpc.method
        ...     async def show(self, text: str) -> None:
        ...         print(text)
        >>> class Greeter:
        ...     def __init__(self, screen: Screen, name: str) -> None:
        ...         self.screen, self.name = screen, name
        ...     @trio_rpc.method
        ...     async def greet(self) -> None:
        ...         await self.screen.show(f"hello, {self.name}")
        >>> handler = trio_rpc.ConnectionHandler("greeters/{name}", Greeter, Screen)
    """

    @overload
    def __init__(
        self: ConnectionHandler[Proxy],
        path: str,
        make_target: MakeTarget,
        interface: None = None,
        *,
        make_client: Callable[..., ServiceClient[Any]] = ServiceClient,
        **options: Unpack[SessionOptions],
    ) -> None: ...
    @overload
    def __init__(
        self,
        path: str,
        make_target: MakeTarget,
        interface: Callable[..., T],
        *,
        make_client: Callable[..., ServiceClient[Any]] = ServiceClient,
        **options: Unpack[SessionOptions],
    ) -> None: ...
    def __init__(
        self,
        path: str,
        make_target: MakeTarget,
        interface: Any = None,
        *,
        make_client: Callable[..., ServiceClient[Any]] = ServiceClient,
        **options: Unpack[SessionOptions],
    ) -> None:
        _check_target(make_target, path)
        self.path = path
        check_options(ConnectionHandler, options)
        self._make_target = make_target
        self._make_client = make_client
        self._interface = interface
        self._options = options
        self.limits = self._client().limits  # a wrong argument raises here

    def __repr__(self) -> str:
        return f"<trio_rpc.ConnectionHandler of {self.path!r}>"

    def _client(self) -> ServiceClient[T]:
        return self._make_client(self._interface, **self._options)

    async def __call__(self, channel: trio.abc.Channel[bytes], **parameters: str) -> None:
        """Serve one channel until its session ends.

        Args:
            channel: a fresh channel of whole packets; the session owns it from now on.
            **parameters: the parameters of the path.

        Raises:
            TimeoutError: an async ``make_target`` took too long.
            TypeError: the target is not a service.
            Exception: an exception of ``make_target``, such as :class:`Refused`; or of
                :meth:`ServiceClient.listen`.
        """
        client = self._client()
        client.target = await self._target(client, parameters)
        await client.listen(channel, name=str(getattr(channel, "name", "")) or self.path)

    async def _target(self, client: ServiceClient[T], parameters: dict[str, str]) -> object:
        client.prepare()
        target = self._make_target(client.proxy, **parameters)
        if inspect.isawaitable(target):
            seconds = self.limits.handshake_timeout
            async with time_limit(seconds, f"no target for {self.path!r}"):
                target = await cast("Awaitable[object]", target)
        return target


def _check_target(make_target: object, path: str) -> None:
    """Raise TypeError unless the function can be called with a proxy and these parameters."""
    parameters = dict.fromkeys(parameters_of(path), "")
    if not callable(make_target):
        raise TypeError(f"make_target must be a function of the client's proxy: {make_target!r}")
    try:
        signature = inspect.signature(make_target)
    except ValueError:
        return  # a class of an extension module, whose arguments only a call can check
    try:
        signature.bind(None, **parameters)
    except TypeError as exc:
        raise TypeError(
            f"make_target must take the client's proxy and the parameters of {path!r}: {exc}"
        ) from None


async def serve_connections(
    handlers: Iterable[ConnectionHandler[Any]],
    *urls: str,
    ssl_context: ssl.SSLContext | None = None,
    allowed_origins: Collection[str] | None = None,
    resume: bool | Resume = False,
    limits: Limits = DEFAULT_LIMITS,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve handlers by their paths at ``urls``, until cancelled.

    A client has one connection, over which it opens a channel for each path. The first handler
    whose path matches serves it. A path that no handler has is refused, and the client gets
    :class:`Refused`. Clients use a :class:`ServiceProvider`.

    Args:
        handlers: the handlers.
        *urls: the addresses to listen at, as in :func:`open_server`.
        ssl_context: as in :func:`open_server`.
        allowed_origins: as in :func:`open_server`.
        resume: allow clients to continue after a lost connection, with all sessions. True means the
            defaults of :class:`Resume`.
        limits: the limits of the connections. Each handler has the limits of its sessions, whose
            ``max_packet`` may not be more than that of the connections.
        task_status: gets the bound addresses once clients can connect.

    Raises:
        ValueError: two handlers have the same path, a handler accepts larger packets than the
            connections, or a URL is not valid.
        OSError: an address cannot be bound.
    """
    routes: dict[str, ChannelHandler] = {}
    for handler in handlers:
        if handler.path in routes:
            raise ValueError(f"there are two handlers for the path {handler.path!r}")
        check_packets(f"the handler of {handler.path!r}", handler.limits, limits)
        routes[handler.path] = handler
    await serve_forwarding(
        routes,
        *urls,
        ssl_context=ssl_context,
        allowed_origins=allowed_origins,
        resume=resume,
        limits=limits,
        task_status=task_status,
    )

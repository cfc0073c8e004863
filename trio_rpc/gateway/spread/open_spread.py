"""Join several instances of a gateway, so that each serves the clients of all."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import trio

from trio_rpc.channels.instance import Instance
from trio_rpc.gateway.server.app import Gateway
from trio_rpc.gateway.server.asyncio_host import entered_in_trio, is_asyncio
from trio_rpc.gateway.spread.carrying import Carrier
from trio_rpc.gateway.spread.instance_service import SERVICE, InstanceService
from trio_rpc.gateway.spread.links import RETRY, Links, Plan, link_limits, plan
from trio_rpc.nats.addresses import is_nats
from trio_rpc.nats.nats_options import NatsOptions
from trio_rpc.pool.instances import InstanceStatus
from trio_rpc.pool.open_pool import open_roster
from trio_rpc.server import open_server
from trio_rpc.session.opening import make_shared_tables
from trio_rpc.session.options import Authenticate, SessionOptions, make_options
from trio_rpc.util.numbers import check_not_negative
from trio_rpc.util.one_exception import one_exception
from trio_rpc.util.rate_limited_log import RateLimitedLog

__all__ = ["Spread", "open_spread"]

CLOSING: Final = 1.0
"""Seconds in which carried WebSockets, and then the links, may close in order."""

logger = logging.getLogger("trio_rpc.gateway")


class Spread:
    """One instance of a gateway, joined with the others. :func:`open_spread` makes it.

    Attributes:
        services: the services that only the other instances may call. They are served already if
            this instance has a URL. Otherwise serve them at an address that the others reach, with
            ``limits``.
        limits: the limits of the sessions between the instances.
    """

    def __init__(self, gateway: Gateway) -> None:
        state = gateway._state  # noqa: SLF001 - a spread is a part of its gateway
        http, websocket = gateway._http, gateway._websocket  # noqa: SLF001 - likewise
        self.services: Mapping[str, object] = {SERVICE: InstanceService(state, http, websocket)}
        self.limits = link_limits(state.limits)
        self._state = state
        self._links: Links | None = None
        self._leave = trio.Event()

    def instances(self) -> list[InstanceStatus]:
        """Return the status of each other instance: see :class:`trio_rpc.InstanceStatus`."""
        return [] if self._links is None else self._links.statuses()

    @contextlib.asynccontextmanager
    async def _run(
        self, chosen: Plan, options: SessionOptions, patience: float, nats: NatsOptions | None
    ) -> AsyncIterator[None]:
        """Join the other instances for a block."""
        with one_exception() as body:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._keep_links, chosen, options, patience, nats)
                assert self._links is not None  # noqa: S101 - it was set
                self._state.elsewhere = carrier = Carrier(self._state, self._links)
                try:
                    yield
                except BaseException as exc:
                    body.append(exc)
                    raise
                finally:
                    self._state.elsewhere = None
                    carrier.stop()
                    with trio.move_on_after(CLOSING, shield=True):
                        await carrier.wait_idle()
                    self._leave.set()

    async def _keep_links(
        self,
        chosen: Plan,
        options: SessionOptions,
        patience: float,
        nats: NatsOptions | None,
        *,
        task_status: trio.TaskStatus[None],
    ) -> None:
        """Serve the other instances, and keep a session with each, until the block is left.

        The links outlive a cancellation of the block, so that the WebSockets that they carry can be
        closed with a code.
        """
        tables, _ = make_shared_tables(None)
        complaints = RateLimitedLog(logger)
        async with contextlib.AsyncExitStack() as stack:
            scope = stack.enter_context(trio.CancelScope())
            if chosen.listen is not None:
                options_of_nats = nats if is_nats(chosen.listen) else None
                await stack.enter_async_context(
                    open_server(self.services, chosen.listen, nats=options_of_nats, **options)
                )
            roster, balancer, nursery = await stack.enter_async_context(
                open_roster(
                    [chosen.source],
                    tables,
                    make_options(open_spread, options),
                    complaints,
                    max_delay=RETRY,
                )
            )
            most = self._state.limits.max_clients
            self._links = Links(roster, balancer, patience=patience, max_waiting=most)
            nursery.start_soon(self._links.watch)
            scope.shield = True
            task_status.started()
            await self._leave.wait()
            scope.deadline = trio.current_time() + CLOSING


@contextlib.asynccontextmanager
async def open_spread(
    gateway: Gateway,
    links: str | Mapping[str, str | Instance],
    *,
    patience: float = 5.0,
    credentials: Any = None,
    authenticate: Authenticate | None = None,
    nats: NatsOptions | None = None,
) -> AsyncIterator[Spread]:
    """Join this instance of a gateway with the others for a block, so that each serves all clients.

    A load balancer may then send each request and each WebSocket to any instance. A client and its
    calls are held by one instance, their home, which is the one that its first WebSocket has
    reached. The other instances carry its requests and WebSockets there.

    The state of an instance that dies is lost: its clients are told so, with 410 or ``lost``, and
    start anew.

    Enter this inside of ``gateway.run()`` or around :func:`trio_rpc.gateway.serve`, also in the
    lifespan of an application on asyncio. Only the instances may reach the URLs in ``links``: a
    program that calls over them is trusted with the checks of Host, Origin and address, and of
    ``authenticate`` for WebSockets that resume.

    Args:
        gateway: the gateway of this instance, made with ``home=``.
        links: the addresses of the instances. A mapping of the name of each home to its URL, which
            may be the same at all instances; or ``nats://host,host/service``, for instances that
            find each other through NATS. This instance listens at its own URL. If the mapping has
            none, serve :attr:`Spread.services` yourself. The other values may also be
            :class:`trio_rpc.Instance` objects.
        patience: seconds after which clients of a disconnected instance are told that it is lost.
        credentials: the credentials that this instance sends to the others.
        authenticate: checks the credentials of the others, as in :func:`trio_rpc.serve`.
        nats: settings for ``nats``.

    Raises:
        ValueError: the gateway has no home, or a name or a URL is not valid.
        TypeError: an argument has the wrong type.
        RuntimeError: the gateway is joined already.
        OSError: this instance cannot listen at its URL.

    Example:
        >>> async def main(services: object) -> None:
        ...     gateway = trio_rpc.gateway.Gateway(services, home="a")
        ...     links = {"a": "tcp://10.0.0.1:7000", "b": "tcp://10.0.0.2:7000"}
        ...     async with trio_rpc.gateway.open_spread(gateway, links):
        ...         await trio_rpc.gateway.serve(gateway, "http://0.0.0.0:8000")
    """
    check_not_negative("patience", patience)
    spread = Spread(gateway)
    state = spread._state  # noqa: SLF001 - made here
    if not state.home.name:
        raise ValueError("the gateway has no home: make it with Gateway(..., home='a name')")
    if state.elsewhere is not None:
        raise RuntimeError("this gateway is joined with other instances already")
    options: SessionOptions = {
        "limits": spread.limits,
        "credentials": credentials,
        "authenticate": authenticate,
    }
    chosen = plan(state.home.name, links, spread.limits, nats)

    def run() -> AbstractAsyncContextManager[None]:
        return spread._run(chosen, options, patience, nats)  # noqa: SLF001 - likewise

    if is_asyncio():
        async with entered_in_trio(run):
            yield spread
    else:
        async with run():
            yield spread

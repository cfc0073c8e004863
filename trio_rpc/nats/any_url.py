"""Connect to a URL, and listen at a URL, ``nats://`` included."""

from __future__ import annotations

import dataclasses
import functools
import ssl
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import trio

from trio_rpc.channels.carriers import Listener, carrying, context_for, listening
from trio_rpc.channels.opening import open_channel
from trio_rpc.channels.resumable.settings import Resume
from trio_rpc.nats.addresses import NatsAddress, is_nats, parse_nats_url
from trio_rpc.nats.discovery import InstanceInfo
from trio_rpc.nats.listener import NatsListener
from trio_rpc.nats.nats import Nats, own_nats
from trio_rpc.nats.nats_instances import NatsInstance, NatsInstances
from trio_rpc.nats.nats_options import NatsOptions
from trio_rpc.util.text import one_line
from trio_rpc.wire.limits import Limits

__all__ = ["ChannelOpener", "InstancesAt", "listen_at"]


class ChannelOpener:
    """Opens the channel to a URL, again and again if it is lost.

    At first NATS chooses the instance of a service. A session that resumes finds its other end
    only at that same instance, so the later channels go there.

    Args:
        url: any URL of a server.
        options: the settings of a connection to NATS.
        instance: the instance of the service, in place of NATS's choice.
    """

    def __init__(self, url: str, options: NatsOptions | None, *, instance: str = "") -> None:
        self._url = url
        self._options = options
        self._instance = instance
        self._address = parse_nats_url(url, needs_service=True) if is_nats(url) else None
        if options is not None and self._address is None:
            raise ValueError(f"NatsOptions are only for nats:// URLs, not for {one_line(url)!r}")

    def __call__(
        self, *, ssl_context: ssl.SSLContext | None, limits: Limits
    ) -> AbstractAsyncContextManager[trio.abc.Channel[bytes]]:
        """Open a channel, and own it for a block: see :func:`open_channel`."""
        if self._address is None:
            return open_channel(self._url, ssl_context=ssl_context, limits=limits)
        return self._open(self._address, ssl_context, limits)

    @asynccontextmanager
    async def _open(
        self, address: NatsAddress, ssl_context: ssl.SSLContext | None, limits: Limits
    ) -> AsyncIterator[trio.abc.Channel[bytes]]:
        options = _with_context(self._options, ssl_context)
        async with (
            own_nats(address, options) as nats,
            nats.open_channel(
                address.service, self._instance or address.instance, limits=limits
            ) as channel,
        ):
            self._instance = channel.instance
            yield channel


class InstancesAt:
    """The instances of the service at a URL: see :class:`NatsInstances`.

    The session with each instance has a connection to NATS of its own.

    Args:
        url: ``nats://host,host/service``.
        options: the settings of the connection.
        ssl_context: replaces the one of the options, as for the session with each instance.

    Raises:
        ValueError: the URL is bad.
    """

    def __init__(
        self, url: str, options: NatsOptions | None, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        self._url = url
        self._address = parse_nats_url(url, needs_service=True)
        self._options = _with_context(options, ssl_context)
        self._asking: NatsInstances | None = None

    def ask_again(self) -> None:
        """Ask NATS soon, since an instance was lost or is not known."""
        if self._asking is not None:
            self._asking.ask_again()

    async def __aiter__(self) -> AsyncIterator[list[str | NatsInstance]]:
        """Yield the known instances, now and after each change."""
        service = self._address.service

        def instance_of(info: InstanceInfo) -> NatsInstance:
            opener = ChannelOpener(self._url, self._options, instance=info.instance)
            return NatsInstance(f"{service}/{info.instance}", opener)

        async with own_nats(self._address, self._options) as nats:
            self._asking = nats.instances_by(service, instance_of)
            async for instances in self._asking:
                yield instances


def _with_context(options: NatsOptions | None, context: ssl.SSLContext | None) -> NatsOptions:
    chosen = options or NatsOptions()
    return chosen if context is None else dataclasses.replace(chosen, ssl_context=context)


@asynccontextmanager
async def listen_at(
    urls: Sequence[str],
    *,
    ssl_context: ssl.SSLContext | None,
    allowed_origins: Collection[str] | None,
    limits: Limits,
    resume: Resume | None,
    options: NatsOptions | None,
) -> AsyncIterator[list[Listener]]:
    """Listen at URLs for a block: see :func:`trio_rpc.channels.carriers.listening`.

    Args:
        urls: at least one.
        ssl_context: as there; not for NATS, of which this end is a client.
        allowed_origins: as there.
        limits: as there.
        resume: as there.
        options: the settings of connections to NATS.

    Raises:
        Exception: the same errors as ``listening`` and :meth:`Nats.listen`.
    """
    addresses = [parse_nats_url(url, needs_service=True) for url in urls if is_nats(url)]
    if options is not None and not addresses:
        raise ValueError("NatsOptions are only for nats:// URLs, and none of the URLs is one")
    options = options or NatsOptions()
    listen = functools.partial(
        listening,
        allowed_origins=allowed_origins,
        limits=limits,
        resume=resume,
    )
    if not addresses:
        async with listen(urls, ssl_context=ssl_context) as sockets:
            yield sockets
        return
    at_sockets = [url for url in urls if not is_nats(url)]
    listeners: list[Listener] = []
    behind_nats: list[NatsListener] = []
    async with AsyncExitStack() as stack:
        for url in urls:
            if not is_nats(url):
                context = context_for(url, at_sockets, ssl_context)
                listeners += await stack.enter_async_context(listen([url], ssl_context=context))
                continue
            nats = await stack.enter_async_context(own_nats(addresses[len(behind_nats)], options))
            behind_nats.append(
                await stack.enter_async_context(_listening(nats, carrying(limits, resume)))
            )
            listeners.append(behind_nats[-1])
        direct = options.advertise or tuple(each.url for each in listeners if not is_nats(each.url))
        for listener in behind_nats:
            listener.advertise(direct)
        yield listeners


@asynccontextmanager
async def _listening(nats: Nats, limits: Limits) -> AsyncIterator[NatsListener]:
    listener = await nats.listen(nats.address.service, nats.address.instance, limits=limits)
    try:
        yield listener
    finally:
        with trio.CancelScope(shield=True):
            await listener.aclose()

"""``open_nats``: a connection to a NATS cluster, with channels, topics and discovery over it."""

from __future__ import annotations

import dataclasses
import functools
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import trio

from trio_rpc.channels.connection import close_forcefully, owned_with_task
from trio_rpc.nats.addresses import NatsAddress, parse_nats_url
from trio_rpc.nats.broker import OnMessage, Subscription
from trio_rpc.nats.channel import NatsChannel
from trio_rpc.nats.client import NatsClient
from trio_rpc.nats.credentials import Credentials
from trio_rpc.nats.discovery import InstanceInfo, find_instances
from trio_rpc.nats.hub import Hub
from trio_rpc.nats.listener import NatsListener
from trio_rpc.nats.names import check_name, new_token
from trio_rpc.nats.nats_instances import NatsInstance, NatsInstances
from trio_rpc.nats.nats_options import NatsOptions
from trio_rpc.nats.parser import Msg
from trio_rpc.nats.topics import Topic
from trio_rpc.wire.limits import DEFAULT_LIMITS, Limits

__all__ = ["Nats", "open_nats", "own_nats"]


class Nats:
    """A connection to a NATS cluster; made by :func:`open_nats`.

    Subscriptions last: they are made again on each new connection. A message that is published
    while there is no connection is not sent later. A message that was written when the connection
    broke may be lost, as always in core NATS.

    Attributes:
        address: the servers that were given.
    """

    def __init__(self, client: NatsClient, hub: Hub, address: NatsAddress) -> None:
        self.address = address
        self._client = client
        self._hub = hub

    def __repr__(self) -> str:
        at = f"connected to {self._client.server}" if self._client.is_up else "not connected"
        return f"<trio_rpc.nats.Nats {self.address}, {at}>"

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection to a server now."""
        return self._client.is_up

    async def publish(
        self,
        subject: str,
        data: bytes = b"",
        *,
        reply: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Publish a message.

        Waits while there is no connection, or while 1 MiB waits to be written.

        Args:
            subject: the subject.
            data: the payload.
            reply: the subject for an answer.
            headers: headers of the message.

        Raises:
            ValueError: the subject or a header is not valid, or the payload is larger than the
                server allows.
            trio.BrokenResourceError: the servers refuse this client.
            trio.ClosedResourceError: the block of this connection was left.
        """
        await self._client.publish(subject, data, reply=reply, headers=headers)

    def publish_nowait(
        self,
        subject: str,
        data: bytes = b"",
        *,
        reply: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> bool:
        """Publish a message if that needs no waiting, and return whether it was published.

        Args:
            subject: the subject.
            data: the payload.
            reply: the subject for an answer.
            headers: headers of the message.

        Raises:
            Exception: the same errors as :meth:`publish`.
        """
        return self._client.publish_nowait(subject, data, reply=reply, headers=headers)

    def subscribe(self, subject: str, on_message: OnMessage, *, queue: str = "") -> Subscription:
        """Subscribe, now and after each reconnection.

        When a later :meth:`flush` returns, the server knows the subscription.

        Args:
            subject: a subject; ``*`` stands for any one part, ``>`` for all further parts.
            on_message: called with each message, in the order of arrival. It must not block. An
                exception that it raises is logged.
            queue: of the subscribers with the same queue group, one gets each message.

        Raises:
            ValueError: the subject or the name of the group is not valid.
            Exception: the same errors as :meth:`publish`.
        """
        return self._client.subscribe(subject, on_message, queue=queue)

    def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription. Its function is not called again.

        Args:
            subscription: made by :meth:`subscribe`.
        """
        self._client.unsubscribe(subscription)

    async def request(self, subject: str, data: bytes = b"") -> Msg:
        """Publish a message, and return the first answer. A cancel scope bounds the time.

        Args:
            subject: the subject.
            data: the payload.

        Raises:
            ConnectionRefusedError: nobody has subscribed to the subject.
            Refused: this client may not publish there.
            Exception: the same errors as :meth:`publish`.
        """
        return await self._client.request(subject, data)

    async def gather(self, subject: str, data: bytes = b"", *, seconds: float) -> list[Msg]:
        """Publish a message, and return the answers that arrive within a time, 4,096 at most.

        Args:
            subject: the subject.
            data: the payload.
            seconds: the time to wait. If nobody has subscribed, this returns at once.

        Raises:
            Exception: the same errors as :meth:`request`, except ConnectionRefusedError.
        """
        return await self._client.gather(subject, data, seconds=seconds)

    async def flush(self) -> None:
        """Wait until the server has handled all written bytes. A cancel scope bounds the time.

        Raises:
            trio.BrokenResourceError: the connection was lost meanwhile, or the servers refuse this
                client.
            trio.ClosedResourceError: the block of this connection was left.
        """
        await self._client.flush()

    def on_up(self, callback: Callable[[], object]) -> None:
        """Call a function after each reconnection, when the subscriptions have been made again.

        Args:
            callback: called without arguments. It must not block.
        """
        self._client.on_up(callback)

    # ------------------------------------------------------------------------------ services

    @asynccontextmanager
    async def open_channel(
        self, service: str, instance: str = "", *, limits: Limits = DEFAULT_LIMITS
    ) -> AsyncIterator[NatsChannel]:
        """Open a channel to a service, and own it for a block.

        Args:
            service: the name of the service.
            instance: the name of one of its instances; by default, NATS chooses one.
            limits: of the channel. ``handshake_timeout`` bounds the time to open it.

        Raises:
            ConnectionRefusedError: no instance serves it, or all are full or draining.
            OSError: no answer in time (TimeoutError).
            Refused: this client may not open channels, or the other end has another version.
            ValueError: a name is not valid.
        """
        channel = await self._hub.open(service, instance, limits)
        try:
            yield channel
        finally:
            if not channel.is_closed:
                await close_forcefully(channel)

    async def listen(
        self, service: str, instance: str = "", *, limits: Limits = DEFAULT_LIMITS
    ) -> NatsListener:
        """Serve as an instance of a service; returns a listener, which must be closed.

        Args:
            service: the name of the service.
            instance: the name of this instance; by default, a random one.
            limits: of the channels.

        Raises:
            OSError: another process serves under the name of this instance.
            Refused: this client may not subscribe.
            ValueError: a name is not valid.
        """
        check_name(service, "a service")
        instance = check_name(instance or new_token(), "an instance")
        url = str(dataclasses.replace(self.address, service=service, instance=instance))
        listener = NatsListener(
            self._client, self._hub, service=service, instance=instance, limits=limits, url=url
        )
        try:
            await listener.start()
        except BaseException:
            await close_forcefully(listener)
            raise
        return listener

    def topic(self, name: str) -> Topic:
        """Return a topic, to publish to and to subscribe to.

        Args:
            name: its name.

        Raises:
            ValueError: the name is not valid.
        """
        return Topic(self._client, check_name(name, "a topic"))

    def instances(self, service: str, *, direct: bool = False) -> NatsInstances:
        """Return the instances of a service, now and later, for :func:`trio_rpc.open_pool`.

        Args:
            service: the name of the service.
            direct: NATS only names the instances, and the calls go to the URLs at which they
                listen without NATS, such as ``tcp://10.0.0.5:5000``. By default, they go through
                NATS. Instances that listen nowhere else are then left out.

        Raises:
            ValueError: the name is not valid.

        Example:
            >>> async def main(nats: trio_rpc.nats.Nats) -> None:
            ...     async with trio_rpc.open_pool(nats.instances("market", direct=True)) as pool:
            ...         print(await pool.call("market.price", "BTC"))
        """
        return self.instances_by(service, _url_of if direct else self._instance_of)

    def instances_by(
        self, service: str, instance_of: Callable[[InstanceInfo], str | NatsInstance | None]
    ) -> NatsInstances:
        """Return the instances of a service, now and later, each as a function makes it.

        Args:
            service: the name of the service.
            instance_of: makes the pool's object for an instance; None leaves the instance out.

        Raises:
            ValueError: the name is not valid.
        """
        return NatsInstances(self._client, check_name(service, "a service"), instance_of)

    def _instance_of(self, info: InstanceInfo) -> NatsInstance:
        open_channel = functools.partial(self._open_for_pool, info)
        return NatsInstance(f"{info.service}/{info.instance}", open_channel)

    def _open_for_pool(
        self,
        info: InstanceInfo,
        *,
        ssl_context: ssl.SSLContext | None,
        limits: Limits,
    ) -> AbstractAsyncContextManager[trio.abc.Channel[bytes]]:
        return self.open_channel(info.service, info.instance, limits=limits)

    async def find_instances(self, service: str, *, seconds: float = 0.5) -> list[InstanceInfo]:
        """Return the instances that serve, by name.

        Args:
            service: the name of the service.
            seconds: the time to wait for their answers. Without an instance, this returns at once.

        Raises:
            ValueError: the name is not valid.
            Exception: the same errors as :meth:`gather`.
        """
        return await find_instances(self._client, service, seconds=seconds)


def _url_of(info: InstanceInfo) -> str | None:
    return info.urls[0] if info.urls else None


class _Owned(trio.abc.AsyncResource):
    """A connection, which is closed at the end of its block."""

    def __init__(self, nats: Nats, client: NatsClient) -> None:
        self.nats = nats
        self._client = client

    async def aclose(self) -> None:
        """Write the queued bytes, and close the connection."""
        await self._client.aclose()


async def _run(
    address: NatsAddress, options: NatsOptions, *, task_status: trio.TaskStatus[_Owned]
) -> None:
    """Run a connection until cancelled."""
    client = NatsClient(
        address,
        credentials=options.credentials,
        ssl_context=options.ssl_context,
        prefix=options.inbox_prefix,
        ping_interval=options.ping_interval,
        name="trio_rpc",
    )
    hub = Hub(client, options.patience)
    client.on_stray, client.on_room = hub.on_stray, hub.on_room
    owned = _Owned(Nats(client, hub, address), client)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub.run, name="trio_rpc NATS channels")
        await client.run(lambda: task_status.started(owned))
        hub.fail(str(client.failure))


@asynccontextmanager
async def own_nats(address: NatsAddress, options: NatsOptions) -> AsyncIterator[Nats]:
    """Connect, and own the connection for a block: see :func:`open_nats`."""
    async with owned_with_task(functools.partial(_run, address, options)) as owned:
        try:
            yield owned.nats
        finally:
            with trio.CancelScope(shield=True):
                await owned.aclose()


def open_nats(
    url: str,
    *,
    credentials: Credentials | None = None,
    ssl_context: ssl.SSLContext | None = None,
    options: NatsOptions | None = None,
) -> AbstractAsyncContextManager[Nats]:
    """Connect to a NATS cluster, and own the connection for a block.

    The block begins when one of the servers has accepted this client. When the connection is lost,
    it is made again, to any server of the cluster, for as long as the block lasts.

    Args:
        url: ``nats://host:port,host:port``; the port is 4222 by default.
        credentials: a :class:`UserPassword`, a :class:`Token` or an :class:`NKey`. They replace
            those of ``options``, and these replace those of the URL.
        ssl_context: replaces that of ``options``.
        options: further settings.

    Raises:
        ValueError: the URL is bad, or names a service.
        OSError: no server answers; the text is that of the last one, in one line.
        Refused: a server does not accept the credentials. Then no other one is tried.

    Example:
        >>> async def main() -> None:
        ...     async with trio_rpc.nats.open_nats("nats://10.0.0.1,10.0.0.2") as nats:
        ...         await nats.publish("greetings", b"hello")
    """
    address = parse_nats_url(url)
    if address.service:
        raise ValueError(f"{address} names a service; open_nats() connects to servers only")
    chosen = options or NatsOptions()
    if credentials is not None:
        chosen = dataclasses.replace(chosen, credentials=credentials)
    if ssl_context is not None:
        chosen = dataclasses.replace(chosen, ssl_context=ssl_context)
    return own_nats(address, chosen)

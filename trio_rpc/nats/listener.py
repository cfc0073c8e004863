"""The listener of a service behind NATS: it accepts the channels that clients open."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from trio_rpc.channels.connection import Connection, close_forcefully
from trio_rpc.channels.errors import closed_error
from trio_rpc.errors import Refused
from trio_rpc.nats.broker import Broker, Subscription
from trio_rpc.nats.channel import NatsChannel
from trio_rpc.nats.discovery import Announcement
from trio_rpc.nats.hub import Hub
from trio_rpc.nats.names import at_subject, open_subject
from trio_rpc.nats.parser import Msg
from trio_rpc.wire.limits import Limits

__all__ = ["NatsListener"]

BACKLOG = 1024
"""Channels that may wait for ``accept``, like the connections of a socket."""

QUEUE_GROUP = "trpc"

DRAIN_TIME = 1.0
"""Seconds at most until the broker knows that no more clients are wanted."""

_ANY_HOST = re.compile(r"^([a-z]+://)(0\.0\.0\.0|\[::\])(?=:)")


class NatsListener(trio.abc.Listener[Connection]):
    """Accepts the channels that clients open to one instance of a service.

    Args:
        broker: the connection to NATS.
        hub: its channels.
        service: the name of the service.
        instance: the name of this instance.
        limits: of the channels.
        url: see below.

    Attributes:
        url: the URL of this instance.
    """

    def __init__(
        self,
        broker: Broker,
        hub: Hub,
        *,
        service: str,
        instance: str,
        limits: Limits,
        url: str,
    ) -> None:
        self.url = url
        self._announcement = Announcement(broker, service, instance)
        self._broker = broker
        self._hub = hub
        self._service = service
        self._instance = instance
        self._limits = limits
        self._subscriptions: list[Subscription] = []
        self._accepts, self._waiting = trio.open_memory_channel[NatsChannel](BACKLOG)
        self._is_draining = False

    def __repr__(self) -> str:
        return f"<NatsListener {self.url}>"

    async def start(self) -> None:
        """Begin to accept, once the server knows the subscription.

        Raises:
            OSError: another process serves under the name of this instance.
            Refused: this client may not subscribe.
        """
        own = at_subject(self._service, self._instance)
        try:
            await self._broker.request(own, b'{"version": 1, "probe": true}')
        except ConnectionRefusedError:
            pass
        else:
            raise OSError(f"another process serves as {self.url}")
        subscribe = self._broker.subscribe
        self._subscriptions = [
            subscribe(own, self._on_open),
            subscribe(open_subject(self._service), self._on_open, queue=QUEUE_GROUP),
            *self._announcement.start(),
        ]
        await self._broker.flush()
        for each in self._subscriptions[:2]:
            if each.denied:
                raise Refused(f"the NATS server does not let this end serve: {each.denied}")

    def advertise(self, urls: Sequence[str]) -> None:
        """Tell clients where they reach this process without NATS.

        Args:
            urls: in place of a host that means all addresses of this machine, clients are told
                the address that the NATS server sees.
        """
        host = self._broker.local_host
        host = f"[{host}]" if ":" in host else host
        self._announcement.urls = tuple(
            _ANY_HOST.sub(lambda found: f"{found[1]}{host}", url) for url in urls
        )

    def _on_open(self, message: Msg) -> None:
        offer = self._hub.read_offer(message)
        if offer is None:
            return
        if not offer.subject:
            self._hub.answer(offer.reply, {"instance": self._instance})
            return
        stats = self._accepts.statistics()
        if self._is_draining or stats.current_buffer_used >= BACKLOG:
            self._announcement.refused += 1
            self._hub.refuse(offer.reply, "draining" if self._is_draining else "full")
            return
        channel = self._hub.accept(offer, self._instance, self._limits)
        if channel is None:
            self._announcement.refused += 1
            return
        self._announcement.opened += 1
        self._accepts.send_nowait(channel)

    async def accept(self) -> Connection:
        """Wait for a client.

        Raises:
            trio.ClosedResourceError: this listener is closed, or is closed while waiting.
        """
        try:
            return _NatsConnection(await self._waiting.receive())
        except trio.EndOfChannel:
            raise closed_error() from None

    async def aclose(self) -> None:
        """Leave discovery, and tell clients that ask meanwhile to ask elsewhere."""
        if not self._is_draining:
            self._is_draining = True
            if self._broker.is_up:
                with trio.move_on_after(DRAIN_TIME):
                    async with trio.open_nursery() as nursery:
                        for each in self._subscriptions:
                            nursery.start_soon(self._broker.drain, each)
            for each in self._subscriptions:
                self._broker.unsubscribe(each)
            self._accepts.close()
            while self._accepts.statistics().current_buffer_used:
                self._waiting.receive_nowait().abort("the server is closing")
            self._waiting.close()
        await trio.lowlevel.checkpoint()


class _NatsConnection(Connection):
    """A client whose channel is already open."""

    def __init__(self, channel: NatsChannel) -> None:
        super().__init__(f"the NATS client at {channel.peer}")
        self._channel = channel

    @asynccontextmanager
    async def prepared(self) -> AsyncIterator[NatsChannel]:
        """Own the channel: see :meth:`Connection.prepared`."""
        try:
            yield self._channel
        finally:
            if not self._channel.is_closed:
                await close_forcefully(self._channel)

    async def aclose(self) -> None:
        """Break the channel."""
        self._channel.abort("the server has discarded it")
        await trio.lowlevel.checkpoint()

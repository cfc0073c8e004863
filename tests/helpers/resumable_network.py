"""A server and clients of resumable channels, joined by an in-memory network that can fail."""

from __future__ import annotations

from contextlib import asynccontextmanager

import trio

from trio_rpc.channels import ResumableSessions, Resume, carrier_limits, open_resumable
from trio_rpc.channels.connection import close_forcefully
from trio_rpc.testing import Faults, open_faulty_pair
from trio_rpc.wire.limits import DEFAULT_LIMITS

LIMITS = carrier_limits(DEFAULT_LIMITS)


class ResumableNetwork:
    """A server of resumable sessions, and the connections that its clients open.

    Attributes:
        links: every connection so far.
        forth, back: the faults of the next connections.
        is_down: whether connecting fails.
    """

    def __init__(self, nursery, options=None, limits=LIMITS):
        self.options = options or Resume()
        self.nursery = nursery
        self.limits = limits
        self.links = []
        self.forth = self.back = Faults()
        self.is_down = False
        self.times = []
        self.problems = []
        self._new, self._arrived = trio.open_memory_channel(100)
        self.restart()

    def restart(self):
        """Forget all sessions, as a restarted server does."""
        self.sessions = ResumableSessions(self.options, handshake_timeout=10)

    async def pair(self):
        """Open a client's channel, and return it with the server's end."""
        client = await self.nursery.start(self.run_client)
        return client, await self._arrived.receive()

    async def run_client(self, *, task_status):
        async with open_resumable(self.open_carrier, self.options, handshake_timeout=10) as channel:
            task_status.started(channel)
            await trio.sleep_forever()

    @asynccontextmanager
    async def open_carrier(self):
        self.times.append(trio.current_time())
        if self.is_down:
            raise ConnectionRefusedError("the network is down")
        async with open_faulty_pair(
            self.forth, self.back, seed=len(self.links), limits=LIMITS
        ) as pair:
            self.links.append(pair.link)
            self.nursery.start_soon(self.serve, pair.second)
            try:
                yield pair.first
            finally:
                await close_forcefully(pair.first)

    async def serve(self, carrier):
        try:
            arrival = await self.sessions.receive(carrier)
            if arrival.is_new:
                self.nursery.start_soon(self.own, arrival.channel)
            await arrival.channel.accept(carrier, arrival.received)
        except OSError as exc:
            self.problems.append(exc)
        finally:
            await close_forcefully(carrier)

    async def own(self, channel):
        async with self.sessions.own(channel):
            await self._new.send(channel)
            await trio.sleep_forever()

    def cut(self):
        self.links[-1].cut()


@asynccontextmanager
async def open_network(options=None):
    async with trio.open_nursery() as nursery:
        yield ResumableNetwork(nursery, options)
        nursery.cancel_scope.cancel()

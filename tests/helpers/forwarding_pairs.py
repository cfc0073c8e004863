"""Pairs of forwardings over an in-memory channel, and pairs of channels over forwardings."""

from __future__ import annotations

import contextlib

import trio

from trio_rpc.channels import memory_channel_pair, open_forwarding
from trio_rpc.wire.limits import DEFAULT_LIMITS


@contextlib.asynccontextmanager
async def open_forwarding_pair(
    routes_a=None, routes_b=None, *, carriers=None, limits_a=DEFAULT_LIMITS, limits_b=DEFAULT_LIMITS
):
    """Open two forwardings that are each other's peer."""
    carrier_a, carrier_b = carriers or memory_channel_pair()
    async with (
        open_forwarding(carrier_b, routes_b, limits=limits_b) as b,
        open_forwarding(carrier_a, routes_a, limits=limits_a) as a,
    ):
        yield a, b


class Acceptor:
    """A route handler that keeps its channels open and returns them from ``next``."""

    def __init__(self):
        self._there = trio.Event()
        self.channels = []

    async def __call__(self, channel, **_):
        self.channels.append(channel)
        self._there.set()
        await trio.sleep_forever()

    async def next(self):
        while not self.channels:
            self._there = trio.Event()
            await self._there.wait()
        channel = self.channels.pop(0)
        channel._accept()
        return channel


async def channel_pair(opener, acceptor, name="channel"):
    """Open a channel; return it and its other end."""
    ends = []

    async def accept():
        ends.append(await acceptor.next())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        opened = await opener.open(name)
    return opened, ends[0]


@contextlib.asynccontextmanager
async def open_channel_pair(*limits):
    """Open a channel over a new pair of forwardings, and yield both its ends."""
    limits = limits or (DEFAULT_LIMITS, DEFAULT_LIMITS)
    largest = max(each.max_packet for each in limits)
    acceptor = Acceptor()
    async with open_forwarding_pair(
        routes_b={"channel": acceptor},
        carriers=memory_channel_pair(max_packet=largest),
        limits_a=limits[0],
        limits_b=limits[1],
    ) as (a, _):
        yield await channel_pair(a, acceptor)

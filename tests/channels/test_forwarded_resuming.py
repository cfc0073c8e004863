"""Channels forwarded over a resumable carrier survive a lost connection as the carrier does."""

from __future__ import annotations

import contextlib

import pytest
import trio
from helpers.resumable_network import open_network

import trio_rpc
from trio_rpc import Limits, Resume
from trio_rpc.channels import open_forwarding

LIMITS = Limits(keepalive_interval=1, keepalive_pings=2)
"""A session gives a silent peer up after 3 s."""


class Slow:
    def __init__(self):
        self.go = trio.Event()

    @trio_rpc.method
    async def wait(self) -> str:
        await self.go.wait()
        return "done"


@contextlib.asynccontextmanager
async def forwarded(grace=100, **routes):
    """Yield the network, and the client's forwarding over a resumable carrier."""

    async def serve(channel, name):
        await routes[name](channel)

    async with open_network(Resume(grace=grace, max_delay=1)) as network:
        ours, theirs = await network.pair()
        async with (
            open_forwarding(theirs, {"{name}": serve}),
            open_forwarding(ours) as forwarding,
        ):
            yield network, forwarding


def serving(service):
    async def serve(channel):
        await trio_rpc.serve_session(channel, service, limits=LIMITS)

    return serve


@contextlib.asynccontextmanager
async def session_over(forwarding, name):
    async with (
        await forwarding.open(name) as channel,
        trio_rpc.open_session(channel, limits=LIMITS) as session,
    ):
        yield session


async def test_sessions_survive_a_loss_that_lasts_longer_than_their_keepalive(autojump_clock):
    slow = Slow()
    answers = []

    async def call(session):
        answers.append(await session.proxy("", Slow).wait())

    async with (
        forwarded(a=serving(slow), b=serving(slow)) as (network, forwarding),
        session_over(forwarding, "a") as a,
        session_over(forwarding, "b") as b,
        trio.open_nursery() as nursery,
    ):
        for session in (a, b):
            nursery.start_soon(call, session)
        await trio.sleep(5)
        network.is_down = True
        network.cut()
        await trio.sleep(60)
        network.is_down = False
        await trio.sleep(5)
        slow.go.set()
    assert answers == ["done", "done"]


async def test_a_silent_carrier_is_replaced_once_and_not_by_each_of_its_channels(autojump_clock):
    slow = Slow()
    async with (
        forwarded(a=serving(slow), b=serving(slow), c=serving(slow)) as (network, forwarding),
        session_over(forwarding, "a") as a,
        session_over(forwarding, "b") as b,
        session_over(forwarding, "c") as c,
    ):
        await trio.sleep(5)
        network.links[-1].freeze()
        await trio.sleep(60)
        for session in (a, b, c):
            await session.ping()
        assert len(network.links) == 2


class Freezing(trio.abc.Channel):
    """A channel that neither sends nor receives once it is frozen."""

    def __init__(self, channel):
        self.channel = channel
        self.is_frozen = False

    async def send(self, value):
        await self.channel.send(value)
        if self.is_frozen:
            await trio.sleep_forever()

    async def receive(self):
        packet = await self.channel.receive()
        if self.is_frozen:
            await trio.sleep_forever()
        return packet

    async def aclose(self):
        await self.channel.aclose()


async def test_a_channel_that_is_silent_alone_is_given_up_and_does_not_interrupt_others(
    autojump_clock,
):
    frozen = []

    async def freeze(channel):
        frozen.append(Freezing(channel))
        await trio_rpc.serve_session(frozen[0], Slow())

    async with (
        forwarded(a=serving(Slow()), silent=freeze) as (network, forwarding),
        session_over(forwarding, "a") as a,
        trio.open_nursery() as nursery,
    ):
        client = trio_rpc.ServiceClient(Slow, limits=LIMITS)
        nursery.start_soon(client.listen, await forwarding.open("silent"))
        nursery.start_soon(_expect_silence, client)
        await trio.sleep(5)
        frozen[0].is_frozen = True
        await trio.sleep(60)
        await a.ping()
        assert len(network.links) == 1
        assert client.session is None
        nursery.cancel_scope.cancel()


async def _expect_silence(client):
    with pytest.raises(trio_rpc.SessionBroken, match="was silent"):
        await client.proxy.wait()
    assert trio.current_time() < 20


async def test_a_session_ends_when_its_carrier_is_lost_permanently(autojump_clock):
    async with (
        forwarded(grace=20, a=serving(Slow())) as (network, forwarding),
        trio.open_nursery() as nursery,
    ):
        client = trio_rpc.ServiceClient(Slow, limits=LIMITS)
        async with await forwarding.open("a") as channel:
            await nursery.start(client.listen, channel)
            network.is_down = True
            network.cut()
            with pytest.raises(trio_rpc.SessionBroken, match="carrier has ended"):
                await client.proxy.wait()
    assert 20 <= trio.current_time() < 30

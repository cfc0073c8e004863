"""Every channel passes the conformance suite, and the suite finds broken channels."""

from __future__ import annotations

import pytest
import trio
from helpers.channel_pairs import connected

from trio_rpc.channels.memory import MemoryChannel
from trio_rpc.testing import check_channel, memory_channel_pair
from trio_rpc.wire.limits import Limits


async def test_every_channel_conforms(maker):
    """A channel receives, sends and closes.

    Any number of transports have the same interface, and pass the same tests. Each channel
    delivers whole packets, all of them and in order.
    """
    await check_channel(maker)


async def test_channels_with_small_limits_conform(nursery):
    async def make():
        return await connected(nursery, "tcp://127.0.0.1:0", limits=Limits(max_packet=20_000))

    await check_channel(make, max_packet=20_000)


class Proxy(trio.abc.Channel[bytes]):
    """A working channel, for its subclasses to break."""

    def __init__(self, inner: MemoryChannel) -> None:
        self.inner = inner

    async def send(self, value):
        await self.inner.send(value)

    async def receive(self):
        return await self.inner.receive()

    async def aclose(self):
        await self.inner.aclose()


class ReturnsBytearrays(Proxy):
    found_by = "whole_packets"

    async def receive(self):
        return bytearray(await self.inner.receive())


class LosesAPacketWhenCancelled(Proxy):
    found_by = "cancelled_receive"

    async def receive(self):
        packet = await self.inner.receive()
        await trio.lowlevel.checkpoint()
        return packet


class Reorders(Proxy):
    found_by = "order"

    held = b""

    async def send(self, value):
        if value[-1:] == b"\xff" and not self.held:
            self.held = value
            await trio.lowlevel.checkpoint()
            return
        await self.inner.send(value)
        if self.held:
            held, self.held = self.held, b""
            await self.inner.send(held)


class IsNotACheckpoint(Proxy):
    found_by = "cancelled_before_send"

    async def send(self, value):
        if not self.inner.send_nowait(value):
            await self.inner.send(value)


class HasNoBackPressure(Proxy):
    found_by = "one_sender"

    async def send(self, value):
        await trio.lowlevel.checkpoint()
        self.inner._outbox.max_buffer = 10**12
        await self.inner.send(value)


class LetsTwoTasksReceive(Proxy):
    found_by = "one_receiver"

    async def receive(self):
        self.inner._guard.is_receiving = False
        return await self.inner.receive()


class DoesNotClose(Proxy):
    found_by = "closed_here"

    async def aclose(self):
        await trio.lowlevel.checkpoint()


class ClosesOnlyGracefully(Proxy):
    found_by = "cancelled_close"

    async def aclose(self):
        await trio.lowlevel.checkpoint()
        await self.inner.aclose()


class TakesEmptyPackets(Proxy):
    found_by = "empty_packet"

    async def send(self, value):
        await self.inner.send(value or b"\0")


class HasNoLimit(Proxy):
    found_by = "size_limit"

    async def receive(self):
        self.inner._max_packet = 10**12
        return await self.inner.receive()


class SendsHalfWhenCancelled(Proxy):
    found_by = "cancelled_send"

    async def send(self, value):
        try:
            await self.inner.send(value)
        except trio.Cancelled:
            if len(value) > 1000:
                self.inner._outbox.put(value[: len(value) // 2])
            raise


@pytest.mark.parametrize("broken", Proxy.__subclasses__(), ids=lambda cls: cls.__name__)
async def test_a_broken_channel_is_found(broken):
    """Any channel can be checked by one suite, which finds a channel that is wrong."""

    async def make():
        left, right = memory_channel_pair()
        return broken(left), broken(right)

    with trio.fail_after(5), pytest.raises(AssertionError, match=broken.found_by):
        await check_channel(make)


async def test_a_channel_without_optional_methods_conforms():
    async def make():
        left, right = memory_channel_pair()
        return Proxy(left), Proxy(right)

    await check_channel(make)

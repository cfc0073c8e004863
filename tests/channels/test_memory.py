"""Channels in memory: their limits, and the methods that other channels do not have."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_rpc.testing import memory_channel_pair


async def test_packets_are_not_copied():
    left, right = memory_channel_pair()
    packet = bytes(1000)
    await left.send(packet)
    assert await right.receive() is packet


async def test_the_buffer_is_bounded_in_bytes():
    left, right = memory_channel_pair(max_buffer=100)
    assert left.send_nowait(bytes(60))
    assert left.send_nowait(bytes(40))
    assert not left.send_nowait(b"x")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(left.send, bytes(30))
        await wait_all_tasks_blocked()
        assert len(await right.receive()) == 60
    assert "2 to receive" in repr(right)


async def test_a_packet_may_be_larger_than_the_buffer_if_it_is_alone():
    left, right = memory_channel_pair(max_buffer=10)
    assert left.send_nowait(bytes(100))
    assert not left.send_nowait(b"x")
    assert len(await right.receive()) == 100


async def test_abort_is_seen_at_both_ends_at_once():
    left, right = memory_channel_pair()
    await left.send(b"lost")

    async def expect_broken():
        with pytest.raises(trio.BrokenResourceError):
            await left.receive()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_broken)
        await wait_all_tasks_blocked()
        right.abort()
    for channel in (left, right):
        with pytest.raises(trio.BrokenResourceError):
            await channel.receive()
        with pytest.raises(trio.BrokenResourceError):
            await channel.send(b"x")


async def test_abort_wakes_a_sender():
    left, right = memory_channel_pair(max_buffer=1)
    await left.send(b"x")

    async def expect_broken():
        with pytest.raises(trio.BrokenResourceError):
            await left.send(b"y")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_broken)
        await wait_all_tasks_blocked()
        right.abort()


async def test_on_send_can_see_change_and_drop_packets():
    left, right = memory_channel_pair()
    on_the_way = {b"keep": b"keep", b"lose": None, b"change": b"changed"}
    left.on_send = on_the_way.get
    await left.send(b"keep")
    await left.send(b"lose")
    assert left.send_nowait(b"change")
    await left.aclose()
    assert [packet async for packet in right] == [b"keep", b"changed"]


async def test_flush_is_only_a_checkpoint():
    left, _ = memory_channel_pair()
    with trio.testing.assert_checkpoints():
        await left.flush()
    assert left.unsent == 0
    await left.aclose()
    assert "closed" in repr(left)
    with pytest.raises(trio.ClosedResourceError):
        await left.flush()

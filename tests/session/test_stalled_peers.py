"""A peer that sends but does not read is not silent, but its session ends after a bounded time."""

from __future__ import annotations

import trio
from helpers.raw_peer import session_with_raw_peer
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc import Limits
from trio_rpc.wire import messages as m

LIMITS = Limits(keepalive_interval=10, keepalive_pings=2)


class Large:
    @trio_rpc.method
    def large(self):
        return bytes(200_000)  # one packet for each call


async def keep_pinging(peer, count):
    """Send a Ping in each keepalive interval."""
    for number in range(1, count + 1):
        if peer.channel.send_nowait(peer.bytes_of(m.Ping(number))):
            await trio.sleep(9)


async def test_a_peer_that_sends_but_never_reads_loses_its_session(autojump_clock):
    async with session_with_raw_peer(Large(), max_buffer=1000, limits=LIMITS) as (session, peer):
        peer.send(m.Request(1, "large", []))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_pinging, peer, 100)
            end = await session.wait_closed()
            nursery.cancel_scope.cancel()
        assert 30 <= trio.current_time() <= 42
        assert end.by == "network"
        assert isinstance(end.cause, TimeoutError)
        assert "has taken nothing for 30 s" in end.reason


async def test_a_peer_that_reads_slowly_keeps_its_session(autojump_clock):
    async with session_with_raw_peer(Large(), max_buffer=1000, limits=LIMITS) as (session, peer):
        peer.send(*[m.Request(number, "large", []) for number in range(1, 9)])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_pinging, peer, 100)
            for _ in range(6):
                await trio.sleep(25)
                assert any(isinstance(each, m.Reply) for each in await peer.read_packet())
            assert session.is_open
            end = await session.wait_closed()
            nursery.cancel_scope.cancel()
        assert 180 <= trio.current_time() <= 192
        assert "has taken nothing for 30 s" in end.reason


async def test_a_peer_that_is_sent_nothing_keeps_its_session(autojump_clock):
    async with session_with_raw_peer(Large(), limits=LIMITS) as (session, peer):
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_pinging, peer, 30)
            with trio.move_on_after(200):
                await peer.read_until_closed()
            assert session.is_open
            nursery.cancel_scope.cancel()

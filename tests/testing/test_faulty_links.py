"""The faults for tests work as described, in memory and between sockets."""

from __future__ import annotations

import pytest
import trio

from trio_rpc.channels import open_channel, open_listeners
from trio_rpc.testing import Failure, Faults, check_channel, open_chaos_proxy, open_faulty_pair

FRAME = 4
"""Bytes of the length before each packet."""


async def receive_all(channel, got):
    async for packet in channel:
        got.append((trio.current_time(), packet))


@pytest.fixture
async def maker(nursery):
    """Return a function that opens faulty pairs for the duration of the test."""

    def make(**faults):
        async def own(*, task_status):
            async with open_faulty_pair(Faults(**faults), Faults(**faults)) as pair:
                task_status.started((pair.first, pair.second))
                await trio.sleep_forever()

        return lambda: nursery.start(own)

    yield make
    nursery.cancel_scope.cancel()


async def test_a_link_without_faults_conforms(maker):
    await check_channel(maker())


async def test_a_link_that_delivers_slices_conforms(maker):
    await check_channel(maker(max_slice=5_000))


async def test_latency_is_exact(autojump_clock):
    async with open_faulty_pair(Faults(latency=2)) as pair, trio.open_nursery() as nursery:
        started, got = trio.current_time(), []
        nursery.start_soon(receive_all, pair.second, got)
        await pair.first.send(b"one")
        await trio.sleep(1)
        await pair.first.send(b"two")
        await trio.sleep(5)
        assert got == [(started + 2, b"one"), (started + 3, b"two")]
        nursery.cancel_scope.cancel()


async def test_a_rate_delays_later_packets(autojump_clock):
    async with open_faulty_pair(Faults(rate=100)) as pair, trio.open_nursery() as nursery:
        started, got = trio.current_time(), []
        nursery.start_soon(receive_all, pair.second, got)
        for _ in range(3):
            await pair.first.send(bytes(100 - FRAME))
        await trio.sleep(10)
        assert [when - started for when, _ in got] == [1, 2, 3]
        nursery.cancel_scope.cancel()


async def test_jitter_keeps_the_order_and_is_reproducible(autojump_clock):
    async def times(seed):
        got = []
        async with open_faulty_pair(Faults(jitter=1), seed=seed) as pair:
            async with trio.open_nursery() as nursery:
                started = trio.current_time()
                nursery.start_soon(receive_all, pair.second, got)
                for number in range(20):
                    await pair.first.send(bytes([number]))
                await trio.sleep(10)
                nursery.cancel_scope.cancel()
        assert [packet[0] for _, packet in got] == list(range(20))
        return [round(when - started, 9) for when, _ in got]

    assert await times(1) == await times(1) != await times(2)


@pytest.mark.parametrize(
    ("failure", "seen"),
    [(Failure.CUT, "ended inside a packet"), (Failure.RESET, "reset")],
)
async def test_a_link_fails_after_exactly_the_given_number_of_bytes(failure, seen):
    forth = Faults(fail_after=FRAME + 10 + FRAME + 3, failure=failure)
    async with open_faulty_pair(forth) as pair, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def send():
            await pair.first.send(b"0123456789")
            with pytest.raises(trio.BrokenResourceError):
                while True:
                    await pair.first.send(b"0123456789")

        assert await pair.second.receive() == b"0123456789"
        with pytest.raises(trio.BrokenResourceError, match=seen):
            await pair.second.receive()
        assert pair.link.passed[0] == FRAME + 10 + FRAME + 3
        await trio.testing.wait_all_tasks_blocked()
        assert pair.link.is_over
        ends = trio.EndOfChannel if failure is Failure.CUT else trio.BrokenResourceError
        with pytest.raises(ends):
            await pair.first.receive()


async def test_after_a_half_close_the_other_direction_works():
    forth = Faults(fail_after=FRAME + 1, failure=Failure.HALF_CLOSE)
    async with open_faulty_pair(forth) as pair, trio.open_nursery() as nursery:
        nursery.start_soon(pair.first.send, b"a")
        assert await pair.second.receive() == b"a"
        with pytest.raises(trio.EndOfChannel):
            await pair.second.receive()
        nursery.start_soon(pair.second.send, b"b")
        assert await pair.first.receive() == b"b"


async def test_frozen_bytes_are_late_but_not_lost(autojump_clock):
    forth = Faults(fail_after=FRAME + 1, failure=Failure.FREEZE)
    async with open_faulty_pair(forth) as pair, trio.open_nursery() as nursery:
        got = []
        nursery.start_soon(receive_all, pair.second, got)
        for packet in (b"a", b"b", b"c"):
            await pair.first.send(packet)
        await trio.sleep(100)
        assert [packet for _, packet in got] == [b"a"]
        pair.link.thaw()
        await trio.sleep(1)
        assert [packet for _, packet in got] == [b"a", b"b", b"c"]
        nursery.cancel_scope.cancel()


async def test_corruption_flips_one_bit_of_one_byte():
    async with open_faulty_pair(Faults(corrupt=FRAME + 5)) as pair, trio.open_nursery() as nursery:
        nursery.start_soon(pair.first.send, bytes(10))
        got = await pair.second.receive()
        assert [place for place, byte in enumerate(got) if byte] == [5]
        assert got[5].bit_count() == 1


# ── between sockets ──────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def echo():
    """Run a server that sends packets back, and yield its URL."""
    (listener,) = await open_listeners("tcp://127.0.0.1:0")

    async def serve(connection):
        async with connection.prepared() as channel:
            try:
                async for packet in channel:
                    await channel.send(packet)
            except trio.BrokenResourceError:
                return

    async def accept():
        while True:
            nursery.start_soon(serve, await listener.accept())

    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        yield listener.url
        nursery.cancel_scope.cancel()


async def test_a_proxy_can_pass_single_bytes(echo):
    slices = Faults(max_slice=1)
    async with open_chaos_proxy(echo, forth=slices, back=slices) as proxy:
        async with open_channel(proxy.url) as channel:
            await channel.send(b"hello")
            assert await channel.receive() == b"hello"
            await trio.testing.wait_all_tasks_blocked()
            assert proxy.links[0].passed == [FRAME + 5, FRAME + 5]


async def test_a_proxy_can_cut_a_connection_and_accept_the_next(echo):
    async with open_chaos_proxy(echo) as proxy:
        async with open_channel(proxy.url) as channel:
            await channel.send(b"hello")
            await channel.receive()
            proxy.cut()
            with pytest.raises(trio.EndOfChannel):
                await channel.receive()
        async with open_channel(proxy.url) as channel:
            await channel.send(b"again")
            assert await channel.receive() == b"again"
        assert proxy.accepted == 2


async def test_a_proxy_can_reset_a_connection(echo):
    async with open_chaos_proxy(echo) as proxy, open_channel(proxy.url) as channel:
        await channel.send(b"hello")
        await channel.receive()
        proxy.reset()
        with pytest.raises(trio.BrokenResourceError):
            await channel.receive()


async def test_a_proxy_can_refuse_connections(echo):
    async with open_chaos_proxy(echo) as proxy:
        proxy.is_refusing = True
        async with open_channel(proxy.url) as channel:
            with pytest.raises((trio.BrokenResourceError, trio.EndOfChannel)):
                await channel.receive()
        assert not proxy.links


async def test_a_proxy_can_fail_after_exactly_the_given_number_of_bytes(echo):
    async with open_chaos_proxy(echo, back=Faults(fail_after=FRAME + 3)) as proxy:
        async with open_channel(proxy.url) as channel:
            await channel.send(b"hello")
            with pytest.raises(trio.BrokenResourceError, match="inside a packet"):
                await channel.receive()

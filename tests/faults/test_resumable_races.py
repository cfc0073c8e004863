"""Races and bounds of resumable channels, one by one; tests/model plays all of them at random."""

from __future__ import annotations

import pytest
import trio
from helpers.resumable_town import open_town
from test_resumable import notice, swap
from trio.testing import wait_all_tasks_blocked

from trio_rpc.channels import ConnectionState, Resume
from trio_rpc.channels.resumable.channel import ResumableChannel
from trio_rpc.channels.resumable.replay import Frame, Kind, decode, encode
from trio_rpc.testing import memory_channel_pair


def data(number, packet, ack=0):
    return encode(Frame(Kind.DATA, number, ack, packet))


async def test_race_an_older_connection_delivers_in_the_tick_in_which_it_is_replaced(
    nursery, autojump_clock
):
    channel = ResumableChannel(Resume(), bytes(16))
    (older, peer), (newer, newer_peer) = memory_channel_pair(), memory_channel_pair()
    got = []

    async def receive():
        while True:
            got.append(await channel.receive())

    async def accept(carrier):
        await channel.accept(carrier, 0)
        await carrier.aclose()

    nursery.start_soon(receive)
    nursery.start_soon(accept, older)
    await wait_all_tasks_blocked()
    assert peer.send_nowait(data(1, b"once"))  # the receiver is woken, and runs in the next tick
    with trio.move_on_after(1):
        await channel.accept(newer, 0)  # and this comes before it
        raise AssertionError("it lasts as long as the connection")
    await newer.aclose()
    assert decode(await newer_peer.receive()) == Frame(Kind.ACCEPT, 0, 0, bytes(16))
    assert got == []
    last, last_peer = memory_channel_pair()
    nursery.start_soon(accept, last)
    assert last_peer.send_nowait(data(1, b"once"))
    await wait_all_tasks_blocked()
    assert got == [b"once"]
    nursery.cancel_scope.cancel()


async def test_both_ends_catch_up_with_more_than_the_connection_holds(nursery, autojump_clock):
    ends = [ResumableChannel(Resume(), bytes(16)) for _ in range(2)]
    carriers = memory_channel_pair(max_buffer=1000)
    got = [[], []]

    async def receive(end, got):
        while True:
            got.append(await end.receive())

    packets = [b"%3000d" % number for number in range(50)]
    for end, received in zip(ends, got, strict=True):
        nursery.start_soon(receive, end, received)
        for packet in packets:
            await end.send(packet)
    for end, carrier in zip(ends, carriers, strict=True):
        nursery.start_soon(end.carry, carrier, 0)
    await wait_all_tasks_blocked()
    assert got == [packets, packets]
    nursery.cancel_scope.cancel()


async def test_race_a_request_to_resume_that_comes_after_a_later_one_is_turned_away(autojump_clock):
    async with open_town() as town:
        client, server = await town.pair()
        for number in range(70):  # so that the last one is acknowledged
            await server.send(b"%d" % number)
            assert await client.receive() == b"%d" % number
        await notice(server, client)
        assert server.confirmed > 0
        async with town.open_carrier() as late:
            await late.send(encode(Frame(Kind.RESUME, rest=b"\1" + client.token)))
            with pytest.raises((trio.EndOfChannel, trio.BrokenResourceError)):
                await late.receive()
        assert server.state is ConnectionState.CONNECTED
        await swap(client, server, b"fine")


async def test_the_grace_counts_from_the_loss_of_the_connection_whatever_happens(autojump_clock):
    async with open_town() as town:
        client, server = await town.pair()
        town.is_down = True
        town.cut()
        await notice(client, server)
        started = trio.current_time()
        while client.state is not ConnectionState.LOST:
            await trio.sleep(10)
            if not client.is_over:
                client.renew()  # it wakes all that wait for a change
                await client.send(b"x")
        assert trio.current_time() - started in (120, 130)


async def test_each_loss_of_the_connection_has_the_whole_grace(autojump_clock):
    async with open_town() as town:
        client, server = await town.pair()
        for _ in range(3):
            town.is_down = True
            town.cut()
            await notice(client, server)
            await trio.sleep(100)
            town.is_down = False
            await swap(client, server, b"again")
        assert client.state is server.state is ConnectionState.RESUMED


async def test_a_client_that_says_nothing_is_cut_off_by_a_server_that_resumes(autojump_clock):
    async with open_town() as town, town.open_carrier() as silent:
        with pytest.raises((trio.EndOfChannel, trio.BrokenResourceError)), trio.fail_after(60):
            await silent.receive()
        assert trio.current_time() == 10
        assert [str(problem) for problem in town.problems] == [
            "no packet from the client within 10 s"
        ]


async def test_a_session_is_not_lost_whose_next_connection_waited_while_the_server_was_blocked(
    autojump_clock,
):
    async with open_town() as town:
        client, server = await town.pair()
        town.is_down = True
        town.cut()
        with trio.move_on_after(1):
            await server.receive()
        autojump_clock.jump(1000)
        town.is_down = False
        await swap(client, server, b"it goes on")


async def test_a_session_has_the_whole_grace_after_the_server_was_blocked_and_no_more(
    autojump_clock,
):
    async with open_town() as town:
        _, server = await town.pair()
        town.is_down = True
        town.cut()
        with trio.move_on_after(1):
            await server.receive()
        autojump_clock.jump(1000)
        with pytest.raises(trio.BrokenResourceError, match="no connection for 120 s"):
            await server.receive()
        assert trio.current_time() == pytest.approx(1121, abs=1)

"""Single races and bounds of resumable channels. tests/model plays all of them at random."""

from __future__ import annotations

import pytest
import trio
from helpers.resumable_network import open_network
from test_resumable import exchange_packets, notice_loss
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
    assert peer.send_nowait(data(1, b"once"))  # it wakes the receiver, which runs in the next tick
    with trio.move_on_after(1):
        await channel.accept(newer, 0)  # this runs before the receiver
        raise AssertionError("accept() must last as long as the connection")
    await newer.aclose()
    assert decode(await newer_peer.receive()) == Frame(Kind.ACCEPT, 0, 0, bytes(16))
    assert got == []
    last, last_peer = memory_channel_pair()
    nursery.start_soon(accept, last)
    assert last_peer.send_nowait(data(1, b"once"))
    await wait_all_tasks_blocked()
    assert got == [b"once"]
    nursery.cancel_scope.cancel()


async def test_both_ends_can_replay_more_than_the_connection_holds(nursery, autojump_clock):
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


async def test_race_a_request_to_resume_that_arrives_after_a_later_one_is_refused(autojump_clock):
    async with open_network() as network:
        client, server = await network.pair()
        for number in range(70):  # enough for an acknowledgement
            await server.send(b"%d" % number)
            assert await client.receive() == b"%d" % number
        await notice_loss(server, client)
        assert server.confirmed > 0
        async with network.open_carrier() as late:
            await late.send(encode(Frame(Kind.RESUME, rest=b"\1" + client.token)))
            with pytest.raises((trio.EndOfChannel, trio.BrokenResourceError)):
                await late.receive()
        assert server.state is ConnectionState.CONNECTED
        await exchange_packets(client, server, b"fine")


async def test_the_grace_time_counts_from_the_loss_of_the_connection(autojump_clock):
    async with open_network() as network:
        client, server = await network.pair()
        network.is_down = True
        network.cut()
        await notice_loss(client, server)
        started = trio.current_time()
        while client.state is not ConnectionState.LOST:
            await trio.sleep(10)
            if not client.is_over:
                client.renew()  # it wakes all tasks that wait for a change
                await client.send(b"x")
        assert trio.current_time() - started in (120, 130)


async def test_each_loss_of_the_connection_has_the_whole_grace_time(autojump_clock):
    async with open_network() as network:
        client, server = await network.pair()
        for _ in range(3):
            network.is_down = True
            network.cut()
            await notice_loss(client, server)
            await trio.sleep(100)
            network.is_down = False
            await exchange_packets(client, server, b"again")
        assert client.state is server.state is ConnectionState.RESUMED


async def test_a_resumable_server_closes_the_connection_of_a_silent_client(autojump_clock):
    async with open_network() as network, network.open_carrier() as silent:
        with pytest.raises((trio.EndOfChannel, trio.BrokenResourceError)), trio.fail_after(60):
            await silent.receive()
        assert trio.current_time() == 10
        assert [str(problem) for problem in network.problems] == [
            "no packet from the client within 10 s"
        ]


async def cut_off_and_block(network, server, clock):
    """Cut the connection, and block the program until long after the grace time has passed."""
    network.is_down = True
    network.cut()
    with trio.move_on_after(1):
        await server.receive()
    clock.jump(1000)


async def test_a_session_is_kept_if_its_client_reconnected_while_the_server_was_blocked(
    autojump_clock,
):
    async with open_network() as network:
        client, server = await network.pair()
        await cut_off_and_block(network, server, autojump_clock)
        network.is_down = False
        await exchange_packets(client, server, b"it goes on")


async def test_after_the_server_was_blocked_a_session_has_the_whole_grace_time_once_more(
    autojump_clock,
):
    async with open_network() as network:
        _, server = await network.pair()
        await cut_off_and_block(network, server, autojump_clock)
        with pytest.raises(trio.BrokenResourceError, match="no connection for 120 s"):
            await server.receive()
        assert trio.current_time() == pytest.approx(1121, abs=1)

"""Resumable channels lose and duplicate no packet, however their connections fail."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio
from helpers.resumable_network import ResumableNetwork, open_network
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from trio_rpc.channels import ConnectionState, Resume, open_resumable
from trio_rpc.channels.resumable.replay import Frame, Kind, decode, encode
from trio_rpc.errors import Refused
from trio_rpc.testing import Failure, Faults, check_channel, memory_channel_pair


@pytest.fixture
async def network():
    async with open_network() as network:
        yield network


async def notice_loss(*channels):
    """Receive for a moment, so that the channels notice the end of their connection."""
    async with trio.open_nursery() as nursery:
        for channel in channels:
            nursery.start_soon(channel.receive)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def exchange_packets(a, b, text):
    """Send a packet in each direction, and check that both arrive."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(a.send, text)
        nursery.start_soon(b.send, text)
        assert await a.receive() == text
        assert await b.receive() == text


async def test_a_resumable_channel_conforms(autojump_clock):
    async with open_network(Resume(buffer=2**30)) as network:
        await check_channel(network.pair)


async def test_packets_pass_over_consecutive_connections(network, autojump_clock):
    client, server = await network.pair()
    for number in range(5):
        await exchange_packets(client, server, b"%d" % number)
        network.cut()
        await notice_loss(client, server)
        assert client.state is server.state is ConnectionState.RECONNECTING
        await client.send(b"meanwhile")
        assert await server.receive() == b"meanwhile"
        assert client.state is server.state is ConnectionState.RESUMED
    assert len(network.links) == 6


async def test_states_can_be_watched(network, autojump_clock):
    client, server = await network.pair()
    seen, seen_there = [], []

    async def watch(channel, seen):
        async for state in channel.states():
            seen.append(state.value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch, client, seen)
        nursery.start_soon(watch, server, seen_there)
        await exchange_packets(client, server, b"a")
        await wait_all_tasks_blocked()
        network.cut()
        await notice_loss(client, server)
        await trio.sleep(1)
        await exchange_packets(client, server, b"b")
        network.is_down = True
        network.cut()
        await notice_loss(client, server)
    assert seen == ["connected", "reconnecting", "resumed", "reconnecting", "lost"]
    assert seen_there == seen


async def test_a_full_buffer_makes_the_sender_wait_and_loses_nothing(autojump_clock):
    async with open_network(Resume(buffer=2**20)) as network, trio.open_nursery() as nursery:
        client, server = await network.pair()
        network.is_down = True
        network.cut()
        await notice_loss(client, server)
        nursery.start_soon(client.receive)
        sent = []

        @nursery.start_soon
        async def send():
            for number in range(50):
                await client.send(b"%100000d" % number)
                sent.append(number)

        await trio.sleep(5)
        assert len(sent) == 11
        network.is_down = False
        assert [int(await server.receive()) for _ in range(50)] == list(range(50))
        nursery.cancel_scope.cancel()


async def test_a_channel_fails_when_its_grace_time_is_over(network, autojump_clock):
    """A session that cannot be resumed says that it is lost, and buffers have stated limits."""
    client, server = await network.pair()
    network.is_down = True
    network.cut()
    await notice_loss(client, server)
    await client.send(b"never arrives")
    started = trio.current_time()
    for channel in (client, server):
        with pytest.raises(trio.BrokenResourceError, match="no connection for 120 s"):
            await channel.receive()
    assert trio.current_time() == started + 120
    with pytest.raises(
        trio.BrokenResourceError, match="1 packets sent by this end may not have arrived"
    ):
        await client.send(b"neither does this")


async def test_a_restarted_server_does_not_know_the_session(network, autojump_clock):
    client, _ = await network.pair()
    network.restart()
    network.cut()
    with pytest.raises(trio.BrokenResourceError, match="restarted"):
        await client.receive()
    assert client.state is ConnectionState.LOST


async def test_a_wrong_token_is_refused(network, autojump_clock):
    client, server = await network.pair()
    client.token = bytes(16)
    network.cut()
    await notice_loss(server)
    with pytest.raises(trio.BrokenResourceError, match="does not know the session"):
        await client.receive()
    assert server.state is ConnectionState.RECONNECTING


async def test_tokens_are_random_and_long(network, autojump_clock):
    tokens = {(await network.pair())[0].token for _ in range(5)}
    assert len(tokens) == 5
    assert {len(token) for token in tokens} == {16}


async def test_a_newer_connection_replaces_the_older_one(network, autojump_clock):
    client, server = await network.pair()
    await exchange_packets(client, server, b"a")
    async with network.open_carrier() as newer:
        token = client.token
        await newer.send(encode(Frame(Kind.RESUME, ack=1, rest=b"\1" + token)))
        assert decode(await newer.receive()).kind is Kind.ACCEPT
        await notice_loss(client, server)
        assert network.links[0].is_over
        await server.send(b"to the newer one")
        assert decode(await newer.receive()).rest == b"to the newer one"


async def test_race_a_packet_still_in_the_older_connection_is_received_once(
    network, autojump_clock
):
    """The older connection is closed before the peer learns which packets arrived over it."""
    client, server = await network.pair()
    for number in range(20):
        await client.send(b"%d" % number)  # not received yet, but in the older connection
        client.renew()
        await trio.sleep(1)
    got = [await server.receive() for _ in range(20)]
    assert got == [b"%d" % number for number in range(20)]


async def test_closing_works_across_a_cut(network, autojump_clock):
    client, server = await network.pair()
    await client.send(b"last words")
    network.cut()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.aclose)
        assert await server.receive() == b"last words"
        with pytest.raises(trio.EndOfChannel):
            await server.receive()
    with pytest.raises(trio.BrokenResourceError):
        await server.send(b"too late")
    started = trio.current_time()
    await server.aclose()
    assert trio.current_time() == started


async def test_closing_without_a_connection_is_bounded(network, autojump_clock):
    client, server = await network.pair()
    network.is_down = True
    network.cut()
    started = trio.current_time()
    await client.aclose()
    assert trio.current_time() - started == 5
    with trio.CancelScope() as scope:
        scope.cancel()
        await server.aclose()
    assert trio.current_time() - started == 5
    with pytest.raises(trio.ClosedResourceError):
        await client.send(b"x")


async def test_race_a_receiver_is_cancelled_while_another_task_closes(network, autojump_clock):
    client, server = await network.pair()
    await client.send(b"last")
    receiving = trio.CancelScope()

    async def receive():
        with receiving:
            await client.receive()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        nursery.start_soon(client.aclose)
        await wait_all_tasks_blocked()
        receiving.cancel()
        await wait_all_tasks_blocked()
        assert await server.receive() == b"last"
        with pytest.raises(trio.EndOfChannel):
            await server.receive()
    assert trio.current_time() == 0


async def test_no_task_remains_when_both_ends_are_closed(autojump_clock):
    async with trio.open_nursery() as nursery:
        before = trio.lowlevel.current_statistics().tasks_living
        network = ResumableNetwork(nursery)
        client, server = await network.pair()
        await exchange_packets(client, server, b"a")
        async with trio.open_nursery() as closing:
            closing.start_soon(client.aclose)
            with pytest.raises(trio.EndOfChannel):
                await server.receive()
            await server.aclose()
        await wait_all_tasks_blocked()
        # Two tasks still hold the blocks of the channels.
        assert trio.lowlevel.current_statistics().tasks_living - before == 2
        nursery.cancel_scope.cancel()


async def test_attempts_to_reconnect_are_spread_and_bounded(autojump_clock):
    """Full jitter: each delay is random, below a bound that doubles up to 10 s."""
    async with open_network(Resume(grace=300)) as network:
        client, _ = await network.pair()
        network.is_down = True
        network.cut()
        await notice_loss(client)
        await trio.sleep(290)
        waits = [b - a for a, b in zip(network.times[1:], network.times[2:], strict=False)]
        assert len(waits) > 20
        assert max(waits) <= 10
        assert all(wait <= 0.1 * 2 ** (n + 1) for n, wait in enumerate(waits))
        assert len(set(waits)) == len(waits)
        await trio.aclose_forcefully(client)


async def test_of_too_many_disconnected_channels_the_longest_disconnected_is_dropped(
    autojump_clock,
):
    async with open_network(Resume(max_waiting=3)) as network:
        pairs = [await network.pair() for _ in range(3)]
        network.is_down = True
        for link in network.links:
            link.cut()
        for pair in pairs:
            await notice_loss(*pair)
        network.is_down = False
        for link in network.links:
            assert link.is_over
        assert all(server.state is ConnectionState.RECONNECTING for _, server in pairs)
        await network.pair()
        states = [server.state for _, server in pairs]
        assert states[0] is ConnectionState.LOST
        assert ConnectionState.LOST not in states[1:]


async def test_a_server_without_resume_is_refused_by_a_resumable_client(nursery):
    a, b = memory_channel_pair()

    async def open_carrier():
        yield a

    await b.send(b"\x93\7\1\xc0")
    with pytest.raises(Refused, match="resume=True"):
        async with open_resumable(asynccontextmanager(open_carrier), Resume(), handshake_timeout=1):
            raise AssertionError("it must not open")


async def test_a_first_connection_that_is_closed_at_once_raises_connection_error():
    a, b = memory_channel_pair()

    async def open_carrier():
        yield a

    await b.aclose()
    with pytest.raises(ConnectionError, match="closed the connection at once"):
        async with open_resumable(asynccontextmanager(open_carrier), Resume(), handshake_timeout=1):
            raise AssertionError("it must not open")


async def test_the_text_of_a_server_that_does_not_resume_is_one_line(autojump_clock):
    a, b = memory_channel_pair()

    @asynccontextmanager
    async def open_carrier():
        await b.send(encode(Frame(Kind.REFUSE, rest=b"not\nERROR now\x1b[2J")))
        yield a

    with pytest.raises(Refused, match=r"^not\\nERROR now\\x1b\[2J$"):
        async with open_resumable(open_carrier, Resume(), handshake_timeout=1):
            raise AssertionError("it must not open")


@pytest.mark.parametrize(
    "data",
    [b"\x44" + bytes(16), encode(Frame(Kind.ACK)), encode(Frame(Kind.OPEN, rest=b"\2"))],
    ids=["malformed", "not first", "another version"],
)
async def test_an_invalid_first_frame_is_refused_and_other_clients_are_not_affected(
    network, data, autojump_clock
):
    client, server = await network.pair()
    async with network.open_carrier() as carrier:
        await carrier.send(data)
        with pytest.raises((trio.EndOfChannel, trio.BrokenResourceError)):
            while True:
                assert decode(await carrier.receive()).kind is Kind.REFUSE
    assert len(network.problems) == 1
    await exchange_packets(client, server, b"fine")


@pytest.mark.parametrize("name", ["grace", "buffer", "first_delay", "max_delay", "max_waiting"])
def test_options_must_be_positive(name):
    with pytest.raises(ValueError, match=f"Resume.{name} must be positive"):
        Resume(**{name: 0})


def test_a_buffer_smaller_than_the_acknowledgement_interval_is_refused():
    with pytest.raises(ValueError, match="at least 524288"):
        Resume(buffer=1000)


async def exchange(cuts, sizes):
    async with open_network() as network:
        network.forth = Faults(latency=0.05, jitter=0.1)
        network.back = Faults(latency=0.02, jitter=0.1)
        client, server = await network.pair()
        sent = [bytes([number]) * size for number, size in enumerate(sizes)]

        async def send(channel):
            for packet in sent:
                await channel.send(packet)
                await trio.sleep(0.1)
            await channel.aclose()

        async def receive(channel, got):
            with pytest.raises((trio.EndOfChannel, trio.ClosedResourceError)):
                while True:
                    got.append(await channel.receive())

        async def cut():
            for pause, failure in cuts:
                await trio.sleep(pause)
                if failure is not Failure.FREEZE:
                    network.links[-1].fail(failure)
                elif client.state is not ConnectionState.RECONNECTING:  # unnoticed by both ends
                    network.links[-1].freeze()
                    await trio.sleep(0.5)
                    client.renew()

        got = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, client)
            nursery.start_soon(receive, server, got)
            nursery.start_soon(receive, client, [])
            nursery.start_soon(cut)
        assert got == sent


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.floats(0, 1), st.sampled_from(list(Failure))), max_size=6),
    st.lists(st.sampled_from([1, 100, 70_000]), max_size=20),
)
def test_every_packet_arrives_once_over_failing_connections(cuts, sizes):
    """After a reconnection within the grace time nothing is lost and nothing comes twice."""
    trio.run(exchange, cuts, sizes, clock=trio.testing.MockClock(autojump_threshold=0))

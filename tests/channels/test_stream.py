"""StreamChannel: frames split anywhere, ends anywhere, and cancelled senders and receivers."""

from __future__ import annotations

import math
import socket
import struct
import tracemalloc

import pytest
import trio
from helpers.channel_pairs import connected, open_descriptors
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from trio_rpc.channels import StreamChannel
from trio_rpc.channels.stream import READ_SIZE
from trio_rpc.errors import DecodeError
from trio_rpc.wire.framing import frame
from trio_rpc.wire.parts import BufferList


async def channel_with(data, **options):
    ours, theirs = memory_stream_pair()
    await theirs.send_all(data)
    return StreamChannel(ours, **options), theirs


async def socket_pair(**options):
    left, right = trio.socket.socketpair()
    return StreamChannel(trio.SocketStream(left), **options), trio.SocketStream(right)


# ---- receiving


@settings(deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=50)), st.lists(st.integers(1, 9)))
def test_any_split_of_the_stream_gives_the_same_packets(packets, cuts):
    async def main():
        ours, theirs = memory_stream_pair()
        channel = StreamChannel(ours)
        rest = b"".join(map(frame, packets))
        pieces = []
        for cut in cuts:
            pieces.append(rest[:cut])
            rest = rest[cut:]
        pieces = [piece for piece in (*pieces, rest) if piece]
        received = []

        async def receive():
            received.extend([packet async for packet in channel])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            for piece in pieces:
                await theirs.send_all(piece)
                await wait_all_tasks_blocked()
            await theirs.aclose()
        assert received == packets
        await channel.aclose()

    trio.run(main)


async def test_a_packet_may_arrive_byte_by_byte():
    ours, theirs = memory_stream_pair()
    channel = StreamChannel(ours)
    packet = bytes(range(256)) * 3

    async def drip():
        for byte in frame(packet):
            await theirs.send_all(bytes([byte]))
            await wait_all_tasks_blocked()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drip)
        assert await channel.receive() == packet


async def test_ten_thousand_packets_may_arrive_in_one_segment():
    channel, theirs = await channel_with(b"".join(frame(b"%d" % n) for n in range(10_000)))
    await theirs.aclose()
    assert [packet async for packet in channel] == [b"%d" % n for n in range(10_000)]


@pytest.mark.parametrize("size", range(1, 9))
async def test_an_end_inside_a_packet_breaks_the_channel(size):
    channel, theirs = await channel_with(frame(b"hello")[:size])
    await theirs.aclose()
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError, match="inside a packet"):
            await channel.receive()


async def test_an_end_between_packets_is_the_end_of_the_channel():
    channel, theirs = await channel_with(frame(b"hello"))
    await theirs.aclose()
    assert await channel.receive() == b"hello"
    for _ in range(2):
        with pytest.raises(trio.EndOfChannel):
            await channel.receive()


async def test_an_empty_packet_is_refused():
    channel, _ = await channel_with(b"\0\0\0\0")
    for _ in range(2):
        with pytest.raises(DecodeError):
            await channel.receive()


@pytest.mark.parametrize("length", [4097, 2**31, 2**32 - 1])
async def test_a_length_beyond_the_limit_is_refused_before_any_allocation(length):
    channel, _ = await channel_with(struct.pack(">I", length), max_packet=4096)
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError, match=str(length)):
            await channel.receive()
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


async def test_a_packet_of_exactly_the_limit_is_allowed():
    channel, _ = await channel_with(frame(bytes(4096)), max_packet=4096)
    assert len(await channel.receive()) == 4096


async def test_an_announced_length_allocates_no_memory():
    ours, theirs = await socket_pair(max_packet=2**30)
    await theirs.send_all(struct.pack(">I", 2**30) + b"x")
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.receive)
            await wait_all_tasks_blocked()
            tracemalloc.start()
            await theirs.send_all(b"y")
            await wait_all_tasks_blocked()
            held, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            scope.cancel()
    assert held < 2**20
    await ours.aclose()
    await theirs.aclose()


@pytest.mark.parametrize(
    ("greeting", "meaning"),
    [
        (b"\x16\x03\x01\x02\x00\x01", "a TLS handshake"),
        (b"\x15\x03\x03\x00\x02\x02", "a TLS alert"),
        (b"GET / HTTP/1.1\r\n", "an HTTP request"),
        (b"HTTP/1.1 400 Bad Request\r\n", "an HTTP answer"),
        (b"SSH-2.0-OpenSSH\r\n", "an SSH greeting"),
        (
            b'INFO {"server_id":"N"}\r\n',
            "the greeting of a NATS server; its URLs begin with nats://",
        ),
    ],
)
async def test_the_error_names_other_protocols(greeting, meaning):
    channel, _ = await channel_with(greeting)
    with pytest.raises(DecodeError, match=f"looks like {meaning}"):
        await channel.receive()


@given(st.binary(min_size=1, max_size=200))
def test_any_bytes_give_packets_or_a_documented_error(data):
    async def main():
        channel, theirs = await channel_with(data, max_packet=4096)
        await theirs.aclose()
        with pytest.raises((DecodeError, trio.BrokenResourceError, trio.EndOfChannel)):
            while True:
                await channel.receive()

    trio.run(main)


# ---- packets that take too long


async def test_a_packet_that_stalls_breaks_the_channel(autojump_clock):
    channel, theirs = await channel_with(frame(b"hello")[:-1], packet_timeout=30)
    started = trio.current_time()
    with pytest.raises(trio.BrokenResourceError, match="more than 30 s"):
        await channel.receive()
    assert trio.current_time() - started == 30
    await theirs.send_all(b"o")
    with pytest.raises(trio.BrokenResourceError):
        await channel.receive()


async def test_sending_a_packet_slowly_does_not_extend_its_time(autojump_clock):
    channel, theirs = await channel_with(frame(bytes(100))[:5], packet_timeout=30)

    async def drip():
        for _ in range(90):
            await trio.sleep(1)
            await theirs.send_all(b"\0")

    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drip)
        with pytest.raises(trio.BrokenResourceError, match="more than 30 s"):
            await channel.receive()
        assert trio.current_time() - started == 30
        nursery.cancel_scope.cancel()


async def test_silence_between_packets_is_allowed(autojump_clock):
    channel, theirs = await channel_with(frame(b"first"), packet_timeout=30)
    assert await channel.receive() == b"first"

    async def later():
        await trio.sleep(1000)
        await theirs.send_all(frame(b"second"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(later)
        assert await channel.receive() == b"second"


async def test_only_time_spent_receiving_counts(autojump_clock):
    channel, theirs = await channel_with(frame(b"hello")[:-1], packet_timeout=30)
    with trio.move_on_after(20):
        await channel.receive()
    await trio.sleep(1000)
    await theirs.send_all(b"o")
    assert await channel.receive() == b"hello"


async def test_receiving_in_short_turns_does_not_extend_the_time_of_a_packet(autojump_clock):
    channel, _ = await channel_with(frame(b"hello")[:-1], packet_timeout=30)
    for _ in range(2):
        with trio.move_on_after(14) as scope:
            await channel.receive()
        assert scope.cancelled_caught
    started = trio.current_time()
    with pytest.raises(trio.BrokenResourceError, match="more than 30 s"):
        await channel.receive()
    assert trio.current_time() - started == 2


async def test_each_packet_has_its_own_time(autojump_clock):
    channel, theirs = await channel_with(frame(b"first")[:-1], packet_timeout=30)

    async def slowly():
        await trio.sleep(29)
        await theirs.send_all(b"t" + frame(b"second")[:-1])
        await trio.sleep(29)
        await theirs.send_all(b"d")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(slowly)
        assert await channel.receive() == b"first"
        assert await channel.receive() == b"second"


async def test_without_a_packet_timeout_a_packet_may_take_any_time(autojump_clock):
    channel, theirs = await channel_with(frame(b"hello")[:-1], packet_timeout=math.inf)
    with trio.move_on_after(10**6) as scope:
        await channel.receive()
    assert scope.cancelled_caught
    await theirs.send_all(b"o")
    assert await channel.receive() == b"hello"


# ---- sending


async def test_law_10_race_a_send_of_30_mb_over_a_socket_is_cancelled_midway():
    channel, theirs = await socket_pair()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.send, b"a" * 30_000_000)
            await wait_all_tasks_blocked()
            scope.cancel()
    assert 0 < channel.unsent < 30_000_000
    receiver = StreamChannel(theirs, 30_000_000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(channel.send, b"next")
        assert await receiver.receive() == b"a" * 30_000_000
        assert await receiver.receive() == b"next"
    await channel.aclose()
    await receiver.aclose()


async def test_law_10_race_a_send_over_another_stream_is_cancelled_midway():
    ours, theirs = trio.testing.lockstep_stream_pair()
    channel = StreamChannel(ours)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.send, b"hello")
            await wait_all_tasks_blocked()
            assert await theirs.receive_some(3) == b"\0\0\0"
            scope.cancel()
    with trio.testing.assert_checkpoints(), pytest.raises(trio.BrokenResourceError, match="cut"):
        await channel.send(b"next")


async def test_a_cancelled_flush_keeps_the_unsent_rest():
    channel, theirs = await socket_pair()
    large = bytes(range(256)) * 40_000
    assert channel.send_nowait(large)
    assert channel.unsent
    assert not channel.send_nowait(b"no room")
    for _ in range(3):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.flush)
            await wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await channel.send(b"x")
            with pytest.raises(trio.BusyResourceError):
                await channel.flush()
            nursery.cancel_scope.cancel()
    receiver = StreamChannel(theirs, len(large))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(channel.flush)
        assert await receiver.receive() == large
    assert not channel.unsent
    await channel.aclose()
    await receiver.aclose()


async def test_the_unsent_rest_may_begin_inside_the_length():
    """If the system accepts two bytes of a packet, the other two of its length come next."""
    channel, theirs = await socket_pair()
    left = channel.stream.socket
    left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    receiver = StreamChannel(theirs, 10_000_000)
    packets = [bytes([n]) * (n * 997) for n in range(1, 200)]

    async def send():
        for packet in packets:
            if not channel.send_nowait(packet):
                await channel.send(packet)
        await channel.flush()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        for packet in packets:
            assert await receiver.receive() == packet
    await channel.aclose()
    await receiver.aclose()


@pytest.mark.parametrize("accepted", range(1, 9))
def test_a_frame_arrives_whole_wherever_its_first_write_is_cut(monkeypatch, accepted):
    """Whatever part of the first write the system accepts, the frame arrives whole."""
    from trio_rpc.channels import transports

    async def main():
        channel, theirs = await socket_pair()
        real = transports.os.write
        cuts = [accepted]

        def write(fd, data):
            return real(fd, bytes(data)[: cuts.pop()] if cuts else data)

        monkeypatch.setattr(transports.os, "write", write)
        assert channel.send_nowait(b"hello")
        assert channel.unsent == 9 - accepted
        await channel.send(b"next")
        receiver = StreamChannel(theirs)
        assert await receiver.receive() == b"hello"
        assert await receiver.receive() == b"next"
        await channel.aclose()
        await receiver.aclose()

    trio.run(main)


async def test_send_nowait_sends_nothing_while_a_task_is_sending():
    channel, theirs = await socket_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(channel.send, bytes(10_000_000))
        await wait_all_tasks_blocked()
        assert not channel.send_nowait(b"x")
        nursery.cancel_scope.cancel()
    await channel.aclose()
    await theirs.aclose()


async def test_other_streams_cannot_send_nowait():
    ours, _ = memory_stream_pair()
    channel = StreamChannel(ours)
    assert not channel.send_nowait(b"x")
    assert channel.unsent == 0
    with trio.testing.assert_checkpoints():
        await channel.flush()


async def test_an_empty_packet_cannot_be_sent():
    channel, theirs = await socket_pair()
    with pytest.raises(ValueError, match="not 0"):
        await channel.send(b"")
    with pytest.raises(ValueError, match="not 0"):
        channel.send_nowait(b"")
    await channel.aclose()
    await theirs.aclose()


# ---- the ways a connection ends


async def test_packets_can_be_sent_after_the_peer_has_half_closed(nursery):
    left, right = await connected(nursery, "tcp://127.0.0.1:0")
    await left.stream.send_eof()
    with pytest.raises(trio.EndOfChannel):
        await right.receive()
    await right.send(b"reply")
    assert await left.receive() == b"reply"
    await left.aclose()
    await right.aclose()


async def test_a_reset_breaks_the_channel_for_sending_and_receiving(nursery):
    left, right = await connected(nursery, "tcp://127.0.0.1:0")
    left.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await left.aclose()
    with pytest.raises(trio.BrokenResourceError, match="reset"):
        await right.receive()
    with pytest.raises(trio.BrokenResourceError):
        await right.send(b"x")
    with pytest.raises(trio.BrokenResourceError):
        right.send_nowait(b"x")
    await right.aclose()


async def test_a_break_during_a_flush_is_raised(nursery):
    left, right = await connected(nursery, "tcp://127.0.0.1:0")
    assert left.send_nowait(bytes(20_000_000))
    right.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await right.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await left.flush()
    await left.aclose()


async def test_every_method_of_a_closed_channel_raises():
    channel, theirs = await socket_pair()
    await channel.aclose()
    assert "closed" in repr(channel)
    with pytest.raises(trio.ClosedResourceError):
        await channel.flush()
    with pytest.raises(trio.ClosedResourceError):
        channel.send_nowait(b"x")
    await theirs.aclose()


async def test_a_socket_closed_by_other_code_counts_as_closed():
    channel, theirs = await socket_pair()
    await channel.stream.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await channel.send(b"x")
    with pytest.raises(trio.ClosedResourceError):
        await channel.receive()
    await channel.aclose()
    await theirs.aclose()


@pytest.mark.parametrize("cancelled", [False, True])
@pytest.mark.parametrize("busy", [False, True])
async def test_aclose_closes_the_descriptors(maker, cancelled, busy):
    if maker.kind == "nats":
        pytest.skip("the connection to the server is not the channel's")
    before = open_descriptors()
    left, right = await maker()
    assert maker.kind in ("memory", "stream", "forwarding") or open_descriptors() > before

    async def keep_busy(verb, *args):
        with pytest.raises((trio.ClosedResourceError, trio.BrokenResourceError, trio.EndOfChannel)):
            while True:
                await verb(*args)

    async with trio.open_nursery() as nursery:
        if busy:
            nursery.start_soon(keep_busy, left.receive)
            nursery.start_soon(keep_busy, left.send, bytes(100_000))
            await wait_all_tasks_blocked()
        for channel in (left, right):
            with trio.CancelScope() as scope:
                if cancelled:
                    scope.cancel()
                await channel.aclose()
    assert open_descriptors() <= before


async def test_three_hundred_connections_leave_no_descriptors(nursery, tmp_path):
    before = open_descriptors()
    for _ in range(300):
        left, right = await connected(nursery, f"unix://{tmp_path}/s")
        await left.aclose()
        await right.aclose()
    assert open_descriptors() <= before


async def test_leaving_the_channels_block_closes_it():
    channel, theirs = await socket_pair()
    async with channel, theirs:
        pass
    with pytest.raises(trio.ClosedResourceError):
        await channel.receive()


async def test_a_receive_of_the_rest_of_a_large_packet_is_a_checkpoint():
    channel, theirs = await socket_pair()
    stream = frame(b"small") + frame(bytes(100_000))
    await theirs.send_all(
        stream[:READ_SIZE]
    )  # one read returns the first packet and a part of the second
    assert await channel.receive() == b"small"
    await theirs.send_all(stream[READ_SIZE:])
    with trio.testing.assert_checkpoints():
        assert await channel.receive() == bytes(100_000)
    await channel.aclose()
    await theirs.aclose()


# ---- stopping to receive


@pytest.mark.parametrize("over", ["socket", "other streams"])
async def test_a_waiting_receive_can_be_stopped(over):
    channel, theirs = await (socket_pair() if over == "socket" else channel_with(b""))
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def receive():
            with pytest.raises(trio.ClosedResourceError):
                await channel.receive()

        await wait_all_tasks_blocked()
        channel.stop_receiving()
    await channel.send(b"a last word")
    assert await theirs.receive_some() == frame(b"a last word")
    await channel.aclose()
    await theirs.aclose()


@pytest.mark.parametrize("over", ["socket", "other streams"])
async def test_race_a_receive_is_stopped_when_the_first_part_of_a_packet_has_arrived(over):
    """The receiver is already awake, so it is stopped only when it waits for the rest."""
    channel, theirs = await (socket_pair() if over == "socket" else channel_with(b""))
    packet = frame(bytes(100))

    class Stops(trio.abc.Instrument):
        def before_task_step(self, task):
            if "receive" in task.name:
                channel.stop_receiving()

    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def receive():
            with pytest.raises(trio.ClosedResourceError):
                await channel.receive()

        await wait_all_tasks_blocked()
        trio.lowlevel.add_instrument(stops := Stops())
        await theirs.send_all(packet[:50])
    trio.lowlevel.remove_instrument(stops)
    await channel.aclose()
    await theirs.aclose()


async def test_race_a_waiting_send_goes_on_when_receiving_is_stopped():
    """Trio wakes all tasks that wait for a socket before it is closed. This socket stays open."""
    channel, theirs = await socket_pair()
    packet = bytes(4 * 1024 * 1024)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(channel.send, packet)
        await wait_all_tasks_blocked()
        channel.stop_receiving()
        received = 0
        while received < len(frame(packet)):
            received += len(await theirs.receive_some())
    await channel.aclose()
    await theirs.aclose()


async def test_a_packet_in_many_parts_arrives_whole():
    ours, theirs = await socket_pair(max_packet=2**20)
    receiver = StreamChannel(theirs, 2**20)
    parts = BufferList([bytes([number % 256]) * 300 for number in range(3000)])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.send, parts)
        assert await receiver.receive() == bytes(parts)
    assert ours.send_nowait(parts)
    assert ours.unsent
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.flush)
        assert await receiver.receive() == bytes(parts)
    for channel in (ours, receiver):
        await channel.aclose()


async def test_receive_nowait_returns_a_packet_that_has_arrived():
    channel, theirs = await socket_pair()
    with pytest.raises(trio.WouldBlock):
        channel.receive_nowait()
    whole = frame(b"first") + frame(b"second")
    await theirs.send_all(whole[:7])
    with pytest.raises(trio.WouldBlock):
        channel.receive_nowait()
    with pytest.raises(trio.WouldBlock):  # the rest of a packet needs receive()
        channel.receive_nowait()
    await theirs.send_all(whole[7:])
    assert await channel.receive() == b"first"
    assert channel.receive_nowait() == b"second"
    await theirs.send_all(bytes(4))
    for _ in range(2):
        with pytest.raises(DecodeError):
            channel.receive_nowait()
    await channel.aclose()
    with pytest.raises(trio.ClosedResourceError):
        channel.receive_nowait()
    await theirs.aclose()


async def test_receive_nowait_raises_at_the_end():
    channel, theirs = await socket_pair()
    await theirs.send_all(frame(b"last"))
    await theirs.aclose()
    assert channel.receive_nowait() == b"last"
    for _ in range(2):
        with pytest.raises(trio.EndOfChannel):
            channel.receive_nowait()
    with pytest.raises(trio.EndOfChannel):
        await channel.receive()
    await channel.aclose()


async def test_receive_nowait_raises_would_block_over_other_streams():
    ours, theirs = memory_stream_pair()
    channel = StreamChannel(ours)
    await theirs.send_all(frame(b"x"))
    with pytest.raises(trio.WouldBlock):
        channel.receive_nowait()
    assert await channel.receive() == b"x"


async def test_close_nowait_closes_a_socket():
    channel, theirs = await socket_pair()
    assert channel.close_nowait()
    assert channel.is_closed
    assert await theirs.receive_some() == b""
    await theirs.aclose()
    ours, _ = memory_stream_pair()
    assert not StreamChannel(ours).close_nowait()

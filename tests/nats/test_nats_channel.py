"""The channel over NATS: loss, copies, credit, liveness, and peers that break the rules."""

from __future__ import annotations

import contextlib
import secrets
import struct

import pytest
import trio
from helpers.nats_broker import open_broker, open_channels
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_rpc.errors import DecodeError
from trio_rpc.nats import NatsOptions, open_nats
from trio_rpc.nats import core as c
from trio_rpc.testing import check_channel
from trio_rpc.wire.limits import Limits


@pytest.fixture
def autojump_clock():
    return MockClock(autojump_threshold=0.01)


class Ends:
    """Two ends joined by a network that loses and repeats messages."""

    def __init__(self, windows):
        self.cores = [c.ChannelCore(window) for window in windows]
        for core, window in zip(self.cores, reversed(windows), strict=True):
            core.send_window = window
        self.sent = [[], []]
        self.received = [[], []]
        self.partial = [b"", b""]
        self.lines = [[], []]

    def send(self, end, size):
        core = self.cores[end]
        if not core.is_sending():
            packet = bytes([len(self.sent[end]) % 256]) * size
            self.sent[end].append(packet)
            core.start(packet)
        self.pump(end)

    def pump(self, end):
        core = self.cores[end]
        most = c.part_size(core.send_window, 2000)
        while (message := core.next_message(most)) is not None:
            self.lines[end].append(message)

    def take(self, end):
        core = self.cores[end]
        while core.parts:
            is_last, rest = core.take()
            self.partial[end] += rest
            if is_last:
                self.received[end].append(self.partial[end])
                self.partial[end] = b""
        if core.owes_credit:
            self.lines[end].append(core.control(c.CREDIT))

    def deliver(self, end, *, lose=False, copy=False):
        """Deliver the oldest message of one end to the other one."""
        if not self.lines[end]:
            return
        message = self.lines[end].pop(0)
        if lose:
            return
        for _ in range(1 + copy):
            self.arrive(1 - end, message)

    def arrive(self, end, message):
        core = self.cores[end]
        arrival = core.receive(message)
        assert arrival.reset is None
        if arrival.has_gap:
            self.lines[end].append(core.ask_again())
        if arrival.again is not None:
            self.lines[end] += core.again(arrival.again)
        if arrival.wants_answer:
            self.lines[end].append(core.control(c.KEEPALIVE))
        self.pump(end)

    def settle(self):
        """Deliver all, as after a time without loss."""
        for _ in range(1000):
            for end in (0, 1):
                self.take(end)
                self.pump(end)
                self.lines[end].append(self.cores[end].control(c.KEEPALIVE, c.WANTS_ONE_BACK))
                for _ in range(len(self.lines[end])):
                    self.deliver(end)
            if self.sent == self.received[::-1]:
                return


ENDS = st.integers(0, 1)
STEPS = st.one_of(
    st.tuples(st.just("send"), ENDS, st.integers(1, 6000)),
    st.tuples(st.just("take"), ENDS),
    st.tuples(st.just("deliver"), ENDS),
    st.tuples(st.just("lose"), ENDS),
    st.tuples(st.just("copy"), ENDS),
)
WINDOWS = st.tuples(st.integers(1000, 10_000), st.integers(1000, 10_000))


@given(WINDOWS, st.lists(STEPS, max_size=60))
def test_packets_arrive_once_and_in_order_over_a_network_that_loses_and_repeats(windows, steps):
    ends = Ends(windows)
    for verb, end, *rest in steps:
        if verb == "send":
            ends.send(end, *rest)
        elif verb == "take":
            ends.take(end)
        else:
            ends.deliver(end, lose=verb == "lose", copy=verb == "copy")
    ends.settle()
    assert ends.sent == ends.received[::-1]
    assert all(core.all_consumed for core in ends.cores)


@given(
    st.lists(
        st.binary(max_size=60)
        | st.builds(
            lambda kind, seq, consumed, rest: struct.pack(">BQQ", ord(kind), seq, consumed) + rest,
            st.sampled_from("DPCKSXRZ"),
            st.integers(0, 3) | st.just(2**64 - 1),
            st.integers(0, 1000) | st.just(2**64 - 1),
            st.binary(max_size=20),
        ),
        max_size=20,
    )
)
def test_any_messages_are_taken_or_refused_within_the_window(messages):
    core = c.ChannelCore(1000)
    core.send_window = 1000
    core.start(bytes(300))
    core.next_message(100)
    try:
        for message in messages:
            arrival = core.receive(message)
            if arrival.again is not None:
                list(core.again(arrival.again))
    except DecodeError:
        pass
    assert sum(len(rest) + c.COST for _, rest in core.parts) <= 1000


def message(kind, seq=0, consumed=0, rest=b""):
    return struct.pack(">BQQ", ord(kind), seq, consumed) + rest


@pytest.mark.parametrize("kind", ["D", "P", "K", "C", "X"])
def test_a_gap_is_noticed_with_the_next_message(kind):
    core = c.ChannelCore(1000)
    assert not core.receive(message("D", 0, 0, b"first")).has_gap
    assert core.receive(message(kind, 2, 0, b"later")).has_gap
    assert core.ask_again() == message("S", 0, 0, (1).to_bytes(8))


BAD = {
    "too short": message("K")[:-1],
    "unknown kind": message("Z"),
    "an empty part": message("P"),
    "more consumed than sent": message("K", 0, 10**6),
    "beyond the credit": message("D", 0, 0, bytes(300_000)),
    "S without a number": message("S", 0, 0, b"abc"),
    "S from the future": message("S", 0, 0, (99).to_bytes(8)),
    "S of consumed ones": message("S", 0, 5 + c.COST, (0).to_bytes(8)),
}


@pytest.mark.parametrize("bad", BAD)
async def test_a_peer_that_breaks_the_rules_breaks_its_channel_only(bad):
    async with open_broker() as broker, open_channels(broker) as (ours, theirs):
        await ours.send(b"first")
        assert await theirs.receive() == b"first"
        theirs._publish(BAD[bad])
        with pytest.raises(DecodeError):
            await ours.receive()
        with pytest.raises(trio.BrokenResourceError, match="has given up the channel"):
            await theirs.receive()
        with pytest.raises(trio.BrokenResourceError):
            await ours.send(b"x")


async def test_lost_messages_are_sent_again():
    async with open_broker() as broker, open_channels(broker) as (ours, theirs):
        lost = []

        def lose(published):
            is_data = published.data[:1] in (b"D", b"P")
            if is_data and len(lost) < 20 and published.data[:9] not in lost:
                lost.append(published.data[:9])
                return True
            return False

        broker.lose = lose
        packets = [bytes([number]) * 1000 for number in range(50)]

        async def send():
            for packet in packets:
                await ours.send(packet)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            with trio.fail_after(60):
                assert [await theirs.receive() for _ in packets] == packets
        assert lost


@pytest.mark.parametrize("lost", ["DX", "D", "X"])
async def test_the_last_message_and_the_end_are_sent_again_if_lost(lost, autojump_clock):
    options = NatsOptions()
    async with open_broker() as broker, open_channels(broker, options=options) as (ours, theirs):
        broker.lose = lambda published: published.data[:1].decode() in lost
        await ours.send(b"last words")
        await ours.aclose()
        await wait_all_tasks_blocked(0.05)
        broker.lose = lambda _published: False
        assert await theirs.receive() == b"last words"
        with pytest.raises(trio.EndOfChannel):
            await theirs.receive()


async def test_a_channel_survives_reconnections_at_both_ends():
    async with open_broker() as broker, open_channels(broker) as (ours, theirs):
        received = []

        async def echo():
            with contextlib.suppress(trio.EndOfChannel):
                while True:
                    await theirs.send(await theirs.receive())

        async def receive():
            while len(received) < 200:
                received.append(await ours.receive())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo)
            nursery.start_soon(receive)
            for number in range(200):
                await ours.send(b"%d" % number)
                if number % 20 == 10 and broker.clients:
                    broker.drop(broker.clients[number // 20 % len(broker.clients)])
                    await trio.sleep(0.01)
            with trio.fail_after(60):
                while len(received) < 200:  # noqa: ASYNC110 - it depends on sockets
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        assert received == [b"%d" % number for number in range(200)]


@pytest.mark.parametrize("after", [0, 0.01, 0.04, 0.06, 0.09])  # at any time between two looks
async def test_a_channel_of_a_process_that_is_gone_breaks_after_linger(after, autojump_clock):
    options = NatsOptions(linger=1)
    async with open_broker() as broker:
        async with open_nats(broker.url, options=options) as client:
            async with trio.open_nursery() as nursery:
                gone = trio.Event()

                async def server(*, task_status):
                    async with open_nats(broker.url, options=options) as nats:
                        async with await nats.listen("market") as listener:
                            task_status.started()
                            async with (await listener.accept()).prepared():
                                await gone.wait()
                                broker.clients[-1].subscriptions.clear()
                                await trio.sleep_forever()

                await nursery.start(server)
                async with client.open_channel("market") as channel:
                    await trio.sleep(after)
                    await channel.send(b"just in time, so that the broker does not answer 503")
                    await wait_all_tasks_blocked(0.05)
                    gone.set()
                    started = trio.current_time()
                    with pytest.raises(trio.BrokenResourceError, match=r"process .* is gone"):
                        await channel.receive()
                    assert 1 <= trio.current_time() - started <= 1.5
                nursery.cancel_scope.cancel()


async def test_a_silent_peer_is_given_up(autojump_clock):
    options = NatsOptions()
    async with open_broker() as broker, open_channels(broker, options=options) as (ours, theirs):
        broker.lose = lambda published: published.reply == theirs.subject
        started = trio.current_time()
        with pytest.raises(trio.BrokenResourceError, match="was silent for"):
            await ours.receive()
        assert 4.5 <= trio.current_time() - started < 7


async def test_an_idle_channel_lasts(autojump_clock):
    options = NatsOptions()
    async with open_broker() as broker, open_channels(broker, options=options) as (ours, theirs):
        await trio.sleep(60)
        await ours.send(b"still here")
        assert await theirs.receive() == b"still here"


async def test_a_channel_breaks_when_there_is_no_server_for_too_long(autojump_clock):
    options = NatsOptions(outage=10)
    async with open_broker() as broker, open_channels(broker, options=options) as (ours, _theirs):
        broker.info["headers"] = False  # it accepts no client any more
        for client in list(broker.clients):
            broker.drop(client)
        started = trio.current_time()
        with pytest.raises(trio.BrokenResourceError, match="no NATS server for 10 s"):
            await ours.receive()
        assert 9 <= trio.current_time() - started < 15


async def test_a_channel_of_a_client_that_is_refused_breaks():
    async with open_broker() as broker, open_channels(broker) as (ours, _theirs):
        broker.refuse = lambda _options: "Authorization Violation"
        for client in list(broker.clients):
            broker.drop(client)
        with trio.fail_after(10), pytest.raises(trio.BrokenResourceError, match="Authorization"):
            await ours.receive()


async def test_a_message_for_a_channel_that_has_ended_is_answered_by_a_reset():
    async with open_broker() as broker, open_channels(broker) as (ours, theirs):
        theirs._ended(theirs)
        await ours.send(b"anybody there?")
        with trio.fail_after(10), pytest.raises(trio.BrokenResourceError, match="not know"):
            await ours.receive()


async def test_a_reader_that_stops_bounds_the_bytes_in_transit():
    async with open_broker() as broker, open_channels(broker) as (ours, theirs):
        sent = 0
        with trio.move_on_after(0.5):
            while True:
                await ours.send(bytes(10_000))
                sent += 10_000
        assert sent <= theirs.window
        assert sum(len(rest) for _, rest in theirs._core.parts) <= theirs.window


async def test_channels_over_a_server_with_a_small_max_payload_conform():
    async with open_broker(max_payload=4096) as broker, trio.open_nursery() as nursery:

        async def own(*, task_status):
            limits = Limits(max_packet=100_000)
            service = secrets.token_hex(8)
            async with open_channels(broker, limits, limits, service=service) as ends:
                task_status.started(ends)
                await trio.sleep_forever()

        async def make():
            return await nursery.start(own)

        await check_channel(make, max_packet=100_000)
        nursery.cancel_scope.cancel()


async def test_a_packet_that_takes_too_long_breaks_the_channel(autojump_clock):
    limits = Limits(packet_timeout=1)
    async with open_broker() as broker, open_channels(broker, limits, limits) as (ours, theirs):
        ours._publish(message("P", 0, 0, b"the first half"))
        with pytest.raises(trio.BrokenResourceError, match="more than 1 s"):
            await theirs.receive()

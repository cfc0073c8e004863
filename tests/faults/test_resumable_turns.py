"""The turns of the tasks that send over a resumable channel.

The tests hold the sends of a connection until they let them go on.
"""

from __future__ import annotations

import contextlib

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_rpc.channels import ConnectionState, Resume, open_resumable
from trio_rpc.channels.resumable.channel import LAST_FRAMES_TIMEOUT, ResumableChannel
from trio_rpc.channels.resumable.replay import ACK_PACKETS, Frame, Kind, decode, encode
from trio_rpc.errors import DecodeError
from trio_rpc.testing import memory_channel_pair

TOKEN = bytes(16)
ACCEPT = Frame(Kind.ACCEPT, 0, 0, TOKEN)


class Carrier(trio.abc.Channel[bytes]):
    """A connection whose sends wait while it is held.

    The test reads its sent packets and delivers the received ones.
    """

    def __init__(self):
        self.sent = []
        self.fails = False
        self.unsent = 0
        self._going = trio.Event()
        self._going.set()
        self._is_busy = False
        self._push, self._come = trio.open_memory_channel(1000)

    def hold(self):
        self._going = trio.Event()

    def release(self, *, fails=False):
        self.fails = fails
        self._going.set()

    def deliver(self, first, last, ack=0):
        for number in range(first, last + 1):
            self._push.send_nowait(encode(Frame(Kind.DATA, number, ack, b"%d" % number)))

    def deliver_end(self, number):
        self._push.send_nowait(encode(Frame(Kind.END, number)))

    def end(self):
        self._push.send_nowait(b"")

    def deliver_garbage(self):
        self._push.send_nowait(None)

    async def _pass(self):
        if self._is_busy:
            raise trio.BusyResourceError("two send at once")
        self._is_busy = True
        try:
            await self._going.wait()
            self._check()
        finally:
            self._is_busy = False

    def _check(self):
        if self.fails:
            raise trio.BrokenResourceError("it is gone")

    async def send(self, value):
        await self._pass()
        self.sent.append(decode(value))

    async def flush(self):
        await self._pass()

    def send_nowait(self, value):
        self._check()
        self.sent.append(decode(value))
        return True

    async def receive(self):
        data = await self._come.receive()
        if data is None:
            raise DecodeError("garbage")
        if not data:
            raise trio.EndOfChannel
        return data

    async def aclose(self):
        await trio.lowlevel.checkpoint()

    @property
    def packets(self):
        return [(frame.number, frame.rest) for frame in self.sent if frame.kind is Kind.DATA]


class Receiving:
    """A resumable channel with a receiving task, and records of the received packets and errors."""

    def __init__(self, nursery):
        self.nursery = nursery
        self.channel = ResumableChannel(Resume(), TOKEN)
        self.got = []
        self.failed = []
        self.then = None
        nursery.start_soon(self.channel.run)
        nursery.start_soon(self.receive)

    async def receive(self):
        while True:
            try:
                self.got.append(int(await self.channel.receive()))
            except DecodeError as exc:
                self.failed.append(exc)
                return
            if self.then is not None:
                self.then()

    async def carry(self, received=0):
        carrier = Carrier()
        self.nursery.start_soon(self.channel.carry, carrier, received)
        await wait_all_tasks_blocked()
        return carrier

    def send(self, packet, scope=None):
        async def send():
            with scope or trio.CancelScope():
                await self.channel.send(packet)

        self.nursery.start_soon(send)


@pytest.fixture
async def setup(autojump_clock):
    async with trio.open_nursery() as nursery:
        yield Receiving(nursery)
        nursery.cancel_scope.cancel()


async def test_a_packet_sent_during_a_replay_waits_and_is_not_sent_if_cancelled(setup):
    await setup.channel.send(b"kept")
    carrier = Carrier()
    carrier.hold()
    setup.nursery.start_soon(setup.channel.carry, carrier, 0)
    await wait_all_tasks_blocked()
    with trio.move_on_after(1) as scope:
        await setup.channel.send(b"never")
    assert scope.cancelled_caught
    assert not setup.channel.send_nowait(b"never")
    carrier.release()
    await wait_all_tasks_blocked()
    await setup.channel.send(b"next")
    assert carrier.packets == [(1, b"kept"), (2, b"next")]


@pytest.mark.parametrize("by", ["an Ack", "a flush"])
async def test_send_nowait_sends_nothing_while_an_ack_or_a_flush_is_being_sent(setup, by):
    carrier = await setup.carry()
    carrier.hold()
    if by == "an Ack":
        carrier.deliver(1, ACK_PACKETS)
    else:
        setup.nursery.start_soon(setup.channel.flush)
    await wait_all_tasks_blocked()
    assert not setup.channel.send_nowait(b"later")
    carrier.release()
    await wait_all_tasks_blocked()
    assert setup.channel.send_nowait(b"now")
    assert carrier.packets == [(1, b"now")]


async def test_send_nowait_does_not_overtake_a_packet_that_waited_for_room(setup):
    carrier = await setup.carry()
    await setup.channel.send(bytes(Resume().buffer))
    setup.send(b"first")
    await wait_all_tasks_blocked()
    taken = []
    setup.then = lambda: taken.append(setup.channel.send_nowait(b"second"))
    carrier.deliver(1, 1, ack=1)  # this makes room; the receiver learns of it first
    await wait_all_tasks_blocked()
    assert taken == [False]
    assert carrier.packets[1:] == [(2, b"first")]


async def test_an_ack_waits_for_the_packet_that_is_being_sent(setup):
    carrier = await setup.carry()
    carrier.hold()
    setup.send(b"slow")
    await wait_all_tasks_blocked()
    carrier.deliver(1, ACK_PACKETS)
    await wait_all_tasks_blocked()
    carrier.release()
    await wait_all_tasks_blocked()
    assert [(frame.kind, frame.ack) for frame in carrier.sent] == [
        (Kind.DATA, 0),
        (Kind.ACK, ACK_PACKETS),
    ]


async def test_packets_that_arrive_while_an_ack_has_to_wait_are_acknowledged_later(setup):
    """The older connection holds the turn. Without an Ack, the peer would wait for room forever."""
    older = await setup.carry()
    older.hold()
    setup.send(b"it has this")
    await wait_all_tasks_blocked()
    older.deliver(1, ACK_PACKETS)  # an Ack is due and waits for its turn
    await wait_all_tasks_blocked()
    newer = Carrier()
    setup.nursery.start_soon(setup.channel.accept, newer, 1)
    older.end()
    await wait_all_tasks_blocked()
    newer.deliver(ACK_PACKETS + 1, 2 * ACK_PACKETS)
    await wait_all_tasks_blocked()
    assert newer.sent == []
    older.release(fails=True)
    await wait_all_tasks_blocked()
    assert newer.sent == [
        Frame(Kind.ACCEPT, 0, ACK_PACKETS, TOKEN),
        Frame(Kind.ACK, 0, 2 * ACK_PACKETS),
    ]


@pytest.mark.parametrize("what", ["send", "send_nowait", "flush", "an Ack"])
async def test_a_failed_connection_is_dropped_and_its_packet_is_sent_over_the_next(
    setup, what, autojump_clock
):
    carrier = await setup.carry()
    carrier.fails = True
    match what:
        case "send":
            await setup.channel.send(b"1")
        case "send_nowait":
            assert setup.channel.send_nowait(b"1")
        case "flush":
            await setup.channel.flush()
        case _:
            carrier.deliver(1, ACK_PACKETS)
    await wait_all_tasks_blocked()
    assert setup.channel.state is ConnectionState.RECONNECTING
    assert not setup.channel.is_waiting  # frames of the other end may still arrive
    await trio.sleep(LAST_FRAMES_TIMEOUT)
    await wait_all_tasks_blocked()
    assert setup.channel.is_waiting
    newer = await setup.carry()
    assert newer.packets == ([(1, b"1")] if what in ("send", "send_nowait") else [])
    assert setup.channel.state is ConnectionState.RESUMED


async def test_a_connection_that_fails_during_its_replay_is_dropped(setup, autojump_clock):
    await setup.channel.send(b"kept")
    carrier = Carrier()
    carrier.fails = True
    with trio.fail_after(2 * LAST_FRAMES_TIMEOUT):
        await setup.channel.carry(carrier, 0)
    assert setup.channel.is_waiting
    assert (await setup.carry()).packets == [(1, b"kept")]


@pytest.mark.parametrize("sending", ["send", "send_nowait", "flush", "an Ack", "a replay"])
async def test_an_end_that_has_arrived_counts_although_sending_fails(autojump_clock, sending):
    """A web page that is closed sends its Goodbye and the End, and is gone."""
    channel = ResumableChannel(Resume(), TOKEN)
    carrier = Carrier()
    carrier.fails = sending == "a replay"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(channel.run)
        nursery.start_soon(channel.carry, carrier, 0)
        await wait_all_tasks_blocked()
        last = ACK_PACKETS if sending == "an Ack" else 1
        carrier.deliver(1, last)
        carrier.deliver_end(last + 1)
        carrier.fails = True
        assert [await channel.receive() for _ in range(last)][-1] == b"%d" % last
        match sending:
            case "send":
                await channel.send(b"an answer")
            case "send_nowait":
                assert channel.send_nowait(b"an answer")
            case "flush":
                await channel.flush()
            case _:
                await wait_all_tasks_blocked()
        with trio.fail_after(1), contextlib.suppress(trio.EndOfChannel):
            await channel.receive()
            pytest.fail("there is a packet after the End")
        nursery.cancel_scope.cancel()


async def test_a_carrier_without_sending_does_not_wait_when_its_receiving_ends(
    setup, autojump_clock
):
    began = trio.current_time()
    carrier = await setup.carry()
    carrier.fails = True
    await setup.channel.send(b"1")
    carrier.end()
    await wait_all_tasks_blocked()
    assert setup.channel.is_waiting
    assert trio.current_time() == began
    assert (await setup.carry()).packets == [(1, b"1")]


async def test_a_newer_carrier_replaces_one_without_sending_at_once(setup, autojump_clock):
    began = trio.current_time()
    carrier = await setup.carry()
    carrier.fails = True
    await setup.channel.send(b"1")
    newer = await setup.carry()
    assert newer.packets == [(1, b"1")]
    assert trio.current_time() == began
    await trio.sleep(2 * LAST_FRAMES_TIMEOUT)
    await setup.channel.send(b"2")
    assert newer.packets == [(1, b"1"), (2, b"2")]


async def test_a_send_that_is_cancelled_in_the_connection_drops_the_connection(setup):
    carrier = await setup.carry()
    carrier.hold()
    with trio.move_on_after(1):
        await setup.channel.send(b"perhaps")
    assert setup.channel.is_waiting
    assert (await setup.carry()).packets == [(1, b"perhaps")]


async def test_a_replaced_connection_is_returned_to_its_owner_and_no_longer_used(
    setup,
):
    older, newer, ended = Carrier(), Carrier(), trio.Event()

    async def accept():
        await setup.channel.accept(older, 0)
        ended.set()

    setup.nursery.start_soon(accept)
    await wait_all_tasks_blocked()
    newer.hold()
    setup.nursery.start_soon(setup.channel.accept, newer, 0)
    with trio.fail_after(1):
        await ended.wait()
    setup.send(b"to the newer")
    assert setup.channel.unsent == 0
    await wait_all_tasks_blocked()
    newer.release()
    await wait_all_tasks_blocked()
    assert older.sent == [ACCEPT]
    assert newer.packets == [(1, b"to the newer")]


@pytest.mark.parametrize("is_replaced", [False, True])
async def test_race_a_connection_is_lost_in_the_tick_in_which_its_replay_ends(setup, is_replaced):
    carrier, newer = Carrier(), Carrier()
    carrier.hold()
    newer.hold()
    setup.nursery.start_soon(setup.channel.accept, carrier, 0)
    await wait_all_tasks_blocked()
    if is_replaced:
        setup.nursery.start_soon(setup.channel.accept, newer, 0)
        await trio.lowlevel.checkpoint()  # it has started, but the older one does not know yet
    else:
        setup.channel.renew()
    carrier.release()
    await wait_all_tasks_blocked()
    assert setup.channel.state is ConnectionState.RECONNECTING
    assert not setup.channel.send_nowait(b"over no connection")
    newer.release()
    if not is_replaced:
        newer = await setup.carry()
    await wait_all_tasks_blocked()
    assert setup.channel.state is ConnectionState.CONNECTED
    await setup.channel.send(b"1")
    assert (carrier.packets, newer.packets) == ([], [(1, b"1")])


async def test_a_connection_whose_owner_is_cancelled_is_dropped(setup):
    carrier = Carrier()
    with trio.move_on_after(1):
        await setup.channel.carry(carrier, 0)
    assert setup.channel.is_waiting
    assert setup.channel.state is ConnectionState.RECONNECTING
    await setup.channel.send(b"1")
    assert carrier.packets == []
    assert (await setup.carry()).packets == [(1, b"1")]


async def test_invalid_packets_from_a_replaced_connection_are_ignored(setup):
    older = await setup.carry()
    newer = await setup.carry()
    older.deliver_garbage()
    await wait_all_tasks_blocked()
    newer.deliver(1, 3)
    await wait_all_tasks_blocked()
    assert (setup.got, setup.failed) == ([1, 2, 3], [])
    newer.deliver_garbage()
    await wait_all_tasks_blocked()
    assert [str(exc) for exc in setup.failed] == ["garbage"]


async def test_a_sender_that_waits_for_its_turn_raises_when_the_session_is_lost(setup):
    carrier = await setup.carry()
    carrier.hold()
    carrier.deliver(1, ACK_PACKETS)
    await wait_all_tasks_blocked()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def send():
            with pytest.raises(trio.BrokenResourceError, match="the client has left"):
                await setup.channel.send(b"too late")

        await wait_all_tasks_blocked()
        setup.channel.fail("the client has left")
        carrier.release()


async def test_a_silent_server_is_a_handshake_timeout_for_a_resumable_client(autojump_clock):
    class SilentServer:
        async def __aenter__(self):
            self.carrier, self.peer = memory_channel_pair()
            return self.carrier

        async def __aexit__(self, *_):
            await self.carrier.aclose()

    with pytest.raises(OSError, match="within 7 s"), trio.fail_after(60):
        async with open_resumable(SilentServer, Resume(), handshake_timeout=7):
            raise AssertionError("it must not open")
    assert trio.current_time() == 7

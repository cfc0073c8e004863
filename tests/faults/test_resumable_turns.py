"""Who may send over a resumable channel, and when: each test holds its connections where it needs them."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_rpc.channels import ConnectionState, Resume, open_resumable
from trio_rpc.channels.resumable.channel import ResumableChannel
from trio_rpc.channels.resumable.replay import ACK_PACKETS, Frame, Kind, decode, encode
from trio_rpc.errors import DecodeError
from trio_rpc.testing import memory_channel_pair

TOKEN = bytes(16)
ACCEPT = Frame(Kind.ACCEPT, 0, 0, TOKEN)


class Carrier(trio.abc.Channel[bytes]):
    """A connection: sending waits while it is held; what it sent, and what comes, is for the test to see and say."""

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

    def let_go(self, *, fails=False):
        self.fails = fails
        self._going.set()

    def deliver(self, first, last, ack=0):
        for number in range(first, last + 1):
            self._push.send_nowait(encode(Frame(Kind.DATA, number, ack, b"%d" % number)))

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


class Scene:
    """A channel that somebody receives from, and what has become of it."""

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
async def scene(autojump_clock):
    async with trio.open_nursery() as nursery:
        yield Scene(nursery)
        nursery.cancel_scope.cancel()


async def test_a_packet_sent_while_a_connection_catches_up_waits_and_cancelled_is_not_sent(scene):
    await scene.channel.send(b"kept")
    carrier = Carrier()
    carrier.hold()
    scene.nursery.start_soon(scene.channel.carry, carrier, 0)
    await wait_all_tasks_blocked()
    with trio.move_on_after(1) as scope:
        await scene.channel.send(b"never")
    assert scope.cancelled_caught
    assert not scene.channel.send_nowait(b"never")
    carrier.let_go()
    await wait_all_tasks_blocked()
    await scene.channel.send(b"next")
    assert carrier.packets == [(1, b"kept"), (2, b"next")]


@pytest.mark.parametrize("by", ["an Ack", "a flush"])
async def test_a_packet_does_not_leave_at_once_while_somebody_has_the_turn(scene, by):
    carrier = await scene.carry()
    carrier.hold()
    if by == "an Ack":
        carrier.deliver(1, ACK_PACKETS)
    else:
        scene.nursery.start_soon(scene.channel.flush)
    await wait_all_tasks_blocked()
    assert not scene.channel.send_nowait(b"later")
    carrier.let_go()
    await wait_all_tasks_blocked()
    assert scene.channel.send_nowait(b"now")
    assert carrier.packets == [(1, b"now")]


async def test_a_packet_does_not_leave_at_once_before_one_that_waited_for_room(scene):
    carrier = await scene.carry()
    await scene.channel.send(bytes(Resume().buffer))
    scene.send(b"first")
    await wait_all_tasks_blocked()
    taken = []
    scene.then = lambda: taken.append(scene.channel.send_nowait(b"second"))
    carrier.deliver(1, 1, ack=1)  # there is room again: the receiver hears of it before the sender
    await wait_all_tasks_blocked()
    assert taken == [False]
    assert carrier.packets[1:] == [(2, b"first")]


async def test_an_ack_waits_for_the_packet_that_is_being_sent(scene):
    carrier = await scene.carry()
    carrier.hold()
    scene.send(b"slow")
    await wait_all_tasks_blocked()
    carrier.deliver(1, ACK_PACKETS)
    await wait_all_tasks_blocked()
    carrier.let_go()
    await wait_all_tasks_blocked()
    assert [(frame.kind, frame.ack) for frame in carrier.sent] == [
        (Kind.DATA, 0),
        (Kind.ACK, ACK_PACKETS),
    ]


async def test_packets_that_come_before_an_ack_can_leave_are_acknowledged_once_it_can(scene):
    """The turn is somebody's in the older connection; without an Ack the other end would wait for room for ever."""
    older = await scene.carry()
    older.hold()
    scene.send(b"it has this")
    await wait_all_tasks_blocked()
    older.deliver(1, ACK_PACKETS)  # an Ack is due, and waits for its turn
    await wait_all_tasks_blocked()
    newer = Carrier()
    scene.nursery.start_soon(scene.channel.accept, newer, 1)
    older.end()
    await wait_all_tasks_blocked()
    newer.deliver(ACK_PACKETS + 1, 2 * ACK_PACKETS)
    await wait_all_tasks_blocked()
    assert newer.sent == []
    older.let_go(fails=True)
    await wait_all_tasks_blocked()
    assert newer.sent == [
        Frame(Kind.ACCEPT, 0, ACK_PACKETS, TOKEN),
        Frame(Kind.ACK, 0, 2 * ACK_PACKETS),
    ]


@pytest.mark.parametrize("what", ["send", "send_nowait", "flush", "an Ack"])
async def test_a_connection_that_fails_is_given_up_and_the_packet_comes_over_the_next(scene, what):
    carrier = await scene.carry()
    carrier.fails = True
    match what:
        case "send":
            await scene.channel.send(b"1")
        case "send_nowait":
            assert scene.channel.send_nowait(b"1")
        case "flush":
            await scene.channel.flush()
        case _:
            carrier.deliver(1, ACK_PACKETS)
    await wait_all_tasks_blocked()
    assert scene.channel.is_waiting
    assert scene.channel.state is ConnectionState.RECONNECTING
    newer = await scene.carry()
    assert newer.packets == ([(1, b"1")] if what in ("send", "send_nowait") else [])
    assert scene.channel.state is ConnectionState.RESUMED


async def test_a_connection_that_fails_while_it_catches_up_is_given_up(scene):
    await scene.channel.send(b"kept")
    carrier = Carrier()
    carrier.fails = True
    with trio.fail_after(1):
        await scene.channel.carry(carrier, 0)
    assert scene.channel.is_waiting
    assert (await scene.carry()).packets == [(1, b"kept")]


async def test_a_send_that_is_cancelled_in_the_connection_costs_the_connection(scene):
    carrier = await scene.carry()
    carrier.hold()
    with trio.move_on_after(1):
        await scene.channel.send(b"perhaps")
    assert scene.channel.is_waiting
    assert (await scene.carry()).packets == [(1, b"perhaps")]


async def test_the_owner_of_an_older_connection_gets_it_back_and_nothing_more_is_sent_over_it(
    scene,
):
    older, newer, ended = Carrier(), Carrier(), trio.Event()

    async def accept():
        await scene.channel.accept(older, 0)
        ended.set()

    scene.nursery.start_soon(accept)
    await wait_all_tasks_blocked()
    newer.hold()
    scene.nursery.start_soon(scene.channel.accept, newer, 0)
    with trio.fail_after(1):
        await ended.wait()
    scene.send(b"to the newer")
    assert scene.channel.unsent == 0
    await wait_all_tasks_blocked()
    newer.let_go()
    await wait_all_tasks_blocked()
    assert older.sent == [ACCEPT]
    assert newer.packets == [(1, b"to the newer")]


@pytest.mark.parametrize("is_replaced", [False, True])
async def test_race_a_connection_is_lost_in_the_tick_in_which_it_has_caught_up(scene, is_replaced):
    carrier, newer = Carrier(), Carrier()
    carrier.hold()
    newer.hold()
    scene.nursery.start_soon(scene.channel.accept, carrier, 0)
    await wait_all_tasks_blocked()
    if is_replaced:
        scene.nursery.start_soon(scene.channel.accept, newer, 0)
        await trio.lowlevel.checkpoint()  # it has begun, and the older one has not heard of it
    else:
        scene.channel.renew()
    carrier.let_go()
    await wait_all_tasks_blocked()
    assert scene.channel.state is ConnectionState.RECONNECTING
    assert not scene.channel.send_nowait(b"over no connection")
    newer.let_go()
    if not is_replaced:
        newer = await scene.carry()
    await wait_all_tasks_blocked()
    assert scene.channel.state is ConnectionState.CONNECTED
    await scene.channel.send(b"1")
    assert (carrier.packets, newer.packets) == ([], [(1, b"1")])


async def test_a_connection_whose_owner_is_cancelled_is_given_up(scene):
    carrier = Carrier()
    with trio.move_on_after(1):
        await scene.channel.carry(carrier, 0)
    assert scene.channel.is_waiting
    assert scene.channel.state is ConnectionState.RECONNECTING
    await scene.channel.send(b"1")
    assert carrier.packets == []
    assert (await scene.carry()).packets == [(1, b"1")]


async def test_garbage_from_a_connection_that_was_replaced_harms_nobody(scene):
    older = await scene.carry()
    newer = await scene.carry()
    older.deliver_garbage()
    await wait_all_tasks_blocked()
    newer.deliver(1, 3)
    await wait_all_tasks_blocked()
    assert (scene.got, scene.failed) == ([1, 2, 3], [])
    newer.deliver_garbage()
    await wait_all_tasks_blocked()
    assert [str(exc) for exc in scene.failed] == ["garbage"]


async def test_a_sender_that_waits_for_its_turn_hears_that_the_session_is_lost(scene):
    carrier = await scene.carry()
    carrier.hold()
    carrier.deliver(1, ACK_PACKETS)
    await wait_all_tasks_blocked()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def send():
            with pytest.raises(trio.BrokenResourceError, match="gone for good"):
                await scene.channel.send(b"too late")

        await wait_all_tasks_blocked()
        scene.channel.fail("gone for good")
        carrier.let_go()


async def test_a_server_that_says_nothing_is_given_up_by_a_client_that_resumes(autojump_clock):
    class Silence:
        async def __aenter__(self):
            self.carrier, self.peer = memory_channel_pair()
            return self.carrier

        async def __aexit__(self, *_):
            await self.carrier.aclose()

    with pytest.raises(OSError, match="within 7 s"), trio.fail_after(60):
        async with open_resumable(Silence, Resume(), handshake_timeout=7):
            raise AssertionError("it must not open")
    assert trio.current_time() == 7

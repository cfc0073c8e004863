"""Two ends of a resumable channel, with random actions between any two steps of a reconnection.

Each carrier waits before each packet that it sends or delivers, until the model lets it go on. The
actions in between are drawn at random: sends, ``send_nowait``, flushes, cancelled sends,
acknowledgements, cuts that both ends or only one of them notice, a newer carrier that replaces an
older one, an end that closes. No time passes.
"""

from __future__ import annotations

from collections import deque

import pytest
import trio
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_rpc.channels import ConnectionState, Resume
from trio_rpc.channels.resumable import replay as resumption
from trio_rpc.channels.resumable.channel import CLOSE_TIMEOUT, ResumableChannel
from trio_rpc.channels.resumable.replay import Kind, decode

GONE = (trio.EndOfChannel, trio.BrokenResourceError, trio.ClosedResourceError)


class Steps:
    """Points at which tasks wait until the model lets them go on."""

    def __init__(self):
        self.waiting = []
        self.is_open = False

    async def step(self):
        if self.is_open:
            await trio.lowlevel.checkpoint()
            return
        event = trio.Event()
        self.waiting.append(event)
        try:
            await event.wait()
        finally:
            if event in self.waiting:
                self.waiting.remove(event)

    def release(self, index):
        if self.waiting:
            self.waiting.pop(index % len(self.waiting)).set()

    def open(self):
        self.is_open = True
        while self.waiting:
            self.release(0)


class Carrier(trio.abc.Channel[bytes]):
    """One end of a connection, which waits before each packet.

    ``send_nowait`` writes some packets whole, some in part, and refuses others.
    """

    def __init__(self, steps):
        self.steps = steps
        self.peer = self
        self.inbox = deque()
        self.arrived = trio.Event()
        self.rest = None
        self.calls = 0
        self.is_cut = self.is_closed = False

    def check(self):
        if self.is_closed:
            raise trio.ClosedResourceError
        if self.is_cut or self.peer.is_closed:
            raise trio.BrokenResourceError

    def deliver(self, packet):
        self.check()
        self.peer.inbox.append(packet)
        self.peer.arrived.set()

    async def flush(self):
        await self.steps.step()
        self.check()
        if self.rest is not None:
            packet, self.rest = self.rest, None
            self.deliver(packet)

    async def send(self, value):
        await self.flush()
        await self.steps.step()
        self.deliver(value)

    @property
    def unsent(self):
        return len(self.rest or b"")

    def send_nowait(self, value):
        self.check()
        self.calls += 1
        if self.rest is not None or self.calls % 3 == 0:
            return False
        if self.calls % 3 == 1:
            self.rest = value
        else:
            self.deliver(value)
        return True

    async def receive(self):
        while not self.inbox:
            if self.is_closed:
                raise trio.ClosedResourceError
            if self.is_cut or self.peer.is_closed:
                await trio.lowlevel.checkpoint()
                raise trio.EndOfChannel
            self.arrived = trio.Event()
            await self.arrived.wait()
        await self.steps.step()
        if self.is_closed or not self.inbox:
            raise trio.ClosedResourceError
        return self.inbox.popleft()

    def cut(self):
        self.is_cut = True
        self.arrived.set()

    async def aclose(self):
        self.is_closed = True
        self.inbox.clear()
        self.arrived.set()
        self.peer.arrived.set()
        await trio.lowlevel.checkpoint()


class End:
    """One end, and the actions of its users."""

    def __init__(self, name, nursery):
        self.name = name
        self.nursery = nursery
        self.channel = ResumableChannel(Resume(), bytes(16))
        self.sent, self.uncertain, self.got = [], set(), []
        self.scope = None
        self.is_closing = self.is_closed = self.has_ended = False
        nursery.start_soon(self.channel.run)
        nursery.start_soon(self.receive)

    async def receive(self):
        try:
            while True:
                self.got.append(int(await self.channel.receive()))
        except trio.EndOfChannel:
            self.has_ended = True
        except trio.ClosedResourceError:
            pass

    def packet(self):
        self.sent.append(len(self.sent))
        return b"%d" % self.sent[-1]

    def send(self):
        if self.scope is None:
            self.scope = trio.CancelScope()
            self.nursery.start_soon(self.send_one)

    async def send_one(self):
        packet = self.packet()
        with self.scope:
            try:
                await self.channel.send(packet)
            except GONE:
                self.uncertain.add(int(packet))
        if self.scope.cancelled_caught:
            self.uncertain.add(int(packet))
        self.scope = None

    def cancel(self):
        if self.scope is not None:
            self.scope.cancel()

    def send_now(self):
        packet = self.packet()
        try:
            taken = self.channel.send_nowait(packet)
        except GONE:
            taken = False
        if not taken:
            self.sent.pop()

    def flush(self):
        if self.scope is None:
            self.nursery.start_soon(self.channel.flush)

    def close(self):
        if not self.is_closing:
            self.is_closing = True
            self.nursery.start_soon(self.aclose)

    async def aclose(self):
        await self.channel.aclose()
        self.is_closed = True


class Model:
    """Both ends, and the connections between them."""

    def __init__(self, nursery):
        self.nursery = nursery
        self.steps = Steps()
        self.client, self.server = End("client", nursery), End("server", nursery)
        self.carriers = (Carrier(self.steps), Carrier(self.steps))
        self.is_connecting = False

    def connect(self):
        """Start a connection if the client wants one.

        The server may not know yet that the older connection has ended.
        """
        if not self.is_connecting and self.client.channel.is_waiting:
            self.is_connecting = True
            ours, theirs = self.carriers = Carrier(self.steps), Carrier(self.steps)
            ours.peer, theirs.peer = theirs, ours
            self.nursery.start_soon(self.run_connection, ours, theirs)

    async def run_connection(self, ours, theirs):
        try:
            answer = await self.greet(ours, theirs)
            if answer is not None:
                await self.client.channel.carry(ours, answer.ack)
        finally:
            with trio.CancelScope(shield=True):
                await ours.aclose()

    async def greet(self, ours, theirs):
        ack = self.client.channel.received
        try:
            await self.steps.step()
            if self.server.channel.is_over:  # the server no longer knows the session
                self.client.channel.fail("refused")
                return None
            self.nursery.start_soon(self.accept, theirs, ack)
            answer = decode(await ours.receive())
        except GONE:
            return None
        else:
            assert answer.kind is Kind.ACCEPT
            return answer
        finally:
            self.is_connecting = False

    async def accept(self, carrier, ack):
        try:
            await self.server.channel.accept(carrier, ack)
        finally:
            with trio.CancelScope(shield=True):
                await carrier.aclose()

    def do(self, action):
        kind, which = action
        end = (self.client, self.server)[which % 2]
        match kind:
            case "send":
                end.send()
            case "send_now":
                end.send_now()
            case "flush":
                end.flush()
            case "cancel":
                end.cancel()
            case "close":
                end.close()
            case "connect":
                self.connect()
            case "renew":  # the other end does not notice
                end.channel.renew()
            case "cut":
                for carrier in self.carriers:
                    carrier.cut()
            case "step":
                self.steps.release(which)

    async def settle(self, clock):
        """Run all pending actions."""
        self.steps.open()
        for _ in range(20):
            await wait_all_tasks_blocked()
            for end in (self.client, self.server):
                if end.channel.unsent:  # as a session's writer does
                    end.flush()
            if self.server.channel.is_waiting:
                self.client.channel.renew()
            self.connect()
        if self.client.is_closed or self.server.is_closed:
            clock.jump(CLOSE_TIMEOUT)  # the end that closes last may get no acknowledgement
            await wait_all_tasks_blocked()

    def check(self):
        for end, other in ((self.client, self.server), (self.server, self.client)):
            # Once an end has closed, the other one may reconnect to a server that has forgotten it.
            assert end.channel._failure is None or other.is_closed
            assert end.scope is None, "no send waits forever"
            assert end.is_closed == end.is_closing, "closing ends"
            arrived = set(other.got)
            lost = [number for number in end.sent if number not in arrived]
            assert other.got == sorted(arrived), "once, and in order"
            if not other.is_closing:
                assert set(lost) <= end.uncertain
                assert other.has_ended == end.is_closing
        if not (self.client.is_closing or self.server.is_closing):
            states = {self.client.channel.state, self.server.channel.state}
            assert states <= {ConnectionState.CONNECTED, ConnectionState.RESUMED}


def step(which=0):
    return ("step", which), True


CONNECTED = [step()] * 12


async def play(actions):
    async with trio.open_nursery() as nursery:
        model = Model(nursery)
        model.connect()
        for action, waits in [*CONNECTED, *actions]:
            model.do(action)
            if waits:
                await wait_all_tasks_blocked()
            else:
                await trio.lowlevel.checkpoint()
        await model.settle(trio.lowlevel.current_clock())
        model.check()
        nursery.cancel_scope.cancel()


@pytest.fixture(scope="module", autouse=True)
def _small_bounds():
    """Make acknowledgements due and buffers full after a few packets."""
    patch = pytest.MonkeyPatch()
    patch.setattr(resumption, "ACK_PACKETS", 3)
    patch.setattr(resumption, "MAX_PACKETS", 7)
    yield
    patch.undo()


KINDS = ["step"] * 12 + ["send", "send_now"] * 4 + ["connect"] * 3 + ["cancel", "flush"] * 2
KINDS += ["cut", "renew"]
CLOSING = st.lists(st.sampled_from([("close", 0), ("close", 1), ("step", 0)]), max_size=3)
ACTIONS = st.lists(
    st.tuples(st.tuples(st.sampled_from(KINDS), st.integers(0, 5)), st.booleans()),
    min_size=60,
    max_size=120,
)


@settings(deadline=None, max_examples=200, suppress_health_check=list(HealthCheck))
@given(ACTIONS, CLOSING, st.integers(0, 60))
def test_packets_sent_between_the_steps_of_a_reconnection_arrive_once_and_in_order(
    actions, closing, at
):
    actions[at:at] = [(action, False) for action in closing]
    trio.run(play, actions, clock=MockClock())


@pytest.mark.slow
@pytest.mark.parametrize("number", range(10))
def test_packets_arrive_once_and_in_order_in_many_more_examples(number):
    """The examples are split into parts, each of which takes as long as the test above."""

    @seed(number)
    @settings(deadline=None, max_examples=200, suppress_health_check=list(HealthCheck))
    @given(ACTIONS, CLOSING, st.integers(0, 60))
    def play_all(actions, closing, at):
        actions[at:at] = [(action, False) for action in closing]
        trio.run(play, actions, clock=MockClock())

    play_all()


@pytest.mark.parametrize("kind", ["send", "send_now", "flush", "close"])
@pytest.mark.parametrize("which", [0, 1], ids=["client", "server"])
@pytest.mark.parametrize("steps", range(14))
def test_race_an_action_happens_at_each_step_of_a_replay(kind, which, steps):
    """Both ends have packets to replay. After ``steps`` steps, the action happens twice."""
    queued = [(("send", end), True) for _ in range(3) for end in (0, 1)]
    cut, connect = (("cut", 0), True), (("connect", 0), True)
    now = [((kind, which), True), ((kind, which), True)]
    actions = [cut, *queued, connect, *[step()] * steps, *now, *[step()] * 20]
    trio.run(play, actions, clock=MockClock())


@pytest.mark.parametrize("which", [0, 1], ids=["client", "server"])
@pytest.mark.parametrize("steps", range(3))
def test_race_a_send_is_cancelled_inside_its_carrier(which, steps):
    """Neither end knows whether the packet was sent, so it is sent again before the next one."""
    send = (("send", which), True)
    trio.run(
        play,
        [send, *[step()] * steps, (("cancel", which), True), send, *[step()] * 9],
        clock=MockClock(),
    )

"""The relay: two channels joined, and sessions over them."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

import pytest
import trio
from helpers.channel_pairs import Held, child_channels, connected
from helpers.forwarding_pairs import open_channel_pair, open_forwarding_pair
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc import DEFAULT_LIMITS
from trio_rpc.channels import memory_channel_pair, relay
from trio_rpc.channels.connection import owned
from trio_rpc.testing import check_channel


class Joined:
    """Two channels, and a relay between them that a test can stop."""

    def __init__(self, far, middle, nursery, *, swapped=False):
        other_middle, self.other_far = memory_channel_pair()
        self.far = far
        self.relay = trio.CancelScope()
        self.over = trio.Event()
        middles = (other_middle, middle) if swapped else (middle, other_middle)
        nursery.start_soon(self._run, *middles)

    async def _run(self, *middles):
        with self.relay:
            await relay(*middles)
        self.over.set()


@pytest.fixture(params=["memory", "tcp", "unix", "tls", "ws", "process", "forwarding"])
def kind(request):
    return request.param


@pytest.fixture(params=[False, True], ids=["first", "second"])
async def joined(request, kind, nursery, tmp_path, certificates):
    if kind == "memory":
        ends = memory_channel_pair()
    elif kind == "forwarding":
        ends = await Held(nursery).enter(open_channel_pair())
    elif kind == "process":
        pair = await child_channels(DEFAULT_LIMITS, DEFAULT_LIMITS)
        ends = [await Held(nursery).enter(owned(end)) for end in reversed(pair)]
    else:
        url = f"unix://{tmp_path}/socket" if kind == "unix" else f"{kind}://127.0.0.1:0"
        contexts = (certificates.server, certificates.client) if kind == "tls" else ()
        ends = await connected(nursery, url, *contexts)
    return Joined(*ends, nursery, swapped=request.param)


async def test_packets_pass_unchanged(joined):
    with trio.fail_after(10):
        for number in range(50):
            packet = bytes([number]) * (1 + 5000 * number)
            await joined.far.send(packet)
            assert await joined.other_far.receive() == packet
            await joined.other_far.send(packet)
            assert await joined.far.receive() == packet


async def test_an_orderly_end_is_passed_on_after_the_last_packet(joined):
    with trio.fail_after(10):
        for number in range(10):
            await joined.far.send(bytes([number]))
        await joined.far.aclose()
        assert [packet[0] async for packet in joined.other_far] == list(range(10))
        await joined.over.wait()


async def test_an_orderly_end_is_passed_on_the_other_way(joined):
    async def close_when_ended():
        with contextlib.suppress(trio.EndOfChannel):
            await joined.far.receive()
        await joined.far.aclose()  # as a session does; a WebSocket requires it

    with trio.fail_after(10):
        await joined.other_far.send(b"x")
        assert await joined.far.receive() == b"x"
        await joined.other_far.aclose()
        with pytest.raises(trio.EndOfChannel):
            await joined.far.receive()
        await joined.over.wait()


async def test_a_break_is_passed_on_as_a_break(joined):
    with trio.fail_after(10):
        await joined.other_far.send(b"x")
        assert await joined.far.receive() == b"x"
        joined.other_far.abort()
        with pytest.raises(trio.BrokenResourceError):
            await joined.far.receive()
        await joined.over.wait()


async def test_a_cancelled_relay_breaks_both_channels(joined):
    with trio.fail_after(10):
        await joined.far.send(b"x")
        assert await joined.other_far.receive() == b"x"
        joined.relay.cancel()
        for end in (joined.far, joined.other_far):
            with pytest.raises(trio.BrokenResourceError):
                await end.receive()
        await joined.over.wait()


async def test_an_end_that_does_not_receive_makes_the_other_wait(autojump_clock, nursery):
    joined = Joined(*memory_channel_pair(), nursery)
    with trio.move_on_after(1) as scope:
        for _ in range(100):
            await joined.far.send(bytes(10_000))
    assert scope.cancelled_caught
    await joined.other_far.send(b"the other way is open")
    assert await joined.far.receive() == b"the other way is open"


async def test_packets_sent_before_closing_arrive_even_while_the_other_end_sends(nursery):
    joined = Joined(*memory_channel_pair(), nursery)
    for number in range(5):
        await joined.other_far.send(bytes([number]))
    await joined.other_far.aclose()
    with pytest.raises(trio.BrokenResourceError):
        while True:
            await joined.far.send(b"nobody receives this")
    with contextlib.suppress(trio.EndOfChannel):
        received = [packet[0] async for packet in joined.far]
    assert received == list(range(5))


class SlowToClose(trio.abc.Channel[bytes]):
    """A channel through a relay, whose ``aclose`` waits until the relay has passed the end on."""

    def __init__(self, channel):
        self._channel = channel

    async def send(self, value):
        await self._channel.send(value)

    async def receive(self):
        return await self._channel.receive()

    async def aclose(self):
        await self._channel.aclose()
        await wait_all_tasks_blocked()


async def test_a_channel_through_a_relay_conforms(nursery):
    async def make():
        joined = Joined(*memory_channel_pair(), nursery)
        return SlowToClose(joined.far), SlowToClose(joined.other_far)

    with trio.fail_after(20):
        await check_channel(make)


class Worker:
    def __init__(self):
        self.ended = trio.Event()
        self.deadline = None

    @trio_rpc.method
    async def double(self, number: int) -> int:
        return number * 2

    @trio_rpc.method
    async def count(self, to: int, on_number: Callable[[int], Awaitable[None]]) -> str:
        for number in range(to):
            await on_number(number)
        return "done"

    @trio_rpc.method
    async def sleep(self) -> None:
        self.deadline = trio.current_effective_deadline() - trio.current_time()
        try:
            await trio.sleep_forever()
        finally:
            self.ended.set()


@contextlib.asynccontextmanager
async def browser_to_plugin(worker, nursery):
    """Join a session client over a WebSocket, a relay and a forwarding to a service."""

    async def plugin(channel, name):
        assert name == "worker"
        await trio_rpc.serve_session(channel, worker)

    far, middle = await connected(nursery, "ws://127.0.0.1:0/rpc")
    async with (
        open_forwarding_pair(None, {"plugins/{name}": plugin}) as (host, _),
        trio.open_nursery() as relays,
    ):
        relays.start_soon(relay, middle, await host.open("plugins/worker"))
        async with trio_rpc.open_session(far) as session:
            yield session, relays.cancel_scope


async def test_calls_callbacks_and_cancellation_work_through_a_relay(nursery):
    worker = Worker()
    numbers = []

    async def on_number(number):
        numbers.append(number)

    with trio.fail_after(10):
        async with browser_to_plugin(worker, nursery) as (session, _):
            proxy = session.proxy("", Worker)
            assert await proxy.double(21) == 42
            assert await proxy.count(5, on_number) == "done"
            assert numbers == [0, 1, 2, 3, 4]
            with pytest.raises(trio_rpc.InvalidArguments):
                await session.call("double", "x")
            async with trio.open_nursery() as callers:
                callers.start_soon(proxy.sleep)
                while worker.deadline is None:
                    await trio.lowlevel.checkpoint()
                assert not worker.ended.is_set()
                callers.cancel_scope.cancel()
            assert worker.ended.is_set()  # law 2: before the end of the caller's block
            assert await session.call("double", 1) == 2


async def test_deadlines_travel_through_a_relay(nursery):
    worker = Worker()
    with trio.fail_after(10):
        async with browser_to_plugin(worker, nursery) as (session, _):
            with trio.move_on_after(5) as scope:
                async with trio.open_nursery() as callers:
                    callers.start_soon(session.call, "sleep")
                    while worker.deadline is None:
                        await trio.lowlevel.checkpoint()
                    assert 0 < worker.deadline <= 5
                    scope.cancel()
            assert worker.ended.is_set()


async def test_a_relay_that_ends_breaks_both_sessions(nursery):
    worker = Worker()
    with trio.fail_after(10):
        async with browser_to_plugin(worker, nursery) as (session, relays):

            async def call():
                with pytest.raises(trio_rpc.SessionBroken):
                    await session.call("sleep")

            async with trio.open_nursery() as callers:
                callers.start_soon(call)
                while worker.deadline is None:
                    await trio.lowlevel.checkpoint()
                relays.cancel()
            await worker.ended.wait()

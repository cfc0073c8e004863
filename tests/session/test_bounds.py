"""Bounds at their edges: the peer's limits, a full queue, a generator that never waits."""

from __future__ import annotations

import pytest
import trio
from helpers.handlers import Echo
from helpers.raw_peer import session_with_raw_peer
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc import EncodeError, Fate, Limits
from trio_rpc.session.streams.items import ITEMS_PER_TURN
from trio_rpc.wire import messages as m

MOST = 2 * ITEMS_PER_TURN
"""The most items between two turns of another task.

Trio may run that task first in one turn and last in the next."""


def nested(levels):
    value = 0
    for _ in range(levels):
        value = [value]
    return value


class Blocks:
    """A service whose generator never waits."""

    def __init__(self):
        self.yielded = 0

    @trio_rpc.stream
    async def blocks(self, size: int):
        while True:
            self.yielded += 1
            yield b"x" * size

    @trio_rpc.method
    async def nested(self, levels: int):
        return nested(levels)

    @trio_rpc.method
    async def many(self, values: int):
        return [0] * values


@pytest.mark.parametrize("theirs", [8, 32])
async def test_law_12_the_peers_limit_of_depth_bounds_messages_sent_to_it(
    session_pair, no_time, theirs
):
    options = {"limits": Limits(max_depth=theirs)}
    fits, too_deep = theirs - 2, theirs + 1
    async with session_pair(Blocks(), Echo(), options_b=options) as (a, b):
        assert await a.call("echo", nested(fits)) == nested(fits)
        with pytest.raises(EncodeError, match=f"more than {theirs} levels") as caught:
            await a.call("echo", nested(too_deep))
        assert caught.value.fate is Fate.NOT_STARTED
        with pytest.raises(EncodeError, match=f"more than {theirs} levels"):
            await a.notify("echo", nested(too_deep))
        assert await b.call("nested", fits) == nested(fits)
        with pytest.raises(trio_rpc.RemoteError, match=f"more than {theirs} levels"):
            await b.call("nested", too_deep)
        assert await b.call("nested", 1) == nested(1)


async def test_law_12_the_peers_limit_of_nodes_bounds_messages_sent_to_it(session_pair, no_time):
    options = {"limits": Limits(max_nodes=2_000)}
    async with session_pair(Blocks(), Echo(), options_b=options) as (a, b):
        assert await a.call("echo", [0] * 1_000) == [0] * 1_000
        with pytest.raises(EncodeError, match="more than 2000"):
            await a.call("echo", [0] * 2_001)
        with pytest.raises(trio_rpc.RemoteError, match="more than 2000"):
            await b.call("many", 2_001)
        assert await b.call("many", 3) == [0] * 3


async def test_law_12_items_wait_when_the_queue_is_full_even_with_credit(autojump_clock):
    limits = Limits(send_buffer=50_000)
    blocks = Blocks()
    async with session_with_raw_peer(blocks, limits=limits, max_buffer=1) as (session, peer):
        peer.send(m.Request(1, "blocks", [10_000], None, {"stream": [1_000, 10**9]}))
        await wait_all_tasks_blocked()
        assert session.statistics().bytes_waiting <= 70_000
        assert blocks.yielded < 20
        assert len(await peer.read_all(m.Item, 100)) == 100  # they follow as space becomes free
        peer.send(m.Cancel(1))


async def test_law_12_items_of_a_duplex_wait_when_the_queue_is_full(autojump_clock):
    limits = Limits(send_buffer=50_000)
    sent = 0

    class Chat:
        @trio_rpc.duplex
        async def chat(self, channel: trio.abc.Channel[bytes]):
            nonlocal sent
            while True:
                await channel.send(b"x" * 10_000)
                sent += 1

    async with session_with_raw_peer(Chat(), limits=limits, max_buffer=1) as (session, peer):
        credit = {"stream": [1_000, 10**9]}
        peer.send(m.Request(1, "chat", [m.Reference(2, 0)], None, credit))
        await wait_all_tasks_blocked()
        assert session.statistics().bytes_waiting <= 70_000
        assert sent < 20
        peer.send(m.Cancel(1))


class Watch:
    """Records the most items that were yielded between two turns of another task."""

    def __init__(self, blocks):
        self.most = self.turns = 0
        self._blocks = blocks

    async def run(self):
        while True:
            before = self._blocks.yielded
            await trio.lowlevel.checkpoint()
            self.most = max(self.most, self._blocks.yielded - before)
            self.turns += 1


@pytest.mark.parametrize("size", [1, 2_000])
async def test_a_generator_that_never_waits_does_not_starve_other_tasks(
    session_pair, no_time, size
):
    blocks = Blocks()
    watch = Watch(blocks)
    async with session_pair(None, blocks) as (a, _), trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        async with a.stream("blocks", size) as items:
            for _ in range(3_000):
                await items.receive()
        nursery.cancel_scope.cancel()
    assert 0 < watch.most <= MOST
    assert watch.turns > 3_000 // MOST


async def test_a_generator_argument_that_never_waits_does_not_starve_other_tasks(
    session_pair, no_time
):
    blocks = Blocks()
    watch = Watch(blocks)

    class Taker:
        @trio_rpc.method
        async def take(self, items: trio.abc.ReceiveChannel[bytes], count: int) -> int:
            return sum([len(await items.receive()) for _ in range(count)])

    async with session_pair(None, Taker()) as (a, _), trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        assert await a.call("take", blocks.blocks(1), 3_000)
        nursery.cancel_scope.cancel()
    assert 0 < watch.most <= MOST

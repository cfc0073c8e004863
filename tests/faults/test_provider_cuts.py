"""A provider whose connection is cut again and again, at any moment, or that becomes silent."""

from __future__ import annotations

import collections
import functools
import random

import pytest
import trio
from trio.testing import MockClock

import trio_rpc
from trio_rpc import ConnectionHandler, Fate, Limits, Resume, ServiceProvider, serve_connections
from trio_rpc.testing import open_chaos_proxy

AT_ONCE = Resume(first_delay=0.001, max_delay=0.01)
CUTS = 25
PATHS = 3


@pytest.fixture
def clock():
    """Make a mock clock that lets the system deliver bytes in transit before it jumps."""
    return MockClock(autojump_threshold=0.02)


class Ledger:
    """Counts how often each call has been handled, over all connections."""

    def __init__(self):
        self.counts = collections.Counter()

    @trio_rpc.method
    async def enter(self, number: int) -> int:
        self.counts[number] += 1
        await trio.sleep(0.01)
        return number


class Caller:
    """Makes numbered calls until it is told to stop, and checks how each of them ends."""

    def __init__(self, ledger):
        self._ledger = ledger
        self._number = 0
        self.is_over = False
        self.fates = collections.Counter()
        self._wanted = 0
        self._enough = trio.Event()

    async def call_on(self, proxy):
        while not self.is_over:
            self._number += 1
            number = self._number
            fate = None
            try:
                assert await proxy.enter(number) == number
            except trio_rpc.RpcError as exc:
                fate = exc.fate
                await trio.sleep(0.01)
            count = self._ledger.counts[number]
            self.fates[fate] += 1
            if self.fates[None] >= self._wanted:
                self._enough.set()
            if fate is None:
                assert count == 1
            elif fate is Fate.NOT_STARTED:
                assert count == 0
            else:
                assert count <= 1

    async def wait_for(self, results):
        """Wait until so many more calls have succeeded."""
        self._wanted = self.fates[None] + results
        self._enough = trio.Event()
        await self._enough.wait()


@pytest.mark.parametrize("grace", [0, 60])
@pytest.mark.parametrize("resume", [False, AT_ONCE])
async def test_calls_end_with_their_true_fate_whenever_the_connection_is_cut(grace, resume, clock):
    ledger, chance = Ledger(), random.Random(7)  # noqa: S311 - reproducible
    handler = ConnectionHandler("ledger/{name}", lambda _proxy, name: ledger)
    async with trio.open_nursery() as nursery:
        serve = functools.partial(serve_connections, [handler], "tcp://127.0.0.1:0", resume=resume)
        urls = await nursery.start(serve)
        async with open_chaos_proxy(urls[0]) as network, trio.open_nursery() as calls:
            provider = ServiceProvider(network.url, resume=resume, grace=grace)
            provider._delays = AT_ONCE
            caller = Caller(ledger)
            for number in range(PATHS):
                calls.start_soon(caller.call_on, provider.proxy(f"ledger/{number}", Ledger))
            await nursery.start(provider.run)
            for _ in range(CUTS):
                await trio.sleep(chance.uniform(0, 0.1))
                chance.choice([network.cut, network.reset])()
            with trio.fail_after(60):
                await caller.wait_for(10 * PATHS)
            caller.is_over = True
        nursery.cancel_scope.cancel()
    if resume:
        assert set(caller.fates) == {None}, "a lost connection was not only a delay"
    else:
        assert len(caller.fates) > 1


async def test_a_connection_that_becomes_silent_is_replaced(clock):
    ledger = Ledger()
    handler = ConnectionHandler("ledger/{name}", lambda _proxy, name: ledger)
    limits = Limits(keepalive_interval=1, keepalive_pings=2, handshake_timeout=5)
    async with trio.open_nursery() as nursery:
        serve = functools.partial(serve_connections, [handler], "tcp://127.0.0.1:0")
        urls = await nursery.start(serve)
        async with open_chaos_proxy(urls[0]) as network:
            provider = ServiceProvider(network.url, limits=limits, grace=60)
            proxies = [provider.proxy(f"ledger/{number}", Ledger) for number in range(PATHS)]
            await nursery.start(provider.run)
            for proxy in proxies:
                await proxy.enter(1)
            network.links[-1].freeze()
            await trio.sleep(10)  # the sessions have been given up
            with trio.fail_after(60):
                for proxy in proxies:
                    await proxy.enter(2)
            assert network.accepted == 2
        nursery.cancel_scope.cancel()

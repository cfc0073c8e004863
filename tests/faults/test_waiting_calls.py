"""Calls that wait for a connection which is then cut at any byte, frozen, or refused."""

from __future__ import annotations

import collections
import contextlib

import pytest
import trio
from trio.testing import MockClock

import trio_rpc
from trio_rpc import Fate, ServiceClient
from trio_rpc.testing import Faults, open_faulty_pair
from trio_rpc.testing.faults import Failure

CALLS = 8
LIMITS = trio_rpc.Limits(keepalive_interval=1, keepalive_pings=2, handshake_timeout=5)


@pytest.fixture
def clock():
    return MockClock(autojump_threshold=0)


class Ledger:
    """Counts how often each call has been handled."""

    def __init__(self):
        self.counts = collections.Counter()
        self.order = []

    @trio_rpc.method
    async def enter(self, number: int) -> int:
        self.counts[number] += 1
        self.order.append(number)
        await trio.sleep(0.01)
        return number

    @trio_rpc.stream
    async def follow(self, number: int):
        self.counts[number] += 1
        self.order.append(number)
        yield number


async def listen_over(client, ledger, forth, back):
    """Connect the client with the ledger over a connection with these faults, until it ends."""
    async with open_faulty_pair(forth, back, limits=LIMITS) as pair, trio.open_nursery() as nursery:

        async def serve():
            with contextlib.suppress(trio_rpc.RpcError):
                await trio_rpc.serve_session(pair.second, ledger, limits=LIMITS)

        nursery.start_soon(serve)
        with contextlib.suppress(trio_rpc.RpcError):
            await client.listen(pair.first)
        nursery.cancel_scope.cancel()


async def make_calls(client, outcomes):
    """Make the calls, one after the other, and return when all have ended."""

    async def call(number):
        try:
            if number % 2:
                outcomes[number] = await client.proxy.enter(number)
            else:
                async with client.proxy.follow(number) as items:
                    outcomes[number] = await items.receive()
        except trio_rpc.RpcError as exc:
            outcomes[number] = exc

    async with trio.open_nursery() as nursery:
        for number in range(CALLS):
            nursery.start_soon(call, number)
            await trio.testing.wait_all_tasks_blocked()


async def run(grace, forth, back):
    """Make calls, connect with faults, and then without; return the outcomes and the ledger."""
    client, ledger, outcomes = ServiceClient(Ledger, grace=grace, limits=LIMITS), Ledger(), {}

    async def connect():
        await listen_over(client, ledger, forth, back)
        await listen_over(client, ledger, Faults(), Faults())

    with trio.fail_after(100):
        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as calls:
                calls.start_soon(make_calls, client, outcomes)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(connect)
            nursery.cancel_scope.cancel()
    return outcomes, ledger


def check(outcomes, ledger):
    """Check that each call has ended with its true fate, and that none was handled twice."""
    assert set(outcomes) == set(range(CALLS))
    for number, outcome in outcomes.items():
        count = ledger.counts[number]
        if not isinstance(outcome, Exception):
            assert (outcome, count) == (number, 1)
        elif outcome.fate is Fate.NOT_STARTED:
            assert count == 0, f"call {number} was handled"
        else:
            assert count <= 1, f"call {number} was handled {count} times"
    assert ledger.order == sorted(ledger.order), "calls went out in another order"


@pytest.mark.parametrize("failure", [Failure.CUT, Failure.RESET, Failure.FREEZE])
@pytest.mark.parametrize("direction", ["forth", "back"])
@pytest.mark.parametrize("grace", [0, 60])
async def test_a_cut_at_any_byte_ends_each_waiting_call_once_with_its_true_fate(
    failure, direction, grace, clock
):
    results = collections.Counter()
    for byte in range(0, 330, 11):
        faults = Faults(fail_after=byte, failure=failure)
        pair = (faults, Faults()) if direction == "forth" else (Faults(), faults)
        outcomes, ledger = await run(grace, *pair)
        check(outcomes, ledger)
        for outcome in outcomes.values():
            results[getattr(outcome, "fate", None)] += 1
    assert results[None] > 0
    if grace:
        assert results[Fate.NOT_STARTED] < results[None]
    else:
        assert results[Fate.NOT_STARTED] > 0


async def test_without_faults_all_calls_succeed_in_order(clock):
    outcomes, ledger = await run(0, Faults(latency=0.1, max_slice=1), Faults(latency=0.1))
    check(outcomes, ledger)
    assert outcomes == {number: number for number in range(CALLS)}
    assert ledger.order == list(range(CALLS))

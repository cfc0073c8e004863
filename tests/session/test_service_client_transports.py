"""Service clients at both ends of each transport: calls that wait, both directions, and the end."""

from __future__ import annotations

import contextlib

import pytest
import trio
from helpers.transports import KINDS, Transport
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc import DEFAULT_LIMITS, ServiceClient

SLOW = [pytest.param(kind, marks=[] if kind == "memory" else [pytest.mark.slow]) for kind in KINDS]


class Counter:
    """Each end counts, and asks the other end to go on."""

    def __init__(self, client):
        self.other = client.proxy
        self.numbers = []

    @trio_rpc.method
    async def count(self, number: int) -> int:
        self.numbers.append(number)
        return number if number == 0 else 1 + await self.other.count(number - 1)

    @trio_rpc.method
    async def note(self, number: int) -> None:
        self.numbers.append(number)

    @trio_rpc.method
    async def wait(self) -> None:
        await trio.sleep_forever()


@pytest.fixture(params=SLOW)
async def transport(request, nursery, tmp_path, server_tls):
    return Transport(request.param, nursery, tmp_path, server_tls)


def clients():
    left, right = ServiceClient(Counter), ServiceClient(Counter)
    left.target, right.target = Counter(left), Counter(right)
    return left, right


async def test_waiting_calls_go_out_in_order_and_both_ends_call_each_other(transport):
    left, right = clients()
    async with trio.open_nursery() as calls:
        for number in range(50):
            calls.start_soon(left.proxy.note, number)
            await wait_all_tasks_blocked()
        async with (
            transport.join(DEFAULT_LIMITS, DEFAULT_LIMITS) as (ours, theirs),
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(right.listen, theirs)
            await nursery.start(left.listen, ours)
            assert await left.proxy.count(10) == 10
            assert await right.proxy.count(10) == 10
            nursery.cancel_scope.cancel()
    assert right.target.numbers[:50] == list(range(50))


async def test_a_client_goes_from_one_connection_to_the_next(transport):
    left, right = clients()
    for _ in range(3):
        outcomes = []

        async def wait(outcomes=outcomes):
            with pytest.raises(trio_rpc.RpcError) as info:
                await left.proxy.wait()
            outcomes.append(info.value)

        async with (
            transport.join(DEFAULT_LIMITS, DEFAULT_LIMITS) as (ours, theirs),
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(wait)
            nursery.start_soon(right.listen, theirs)
            await nursery.start(left.listen, ours)
            assert await left.proxy.count(2) == 2
            await left.session.aclose(grace=0.01)
        assert [type(outcome) for outcome in outcomes] == [trio_rpc.SessionClosed]
        for client in (left, right):
            with contextlib.suppress(trio_rpc.RpcError):
                await client.proxy.note(0)
                raise AssertionError("a call was made without a connection")

"""The number of functions and streams that may come with one call is bounded."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trio

from trio_rpc import Fate, InvalidArguments, Limits, RemoteError, method

SMALL = Limits(max_nodes=2_500)
BOTH = {f"options_{end}": {"limits": SMALL} for end in "ab"}
MOST = 100
"""The functions and streams that a call may have with these limits, of which each costs 25."""


class Collector:
    @method
    async def functions(self, given: list[Callable[[], Awaitable[None]]]) -> int:
        return len(given)

    @method
    async def streams(self, given: list[AsyncIterator[int]]) -> int:
        return len(given)

    @method
    async def anything(self, given: object, within: object = None) -> int:
        return len(given)  # type: ignore[arg-type]

    @method
    async def call_back(self, take: Callable[[list[object]], Awaitable[int]], count: int) -> int:
        return await take([print] * count)


async def numbers() -> AsyncIterator[int]:
    yield 1


@pytest.fixture
async def caller(session_pair):
    async with session_pair(None, Collector(), **BOTH) as (client, _):
        yield client


@pytest.mark.parametrize("name", ["functions", "anything"])
async def test_the_functions_of_a_call_are_bounded(caller, name):
    given = [lambda number=number: number for number in range(MOST + 1)]
    assert await caller.call(name, given[1:]) == MOST
    await refused(caller.call(name, given))


@pytest.mark.parametrize("name", ["streams", "anything"])
async def test_the_streams_of_a_call_are_bounded(caller, name):
    given = [numbers() for _ in range(MOST + 1)]
    assert await caller.call(name, given[1:]) == MOST
    await refused(caller.call(name, given))


async def test_functions_given_by_name_count_as_well(caller):
    given = [lambda number=number: number for number in range(MOST + 1)]
    await refused(caller.call("anything", given[:50], within=given[50:]))


async def test_the_bound_holds_for_functions_that_a_callback_is_given(caller):
    def take(given: list[Callable[[], None]]) -> int:
        return len(given)

    assert await caller.call("call_back", take, MOST) == MOST
    with pytest.raises(RemoteError, match="too costly"):
        await caller.call("call_back", take, MOST + 1)


async def refused(call):
    with pytest.raises(InvalidArguments, match="too costly") as caught:
        await call
    assert caught.value.fate is Fate.NOT_STARTED
    await trio.lowlevel.checkpoint()

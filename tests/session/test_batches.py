"""Batches of a stream's items: all items that have arrived, with one checkpoint for all of them."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc import ItemStream, Limits, duplex, method, stream


class Gone(Exception):
    pass


class Source:
    def __init__(self):
        self.yielded = 0

    @stream(raises=(Gone,))
    async def count(self, most: int, error: str = "") -> AsyncGenerator[int, None]:
        for number in range(most):
            self.yielded += 1
            yield number
        if error:
            raise Gone(error)

    @stream
    async def mixed(self) -> AsyncGenerator[int, None]:
        for item in (1, 2, "three", 4):
            yield item

    @stream
    async def endless(self) -> AsyncGenerator[int, None]:
        yield 1
        await trio.sleep_forever()

    @method
    async def sizes(self, numbers: ItemStream[int]) -> list[int]:
        return [sum(batch) async for batch in numbers.batches()]

    @duplex
    async def totals(self, channel: trio.abc.Channel[int]) -> None:
        async for batch in channel.batches():
            await channel.send(sum(batch))


@pytest.fixture
async def source():
    return Source()


async def test_batches_have_all_items_in_order_and_end_with_the_stream(
    session_pair, source, no_time
):
    async with session_pair(source, None) as (_, b):
        async with b.proxy("", Source).count(3000) as numbers:
            batches = [batch async for batch in numbers.batches()]
            with pytest.raises(trio.EndOfChannel):
                await numbers.receive_many()
        assert all(batches)
        assert [number for batch in batches for number in batch] == list(range(3000))
        assert len(batches) < 1000


async def test_a_batch_has_all_items_that_have_arrived(session_pair, source, no_time):
    options = {"limits": Limits(stream_items=8)}
    async with (
        session_pair(source, None, options_b=options) as (_, b),
        b.proxy("", Source).count(12) as numbers,
    ):
        await wait_all_tasks_blocked()
        assert await numbers.receive() == 0
        assert source.yielded <= 9  # the generator runs ahead by the window, and no further
        assert await numbers.receive_many() == [1, 2, 3, 4, 5, 6, 7]
        await wait_all_tasks_blocked()
        assert await numbers.receive_many() == [8, 9, 10, 11]


async def test_a_batch_gives_the_credit_of_all_its_items_back_at_once(source, no_time):
    options = {"limits": Limits(stream_items=8)}
    async with (
        trio_rpc.testing.open_session_pair(source, None, options_b=options) as (_, b),
        b.proxy("", Source).count(80) as numbers,
    ):
        sent = []
        async for batch in numbers.batches():
            await wait_all_tasks_blocked()
            sent.append((len(batch), b.statistics().packets_sent))
        assert [size for size, _ in sent] == [8] * 10
        steps = {after - before for (_, before), (_, after) in itertools.pairwise(sent)}
        assert steps <= {0, 1}


async def test_items_before_one_of_the_wrong_type_are_returned_first(session_pair, source, no_time):
    async with session_pair(source, None) as (_, b), b.proxy("", Source).mixed() as numbers:
        await wait_all_tasks_blocked()
        assert await numbers.receive_many() == [1, 2]
        with pytest.raises(trio_rpc.DecodeError, match="an item of mixed: Expected `int`"):
            await numbers.receive_many()
        assert await numbers.receive_many() == [4]


async def test_an_error_is_raised_after_the_batches_before_it(session_pair, source, no_time):
    got = []
    async with session_pair(source, None) as (_, b):
        with pytest.raises(Gone, match="empty"):
            async with b.proxy("", Source).count(3, "empty") as numbers:
                async for batch in numbers.batches():
                    got += batch
    assert got == [0, 1, 2]


async def test_law_16_receive_many_is_a_checkpoint_and_loses_no_item(session_pair, source, no_time):
    async with session_pair(source, None) as (_, b), b.proxy("", Source).count(3) as numbers:
        await wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await numbers.receive_many()
        assert scope.cancelled_caught
        with trio.testing.assert_checkpoints():
            assert await numbers.receive_many() == [0, 1, 2]
        with trio.testing.assert_checkpoints(), pytest.raises(trio.EndOfChannel):
            await numbers.receive_many()
        await numbers.aclose()
        with trio.testing.assert_checkpoints(), pytest.raises(trio.ClosedResourceError):
            await numbers.receive_many()


async def test_two_tasks_cannot_receive_batches_at_once(session_pair, source, no_time):
    async with session_pair(source, None) as (_, b), b.proxy("", Source).endless() as numbers:
        assert await numbers.receive_many() == [1]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(numbers.receive_many)
            await wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await numbers.receive_many()
            nursery.cancel_scope.cancel()


async def test_a_handler_receives_batches_of_a_stream_argument(session_pair, source, no_time):
    async def numbers():
        for number in range(100):
            yield number

    async with session_pair(source, None) as (_, b):
        sizes = await b.proxy("", Source).sizes(numbers())
        assert sum(sizes) == sum(range(100))


async def test_a_duplex_is_received_in_batches_at_both_ends(session_pair, source, no_time):
    async with session_pair(source, None) as (_, b), b.proxy("", Source).totals() as channel:
        for number in range(20):
            await channel.send(number)
        await channel.send_eof()
        totals = [total async for batch in channel.batches() for total in batch]
        assert sum(totals) == sum(range(20))

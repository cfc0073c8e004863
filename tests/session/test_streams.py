"""Streams: items and credit, closing by the consumer, and their place in the scope tree."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

import pytest
import trio
from helpers.raw_peer import close_at_once, session_with_raw_peer
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc import Limits, LocalProtocolError, method, stream
from trio_rpc.wire import messages as m
from trio_rpc.wire.messages import Reference


class Gone(Exception):
    pass


@dataclass
class Tick:
    symbol: str
    price: float


class Source:
    """A service with streams, which records how their generators ended."""

    def __init__(self):
        self.yielded = 0
        self.closed = []
        self.deadline = None
        self.metadata = None

    @stream(raises=(Gone,))
    async def count(self, least: int, most: int, error: str = "") -> AsyncGenerator[int, None]:
        try:
            for number in range(least, most):
                self.yielded += 1
                yield number
            if error:
                raise Gone(error)
        finally:
            self.closed.append(("count", trio.current_time()))

    @stream
    async def ticks(self, symbol: str) -> AsyncGenerator[Tick, None]:
        yield Tick(symbol, 1.5)
        yield Tick(symbol, 2.5)

    @stream
    async def tidy(self, seconds: float, error: str = "") -> AsyncGenerator[int, None]:
        """Yield one item, and take ``seconds`` to clean up."""
        try:
            yield 1
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(seconds)
            self.closed.append(("tidy", trio.current_time()))
            if error:
                raise Gone(error)

    @stream
    async def blocks(self, size: int, count: int) -> AsyncGenerator[bytes, None]:
        for number in range(count):
            self.yielded += 1
            yield bytes([number]) * size

    @stream
    async def mixed(self) -> AsyncGenerator[int, None]:
        for item in (1, "two", 3):
            yield item

    @stream
    async def unsendable(self) -> AsyncGenerator[object, None]:
        yield 1
        try:
            yield object()
        finally:
            self.closed.append(("unsendable", trio.current_time()))

    @stream
    async def look(self) -> AsyncGenerator[int, None]:
        self.deadline = trio.current_effective_deadline() - trio.current_time()
        self.metadata = dict(trio_rpc.current_call().metadata)
        with trio.CancelScope():  # it stays open across yields, because one task runs the generator
            async with trio.open_nursery():
                yield 1
                yield 2

    @stream
    def plain(self) -> AsyncIterator[int]:
        return self.count(0, 3)

    @method
    async def total(self, numbers: AsyncIterator[int]) -> int:
        result = 0
        async for number in numbers:
            result += number
        return result

    @method
    async def first(self, numbers: AsyncIterator[int]) -> int:
        return await anext(numbers)

    @method
    async def ignore(self, _numbers: AsyncIterator[int]) -> None:
        pass

    @method
    async def keep(self, numbers: AsyncIterator[int]) -> None:
        self.kept = numbers

    @method
    async def zipped(self, pair: list, *, third: AsyncIterator[int]) -> list:
        return [[await anext(pair[0]), await anext(pair[1]), each] async for each in third]

    @method
    async def twice(self, numbers: AsyncIterator[int]) -> int:
        (session,) = self.others
        return await session.call("total", numbers)


@pytest.fixture
async def source():
    return Source()


def opened(session_pair, source, **options):
    return session_pair(source, None, options_a=options, options_b=options)


async def assert_nothing_left(*sessions):
    await wait_all_tasks_blocked()  # a stream argument may end a little later
    for session in sessions:
        assert session.tree() == []
        protocol = session._core.protocol
        assert not protocol.outgoing
        assert not protocol.incoming
        assert not protocol._taken._windows
        assert not protocol._given._windows


# ── items ────────────────────────────────────────────────────────────────────────────────────


async def test_items_arrive_in_order_and_the_generators_end_ends_the_stream(
    session_pair, source, no_time
):
    async with opened(session_pair, source) as (a, b):
        async with b.proxy("", Source).count(0, 3000) as numbers:
            assert [number async for number in numbers] == list(range(3000))
            with pytest.raises(trio.EndOfChannel):
                await numbers.receive()
        assert len(source.closed) == 1
        await assert_nothing_left(a, b)


async def test_items_are_converted_to_the_annotation(session_pair, source, no_time):
    async with opened(session_pair, source) as (_, b):
        async with b.proxy("", Source).ticks("BTC") as ticks:
            assert [tick async for tick in ticks] == [Tick("BTC", 1.5), Tick("BTC", 2.5)]
        async with b.stream("ticks", "BTC") as ticks:
            assert (await ticks.receive())["price"] == 1.5


async def test_an_item_of_the_wrong_type_raises_and_the_stream_goes_on(
    session_pair, source, no_time
):
    async with opened(session_pair, source) as (_, b), b.proxy("", Source).mixed() as numbers:
        assert await numbers.receive() == 1
        with pytest.raises(trio_rpc.DecodeError, match="an item of mixed: Expected `int`"):
            await numbers.receive()
        assert await numbers.receive() == 3


async def test_an_error_is_raised_after_the_items_before_it(session_pair, source, no_time):
    got = []
    async with opened(session_pair, source) as (a, b):
        with pytest.raises(Gone, match="empty"):
            async with b.proxy("", Source).count(0, 5, "empty") as numbers:
                async for number in numbers:
                    got.append(number)
        assert got == [0, 1, 2, 3, 4]
        await assert_nothing_left(a, b)


async def test_an_error_before_the_first_item_is_raised(session_pair, source, no_time):
    async with opened(session_pair, source) as (_, b):
        with pytest.raises(trio_rpc.InvalidArguments, match="least"):
            async with b.proxy("", Source).count("x", 5) as numbers:
                await numbers.receive()
        with pytest.raises(trio_rpc.MethodNotFound):
            async with b.stream("nothing"):
                await wait_all_tasks_blocked()
        with pytest.raises(Gone):
            async with b.proxy("", Source).count(0, 0, "at once") as numbers:
                await numbers.receive()


async def test_an_error_caught_inside_the_block_is_not_raised_again_by_the_block(
    session_pair, source, no_time
):
    async with opened(session_pair, source) as (_, b), b.stream("nothing") as numbers:
        with pytest.raises(trio_rpc.MethodNotFound):
            await numbers.receive()
        with pytest.raises(trio_rpc.MethodNotFound):
            await numbers.receive()


async def test_an_error_that_the_consumer_has_not_reached_is_not_raised(
    session_pair, source, no_time
):
    async with opened(session_pair, source) as (a, b):
        async with b.proxy("", Source).count(0, 5, "later") as numbers:
            assert await numbers.receive() == 0
            await wait_all_tasks_blocked()
        await assert_nothing_left(a, b)


async def test_an_item_that_cannot_be_sent_fails_the_stream(session_pair, source, no_time):
    async with opened(session_pair, source) as (_, b), b.stream("unsendable") as items:
        assert await items.receive() == 1
        with pytest.raises(trio_rpc.RemoteError, match="cannot be sent"):
            await items.receive()
        assert source.closed


async def test_a_plain_function_may_return_a_generator(session_pair, source, no_time):
    async with opened(session_pair, source) as (_, b), b.proxy("", Source).plain() as numbers:
        assert [number async for number in numbers] == [0, 1, 2]


async def test_items_larger_than_a_packet_keep_their_order(session_pair, source, no_time):
    limits = Limits(max_packet=16 * 1024)
    async with opened(session_pair, source, limits=limits) as (_, b):
        async with b.proxy("", Source).blocks(40_000, 9) as blocks:
            assert [block[0] async for block in blocks] == list(range(9))


async def test_an_item_may_be_larger_than_the_window(session_pair, source, no_time):
    limits = Limits(stream_bytes=100)
    async with opened(session_pair, source, limits=limits) as (_, b):
        async with b.proxy("", Source).blocks(5_000, 3) as blocks:
            assert [len(block) async for block in blocks] == [5_000] * 3


# ── credit ───────────────────────────────────────────────────────────────────────────────────


async def test_a_slow_consumer_pauses_the_generator(session_pair, source, no_time):
    async with opened(session_pair, source, limits=Limits(stream_items=10)) as (_, b):
        async with b.proxy("", Source).count(0, 1000) as numbers:
            await wait_all_tasks_blocked()
            assert source.yielded == 11  # ten have arrived, and one waits for credit
            for _ in range(5):
                await numbers.receive()
            await wait_all_tasks_blocked()
            assert source.yielded == 16
            await numbers.receive()
            await wait_all_tasks_blocked()
            assert source.yielded == 16  # credit is granted in halves of the window


async def test_the_bytes_of_unread_items_pause_the_generator(session_pair, source, no_time):
    async with opened(session_pair, source, limits=Limits(stream_bytes=10_000)) as (_, b):
        async with b.proxy("", Source).blocks(4_000, 100) as blocks:
            await wait_all_tasks_blocked()
            assert source.yielded == 4  # the third item exceeds the credit, the fourth waits
            await blocks.receive()
            await blocks.receive()
            await wait_all_tasks_blocked()
            assert source.yielded == 6


async def test_a_slow_stream_does_not_slow_another_one(session_pair, source, no_time):
    limits = Limits(stream_items=4)
    async with opened(session_pair, source, limits=limits) as (_, b):
        proxy = b.proxy("", Source)
        async with proxy.count(0, 1000) as slow, proxy.count(0, 1000) as quick:
            assert [number async for number in quick] == list(range(1000))
            assert await slow.receive() == 0


async def test_items_wait_for_space_in_a_small_send_buffer(session_pair, source, no_time):
    limits = Limits(send_buffer=1_000)
    async with opened(session_pair, source, limits=limits) as (_, b):
        async with b.proxy("", Source).blocks(900, 200) as blocks:
            assert sum([1 async for _ in blocks]) == 200


# ── leaving ──────────────────────────────────────────────────────────────────────────────────


async def test_law_2_leaving_the_block_closes_the_generator_and_waits_for_it(
    session_pair, source, autojump_clock
):
    async with opened(session_pair, source) as (a, b):
        async with b.proxy("", Source).tidy(3) as numbers:
            assert await numbers.receive() == 1
        assert source.closed == [("tidy", trio.current_time())]
        assert trio.current_time() == 3
        await assert_nothing_left(a, b)


async def test_a_stream_may_be_left_before_its_first_item(session_pair, source, no_time):
    async with opened(session_pair, source) as (a, b):
        async with b.proxy("", Source).count(0, 9):
            pass
        await assert_nothing_left(a, b)


@pytest.mark.parametrize("how", ["cancel", "deadline", "error"])
async def test_a_cancelled_or_failing_block_waits_for_the_generator_to_end(
    session_pair, source, autojump_clock, how
):
    def fail():
        raise Gone("of my own")

    async with opened(session_pair, source) as (a, b):
        with trio.CancelScope() as scope:
            try:
                async with b.proxy("", Source).tidy(3) as numbers:
                    assert await numbers.receive() == 1
                    if how == "cancel":
                        scope.cancel()
                    elif how == "deadline":
                        scope.deadline = trio.current_time() + 1
                    else:
                        fail()
                    await numbers.receive()
            except Gone:
                assert how == "error"
        assert scope.cancelled_caught == (how != "error")
        assert source.closed == [("tidy", trio.current_time())]
        await assert_nothing_left(a, b)


async def test_an_error_in_the_generators_clean_up_is_raised(session_pair, source, no_time):
    async with opened(session_pair, source) as (_, b):
        with pytest.raises(trio_rpc.RemoteError, match="clean-up"):
            async with b.proxy("", Source).tidy(0, "clean-up") as numbers:
                await numbers.receive()
        with pytest.raises(KeyError) as caught:
            async with b.proxy("", Source).tidy(0, "clean-up") as numbers:
                await numbers.receive()
                raise KeyError("mine")
        assert "clean-up" in caught.value.__notes__[0]


async def test_a_stream_may_be_closed_inside_its_block(session_pair, source, no_time):
    async with opened(session_pair, source) as (a, b), b.proxy("", Source).count(0, 9) as numbers:
        await numbers.receive()
        await numbers.aclose()
        await numbers.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await numbers.receive()
        assert source.closed
        await assert_nothing_left(a, b)


async def test_law_16_a_cancelled_receive_loses_no_item(session_pair, source, no_time):
    async with opened(session_pair, source) as (_, b), b.proxy("", Source).count(0, 3) as numbers:
        await wait_all_tasks_blocked()
        for _ in range(3):
            with trio.CancelScope() as scope:
                scope.cancel()
                await numbers.receive()
        assert [number async for number in numbers] == [0, 1, 2]


async def test_law_16_receive_is_a_checkpoint(session_pair, source, no_time):
    async with opened(session_pair, source) as (_, b), b.proxy("", Source).count(0, 1) as numbers:
        await wait_all_tasks_blocked()
        with trio.testing.assert_checkpoints():
            await numbers.receive()
        await wait_all_tasks_blocked()
        with trio.testing.assert_checkpoints(), pytest.raises(trio.EndOfChannel):
            await numbers.receive()
        with trio.testing.assert_checkpoints():
            await numbers.aclose()
        with trio.testing.assert_checkpoints(), pytest.raises(trio.ClosedResourceError):
            await numbers.receive()


async def test_two_tasks_cannot_receive_at_once(session_pair, source, no_time):
    async with opened(session_pair, source) as (_, b), b.proxy("", Source).tidy(0) as numbers:
        await numbers.receive()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(numbers.receive)
            await wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await numbers.receive()
            nursery.cancel_scope.cancel()


async def test_race_an_item_that_another_task_takes_does_not_end_the_stream(session_pair, no_time):
    class Slow:
        @stream
        async def two(self) -> AsyncGenerator[int, None]:
            yield 1
            await trio.sleep_forever()

    async with session_pair(Slow(), None) as (_, b), b.stream("two") as items:
        got = []

        async def receive():
            got.append(await items.receive())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            assert got == [1]
            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            items.items([m.Item(1, 2)])  # this wakes the receiver …
            assert items._take(items._pending) == 2  # … but another task takes the item
            await wait_all_tasks_blocked()
            assert got == [1]
            nursery.cancel_scope.cancel()


# ── races, and the laws ──────────────────────────────────────────────────────────────────────


async def test_race_credit_and_cancel_in_one_packet(session_pair, source, no_time):
    """The generator, woken by the credit, ends as cancelled and not as unwanted."""
    options = {"limits": Limits(stream_items=1)}
    async with session_pair(None, source, options_a=options) as (session, _):
        source_ = session.proxy("", Source)
        for taken in range(4):
            async with source_.count(0, 9) as numbers:  # raises an error of the generator
                for _ in range(taken):
                    await numbers.receive()
                await wait_all_tasks_blocked()  # it waits for credit
                await numbers.receive()


async def test_law_1_a_stream_is_in_the_tree_at_both_ends(session_pair, source, no_time):
    async with opened(session_pair, source) as (a, b), b.proxy("", Source).tidy(0) as numbers:
        await numbers.receive()
        (out,) = b.tree()
        (into,) = a.tree()
        assert (out.kind, out.direction, out.method, out.state) == (
            "stream",
            "out",
            "tidy",
            "running",
        )
        assert (into.kind, into.direction, into.method, into.state) == (
            "stream",
            "in",
            "tidy",
            "running",
        )
        assert out.id == into.id


async def test_law_5_deadlines_and_metadata_travel_with_a_stream(
    session_pair, source, autojump_clock
):
    async with opened(session_pair, source) as (_, b):
        with trio_rpc.metadata(user="ann"), trio.move_on_after(7):
            async with b.proxy("", Source).look() as numbers:
                assert [number async for number in numbers] == [1, 2]
        assert source.deadline == pytest.approx(7)
        assert source.metadata == {"user": "ann"}
        async with b.proxy("", Source).look() as numbers:
            assert await numbers.receive() == 1
        assert source.deadline == math.inf


async def test_law_5_the_consumers_deadline_cancels_its_own_scope(
    session_pair, source, autojump_clock
):
    async with opened(session_pair, source) as (_, b):
        with trio.move_on_after(2) as scope:
            async with b.proxy("", Source).tidy(0) as numbers:
                async for _ in numbers:
                    pass
        assert scope.cancelled_caught
        assert trio.current_time() == pytest.approx(2)


@pytest.mark.parametrize("end", ["ours", "theirs"])
async def test_law_6_the_end_of_the_session_ends_the_stream(session_pair, source, no_time, end):
    async with opened(session_pair, source) as (a, b):
        # When the other end closes, it first cancels its handlers and answers their calls.
        error = trio_rpc.SessionClosed if end == "ours" else trio_rpc.RemoteCancelled
        with pytest.raises(error):
            async with b.proxy("", Source).tidy(0) as numbers:
                await numbers.receive()
                await close_at_once(b if end == "ours" else a)
                await numbers.receive()
        await a.wait_closed()
        assert source.closed


async def test_law_6_items_that_have_arrived_may_still_be_received(session_pair, source, no_time):
    async with opened(session_pair, source) as (_, b), b.proxy("", Source).count(0, 3) as numbers:
        await wait_all_tasks_blocked()
        await close_at_once(b)
        assert [number async for number in numbers] == [0, 1, 2]


async def test_law_9_a_stream_may_be_opened_and_cancelled_by_one_packet(no_time):
    async with session_with_raw_peer(Source()) as (session, peer):
        request = m.Request(1, "count", [0, 9], None, {"stream": [5, 100]})
        peer.send(request, m.Cancel(1))
        await peer.read(m.ReplyErr)
        await wait_all_tasks_blocked()
        assert session.tree() == []


async def test_law_14_items_without_credit_end_the_session(no_time):
    async with session_with_raw_peer(limits=Limits(stream_items=2)) as (session, peer):
        with pytest.raises(trio_rpc.SessionBroken) as caught:
            async with session.stream("anything") as items:
                await peer.read(m.Request)
                peer.send(*(m.Item(1, number) for number in range(3)))
                for _ in range(3):
                    await items.receive()
        assert "without credit" in str(caught.value.__cause__)


async def test_the_wrong_kind_of_call_is_refused_at_both_ends(session_pair, source, no_time):
    """A method called as the wrong kind gets an error reply, and not silence."""
    async with opened(session_pair, source) as (_, b):
        proxy = b.proxy("", Source)
        with pytest.raises(LocalProtocolError, match="open it with stream"):
            await b.call(proxy.count, 1, 2)
        with pytest.raises(LocalProtocolError, match="call it instead"):
            b.stream(proxy.total)
        with pytest.raises(trio_rpc.MethodNotFound, match="opened as a stream"):
            await b.call("count", 1, 2)
        with pytest.raises(trio_rpc.MethodNotFound, match="called, not"):
            async with b.stream("total") as items:
                await items.receive()
        with pytest.raises(trio_rpc.InvalidArguments):
            async with b.duplex("count", 1, 2) as channel:
                await channel.receive()


async def test_filters_at_both_ends_run_as_long_as_the_stream(session_pair, source, no_time):
    seen = []

    def audit(where):
        async def filter_(call, proceed):
            seen.append((where, "begin", call.method))
            try:
                return await proceed()
            finally:
                seen.append((where, "end", len(source.closed)))

        return filter_

    async with (
        session_pair(
            source,
            None,
            options_a={"filters": [audit("in")]},
            options_b={"filters": [audit("out")]},
        ) as (a, b),
        b.proxy("", Source).count(0, 9_000) as numbers,
    ):
        assert await numbers.receive() == 0
        assert seen == [("out", "begin", "count"), ("in", "begin", "count")]
        await numbers.aclose()
    assert seen[2:] == [("in", "end", 1), ("out", "end", 1)]
    await assert_nothing_left(a, b)


async def test_a_filter_may_refuse_a_stream(session_pair, source, no_time):
    async def refuse(call, proceed):
        raise Gone("not you")

    async with session_pair(source, None, options_b={"filters": [refuse]}) as (_, b):
        with pytest.raises(Gone, match="not you"):
            async with b.proxy("", Source).count(0, 9):
                raise AssertionError


# ── streams as arguments ─────────────────────────────────────────────────────────────────────


class CountingIterator:
    """An async iterator that is not a generator."""

    def __init__(self, most):
        self.next = 0
        self.most = most

    def __aiter__(self):
        return self

    async def __anext__(self):
        await trio.lowlevel.checkpoint()
        self.next += 1
        if self.next > self.most:
            raise StopAsyncIteration
        return self.next


async def test_a_handler_can_iterate_over_the_callers_generator(session_pair, source, no_time):
    async def numbers():
        for number in range(5000):
            yield number

    async with opened(session_pair, source) as (a, b):
        assert await b.proxy("", Source).total(numbers()) == sum(range(5000))
        assert await b.proxy("", Source).total(CountingIterator(10)) == 55
        await assert_nothing_left(a, b)


async def test_a_memory_channel_argument_is_not_closed(session_pair, source, no_time):
    async with opened(session_pair, source) as (a, b):
        send, receive = trio.open_memory_channel(10)
        for number in range(4):
            send.send_nowait(number)
        assert await b.proxy("", Source).first(receive) == 0
        send.send_nowait(9)  # it is still open
        send.close()
        await assert_nothing_left(a, b)


async def test_a_stream_argument_that_is_never_used_does_not_run(session_pair, source, no_time):
    async def numbers():
        raise AssertionError
        yield 1

    async with opened(session_pair, source) as (a, b):
        await b.proxy("", Source).ignore(numbers())
        await assert_nothing_left(a, b)


async def test_law_2_a_consumer_waits_for_a_shielded_generator_only_for_cancel_grace(
    session_pair, autojump_clock
):
    source = Source()
    options = {"limits": Limits(cancel_grace=2)}
    async with session_pair(None, source, options_a=options) as (a, _):
        async with a.proxy("", Source).tidy(100) as items:
            assert await anext(items) == 1
        assert trio.current_time() == pytest.approx(2, abs=0.001)
        assert source.closed == []
        await trio.sleep(200)
        assert source.closed == [("tidy", 100)]
        assert a.statistics().late_replies == 1
        assert a.statistics().state == "open"


async def test_law_2_a_generator_argument_has_ended_before_the_call_returns(
    session_pair, source, autojump_clock
):
    closed = []

    async def numbers():
        try:
            yield 1
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(2)
            closed.append(trio.current_time())

    async with opened(session_pair, source) as (a, b):
        assert await b.proxy("", Source).first(numbers()) == 1
        assert closed == [trio.current_time()] == [2]
        await assert_nothing_left(a, b)


async def test_law_8_a_stream_argument_can_be_used_only_until_its_call_ends(
    session_pair, source, no_time
):
    async with opened(session_pair, source) as (_, b):
        await b.proxy("", Source).keep(CountingIterator(5))
        with pytest.raises(LocalProtocolError, match="lives only until its handler has ended"):
            await source.kept.receive()


async def test_an_error_of_a_stream_argument_is_raised_in_the_handler(
    session_pair, source, no_time
):
    async def numbers():
        yield 1
        raise KeyError("mine")

    async with opened(session_pair, source) as (a, b):
        with pytest.raises(KeyError, match="mine"):
            await b.proxy("", Source).total(numbers())
        await assert_nothing_left(a, b)


async def test_a_call_may_have_several_stream_arguments_at_any_depth(session_pair, source, no_time):
    async with opened(session_pair, source) as (a, b):
        result = await b.call(
            "zipped", [CountingIterator(3), CountingIterator(4)], third=CountingIterator(2)
        )
        assert result == [[1, 1, 1], [2, 2, 2]]
        await assert_nothing_left(a, b)


async def test_a_received_stream_may_be_passed_on(session_pair, source, no_time):
    async with opened(session_pair, source) as (a, b), opened(session_pair, Source()) as (c, d):
        source.others = [d]
        assert await b.proxy("", Source).twice(CountingIterator(10)) == 55
        async with b.proxy("", Source).count(0, 5) as numbers:
            assert await d.proxy("", Source).total(numbers) == 10
        await assert_nothing_left(a, b, c, d)


async def test_items_of_a_stream_argument_are_checked(session_pair, source, no_time):
    async def words():
        yield "one"

    async with opened(session_pair, source) as (_, b):
        with pytest.raises(trio_rpc.RemoteError, match="Expected `int`"):
            await b.proxy("", Source).total(words())
        with pytest.raises(trio_rpc.InvalidArguments, match="numbers"):
            await b.proxy("", Source).total([1, 2])


async def test_law_1_a_stream_argument_is_a_child_of_its_call(session_pair, source, no_time):
    async def numbers():
        yield 1
        await trio.sleep_forever()

    async with opened(session_pair, source) as (a, b), trio.open_nursery() as nursery:
        nursery.start_soon(b.proxy("", Source).total, numbers())
        await wait_all_tasks_blocked()
        call, pull = sorted(b.tree(), key=lambda node: node.kind)
        assert (pull.kind, pull.direction, pull.parent) == ("stream", "in", ("out", call.id))
        call, pull = sorted(a.tree(), key=lambda node: node.kind)
        assert (pull.kind, pull.direction, pull.parent) == ("stream", "out", ("in", call.id))
        nursery.cancel_scope.cancel()
    await assert_nothing_left(a, b)


async def test_a_stream_in_a_notification_cannot_be_used(no_time):
    kept = []

    class Sink:
        @trio_rpc.notification
        async def take(self, numbers):
            kept.append(numbers)

    async with session_with_raw_peer(Sink()) as (_, peer):
        peer.send(m.Notification("take", [Reference(2, 0)]))
        await wait_all_tasks_blocked()
        with pytest.raises(LocalProtocolError, match="did not arrive as an argument"):
            await kept[0].receive()


async def test_many_streams_leave_no_tasks(session_pair, source, no_time, tasks):
    async with opened(session_pair, source) as (a, b):
        proxy = b.proxy("", Source)

        async def once():
            async with proxy.count(0, 9) as numbers:
                await numbers.receive()
            await proxy.total(CountingIterator(3))
            await wait_all_tasks_blocked()

        await once()  # from here on the writers exist
        before = tasks()
        for _ in range(50):
            await once()
        assert tasks() == before
        await assert_nothing_left(a, b)

"""Streams that are passed as arguments: pulling one passes the filters of the end that pulls."""

from __future__ import annotations

import logging

import pytest
import trio
from helpers.traces import ALL, both, steps
from trio.testing import wait_all_tasks_blocked

import trio_rpc


class Reader:
    def __init__(self):
        self.seen = []
        self.error = None

    @trio_rpc.method
    async def read(self, items, most: int = 1000) -> int:
        with trio_rpc.metadata(job=7):
            try:
                async for item in items:
                    self.seen.append(item)
                    if len(self.seen) >= most:
                        break
            except Exception as exc:
                self.error = exc
                raise
        return len(self.seen)

    @trio_rpc.method
    async def close(self, items) -> int:
        self.seen.append(await items.receive())
        await items.aclose()
        return len(self.seen)

    @trio_rpc.duplex
    async def talk(self, channel: trio.abc.Channel[str]) -> None:
        await channel.send(await channel.receive())


async def numbers(count, wait=0.0):
    for number in range(count):
        yield number
        await trio.sleep(wait)


PULL = "stream 0 of read"


def recorder(log):
    async def record(call, proceed):
        log.append(("begins", call.method, call.is_incoming, call.metadata))
        try:
            result = await proceed()
        except BaseException as exc:
            log.append((type(exc).__name__, call.method, call.id))
            raise
        log.append(("ends", call.method, call.id))
        return result

    return record


async def test_a_pull_passes_the_filters_of_both_ends_with_its_metadata(session_pair, no_time):
    here, there = [], []
    async with session_pair(
        Reader(), options_a={"filters": [recorder(here)]}, options_b={"filters": [recorder(there)]}
    ) as (_, session):
        assert await session.call("read", numbers(3)) == 3
    assert here == [
        ("begins", "read", True, {}),
        ("begins", PULL, False, {"job": 7}),
        ("ends", PULL, 1),
        ("ends", "read", 1),
    ]
    assert ("begins", PULL, True, {"job": 7}) in there


@pytest.mark.parametrize("method", ["read", "close"])
async def test_the_filters_end_when_the_consumer_leaves(session_pair, no_time, method):
    """A handler that returns early cancels them, and one that closes the stream waits for them."""
    log = []
    async with session_pair(Reader(), options_a={"filters": [recorder(log)]}) as (_, session):
        assert await session.call(method, numbers(10**9), *([2] if method == "read" else [])) > 0
        await wait_all_tasks_blocked()
    ends = [each[0] for each in log if each[1].startswith("stream") and each[0] != "begins"]
    assert ends == (["Cancelled"] if method == "read" else ["ends"])


async def test_a_filter_may_refuse_a_pull_before_it_is_sent(session_pair, no_time):
    async def refuse(call, proceed):
        if call.method == PULL:
            raise PermissionError("no streams")
        return await proceed()

    service = Reader()
    async with session_pair(service, options_a={"filters": [refuse]}) as (_, session):
        with pytest.raises(PermissionError, match="no streams"):
            await session.call("read", numbers(3))
    assert service.seen == []


async def test_a_filter_may_bound_the_time_of_a_pull(session_pair, autojump_clock, caplog):
    caplog.set_level(logging.CRITICAL)  # the handler's error is not declared
    ended = []

    async def endless():
        try:
            async for number in numbers(10**9, wait=1):
                yield number
        finally:
            ended.append(trio.current_time())

    async def limited(call, proceed):
        if call.is_incoming:
            return await proceed()
        with trio.fail_after(4.5):
            return await proceed()

    service = Reader()
    async with session_pair(service, options_a={"filters": [limited]}) as (_, session):
        with pytest.raises(trio_rpc.RemoteError, match="TooSlowError"):
            await session.call("read", endless())
        assert len(ended) == 1
    assert isinstance(service.error, trio.TooSlowError)
    assert service.seen == [0, 1, 2, 3, 4]


async def test_a_filter_that_fails_after_the_pull_replaces_its_end(session_pair, no_time):
    async def fail(call, proceed):
        result = await proceed()
        if call.method == PULL:
            raise ZeroDivisionError("after the stream")
        return result

    service = Reader()
    async with session_pair(service, options_a={"filters": [fail]}) as (_, session):
        with pytest.raises(ZeroDivisionError, match="after the stream"):
            await session.call("read", numbers(3))
    assert service.seen == [0, 1, 2]


async def test_a_filter_proceeds_once_around_a_pull(session_pair, no_time):
    async def twice(call, proceed):
        await proceed()
        return await proceed() if call.method == PULL else None

    async with session_pair(Reader(), options_a={"filters": [twice]}) as (_, session):
        with pytest.raises(RuntimeError, match="proceeded twice, but a stream is opened only once"):
            await session.call("read", numbers(3))


async def test_a_filter_that_does_not_proceed_opens_no_pull(session_pair, no_time):
    async def answer(call, proceed):
        return 5 if call.method == PULL else await proceed()

    async with session_pair(Reader(), options_a={"filters": [answer]}) as (_, session):
        with pytest.raises(RuntimeError, match="returned without proceeding, so nothing was open"):
            await session.call("read", numbers(3))


async def test_an_error_of_the_generator_reaches_the_consumer_through_the_filters(
    session_pair, no_time
):
    async def fails():
        yield 1
        raise LookupError("in the generator")

    service = Reader()
    async with session_pair(service, options_a={"filters": [recorder([])]}) as (_, session):
        with pytest.raises(LookupError, match="in the generator"):
            await session.call("read", fails())
    assert service.seen == [1]


async def test_the_end_of_the_session_ends_the_filters(session_pair, autojump_clock):
    log = []
    async with session_pair(Reader(), on_end="keep", options_a={"filters": [recorder(log)]}) as (
        a,
        session,
    ):
        async with trio.open_nursery() as nursery:

            async def call():
                with pytest.raises(trio_rpc.RpcError):
                    await session.call("read", numbers(10**9, wait=1))

            nursery.start_soon(call)
            await trio.sleep(3)
            with trio.move_on_after(0):
                await a.aclose()
    assert {each[1] for each in log if each[0] != "begins"} == {"read", PULL}


async def test_a_duplex_passes_filters_in_both_directions(session_pair, no_time):
    log = []
    async with session_pair(Reader(), options_a={"filters": [recorder(log)]}) as (_, session):
        async with session.duplex("talk") as channel:
            await channel.send("hello")
            assert await channel.receive() == "hello"
            with pytest.raises(trio.EndOfChannel):
                await channel.receive()
        await wait_all_tasks_blocked()
    begun = [each[1] for each in log if each[0] == "begins"]
    assert begun == ["talk", "stream 0 of talk"]
    assert len(log) == 4


async def test_a_pull_has_all_steps_of_a_call_in_a_trace(session_pair, no_time):
    events = []
    async with session_pair(Reader(), **both(events.append)) as (_, session):
        assert await session.call("read", numbers(3)) == 3
    assert steps(events, PULL) == ALL

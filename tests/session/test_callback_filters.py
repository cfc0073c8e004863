"""Callbacks pass the filters of the end that calls them, and of the end that lent them."""

from __future__ import annotations

import math

import pytest
import trio

import trio_rpc


class Jobs:
    @trio_rpc.method
    async def run(self, callback) -> object:
        with trio_rpc.metadata(job=7):
            return await callback("hello")


def _recorder(log, name):
    async def record(call, proceed):
        log.append((name, call.method, call.is_incoming, call.id, call.peer.name, call.metadata))
        return await proceed()

    return record


async def test_a_callback_passes_the_filters_of_both_ends_with_its_metadata(session_pair, no_time):
    log = []
    options = [{"filters": [_recorder(log, name)]} for name in "ab"]
    async with session_pair(Jobs(), options_a=options[0], options_b=options[1]) as (_, session):
        assert await session.call("run", str.upper) == "HELLO"
    callback = "callback 0 of run"
    assert log == [
        ("b", "run", False, None, "a", {}),
        ("a", "run", True, 1, "b", {}),
        ("a", callback, False, None, "b", {"job": 7}),
        ("b", callback, True, 1, "a", {"job": 7}),
    ]


async def test_a_filter_may_refuse_a_callback_before_it_is_sent(session_pair, no_time):
    called = []

    async def refuse(call, proceed):
        if call.method.startswith("callback"):
            raise PermissionError("no callbacks")
        return await proceed()

    async with session_pair(Jobs(), options_a={"filters": [refuse]}) as (_, session):
        with pytest.raises(PermissionError, match="no callbacks"):
            await session.call("run", called.append)
    assert called == []


async def test_a_filter_bounds_the_time_of_all_calls_that_this_end_makes(
    session_pair, autojump_clock
):
    """A time limit for all calls of a connection is a filter of five lines."""

    async def limited(call, proceed):
        with trio.fail_after(math.inf if call.is_incoming else 30):
            return await proceed()

    class Slow:
        @trio_rpc.method
        async def sleep(self, seconds: float) -> str:
            await trio.sleep(seconds)
            return "done"

    options = {"filters": [limited]}
    async with session_pair(Slow(), Slow(), options_a=options) as (limited_end, other):
        with pytest.raises(trio.TooSlowError):
            await limited_end.call("sleep", 40)
        assert await limited_end.call("sleep", 20) == "done"
        assert await other.call("sleep", 40) == "done"


async def test_the_directions_of_calls_can_be_told_apart_in_a_filter(session_pair, no_time):
    """One filter can limit the time of the calls that this end makes, and of no others."""
    ids = []

    async def record(call, proceed):
        before = call.id
        result = await proceed()
        ids.append((call.is_incoming, before, call.id))
        return result

    options = {"filters": [record]}
    async with session_pair(Jobs(), options_a=options, options_b=options) as (_, session):
        await session.call("run", str.upper)
    assert ids == [(True, 1, 1), (False, None, 1), (True, 1, 1), (False, None, 1)]

"""Traces: times, sizes, states, texts, and the order of the steps at one end."""

from __future__ import annotations

import pytest
import trio
from helpers.traces import ALL, CALLEE, CALLER, Logger, both, steps
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc import Limits, tracing
from trio_rpc.testing import memory_channel_pair, open_session_pair
from trio_rpc.tracing import WireLog


async def test_each_event_has_a_time_a_size_and_a_state(autojump_clock):
    events = []
    async with open_session_pair(Logger(), **both(events.append)) as (_, session):
        started = trio.current_time()
        assert await session.call("slow") == "done"
        await wait_all_tasks_blocked()
    first = events[0].time
    assert [event.time - first for event in events[:10]] == pytest.approx([0] * 10)
    assert [event.time - first for event in events[10:]] == pytest.approx([1] * 9)
    assert trio.current_time() - started == 1
    sizes = {event.step: event.size for event in events}
    assert {sizes[step] for step in (3, 4, 5, 6, 7)} == {sizes[3]} != {0}
    assert {sizes[step] for step in (12, 13, 14, 15, 16)} == {sizes[12]} != {0}
    assert {sizes[step] for step in (1, 2, 8, 9, 10, 11, 17, 18, 19)} == {0, sizes[3]} - {sizes[3]}
    assert [event.state for event in events] == [
        *["new", "waiting", "waiting", "waiting", "waiting"],
        *["running"] * 5,
        *["result"] * 4,
        *["waiting", "result", "result", "result", "result"],
    ]


async def test_the_end_of_the_session_wakes_the_caller(autojump_clock):
    events = []
    channels = memory_channel_pair()
    async with open_session_pair(
        Logger(), channels=channels, on_end="keep", **both(events.append)
    ) as (_, session):
        async with trio.open_nursery() as nursery:

            async def call():
                with pytest.raises(trio_rpc.SessionBroken):
                    await session.call("hangs")

            nursery.start_soon(call)
            await wait_all_tasks_blocked()
            await channels[0].aclose()
    found = [(event.step, event.state) for event in events if not event.is_incoming]
    assert found[-2:] == [(18, "session over"), (19, "SessionBroken")]


async def test_a_call_that_cannot_be_encoded_has_only_the_first_and_the_last_step(no_time):
    events = []
    async with open_session_pair(Logger(), **both(events.append)) as (_, session):
        with pytest.raises(trio_rpc.EncodeError):
            await session.call("plain", object())
        await session.call("plain", "x")
    assert [(event.step, event.call) for event in events[:4]] == [
        (1, None),
        (19, None),
        (1, None),
        (2, 1),
    ]


async def test_a_caller_that_waits_for_credit_has_made_its_first_step(autojump_clock):
    events = []
    one = {"limits": Limits(max_calls=1), "trace": events.append}
    async with open_session_pair(Logger(), options_a=one, options_b=one) as (_, session):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.call, "slow")
            await wait_all_tasks_blocked()
            nursery.start_soon(session.call, "plain", "x")
            await wait_all_tasks_blocked()
            assert steps(events, "plain") == [1]
    assert steps(events, "plain") == ALL


async def test_a_filter_that_proceeds_twice_makes_two_calls_with_one_number(no_time):
    events = []

    async def twice(call, proceed):
        assert call.id is None
        await proceed()
        assert call.id == 1
        result = await proceed()
        assert call.id == 2
        return result

    async with open_session_pair(
        Logger(),
        options_a={"trace": events.append},
        options_b={"trace": events.append, "filters": [twice]},
    ) as (_, session):
        await session.call("plain", "x")
    mine = [event for event in events if not event.is_incoming]
    assert {event.number for event in mine} == {1}
    assert [event.step for event in mine] == [1, *range(2, 6), *range(15, 19), *CALLER[1:]]
    assert mine[-1].call == 2


async def test_both_traces_name_the_same_session(no_time):
    here, there = [], []
    async with open_session_pair(
        Logger(), options_a={"trace": here.append}, options_b={"trace": there.append}
    ) as (a, b):
        await b.call("plain", "x")
    assert {event.session for event in (*here, *there)} == {a.id}
    assert steps(here) == CALLEE
    assert steps(there) == CALLER


async def test_a_wire_log_shows_payloads_only_if_asked(no_time):
    lines, with_payloads = [], []
    log = tracing.all_of(WireLog(lines.append), WireLog(lines.append))
    async with open_session_pair(
        Logger(),
        options_a={"trace": WireLog(with_payloads.append, payloads=True)},
        options_b={"trace": log},
    ) as (_, session):
        await session.call("plain", "secret")
    secret = b"secret".hex()
    assert not any(secret in line for line in lines)
    assert any(secret in line and " < " in line for line in with_payloads)
    assert lines[::2] == lines[1::2]


async def test_names_from_the_other_end_cannot_forge_lines(no_time):
    lines = []
    async with open_session_pair(
        Logger(), options_a={"trace": lambda event: lines.append(tracing.format_event(event))}
    ) as (_, session):
        for name in ("no\nsuch", "x" * 10_000, "\x1b[2J"):
            with pytest.raises(trio_rpc.MethodNotFound):
                await session.call(name)
    assert all(line.isprintable() and len(line) < 250 for line in lines)
    assert any(r"no\nsuch" in line for line in lines)


async def test_a_session_without_a_trace_has_none_of_its_parts(no_time):
    async with open_session_pair(Logger()) as (a, b):
        for session in (a, b):
            core = session._core
            parts = (session, core.protocol, core.writer, core.outgoing, core.incoming)
            assert not any("Traced" in type(part).__name__ for part in parts)


async def test_a_trace_must_be_a_function():
    with pytest.raises(TypeError, match="trace must be a function or None, not 5"):
        trio_rpc.Options(trace=5)

    async def waits(event): ...

    with pytest.raises(TypeError, match="trace must be a plain def"):
        trio_rpc.Options(trace=waits)
    with pytest.raises(TypeError, match="a trace must be a function, not 5"):
        tracing.all_of(tracing.print_trace, 5)


async def test_of_several_traces_one_that_raises_takes_nothing_from_the_others(no_time, caplog):
    steps, messages = [], []

    class Raises:
        def __call__(self, event):
            raise ZeroDivisionError

        def on_message(self, event):
            raise ZeroDivisionError

    log = tracing.WireLog(messages.append)
    several = tracing.all_of(Raises(), steps.append, log)
    async with open_session_pair(Logger(), options_b={"trace": several}) as (_, b):
        await b.call("info", "app start")
    assert [each.step for each in steps if each.step != 0][:5] == [1, 2, 3, 4, 5]
    assert any("Request" in line for line in messages)
    assert len([each for each in caplog.messages if "a trace raised" in each]) == 1


async def test_of_several_traces_only_a_trace_that_asks_for_payloads_gets_them(no_time):
    plain, full = [], []
    several = tracing.all_of(
        tracing.WireLog(plain.append), tracing.WireLog(full.append, payloads=True)
    )
    async with open_session_pair(Logger(), options_b={"trace": several}) as (_, b):
        await b.call("info", "app start")
    secret = b"app start".hex()
    assert any(secret in line for line in full)
    assert not any(secret in line for line in plain)
    assert len(plain) == len(full)


async def test_a_trace_may_write_to_the_session_while_an_answer_is_queued(no_time):
    """It cancels a call of this end. A Cancel and all messages queued before it are sent."""
    scope = trio.CancelScope()

    def cancel(event):
        if event.step == 13 and event.method == "plain":
            scope.cancel()

    async def call(session):
        with scope:
            await session.call("hangs")

    async with (
        open_session_pair(Logger(), Logger(), options_a={"trace": cancel}) as (here, there),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(call, here)
        await wait_all_tasks_blocked()
        await there.call("plain", "x")
        await wait_all_tasks_blocked()
        assert scope.cancelled_caught
        assert here._core.protocol.incoming == {}


class SlowToReturn(trio.abc.Channel[bytes]):
    """A channel whose ``send`` returns when the peer has long received the packet."""

    def __init__(self, channel):
        self._channel = channel

    async def send(self, value):
        await self._channel.send(value)
        await wait_all_tasks_blocked()

    async def receive(self):
        return await self._channel.receive()

    async def aclose(self):
        await self._channel.aclose()


async def test_a_message_is_sent_before_it_arrives_over_any_channel(no_time):
    events = []
    channels = [SlowToReturn(each) for each in memory_channel_pair()]
    async with open_session_pair(Logger(), channels=channels, **both(events.append)) as (
        _,
        session,
    ):
        await session.call("plain", "x")
    assert steps(events) == ALL

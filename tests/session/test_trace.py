"""A trace gets each step of a call, in order, at both ends and over each transport."""

from __future__ import annotations

import logging

import pytest
import trio
from helpers.traces import ALL, CALLEE, CALLER, Logger, Messages, both, steps

import trio_rpc
from trio_rpc.tracing import STEPS

# ── the steps ────────────────────────────────────────────────────────────────────────────────


async def test_a_trace_of_a_logging_call_shows_its_nineteen_steps_in_order(session_pair, no_time):
    """A call has nineteen steps, from the proxy to the caller that continues; a trace shows each.

    The program calls a method of a proxy. The method and its arguments become a request with an id
    of its own. The request is encoded as a message. The message is queued for the channel. The
    bytes of the request are sent. The bytes arrive at the other end. They are decoded, and
    dispatched by the type of the message. The message is handled as a request. The method of the
    service is found by its name. The method runs, and may wait. It returns a result or raises an
    exception. A Reply or a ReplyErr is encoded. The answer is queued for the channel. The bytes of
    the answer are sent. The bytes arrive at the caller's end. They are decoded, and recognised as
    the answer to a request of this end. The waiter is found by the id of the request. The waiter is
    woken with the result or the error. The awaiting caller continues, with the value or the
    exception. `await logger.info("app start")` works as written, and a trace shows all its steps.
    """
    events = []
    service = Logger()
    async with session_pair({"logger": service}, **both(events.append)) as (_, session):
        logger = session.proxy("logger", Logger)
        await logger.info("app start")
    assert service.lines == ["app start"]
    assert steps(events) == ALL
    assert steps(events, is_incoming=False) == CALLER
    assert steps(events, is_incoming=True) == CALLEE
    assert {event.method for event in events} == {"logger.info"}
    assert [event.call for event in events] == [None] + [1] * 18
    assert {event.number for event in events} == {1}
    assert list(STEPS) == ALL


@pytest.mark.parametrize(
    ("method", "states"),
    [
        ("fails", {11: "raised", 12: "raised", 16: "raised", 18: "raised", 19: "ValueError"}),
        ("missing", {12: "method_not_found", 18: "method_not_found", 19: "MethodNotFound"}),
    ],
)
async def test_the_states_say_how_a_call_failed(session_pair, no_time, caplog, method, states):
    caplog.set_level(logging.CRITICAL)
    events = []
    async with session_pair(Logger(), **both(events.append)) as (_, session):
        with pytest.raises((ValueError, trio_rpc.MethodNotFound)):
            await session.call(method)
    found = {event.step: event.state for event in events}
    assert {step: found[step] for step in states} == states
    # No handler runs for a method that does not exist.
    assert list(found) == [each for each in ALL if method == "fails" or each not in (9, 10, 11)]


async def test_a_plain_function_has_the_same_steps(session_pair, no_time):
    events = []
    async with session_pair(Logger(), **both(events.append)) as (_, session):
        await session.call("plain", "app start")
    assert steps(events) == ALL


async def test_a_cancelled_call_goes_on_until_its_handler_has_ended(session_pair, no_time):
    events = []
    async with session_pair(Logger(), **both(events.append)) as (_, session):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(session.call, "hangs")
                while 10 not in steps(events):
                    await trio.lowlevel.checkpoint()
                scope.cancel()
    assert steps(events) == ALL
    found = {event.step: event.state for event in events}
    assert found[11] == found[12] == found[18] == "cancelled"
    assert (found[15], found[19]) == ("cancelling", "Cancelled")


async def test_a_notification_has_the_steps_up_to_its_handlers_end(session_pair, no_time):
    events = []
    service = Logger()
    async with session_pair(service, **both(events.append)) as (_, session):
        await session.notify("note", "one")
        await session.notify("note", "two")
        await session.call("plain", "three")
    for number in (1, 2):
        assert sorted(steps(events, "note", number=number)) == list(range(1, 12))
    assert {event.call for event in events if event.method == "note"} == {None}
    assert service.lines == ["one", "two", "three"]


@pytest.mark.parametrize("kind", ["lines_so_far", "talk"])
async def test_a_stream_and_a_duplex_have_the_steps_of_a_call(session_pair, no_time, kind):
    events = []
    async with session_pair(Logger(), **both(events.append)) as (_, session):
        if kind == "talk":
            async with session.duplex(kind) as channel:
                await channel.send("hello")
                assert await channel.receive() == "hello"
                with pytest.raises(trio.EndOfChannel):
                    await channel.receive()
        else:
            async with session.stream(kind) as stream:
                assert [line async for line in stream] == ["one", "two"]
    assert steps(events, kind) == ALL


async def test_a_late_answer_is_shown_and_counted(session_pair, no_time):
    """A late reply is counted and shown, and harms nothing."""
    events = []
    service = Logger()
    async with session_pair(service, **both(events.append)) as (_, session):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_call_and_leave, session)
                while 10 not in steps(events, "hangs"):
                    await trio.lowlevel.checkpoint()
                scope.cancel()
        while 16 not in steps(events, "hangs"):
            await trio.lowlevel.checkpoint()
        assert session.statistics().late_replies == 1
        await session.call("plain", "x")
    found = {event.step: event.state for event in events if event.method == "hangs"}
    assert found[16] == "late"
    assert found[19] == "Cancelled"
    assert not {17, 18} & {*found}


async def _call_and_leave(session):
    await session.call("hangs", abandon_on_cancel=True)


async def test_a_callback_has_all_steps_within_those_of_its_call(session_pair, no_time):
    events = []
    async with session_pair(Logger(), **both(events.append)) as (_, session):
        assert await session.call("with_callback", str.upper) == "HELLO"
    callback = "callback 0 of with_callback"
    assert steps(events, callback) == ALL
    assert sorted(steps(events)) == sorted(2 * ALL)
    order = [(event.method, event.step) for event in events]
    assert order.index(("with_callback", 10)) < order.index((callback, 1))
    assert order.index((callback, 19)) < order.index(("with_callback", 11))


async def test_calls_in_flight_at_the_same_time_are_told_apart(session_pair, no_time):
    events = []
    async with (
        session_pair(Logger(), **both(events.append)) as (_, session),
        trio.open_nursery() as nursery,
    ):
        for _ in range(50):
            nursery.start_soon(session.call, "plain", "x")
    for number in range(1, 51):
        assert sorted(steps(events, number=number)) == ALL
        one = [event for event in events if event.number == number and event.step > 1]
        assert len({event.call for event in one}) == 1


async def test_a_large_call_is_sent_and_arrives_with_its_last_piece(session_pair, no_time):
    events = []
    content = bytes(1_000_000)
    async with session_pair(Logger(), **both(events.append)) as (_, session):
        assert await session.call("large", content) == content
    assert steps(events) == ALL
    sizes = {event.step: event.size for event in events}
    assert len(content) < sizes[3] == sizes[5] == sizes[7] < len(content) + 100
    assert len(content) < sizes[12] == sizes[14] == sizes[16] < len(content) + 100


# ── the session's id ─────────────────────────────────────────────────────────────────────────


async def test_both_ends_have_the_same_id_if_one_of_them_is_traced(session_pair, no_time):
    ids = []
    for options in ({}, {"options_a": {"trace": print}}, {"options_b": {"trace": print}}):
        async with session_pair(None, None, **options) as (a, b):
            assert a.id == b.id
            ids.append(a.id)
    assert ids[0] is None
    assert len({*ids}) == 3


# ── a trace that misbehaves ──────────────────────────────────────────────────────────────────


async def test_a_trace_that_raises_is_logged_once_and_breaks_nothing(session_pair, caplog, no_time):
    def trace(event):
        raise ZeroDivisionError(event.step)

    async with session_pair(Logger(), **both(trace)) as (_, session):
        for _ in range(3):
            await session.call("plain", "x")
    logged = [each for each in caplog.records if "a trace raised ZeroDivisionError" in each.message]
    assert len(logged) == 2  # once for each end
    assert all(each.exc_info for each in logged)


async def test_a_trace_may_cancel_the_call_that_it_sees(session_pair, no_time):
    """Cancelling runs an abort function, which calls back into the session."""
    for step in ALL:
        scope = trio.CancelScope()

        def trace(event, step=step, scope=scope):
            if event.step == step and event.method == "info":
                scope.cancel()

        service = Logger()
        async with session_pair(service, **both(trace)) as (_, session):
            with scope:
                await session.call("info", "x")
            for _ in range(3):
                await session.call("plain", "y")
        assert service.lines[-3:] == ["y"] * 3


# ── messages ─────────────────────────────────────────────────────────────────────────────────


async def test_a_wire_log_has_each_message_with_its_call_and_method(session_pair, no_time):
    """A log of all messages has direction, size, id and method, and no payload unless asked."""
    sent, received = Messages(), Messages()
    async with session_pair(Logger(), options_a={"trace": received}, options_b={"trace": sent}) as (
        _,
        session,
    ):
        await session.call("plain", "x")
        await session.notify("note", "x")
        await session.ping()
    for one, other in ((sent, received), (received, sent)):
        left = [each for each in one.seen if each.is_sent]
        came = [each for each in other.seen if not each.is_sent]
        assert [(e.message, e.size, e.call, e.method) for e in left[: len(came)]] == [
            (e.message, e.size, e.call, e.method) for e in came
        ]
    mine = [(e.message, e.call, e.method) for e in sent.seen if e.is_sent]
    assert mine[:5] == [
        ("Hello", None, ""),
        ("Welcome", None, ""),
        ("Request", 1, "plain"),
        ("Notification", None, "note"),
        ("Ping", None, ""),
    ]
    theirs = [(e.message, e.call, e.method) for e in sent.seen if not e.is_sent]
    assert ("Reply", 1, "plain") in theirs
    assert ("Pong", None, "") in theirs
    assert not any(each.payload for each in (*sent.seen, *received.seen))


async def test_the_sizes_of_messages_add_up_to_the_bytes_of_the_session(session_pair, no_time):
    messages = Messages()
    async with session_pair(Logger(), options_b={"trace": messages}) as (_, session):
        await session.call("large", bytes(300_000))
        async with session.stream("lines_so_far") as stream:
            assert len([line async for line in stream]) == 2
        statistics = session.statistics()
        seen = list(messages.seen)
    sent = [each.size for each in seen if each.is_sent]
    # A message in pieces appears once more, as a whole, when it has arrived.
    came = [each.size for each in seen if not each.is_sent and each.size < 300_000]
    assert sum(sent) == statistics.bytes_sent
    assert sum(came) == statistics.bytes_received

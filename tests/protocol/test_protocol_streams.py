"""Items, their credit, and Started: messages within a call other than its Request and Reply."""

from __future__ import annotations

import pytest
from helpers.protocol_pair import Pair, decoded, encoded, packets, received

from trio_rpc.errors import EncodeError, LocalProtocolError, RemoteProtocolError
from trio_rpc.protocol.streams import MOST_IN_RUN, with_runs
from trio_rpc.wire import messages as m

WINDOW = [2, 100]


@pytest.fixture
def pair():
    return Pair()


def open_stream(pair, window=WINDOW, **context):
    return pair.call(stream=list(window), **context)


def values(events):
    return [event.value for event in events]


# ── items and credit ─────────────────────────────────────────────────────────────────────────


def test_items_arrive_in_order_and_before_their_end(pair):
    call = open_stream(pair)
    pair.b.item(call, "one")
    pair.b.item(call, "two")
    pair.b.reply(call, None)
    *items, end = pair.deliver(pair.b)
    assert values(items) == ["one", "two"]
    assert end == m.Reply(call, None)
    pair.assert_no_calls()


def test_credit_for_items_runs_out_and_can_be_granted_again(pair):
    call = open_stream(pair)
    for value in (1, 2):
        assert pair.b.may_send_item(call)
        pair.b.item(call, value)
    assert not pair.b.may_send_item(call)
    with pytest.raises(LocalProtocolError, match="without credit"):
        pair.b.item(call, 3)
    one, _ = pair.deliver(pair.b)
    pair.a.grant_items(call, 1, one.size)
    assert pair.deliver(pair.a) == [m.Credit(1, call, one.size)]
    pair.b.item(call, 3)
    assert not pair.b.may_send_item(call)
    assert values(pair.deliver(pair.b)) == [3]


def test_unsent_credit_for_a_stream_is_merged_into_one_message(pair):
    calls = [open_stream(pair, [1, 1000]) for _ in range(2)]
    sizes = dict.fromkeys(calls, 0)
    for call in calls * 100:
        pair.b.item(call, "x")
        (item,) = pair.deliver(pair.b)
        pair.a.grant_items(call, 1, item.size)
        pair.b._given.give(call, 1, item.size)  # it counts on credit that it has not received
        sizes[call] += item.size
    assert pair.a.messages_waiting == 2
    assert pair.a.bytes_waiting < 100
    (packet,) = packets(pair.a)
    assert decoded(packet) == [m.Credit(100, call, sizes[call]) for call in calls]
    pair.b.item(calls[0], "x")
    (item,) = pair.deliver(pair.b)
    pair.a.grant_items(calls[0], 1, item.size)
    assert decoded(packets(pair.a)[0]) == [m.Credit(1, calls[0], item.size)]


def test_the_last_item_may_overdraw_the_bytes(pair):
    call = open_stream(pair, [9, 10])
    pair.b.item(call, b"x" * 50)
    assert not pair.b.may_send_item(call)
    (item,) = pair.deliver(pair.b)
    pair.a.grant_items(call, 0, 10)
    pair.deliver(pair.a)
    assert not pair.b.may_send_item(call)  # the balance is still negative
    pair.a.grant_items(call, 1, item.size - 10)
    pair.deliver(pair.a)
    assert pair.b.may_send_item(call)


def test_the_size_of_an_item_is_the_size_of_its_whole_message(pair):
    call = open_stream(pair, [9, 1])
    pair.b.item(call, {"key": [1, 2.5, "text", b"bytes", (1, 2)]})
    (packet,) = packets(pair.b)
    (item,) = pair.a.receive(packet)
    assert item.size == len(packet)


def test_the_size_of_an_item_in_pieces_is_the_size_of_the_whole_message(pair):
    call = open_stream(pair)
    pair.b.item(call, b"x" * 40_000)
    (item,) = pair.deliver(pair.b)
    assert item.size == len(encoded(m.Item(call, b"x" * 40_000)))


def test_an_item_that_cannot_be_encoded_uses_no_credit(pair):
    call = open_stream(pair)
    for value in (object(), b"x" * 100_000):
        with pytest.raises(EncodeError):
            pair.b.item(call, value)
    pair.b.item(call, 1)
    pair.b.item(call, 2)
    assert values(pair.deliver(pair.b)) == [1, 2]


@pytest.mark.parametrize("cancel", ["cancel", "abandon"])
def test_items_that_cross_a_cancel_are_ignored(pair, cancel):
    call = open_stream(pair)
    pair.b.item(call, 1)
    getattr(pair.a, cancel)(call)
    assert pair.deliver(pair.b) == []
    pair.deliver(pair.a)
    if cancel == "cancel":
        pair.b.item(call, 2)
        assert not pair.b.has_data
    pair.b.reply_error(call, {"code": "cancelled"})
    pair.settle()
    pair.assert_no_calls()


def test_credit_that_crosses_the_end_of_items_is_ignored(pair):
    call = open_stream(pair)
    pair.b.item(call, 1)
    pair.deliver(pair.b)
    pair.b.reply(call, None)
    pair.a.grant_items(call, 1, 1)
    assert pair.deliver(pair.a) == []
    pair.settle()
    pair.a.grant_items(call, 1, 1)
    pair.assert_no_calls()


def test_a_call_goes_on_after_the_end_of_its_items(pair):
    call = open_stream(pair)
    pair.b.item(call, 1)
    pair.b.end_items(call)
    pair.b.end_items(call)
    item, end = pair.deliver(pair.b)
    assert (item.value, end) == (1, m.EndOfItems(call))
    assert not pair.b.may_send_item(call)
    with pytest.raises(LocalProtocolError, match="without credit"):
        pair.b.item(call, 2)
    pair.a.grant_items(call, 1, 1)
    assert not pair.a.has_data
    pair.b.reply(call, "result")
    pair.settle()
    pair.assert_no_calls()


def test_later_messages_of_a_call_do_not_overtake_its_large_item(pair):
    first, second = open_stream(pair), open_stream(pair)
    pair.b.item(first, b"x" * 40_000)
    pair.b.reply(first, None)
    pair.b.item(second, "small")
    pair.b.reply(second, None)
    events = pair.deliver(pair.b)
    assert [(type(event), event.id) for event in events if event.id == first] == [
        (m.Item, first),
        (m.Reply, first),
    ]
    assert next(event.id for event in events) == second  # its order is independent
    pair.assert_no_calls()


def test_a_cancel_withdraws_the_large_items_of_its_call_only(pair):
    first, second = open_stream(pair), open_stream(pair)
    pair.b.item(first, b"x" * 60_000)
    pair.b.item(second, b"y" * 40_000)
    begun = pair.b.next_packet()
    assert list(pair.a.receive(begun)) == []
    pair.a.cancel(first)
    pair.deliver(pair.a)
    waiting = pair.b.bytes_waiting
    assert waiting < 41_000
    (item,) = pair.deliver(pair.b)
    assert item.id == second
    pair.b.reply_error(first, {"code": "cancelled"})
    pair.b.reply(second, None)
    pair.settle()
    pair.assert_no_calls()


# ── started ──────────────────────────────────────────────────────────────────────────────────


def test_started_can_be_sent_once_and_only_before_the_reply(pair):
    call = pair.call(task_status=True)
    pair.b.started(call, "value")
    with pytest.raises(LocalProtocolError, match="does not expect one"):
        pair.b.started(call, "again")
    pair.b.reply(call, None)
    started, end = pair.deliver(pair.b)
    assert started == m.Started(call, "value")
    assert end == m.Reply(call, None)
    pair.assert_no_calls()


def test_the_reply_does_not_overtake_a_large_started_value(pair):
    call = pair.call(task_status=True)
    pair.b.started(call, b"x" * 40_000)
    pair.b.reply(call, None)
    assert [type(event) for event in pair.deliver(pair.b)] == [m.Started, m.Reply]


@pytest.mark.parametrize("wanted", [None, False])
def test_started_is_illegal_if_the_caller_did_not_ask_for_it(pair, wanted):
    call = pair.call(**({} if wanted is None else {"task_status": wanted}))
    with pytest.raises(LocalProtocolError, match="does not expect one"):
        pair.b.started(call, None)


def test_a_cancelled_handler_may_still_send_started(pair):
    call, late, gone = (pair.call(task_status=True) for _ in range(3))
    pair.b.started(call, 1)
    pair.a.cancel(call)
    assert pair.deliver(pair.b) == [m.Started(call, 1)]
    pair.a.cancel(late)
    pair.deliver(pair.a)
    pair.b.started(late, 2)
    assert pair.deliver(pair.b) == [m.Started(late, 2)]
    pair.a.abandon(gone)
    pair.b.started(gone, 3)
    assert pair.deliver(pair.b) == []
    for each in (call, late, gone):
        pair.b.reply_error(each, {"code": "cancelled"})
    pair.settle()
    pair.assert_no_calls()


# ── messages that a peer must not send ─────────────────────────────────────────────────────────


def refused(end, *messages):
    with pytest.raises(RemoteProtocolError) as caught:
        received(end, *messages)
    return str(caught.value)


@pytest.mark.parametrize(
    "message",
    [m.Item(9, None), m.EndOfItems(9), m.Started(9, None)],
    ids=lambda it: type(it).__name__,
)
def test_a_message_for_an_unknown_call_ends_the_session(pair, message):
    assert "not in flight" in refused(pair.a, message)


@pytest.mark.parametrize("message", [m.Item, m.EndOfItems, m.Started])
def test_items_or_started_that_the_caller_did_not_ask_for_end_the_session(pair, message):
    call = pair.call()
    made = message(call) if message is m.EndOfItems else message(call, None)
    assert refused(pair.a, made)


def test_an_item_without_credit_ends_the_session(pair):
    call = open_stream(pair)
    items = [m.Item(call, number) for number in range(3)]
    assert "without credit" in refused(pair.a, *items)


def test_an_item_beyond_the_bytes_ends_the_session(pair):
    call = open_stream(pair, [9, 10])
    assert "without credit" in refused(pair.a, m.Item(call, b"x" * 10), m.Item(call, 1))


def test_an_item_after_a_cancel_still_uses_credit(pair):
    call = open_stream(pair)
    pair.a.cancel(call)
    received(pair.a, m.Item(call, 1), m.Item(call, 2))
    assert "without credit" in refused(pair.a, m.Item(call, 3))


def test_an_item_after_the_end_of_items_ends_the_session(pair):
    call = open_stream(pair)
    assert "without credit" in refused(pair.a, m.EndOfItems(call), m.Item(call, 1))


def test_a_second_end_of_items_ends_the_session(pair):
    call = open_stream(pair)
    assert "has no Items" in refused(pair.a, m.EndOfItems(call), m.EndOfItems(call))


def test_a_second_started_ends_the_session(pair):
    call = pair.call(task_status=True)
    assert "does not expect one" in refused(pair.a, m.Started(call, 1), m.Started(call, 1))


@pytest.mark.parametrize(("items", "size"), [(1, 0), (0, 1), (2**52, 2**52)])
def test_more_credit_than_was_used_ends_the_session(pair, items, size):
    call = open_stream(pair)
    assert "more than was sent" in refused(pair.b, m.Credit(items, call, size))


@pytest.mark.parametrize(
    "context",
    [
        {"stream": None},
        {"stream": []},
        {"stream": [1]},
        {"stream": [0, 1]},
        {"stream": [1, 0]},
        {"stream": [1, -1]},
        {"stream": [1.0, 1]},
        {"stream": [True, 1]},
        {"stream": [1, 1, 1]},
        {"task_status": 1},
        {"scope": -1},
        {"scope": "1"},
    ],
    ids=repr,
)
def test_a_malformed_context_ends_the_session(pair, context):
    assert refused(pair.a, m.Request(1, "method", [], None, context))


def test_messages_are_encoded_as_docs_protocol_says():
    assert decoded(
        encoded(m.Item(1, "x"), m.EndOfItems(2), m.Credit(4, 3, 5), m.Started(6, 7))
    ) == [
        m.Item(1, "x"),
        m.EndOfItems(2),
        m.Credit(4, 3, 5),
        m.Started(6, 7),
    ]
    assert encoded(m.Item(1, "x")) == bytes.fromhex("93 14 01 a1 78")


# ── items that follow each other ─────────────────────────────────────────────────────────────


def events_of(pair):
    """Deliver one packet of b, and return the events as they are."""
    [packet] = packets(pair.b)
    return list(pair.a.receive(packet))


def test_items_that_follow_each_other_are_one_event(pair):
    call = open_stream(pair, [100, 1000])
    for value in ("one", "two", 3):
        pair.b.item(call, value)
    pair.b.reply(call, None)
    before = pair.a.counters.messages_received
    run, end = events_of(pair)
    assert (run.id, values(run.items), end) == (call, ["one", "two", 3], m.Reply(call, None))
    assert run.size == sum(item.size for item in run.items) == len(encoded(*run.items))
    assert pair.a.counters.messages_received == before + 4
    pair.a.grant_items(call, 3, run.size)  # the call has ended, so this does nothing
    pair.assert_no_calls()


def test_credit_for_a_run_can_be_given_back_and_not_more(pair):
    call = open_stream(pair, [3, 1000])
    for value in range(3):
        pair.b.item(call, value)
    [run] = events_of(pair)
    pair.a.grant_items(call, 3, run.size)
    with pytest.raises(LocalProtocolError, match="more than was sent"):
        pair.a.grant_items(call, 1, 0)


def test_a_run_ends_at_another_call_another_message_and_a_number_of_items():
    one, other = m.Item(1, "x"), m.Item(2, "x")
    found = list(with_runs([one, other, other, m.Ping(1), one, one, *[one] * MOST_IN_RUN]))
    assert found[0] is one
    assert found[1].items == [other, other]
    assert found[2] == m.Ping(1)
    assert [len(run.items) for run in found[3:]] == [MOST_IN_RUN, 2]


def test_items_of_a_run_beyond_the_credit_break_the_protocol(pair):
    call = open_stream(pair, [2, 1000])
    arriving = pair.a.receive(encoded(*[m.Item(call, value) for value in range(3)]))
    assert [next(arriving).value, next(arriving).value] == [0, 1]
    with pytest.raises(RemoteProtocolError, match="without credit"):
        next(arriving)


def test_only_the_last_item_of_a_run_may_overdraw_the_bytes(pair):
    size = len(encoded(m.Item(1, "x" * 20)))
    call = open_stream(pair, [9, size + 1])
    [run] = pair.a.receive(encoded(*[m.Item(call, "x" * 20)] * 2))
    assert len(run.items) == 2
    call = open_stream(pair, [9, size])
    arriving = pair.a.receive(encoded(*[m.Item(call, "x" * 20)] * 2))
    assert next(arriving).value == "x" * 20
    with pytest.raises(RemoteProtocolError, match="without credit"):
        next(arriving)


def test_a_run_of_a_cancelled_or_abandoned_call_is_counted_and_dropped(pair):
    call = open_stream(pair, [4, 1000])
    pair.a.cancel(call)
    for _ in range(2):
        pair.b.item(call, "x")
    assert events_of(pair) == []
    pair.a.abandon(call)
    assert list(pair.a.receive(encoded(m.Item(call, "x"), m.Item(call, "x")))) == []
    with pytest.raises(RemoteProtocolError, match="without credit"):
        list(pair.a.receive(encoded(m.Item(call, "x"), m.Item(call, "x"))))


def test_a_run_of_an_unknown_call_breaks_the_protocol(pair):
    open_stream(pair)
    with pytest.raises(RemoteProtocolError, match="not in flight"):
        list(pair.a.receive(encoded(m.Item(99, "x"), m.Item(99, "x"))))


def test_items_that_follow_each_other_may_arrive_after_a_goodbye(pair):
    call = open_stream(pair, [4, 1000])
    pair.a.goodbye("done")
    assert values(pair.a.receive(encoded(m.Item(call, 1), m.Item(call, 2)))) == [1, 2]

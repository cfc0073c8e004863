"""The outbox joins messages into packets, and cuts them into pieces."""

from __future__ import annotations

import itertools
import tracemalloc

import msgpack
import pytest
from helpers.protocol_pair import Pair, decoded, packets
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_rpc.errors import DecodeError
from trio_rpc.protocol.outbox import CONTROL_ROOM, Outbox
from trio_rpc.protocol.pieces import Pieces
from trio_rpc.wire import messages as m
from trio_rpc.wire.codec import Codec
from trio_rpc.wire.limits import Limits

MAX = 200
CODEC = Codec()


def request(number, size=0):
    return CODEC.encode(m.Request(number, "m", [b"x" * size]))


def reply(number, size=0):
    return CODEC.encode(m.Reply(number, b"x" * size))


def exactly(size, number=1):
    """Encode a Reply of exactly this many bytes."""
    data = reply(number, size - 5)
    assert len(data) == size
    return data


def drain(outbox):
    taken = []
    while (packet := outbox.next_packet()) is not None:
        assert 0 < len(packet[0]) <= outbox.max_packet
        taken.append((bytes(packet[0]), packet[1]))
    assert not outbox
    assert outbox.size == 0
    return taken


def kinds(packet):
    return [type(message) for message in decoded(packet)]


def reassembled(taken):
    """Return the messages that a receiver makes of these packets, in order of completion."""
    pieces, whole = Pieces(1_000_000), []
    for packet, _ in taken:
        for message in decoded(packet):
            if isinstance(message, m.Piece):
                pieces.add(message.data)
            elif isinstance(message, m.LastPiece) and not message.data:
                pieces.drop()
            elif isinstance(message, m.LastPiece):
                pieces.add(message.data)
                whole.append(CODEC.decode_message(pieces.take()))
            else:
                whole.append(message)
    with pytest.raises(DecodeError):
        pieces.drop()  # no incomplete message is left
    return whole


@pytest.fixture
def outbox():
    return Outbox(MAX)


def test_an_empty_outbox_has_no_packet(outbox):
    assert not outbox
    assert outbox.next_packet() is None
    assert outbox.size == 0


def test_small_messages_are_joined_into_one_packet(outbox):
    data = [request(1), reply(7), request(2)]
    for each, tag in zip(data, (-1, 7, -2), strict=True):
        outbox.put(each, tag)
    assert outbox.size == sum(map(len, data))
    assert drain(outbox) == [(b"".join(data), [7])]


def test_packets_are_bounded_and_in_order(outbox):
    for number in range(1, 40):
        outbox.put(reply(number, number), number)
    taken = drain(outbox)
    assert [message.id for packet, _ in taken for message in decoded(packet)] == [*range(1, 40)]
    assert list(itertools.chain(*(answered for _, answered in taken))) == [*range(1, 40)]
    for packet, answered in taken:
        assert [message.id for message in decoded(packet)] == answered


def test_batching_all_queued_messages_leave_in_order_in_one_packet_up_to_a_size(outbox):
    """The outbox batches by itself. A session sends one packet per tick."""
    first = [request(number) for number in range(1, 6)]
    for each in first:
        outbox.put(each)
    assert drain(outbox) == [(b"".join(first), [])]
    many = [reply(number, 20) for number in range(1, 200)]
    for number, each in enumerate(many, 1):
        outbox.put(each, number)
    packets = [packet for packet, _ in drain(outbox)]
    assert b"".join(packets) == b"".join(many)
    assert all(MAX - CONTROL_ROOM - len(many[-1]) < len(packet) <= MAX for packet in packets[:-1])


def test_a_small_message_that_is_alone_is_not_copied(outbox):
    data = reply(1)
    outbox.put(data)
    assert outbox.next_packet()[0] is data


def test_the_largest_small_message_and_the_smallest_large_one(outbox):
    outbox.put(exactly(MAX - CONTROL_ROOM))
    outbox.put_credit(2**53 - 1)
    ((packet, _),) = drain(outbox)
    assert kinds(packet) == [m.Credit, m.Reply]
    outbox.put(exactly(MAX - CONTROL_ROOM + 1))
    ((packet, _),) = drain(outbox)
    assert kinds(packet) == [m.LastPiece]


def test_a_large_message_travels_in_pieces_and_ends_its_call_with_the_last(outbox):
    outbox.put(reply(7, 500), 7)
    taken = drain(outbox)
    assert [kinds(packet) for packet, _ in taken] == [[m.Piece]] * 2 + [[m.LastPiece]]
    assert [answered for _, answered in taken] == [[], [], [7]]
    assert all(len(packet) == MAX for packet, _ in taken[:-1])
    assert reassembled(taken) == [m.Reply(7, b"x" * 500)]


def test_one_large_message_at_a_time(outbox):
    outbox.put(reply(1, 500), 1)
    outbox.put(reply(2, 300), 2)
    assert reassembled(drain(outbox)) == [m.Reply(1, b"x" * 500), m.Reply(2, b"x" * 300)]


def test_small_messages_pass_between_pieces(outbox):
    outbox.put(reply(1, 1000), 1)
    outbox.next_packet()
    outbox.put(reply(2), 2)
    packet, answered = outbox.next_packet()
    assert kinds(packet) == [m.Reply, m.Piece]
    assert answered == [2]


def test_small_messages_and_pieces_get_half_of_each_packet(outbox):
    outbox.put(reply(1, 2000), 1)
    for number in range(2, 60):
        outbox.put(reply(number, 20), number)
    small, pieces = 0, 0
    for _ in range(5):
        for message in decoded(outbox.next_packet()[0]):
            if isinstance(message, m.Piece):
                pieces += len(message.data)
            else:
                small += len(CODEC.encode(message))
    assert pieces >= 5 * (MAX // 2 - 8)
    assert small >= 5 * (MAX // 2 - 26)


@pytest.mark.parametrize("size", [MAX // 2 + 1, MAX - CONTROL_ROOM - 10, MAX - CONTROL_ROOM])
@pytest.mark.parametrize("credit", [0, 2**40])
def test_small_messages_and_a_large_one_do_not_hold_each_other_up(outbox, size, credit):
    """Each packet has a small message that needs most of it and a Credit, beside two large ones."""
    outbox.put(reply(1, 3000), 1)
    outbox.put(reply(2, 3000), 2)
    progress = []
    for _ in range(20):
        outbox.put(exactly(size))
        outbox.put_credit(credit)
        before = outbox.size
        packet, _ = outbox.next_packet()
        assert len(packet) <= MAX
        counts = {kind: kinds(packet).count(kind) for kind in (m.Reply, m.Piece)}
        progress.append((counts[m.Reply], before - outbox.size))
    assert sum(replies for replies, _ in progress) >= 10
    pieces = sum(sent for _, sent in progress) - sum(replies for replies, _ in progress) * size
    assert pieces >= 10 * (MAX // 2 - 30)


def test_space_owed_to_a_withdrawn_large_message_is_forgotten(outbox):
    outbox.put(request(1, 3000), -1)
    outbox.put(exactly(MAX - CONTROL_ROOM))
    outbox.next_packet()
    assert outbox.withdraw_request(1)
    outbox.put(request(2, 3000), -2)
    outbox.put(exactly(MAX - CONTROL_ROOM))
    assert m.Reply in kinds(outbox.next_packet()[0])


def test_a_large_message_does_not_pass_small_ones_of_its_call(outbox):
    for number in range(1, 13):  # each fills half a packet
        outbox.put(request(number, MAX // 2 - 20), -number)
    for size in (1, 300, 2):
        outbox.put(CODEC.encode(m.Item(99, b"x" * size)), call=99)
    outbox.put(reply(99), 99)
    sizes = [
        len(message.value) if isinstance(message, m.Item) else "end"
        for message in reassembled(drain(outbox))
        if message.id == 99
    ]
    assert sizes == [1, 300, 2, "end"]


# ── taking back ──────────────────────────────────────────────────────────────────────────────


def test_a_small_request_can_be_withdrawn_once(outbox):
    for number in (1, 2, 3):
        outbox.put(request(number), -number)
    assert outbox.withdraw_request(2)
    assert not outbox.withdraw_request(2)
    assert [message.id for message in reassembled(drain(outbox))] == [1, 3]
    assert not outbox.withdraw_request(3)


def test_withdrawing_a_request_does_not_withdraw_an_answer_with_the_same_id(outbox):
    outbox.put(reply(5), 5)
    outbox.put(reply(6, 500), 6)
    assert not outbox.withdraw_request(5)
    assert not outbox.withdraw_request(6)
    outbox.put(request(6, 500), -6)
    assert outbox.withdraw_large(6)
    assert not outbox.withdraw_large(6)
    assert not outbox.withdraw_large(5)  # it is small, so it leaves soon anyway
    assert [type(message) for message in reassembled(drain(outbox))] == [m.Reply, m.Request]


def test_a_small_request_is_found_behind_a_large_one_that_has_left(outbox):
    outbox.put(request(1, 500), -1)
    drain(outbox)
    outbox.put(request(2), -2)
    assert not outbox.withdraw_request(1)
    assert outbox.withdraw_request(2)


def test_a_large_request_is_found_behind_a_small_one_that_has_left(outbox):
    outbox.put(request(1, 500), -1)
    outbox.put(request(2), -2)
    outbox.next_packet()
    assert outbox.withdraw_request(1)
    assert not outbox.withdraw_request(2)


@pytest.mark.parametrize("answer", [False, True])
@pytest.mark.parametrize("sent", [0, 1, 2])
def test_another_large_message_can_follow_one_that_is_withdrawn_midway(outbox, answer, sent):
    if answer:
        outbox.put(reply(1, 500), 1)
    else:
        outbox.put(request(1, 500), -1)
    outbox.put(reply(2, 500), 2)
    taken = [outbox.next_packet() for _ in range(sent)]
    assert (outbox.withdraw_large if answer else outbox.withdraw_request)(1)
    assert outbox.size == len(reply(2, 500))
    rest = drain(outbox)
    assert (decoded(rest[0][0])[0] == m.LastPiece(b"")) == bool(sent)
    assert reassembled(taken + rest) == [m.Reply(2, b"x" * 500)]
    assert [ids for _, ids in rest if ids] == [[2]]


def test_withdrawing_a_message_midway_and_an_unsent_one_sends_one_drop(outbox):
    outbox.put(request(1, 500), -1)
    outbox.put(request(2, 500), -2)
    outbox.put(request(3, 500), -3)
    taken = [outbox.next_packet()]
    assert outbox.withdraw_request(1)
    assert outbox.withdraw_request(2)
    taken += drain(outbox)
    assert [message.id for message in reassembled(taken)] == [3]


def test_a_drop_is_sent_even_if_nothing_else_is_queued(outbox):
    outbox.put(request(1, 500), -1)
    outbox.next_packet()
    outbox.withdraw_request(1)
    assert outbox
    assert outbox.next_packet() == (CODEC.encode(m.LastPiece(b"")), [])
    assert not outbox


def test_cancelling_many_calls_does_not_search_messages_that_have_left(outbox):
    """Each of 1,000 Cancels once searched all the earlier ones."""

    for number in range(1, 1001):
        outbox.put(request(number), -number)
    drain(outbox)
    outbox._small = _NotSearched()
    for number in range(1, 1001):
        assert not outbox.withdraw_request(number)
        outbox.put(CODEC.encode(m.Cancel(number)))


class _NotSearched(list):
    def __iter__(self):
        raise AssertionError("searched")


# ── control messages ─────────────────────────────────────────────────────────────────────────


def test_credits_are_added_up_and_sent_first(outbox):
    outbox.put(reply(1), 1)
    outbox.put_credit(2)
    outbox.put_credit(3)
    ((packet, _),) = drain(outbox)
    assert decoded(packet) == [m.Credit(5), m.Reply(1, b"")]


def test_at_most_one_pong_is_queued_and_it_answers_the_last_ping(outbox):
    outbox.put(reply(1), 1)
    for number in range(5000):
        outbox.put_pong(number)
    messages = reassembled(drain(outbox))
    assert messages == [
        m.Reply(1, b""),
        m.Pong(4999),
    ]  # no message overtakes the first one, a Hello
    outbox.put_pong(5001)
    outbox.put(reply(2), 2)
    assert reassembled(drain(outbox)) == [m.Pong(5001), m.Reply(2, b"")]


def test_a_goodbye_waits_only_for_large_calls(outbox):
    goodbye = CODEC.encode(m.Goodbye("done"))
    outbox.put(reply(1, 500), 1)
    outbox.put(request(2, 500), -2)
    outbox.put(reply(3, 500), 3)
    outbox.put_goodbye(goodbye)
    outbox.put(reply(4), 4)
    order = [getattr(message, "id", "goodbye") for message in reassembled(drain(outbox))]
    assert order == [4, 1, 2, "goodbye", 3]


def test_clearing_drops_every_queued_message(outbox):
    outbox.put(request(1, 500), -1)
    outbox.next_packet()
    outbox.put(request(2), -2)
    outbox.put_goodbye(CODEC.encode(m.Goodbye("done")))
    outbox.put_credit(1)
    outbox.put_pong(1)
    outbox.withdraw_request(1)
    outbox.clear()
    assert not outbox
    assert drain(outbox) == []


# ── everything together ──────────────────────────────────────────────────────────────────────

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("request"), st.integers(0, 600)),
        st.tuples(st.just("reply"), st.integers(0, 600)),
        st.tuples(st.just("withdraw"), st.integers(1, 12)),
        st.tuples(st.just("withdraw answer"), st.integers(1, 12)),
        st.tuples(st.just("packet"), st.just(0)),
        st.tuples(st.just("credit"), st.integers(1, 2**50)),
    ),
    max_size=60,
)


@given(STEPS)
def test_no_message_is_lost_duplicated_or_mixed_up(steps):
    outbox, taken, expected = Outbox(MAX), [], {}
    granted = 0
    for number, (step, value) in enumerate(steps, 1):
        if step == "request":
            expected[-number] = m.Request(number, "m", [b"x" * value])
            outbox.put(request(number, value), -number)
        elif step == "reply":
            expected[number] = m.Reply(number, b"x" * value)
            outbox.put(reply(number, value), number)
        elif step == "withdraw":
            if outbox.withdraw_request(value):
                del expected[-value]
        elif step == "withdraw answer":
            if outbox.withdraw_large(value):
                del expected[value]
        elif step == "credit":
            granted += value
            outbox.put_credit(value)
        elif (packet := outbox.next_packet()) is not None:
            taken.append(packet)
    taken += drain(outbox)
    messages = reassembled(taken)
    calls = [message for message in messages if not isinstance(message, m.Credit)]
    assert sum(each.count for each in messages if isinstance(each, m.Credit)) == granted
    assert sorted(calls, key=repr) == sorted(expected.values(), key=repr)
    answered = list(itertools.chain(*(ids for _, ids in taken)))
    assert sorted(answered) == sorted(tag for tag in expected if tag > 0)


# ── the receiver's half ──────────────────────────────────────────────────────────────────────


@given(st.lists(st.binary(min_size=1, max_size=3000), min_size=1, max_size=20))
def test_pieces_of_any_size_make_the_message(parts):
    pieces = Pieces(60_000)
    for _ in range(2):
        for part in parts:
            pieces.add(part)
        assert pieces.take() == b"".join(parts)
        with pytest.raises(DecodeError, match="no pieces to drop"):
            pieces.drop()


LARGE_MESSAGES = {
    "a result": m.Reply(3, bytes(range(256)) * 200),
    "an item": m.Item(3, bytes(range(256)) * 200),
    "an argument": m.Request(3, "m", [1, b"x" * 50_000, {"a": [2]}], {"b": 3}, {"depth": 1}),
    "two arguments": m.Notification("m", [b"x" * 50_000, b"y" * 40_000]),
    "in a result": m.Reply(3, [1, "two", b"x" * 50_000, None]),
    "deeper in a result": m.Reply(3, [[b"x" * 50_000]]),
    "behind much else": m.Reply(3, [*range(500), b"x" * 50_000]),
    "behind a map": m.Reply(3, [{"a": 1}, b"x" * 50_000]),
    "text": m.Reply(3, "x" * 50_000),
    "of many values": m.Reply(3, list(range(20_000))),
}


@pytest.mark.parametrize("name", LARGE_MESSAGES)
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_a_large_message_is_the_same_wherever_it_was_cut(name, data):
    message = LARGE_MESSAGES[name]
    encoded = CODEC.encode(message)
    places = st.integers(0, 100) | st.integers(0, len(encoded))
    cuts = sorted(data.draw(st.lists(places, max_size=5)))
    pieces = Pieces(len(encoded))
    for start, end in itertools.pairwise([0, *cuts, len(encoded)]):
        pieces.add(encoded[start:end])
    whole = CODEC.decode_message(pieces.take())
    if isinstance(message, m.Item):
        assert whole.size == len(encoded)
        whole.size = 0
    assert whole == message


@pytest.mark.parametrize("size", [1000, 50_000])
def test_large_bytes_that_are_cut_short_or_followed_by_more_are_malformed(size):
    encoded = CODEC.encode(m.Reply(3, bytes(50_000)))
    pieces = Pieces(100_000)
    pieces.add(encoded[:size])
    with pytest.raises(DecodeError, match="ends inside a value"):
        CODEC.decode_message(pieces.take())
    pieces.add(encoded)
    pieces.add(b"x")
    with pytest.raises(DecodeError, match="something follows"):
        CODEC.decode_message(pieces.take())


def test_large_bytes_outside_a_message_are_malformed():
    pieces = Pieces(100_000)
    pieces.add(msgpack.packb(bytes(70_000)))
    with pytest.raises(DecodeError, match="must be an array"):
        CODEC.decode_message(pieces.take())


def test_a_claimed_length_allocates_nothing_until_part_of_the_bytes_has_arrived():
    size = 4 * 1024 * 1024
    encoded = CODEC.encode(m.Reply(3, bytes(size)))
    pieces = Pieces(2 * size)
    tracemalloc.start()
    try:
        pieces.add(encoded[:1000])
        assert tracemalloc.get_traced_memory()[1] < 10_000
        pieces.add(encoded[1000:])
        whole = CODEC.decode_message(pieces.take())
        assert tracemalloc.get_traced_memory()[1] < 2.1 * size  # `encoded` was allocated earlier
    finally:
        tracemalloc.stop()
    assert whole == m.Reply(3, bytes(size))


def test_large_bytes_are_sent_without_a_copy_and_received_with_one():
    pair = Pair(Limits())
    content = bytes(1024 * 1024)
    tracemalloc.start()
    try:
        pair.a.request("method", [content])
        taken = []
        while (packet := pair.a.next_packet()) is not None:
            taken.append(packet)
        assert tracemalloc.get_traced_memory()[1] < 50_000
        assert any(memoryview(buffer).obj is content for buffer in taken[0].buffers)
    finally:
        tracemalloc.stop()
    packets = [bytes(packet) for packet in taken]
    tracemalloc.start()
    try:
        [request] = [event for packet in packets for event in pair.b.receive(packet)]
        assert tracemalloc.get_traced_memory()[1] < len(content) + 50_000
    finally:
        tracemalloc.stop()
    assert request.args == [content]


def test_mutable_bytes_are_copied_when_the_call_is_made():
    pair = Pair(Limits())
    for content in (bytearray(b"x" * 300_000), memoryview(bytearray(b"x" * 300_000))):
        pair.a.request("method", [content])
        content[:] = b"y" * 300_000
        (request,) = pair.deliver(pair.a)
        assert request.args == [b"x" * 300_000]


def test_the_size_of_pieces_is_checked_before_they_are_kept():
    pieces = Pieces(10)
    pieces.add(b"12345")
    with pytest.raises(DecodeError, match="larger than 10 bytes"):
        pieces.add(b"123456")


def test_tiny_pieces_take_no_more_memory_than_their_bytes():
    pieces = Pieces(100_000)
    tracemalloc.start()
    try:
        for _ in range(50_000):
            pieces.add(b"ab")
        assert tracemalloc.get_traced_memory()[1] < 2 * 100_000 + 10_000
    finally:
        tracemalloc.stop()


def test_a_large_message_of_each_kind_arrives():
    limits = Limits(max_packet=16 * 1024, max_message=1024 * 1024)
    pair = Pair(limits)
    big = b"x" * 100_000
    call = pair.a.request("method", [big])
    pair.a.notify("method", [big])
    small = pair.a.request("method", [])
    assert [type(each) for each in pair.deliver(pair.a)] == [m.Request, m.Request, m.Notification]
    pair.b.reply(call, big)
    pair.b.reply_error(small, {"code": "raised", "message": "x" * 100_000})
    sent = packets(pair.b)
    assert all(len(packet) <= 16 * 1024 for packet in sent)
    events = [event for packet in sent for event in pair.a.receive(packet)]
    events = [event for event in events if not isinstance(event, m.Pong)]
    assert [type(each) for each in events] == [m.Reply, m.ReplyErr]
    pair.settle()
    pair.assert_no_calls()

"""Calls over a pair of Protocols: each action of one end, and the other end's events."""

from __future__ import annotations

import pytest
from helpers.protocol_pair import (
    SMALL_LIMITS,
    Pair,
    decoded,
    encoded,
    make_protocol,
    packets,
    received,
)

from trio_rpc.errors import EncodeError, Fate, LocalProtocolError, RemoteProtocolError
from trio_rpc.protocol.states import Half, IncomingState, OutgoingState
from trio_rpc.wire import messages as m
from trio_rpc.wire.limits import Limits

BIG = b"x" * 40_000
"""More than two packets."""


@pytest.fixture
def pair():
    return Pair()


# ── one call ─────────────────────────────────────────────────────────────────────────────────


def test_a_call_and_its_reply(pair):
    """The protocol has verbs to send each message, and gives each received one as an event."""
    call = pair.a.request("market.price", ["BTC"], {"at": 1}, {"deadline": 1.5})
    assert pair.a.outgoing == {call: OutgoingState.WAITING}
    assert pair.deliver(pair.a) == [
        m.Request(call, "market.price", ["BTC"], {"at": 1}, {"deadline": 1.5})
    ]
    assert pair.b.incoming == {call: IncomingState.RUNNING}
    pair.b.reply(call, 42.0)
    assert pair.b.incoming == {call: IncomingState.ANSWERED}
    assert pair.deliver(pair.b) == [m.Reply(call, 42.0)]
    pair.assert_no_calls()


def test_a_call_and_its_error(pair):
    call = pair.call()
    pair.b.reply_error(call, {"code": "raised"})
    assert pair.deliver(pair.b) == [m.ReplyErr(call, {"code": "raised"})]
    pair.assert_no_calls()


def test_the_ids_of_the_two_ends_are_independent(pair):
    assert pair.call(pair.a) == pair.call(pair.b) == 1
    pair.a.reply(1, "from a")
    assert pair.b.incoming == {1: IncomingState.RUNNING}
    assert pair.settle() == [m.Reply(1, "from a")]
    pair.b.reply(1, "from b")
    assert pair.settle() == [m.Reply(1, "from b")]
    pair.assert_no_calls()


def test_ids_always_grow_and_are_never_reused(pair):
    """The ids of requests are never reused, so each reply has one request."""
    first = pair.a.request("method", [])
    assert pair.a.cancel(first)  # it was never sent, but its id is used up
    second = pair.call()
    pair.b.reply(second, None)
    pair.settle()
    with pytest.raises(EncodeError):
        pair.a.request("method", [object()])
    third = pair.a.request("method", [BIG])
    fourth = pair.a.request("method", [])
    assert first < second < third < fourth


def test_all_queued_messages_leave_in_one_packet(pair):
    """Encoding does not send: several messages may be encoded before one packet is sent."""
    calls = [pair.a.request("method", []) for _ in range(3)]
    pair.a.notify("method", [])
    (packet,) = packets(pair.a)
    assert [type(message) for message in decoded(packet)] == [m.Request] * 3 + [m.Notification]
    assert list(pair.b.incoming) == []
    assert [event.id for event in list(pair.b.receive(packet))[:3]] == calls


def test_events_are_decoded_lazily(pair):
    for _ in range(2):
        pair.a.request("method", [])
    events = pair.b.receive(pair.a.next_packet())
    assert pair.b.incoming == {}
    next(events)
    assert list(pair.b.incoming) == [1]


# ── law 4: exactly one terminal message for each Request ─────────────────────────────────────


@pytest.mark.parametrize("first", ["reply", "reply_error"])
@pytest.mark.parametrize("second", ["reply", "reply_error"])
@pytest.mark.parametrize("left", [False, True])
def test_law_4_exactly_one_terminal_message(pair, first, second, left):
    call = pair.call()
    getattr(pair.b, first)(call, {})
    if left:
        packets(pair.b)
    with pytest.raises(LocalProtocolError, match="already has its terminal message"):
        getattr(pair.b, second)(call, {})


def test_law_4_also_after_cancel(pair):
    call = pair.call()
    pair.a.cancel(call)
    pair.settle()
    pair.b.reply_error(call, {"code": "cancelled"})
    with pytest.raises(LocalProtocolError):
        pair.b.reply(call, None)
    assert pair.settle() == [m.ReplyErr(call, {"code": "cancelled"})]


def test_law_4_an_unknown_call_cannot_be_answered(pair):
    with pytest.raises(LocalProtocolError):
        pair.b.reply(1, None)


@pytest.mark.parametrize("result", [object(), "\ud800", b"x" * 70_000])
def test_law_14_a_result_that_cannot_be_sent_leaves_the_call_unanswered(pair, result):
    call = pair.call()
    with pytest.raises(EncodeError):
        pair.b.reply(call, result)
    assert pair.b.incoming == {call: IncomingState.RUNNING}
    assert not pair.b.has_data
    pair.b.reply_error(call, {"code": "internal"})
    assert pair.settle() == [m.ReplyErr(call, {"code": "internal"})]


@pytest.mark.parametrize("argument", [object(), "\ud800", b"x" * 70_000])
def test_law_14_an_argument_that_cannot_be_sent_raises_at_the_caller(pair, argument):
    with pytest.raises(EncodeError) as caught:
        pair.a.request("method", [argument])
    assert caught.value.fate is Fate.NOT_STARTED
    with pytest.raises(EncodeError):
        pair.a.notify("method", [argument])
    assert pair.a.notification_credit == SMALL_LIMITS.max_notifications
    assert not pair.a.has_data


# ── cancelling ───────────────────────────────────────────────────────────────────────────────


def test_cancel_is_sent_once_with_its_reason(pair):
    call = pair.call()
    assert not pair.a.cancel(call, "the user pressed stop")
    assert not pair.a.cancel(call, "again")
    assert pair.a.outgoing == {call: OutgoingState.CANCELLING}
    assert pair.deliver(pair.a) == [m.Cancel(call, "the user pressed stop")]
    assert pair.b.incoming == {call: IncomingState.CANCELLED}
    pair.b.reply_error(call, {"code": "cancelled"})
    assert pair.settle() == [m.ReplyErr(call, {"code": "cancelled"})]
    pair.assert_no_calls()


@pytest.mark.parametrize("args", [[], [BIG]])
def test_cancelling_a_request_that_has_not_left_withdraws_it(pair, args):
    call = pair.a.request("method", args)
    assert pair.a.cancel(call)
    assert not pair.a.has_data
    assert pair.a.bytes_waiting == 0
    pair.assert_no_calls()


def test_cancelling_a_request_half_of_which_has_left_drops_its_pieces(pair):
    call = pair.a.request("method", [BIG])
    assert list(pair.b.receive(pair.a.next_packet())) == []
    assert pair.a.cancel(call)
    assert pair.settle() == []
    pair.assert_no_calls()
    another = pair.call(None, BIG)
    assert another == call + 1


def test_cancel_after_the_last_piece_has_left_is_sent(pair):
    call = pair.call(None, BIG)
    assert not pair.a.cancel(call)
    assert pair.settle() == [m.Cancel(call)]


@pytest.mark.parametrize("reason", ["r" * 100_000, "\ud800" * 5000, "😀" * 5000, ""])
def test_a_cancel_is_sent_with_any_reason(pair, reason):
    call = pair.call()
    pair.a.cancel(call, reason)
    (event,) = pair.settle()
    assert len(event.reason or "") <= 1000
    assert pair.b.incoming == {call: IncomingState.CANCELLED}


def test_a_cancel_may_arrive_in_one_packet_with_its_request(pair):
    """Our own end would withdraw the Request, but another implementation need not."""
    events = received(pair.b, m.Request(1, "method", []), m.Cancel(1, "stop"))
    assert events == [m.Request(1, "method", []), m.Cancel(1, "stop")]
    assert pair.b.incoming == {1: IncomingState.CANCELLED}


def test_cancelling_a_finished_or_unknown_call_does_nothing(pair):
    """No Cancel is sent for a call that has ended."""
    call = pair.call()
    pair.b.reply(call, None)
    pair.settle()
    assert not pair.a.cancel(call)
    assert not pair.a.cancel(99)
    assert not pair.a.has_data


def test_law_3_a_cancel_that_crosses_the_reply_is_ignored(pair):
    call = pair.call()
    pair.a.cancel(call)
    pair.b.reply(call, "made it")
    assert pair.deliver(pair.a) == []
    assert pair.b.counters.late_cancels == 1
    # The result that won the race is received.
    assert pair.deliver(pair.b) == [m.Reply(call, "made it")]
    pair.assert_no_calls()


def test_a_cancel_that_crosses_a_reply_that_has_left_is_ignored(pair):
    call = pair.call()
    pair.a.cancel(call)
    pair.b.reply(call, "made it")
    (reply,) = packets(pair.b)
    assert pair.deliver(pair.a) == []
    assert list(pair.a.receive(reply)) == [m.Reply(call, "made it")]
    assert pair.b.counters.late_cancels == 1
    pair.assert_no_calls()


def test_a_second_cancel_or_one_of_an_unknown_call_is_ignored(pair):
    pair.call()
    assert received(pair.b, m.Cancel(1), m.Cancel(1), m.Cancel(99)) == [m.Cancel(1)]
    assert pair.b.counters.late_cancels == 2


@pytest.mark.parametrize("pieces_left", [0, 1])
def test_a_cancel_drops_the_unsent_rest_of_a_large_result(pair, pieces_left):
    call = pair.call()
    pair.b.reply(call, BIG)
    for _ in range(pieces_left):
        assert list(pair.a.receive(pair.b.next_packet())) == []
    pair.a.cancel(call)
    pair.deliver(pair.a)
    waiting = pair.b.bytes_waiting
    assert waiting < 200
    (event,) = pair.settle()
    assert event.error["code"] == "cancelled"
    pair.assert_no_calls()


def test_a_second_cancel_does_not_make_a_second_terminal_message(pair):
    call = pair.call()
    pair.b.reply(call, BIG)
    received(pair.b, m.Cancel(call), m.Cancel(call))
    assert [type(event) for event in pair.deliver(pair.b)] == [m.ReplyErr]
    pair.assert_no_calls()


# ── abandoning ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("cancelled", [False, True])
@pytest.mark.parametrize("terminal", ["reply", "reply_error"])
def test_the_answer_to_an_abandoned_call_is_ignored(pair, cancelled, terminal):
    call = pair.call()
    if cancelled:
        pair.a.cancel(call)
    pair.a.abandon(call)
    assert pair.a.outgoing == {call: OutgoingState.ABANDONED}
    pair.deliver(pair.a)
    getattr(pair.b, terminal)(call, {})
    assert pair.deliver(pair.b) == []
    assert pair.a.counters.late_replies == 1
    pair.assert_no_calls()


def test_an_abandoned_call_keeps_its_slot_until_its_answer_arrives(pair):
    for _ in range(3):
        pair.a.abandon(pair.call())
    assert not pair.a.has_call_credit
    pair.b.reply(2, None)
    pair.settle()
    assert pair.a.has_call_credit


def test_an_abandoned_call_can_no_longer_be_cancelled(pair):
    call = pair.call()
    pair.a.abandon(call)
    assert not pair.a.cancel(call)
    assert not pair.a.has_data


def test_abandoning_an_unknown_call_does_nothing(pair):
    pair.a.abandon(1)


def test_a_second_reply_to_an_abandoned_call_is_illegal(pair):
    pair.a.abandon(pair.call())
    with pytest.raises(RemoteProtocolError):
        received(pair.a, m.Reply(1, None), m.Reply(1, None))


# ── law 15: never left ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("args", "packets_gone"), [([], 0), ([BIG], 0), ([BIG], 1), ([BIG], 2)])
def test_law_15_a_call_whose_last_byte_has_not_left_has_not_started(pair, args, packets_gone):
    call = pair.a.request("method", args)
    for _ in range(packets_gone):
        assert list(pair.b.receive(pair.a.next_packet())) == []
    assert pair.a.never_left(call)
    assert pair.settle() == []
    pair.assert_no_calls()


@pytest.mark.parametrize("args", [[], [BIG]])
def test_law_15_a_call_that_has_left_may_have_started(pair, args):
    call = pair.call(None, *args)
    assert not pair.a.never_left(call)
    assert pair.a.outgoing == {call: OutgoingState.WAITING}


def test_never_left_ignores_other_calls(pair):
    first = pair.a.request("method", [])
    second = pair.a.request("method", [])
    third = pair.a.request("method", [])
    assert pair.a.never_left(second)
    assert [event.id for event in pair.deliver(pair.a)] == [first, third]
    assert not pair.a.never_left(first)


# ── law 11: credit ───────────────────────────────────────────────────────────────────────────


def test_law_11_calls_wait_for_credit(pair):
    for _ in range(3):
        assert pair.a.has_call_credit
        pair.a.request("method", [])
    assert not pair.a.has_call_credit
    with pytest.raises(LocalProtocolError, match="no further call"):
        pair.a.request("method", [])
    pair.settle()
    pair.b.reply(2, None)
    assert not pair.a.has_call_credit
    pair.settle()
    assert pair.a.has_call_credit


def test_the_callee_frees_a_slot_when_the_reply_leaves_and_the_caller_when_it_arrives(pair):
    call = pair.call()
    pair.b.reply(call, None)
    assert pair.b.incoming == {call: IncomingState.ANSWERED}
    packet = pair.b.next_packet()
    assert pair.b.incoming == {}
    assert call in pair.a.outgoing
    list(pair.a.receive(packet))


def test_a_large_reply_keeps_its_slot_until_its_last_piece_leaves(pair):
    call = pair.call()
    pair.b.reply(call, BIG)
    while pair.b.bytes_waiting:
        assert pair.b.incoming == {call: IncomingState.ANSWERED}
        packet = pair.b.next_packet()
        events = list(pair.a.receive(packet))
    assert pair.b.incoming == {}
    assert events == [m.Reply(call, BIG)]


def test_a_call_beyond_the_credit_is_illegal(pair):
    with pytest.raises(RemoteProtocolError, match="more than 3 calls"):
        received(pair.b, *(m.Request(number, "method", []) for number in range(1, 5)))


def test_a_withdrawn_call_returns_its_credit(pair):
    calls = [pair.a.request("method", []) for _ in range(3)]
    pair.a.cancel(calls[1])
    assert pair.a.has_call_credit


def test_there_is_no_credit_before_the_peers_hello():
    protocol = make_protocol()
    assert not protocol.has_call_credit
    assert protocol.notification_credit == 0


def test_law_11_notifications_wait_for_credit(pair):
    pair.a.notify("method", [1])
    pair.a.notify("method", [2], {"key": 1}, {"metadata": {}})
    assert pair.a.notification_credit == 0
    with pytest.raises(LocalProtocolError, match="no credit for another notification"):
        pair.a.notify("method", [3])
    assert pair.settle() == [
        m.Notification("method", [1]),
        m.Notification("method", [2], {"key": 1}, {"metadata": {}}),
    ]
    pair.b.grant_notifications(1)
    pair.b.grant_notifications(1)
    assert pair.settle() == [m.Credit(2)]
    assert pair.a.notification_credit == 2


def test_a_notification_without_credit_is_illegal(pair):
    with pytest.raises(RemoteProtocolError, match="without credit"):
        received(pair.b, *[m.Notification("method", [])] * 3)


def test_more_notification_credit_than_was_used_is_illegal(pair):
    with pytest.raises(LocalProtocolError):
        pair.b.grant_notifications(1)
    assert not pair.b.has_data
    with pytest.raises(RemoteProtocolError, match="Credit for more"):
        received(pair.a, m.Credit(1))


def test_law_8_calls_that_are_nested_too_deeply_are_answered_without_an_event():
    pair = Pair(Limits(max_call_depth=5))
    pair.call(None, depth=5)
    pair.a.request("method", [], None, {"depth": 6})
    assert pair.deliver(pair.a) == []
    (event,) = pair.deliver(pair.b)
    assert event.error["code"] == "overloaded"


# ── Ping ─────────────────────────────────────────────────────────────────────────────────────


def test_one_pong_answers_all_pings_received_before_it_leaves(pair):
    assert [pair.a.ping(), pair.a.ping()] == [1, 2]
    assert pair.deliver(pair.a) == []
    assert pair.deliver(pair.b) == [m.Pong(2)]
    assert pair.a.ping() == 3
    assert pair.deliver(pair.a) == []
    assert pair.deliver(pair.b) == [m.Pong(3)]
    assert list(pair.a.receive(encoded(m.Pong(4)))) == []  # it answers no Ping


def test_many_other_pings_do_not_stop_the_pings_that_pace_pieces(pair):
    call = pair.call(pair.b)
    pair.call(pair.a)
    pair.a.allow_pieces(1)
    pair.a.reply(call, bytes(60_000))
    while not pair.a.is_paced:
        assert list(pair.b.receive(bytes(pair.a.next_packet()))) == []
    for _ in range(3000):
        pair.a.ping()
    while (packet := pair.a.next_packet()) is not None:
        assert list(pair.b.receive(bytes(packet))) == []
    (pong,) = pair.deliver(pair.b)[-1:]
    assert pair.a.is_paced_by(pong)


def test_a_pong_does_not_overtake_hello():
    pair = Pair(opened=False)
    pair.b.hello()
    pair.a.hello()
    pair.a.ping()
    pair.deliver(pair.a)
    assert [type(event) for event in pair.deliver(pair.b)] == [m.Hello, m.Pong]


@pytest.mark.parametrize("refused", [False, True])
def test_a_ping_is_ignored_while_no_pong_may_be_sent(refused):
    pair = Pair(opened=False)
    if refused:
        pair.b.hello()
        pair.b.goodbye("refused")
    pair.a.hello()
    pair.a.ping()
    pair.deliver(pair.a)
    assert m.Pong(1) not in pair.deliver(pair.b)


def test_a_flood_of_pings_does_not_queue_a_flood_of_pongs(pair):
    flood = encoded(*(m.Ping(number) for number in range(3000)))
    for _ in range(50):
        assert list(pair.b.receive(flood)) == []
    assert pair.b.bytes_waiting < 10_000
    packets(pair.b)
    received(pair.b, m.Ping(1))
    assert decoded(pair.b.next_packet()) == [m.Pong(1)]


# ── Goodbye ──────────────────────────────────────────────────────────────────────────────────


def test_in_flight_calls_end_normally_after_a_goodbye(pair):
    here, there = pair.call(pair.a), pair.call(pair.b)
    pair.a.goodbye("done", "closing")
    assert pair.settle() == [m.Goodbye("done", "closing")]
    pair.b.goodbye("done")
    pair.settle()
    pair.assert_halves(Half.LEAVING, Half.LEAVING)
    pair.a.reply(there, 1)
    pair.b.reply(here, 2)
    pair.a.ping()
    assert pair.settle() == [m.Reply(there, 1), m.Pong(1), m.Reply(here, 2)]
    pair.assert_no_calls()


@pytest.mark.parametrize("leaver", ["a", "b"])
def test_after_a_goodbye_only_calls_within_a_call_can_be_made(pair, leaver):
    parent = pair.call(pair.b)
    getattr(pair, leaver).goodbye("done")
    pair.settle()
    for context in (None, {}, {"parent": parent + 1}, {"metadata": {}}):
        with pytest.raises(LocalProtocolError, match="after a Goodbye"):
            pair.a.request("method", [], None, context)
        with pytest.raises(LocalProtocolError, match="after a Goodbye"):
            pair.a.notify("method", [], None, context)
    nested = pair.a.request("method", [], None, {"parent": parent})
    pair.a.notify("method", [], None, {"parent": parent})
    assert [type(event) for event in pair.settle()] == [m.Request, m.Notification]
    pair.b.reply(nested, None)
    pair.a.reply(parent, None)
    pair.settle()
    pair.assert_no_calls()


def test_law_15_calls_that_cross_a_goodbye_are_answered_as_unavailable(
    pair,
):  # law 15: they may be repeated
    pair.a.goodbye("done")
    call = pair.b.request("method", [])
    pair.b.notify("method", [])
    assert pair.deliver(pair.b) == []
    assert pair.a.counters.late_calls == 2
    credit, goodbye, answer = pair.deliver(pair.a)
    assert goodbye == m.Goodbye("done")
    assert (answer.id, answer.error["code"]) == (call, "unavailable")
    # The dropped Notification has its credit back: notifications within a call still need it.
    assert credit == m.Credit(1)
    pair.assert_no_calls()


def test_a_call_after_its_callers_goodbye_must_name_its_parent(pair):
    received(pair.b, m.Goodbye("done"))
    with pytest.raises(RemoteProtocolError, match="after Goodbye"):
        received(pair.b, m.Request(1, "method", []))


def test_a_notification_after_its_senders_goodbye_must_name_its_parent(pair):
    received(pair.b, m.Goodbye("done"))
    with pytest.raises(RemoteProtocolError, match="after Goodbye"):
        received(pair.b, m.Notification("method", [], None, {"metadata": {}}))


def test_after_a_goodbye_a_call_whose_parent_has_just_ended_is_answered_as_unavailable(pair):
    """The parent's Reply overtakes the call within it, whose Request is large."""
    parent = pair.call(pair.b)
    pair.b.goodbye("done")
    pair.deliver(pair.b)
    pair.a.request("method", [BIG], None, {"parent": parent})
    pair.a.reply(parent, None)
    assert pair.deliver(pair.a) == [m.Reply(parent, None)]
    (event,) = pair.deliver(pair.b)
    assert event.error["code"] == "unavailable"
    pair.assert_no_calls()


@pytest.mark.parametrize("kind", ["request", "notify"])
def test_goodbye_does_not_overtake_a_large_call(pair, kind):
    getattr(pair.a, kind)("method", [BIG])
    pair.a.request("method", [])
    pair.a.goodbye("done")
    events = [type(event) for event in pair.deliver(pair.a)]
    large = m.Request if kind == "request" else m.Notification
    assert sorted(events, key=lambda kind: kind.TYPE) == sorted(
        [m.Request, large, m.Goodbye], key=lambda kind: kind.TYPE
    )
    assert events[-1] is m.Goodbye


def test_goodbye_does_not_wait_for_a_large_call_that_was_withdrawn(pair):
    first = pair.a.request("method", [BIG])
    second = pair.a.request("method", [BIG])
    pair.a.next_packet()
    pair.a.goodbye("done")
    pair.a.never_left(first)
    pair.a.never_left(second)
    (packet,) = packets(pair.a)
    assert decoded(packet) == [m.LastPiece(b""), m.Goodbye("done")]


def test_goodbye_overtakes_large_results(pair):
    pair.b.reply(pair.call(), BIG)
    pair.b.goodbye("done")
    assert decoded(pair.b.next_packet())[0] == m.Goodbye("done")


@pytest.mark.parametrize("message", ["m" * 100_000, "\ud800" * 5000, "😀" * 5000])
@pytest.mark.parametrize("opened", [False, True])
def test_a_goodbye_is_sent_with_any_message(message, opened):
    pair = Pair(opened=opened)
    if not opened:
        pair.a.hello()
    pair.a.goodbye("refused", message)
    event = pair.deliver(pair.a)[-1]
    assert event.code == "refused"
    assert 0 < len(event.message) <= 1000


def test_goodbye_is_sent_once(pair):
    pair.a.goodbye("done")
    with pytest.raises(LocalProtocolError):
        pair.a.goodbye("done")


# ── Hello ────────────────────────────────────────────────────────────────────────────────────


def test_hello_contains_limits_and_credentials():
    pair = Pair(opened=False)
    pair.a.hello({"token": "secret"})
    (event,) = pair.deliver(pair.a)
    assert event.version == m.PROTOCOL_VERSION
    peer = pair.b.peer
    assert peer.credentials == {"token": "secret"}
    assert (peer.max_calls, peer.max_notifications) == (3, 2)
    assert (peer.max_message, peer.max_packet) == (64 * 1024, 16 * 1024)


@pytest.mark.parametrize("credentials", [b"x" * 16_384, object(), "\ud800"])
@pytest.mark.parametrize("heard", [False, True])
def test_credentials_that_the_peer_could_not_accept_are_not_sent(credentials, heard):
    protocol = make_protocol()
    if heard:
        other = make_protocol()
        other.hello()
        list(protocol.receive(other.next_packet()))
    with pytest.raises(EncodeError):
        protocol.hello(credentials)
    assert protocol.ours is Half.SILENT
    assert not protocol.has_data
    protocol.hello()


def test_the_largest_hello_is_one_packet():
    pair = Pair(opened=False)
    pair.a.hello(b"x" * 16_200)
    assert len(packets(pair.a)) == 1


def test_a_message_as_large_as_the_peers_limit_arrives(pair):
    overhead = len(encoded(m.Request(1, "method", [b"x" * 65_000]))) - 65_000
    most = SMALL_LIMITS.max_message - overhead
    call = pair.call(None, b"x" * most)
    assert call == 1
    with pytest.raises(EncodeError, match="larger than the 65,536"):
        pair.a.request("method", [b"x" * (most + 1)])


def test_the_counters_count(pair):
    pair.b.reply(pair.call(), None)
    before = pair.b.counters.bytes_sent
    assert pair.settle() == [m.Reply(1, None)]
    assert pair.b.counters.bytes_sent > before
    for one, other in ((pair.a, pair.b), (pair.b, pair.a)):
        assert one.counters.bytes_sent == other.counters.bytes_received
        assert one.counters.packets_sent == other.counters.packets_received
    assert pair.a.counters.messages_received == 3  # Hello, Welcome, Reply

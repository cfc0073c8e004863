"""Law 14: invalid input from a peer ends its session with RemoteProtocolError and nothing more."""

from __future__ import annotations

import contextlib
import math
import struct

import msgpack
import pytest
from helpers.protocol_pair import SMALL_LIMITS, Pair, encoded, make_protocol, packets, received
from hypothesis import given
from hypothesis import strategies as st

from trio_rpc.errors import EncodeError, LocalProtocolError, Refused, RemoteProtocolError
from trio_rpc.protocol.hello import make_info
from trio_rpc.protocol.protocol import Protocol
from trio_rpc.protocol.states import Half
from trio_rpc.wire import messages as m
from trio_rpc.wire.codec import Codec
from trio_rpc.wire.limits import DEFAULT_LIMITS

INFO = make_info(SMALL_LIMITS, None)


def silent() -> Protocol:
    return make_protocol()


def greeting() -> Protocol:
    protocol = make_protocol()
    protocol.hello()
    return protocol


def greeted() -> Protocol:
    protocol = greeting()
    received(protocol, m.Hello(m.PROTOCOL_VERSION, INFO))
    return protocol


def opened() -> Protocol:
    protocol = greeted()
    protocol.welcome()
    received(protocol, m.Welcome())
    packets(protocol)
    return protocol


def busy() -> Protocol:
    """Make a protocol with calls in every state, both ways, and half a message received."""
    protocol = opened()
    for _ in range(3):
        protocol.request("method", [])
    packets(protocol)
    protocol.cancel(2)
    protocol.abandon(3)
    received(protocol, *(m.Request(number, "method", []) for number in (1, 2, 3)), m.Cancel(2))
    protocol.reply(3, b"x" * 40_000)
    received(protocol, m.Piece(b"half"))
    return protocol


def leaving() -> Protocol:
    protocol = busy()
    protocol.goodbye("done")
    return protocol


def left() -> Protocol:
    protocol = busy()
    received(protocol, m.Goodbye("done"))
    return protocol


def ended() -> Protocol:
    protocol = busy()
    protocol.end()
    return protocol


STATES = [silent, greeting, greeted, opened, busy, leaving, left, ended]


def array(*fields: object) -> bytes:
    return msgpack.packb(list(fields), strict_types=True)


MALFORMED = {
    "nothing": b"",
    "not MessagePack": b"\xc1",
    "zeros": b"\0" * 1000,
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x7f" * 200,
    "an HTTP request": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "cut short": array(13, 7)[:-1],
    "a length beyond the end of the data": b"\xdd\xff\xff\xff\xff",
    "nothing inside": array(),
    "a map": msgpack.packb({1: 2}),
    "nil": b"\xc0",
    "an integer": b"\x01",
    # types that do not exist, or are not integers
    **{
        f"type {value!r}": array(value)
        for value in (0, 6, 18, 22, 255, 2**40, -1, "1", None, 1.0, True)
    },
    "type ext": array(msgpack.ExtType(1, b"\x90"), 1),
    # missing and extra fields
    "Request too short": array(1, 1, "m"),
    "Request too long": array(1, 1, "m", [], {}, {}, 0),
    "Notification too short": array(2, "m"),
    "Notification too long": array(2, "m", [], {}, {}, 0),
    "Reply too short": array(3, 1),
    "Reply too long": array(3, 1, None, None),
    "ReplyErr too short": array(4, 1),
    "ReplyErr too long": array(4, 1, {}, None),
    "Cancel too short": array(5),
    "Cancel too long": array(5, 1, "r", None),
    "Hello without a version": array(10),
    "Hello too short": array(10, 1),
    "Hello too long": array(10, 1, INFO, None),
    "Hello with a version that is not an integer": array(10, "1", INFO),
    "Hello with limits that are not a map": array(10, 1, [INFO]),
    "Hello with keys that are not text": array(10, 1, {1: 2}),
    "Welcome too long": array(11, 1),
    "Goodbye too short": array(12, "done"),
    "Goodbye too long": array(12, "done", "", 1),
    "Goodbye with a number": array(12, 1, ""),
    "Goodbye with bytes": array(12, "done", b""),
    "Ping too short": array(13),
    "Ping too long": array(13, 1, 2),
    "Ping below zero": array(13, -1),
    "Ping with a float": array(13, 1.0),
    "Pong with nil": array(14, None),
    "Credit of zero": array(15, 0),
    "Credit below zero": array(15, -1),
    "Credit of 2^64": array(15, 2**64 - 1),
    "Credit of true": array(15, True),
    "Credit too long": array(15, 1, 1, 1, 1),
    "Credit of neither Items nor bytes": array(15, 0, 1, 0),
    "Credit of Items without a size": array(15, 0, 1),
    "Credit without a call and with a size": array(15, 1, None, 1),
    "Credit of Items below zero": array(15, -1, 1, 5),
    "Credit of bytes below zero": array(15, 5, 1, -1),
    "Credit of a fraction of an Item": array(15, 1.5, 1, 1),
    "Piece too short": array(16),
    "empty Piece": array(16, b""),
    "Piece of text": array(16, "text"),
    "LastPiece too short": array(17),
    "LastPiece too long": array(17, b"x", b"x"),
    "LastPiece of a list": array(17, [1]),
    # ids
    **{
        f"{kind} with id {value!r}": array(number, value, *rest)
        for kind, number, rest in (
            ("Request", 1, ("m", [])),
            ("Reply", 3, (None,)),
            ("ReplyErr", 4, ({},)),
            ("Cancel", 5, ()),
            ("Item", 20, (None,)),
            ("EndOfItems", 21, ()),
            ("Started", 23, (None,)),
        )
        for value in (0, -1, 1.0, True, None, "1", b"1", 2**53, [1])
    },
    # the fields of a call
    "method of bytes": array(1, 9, b"m", []),
    "method of nil": array(1, 9, None, []),
    "method that is not UTF-8": b"\x94\x01\x09\xa2\xff\xfe\x90",
    "args that are a map": array(1, 9, "m", {}),
    "args that are nil": array(1, 9, "m", None),
    "kwargs that are a list": array(1, 9, "m", [], []),
    "kwargs with keys that are not text": array(1, 9, "m", [], {b"k": 1}),
    "context that is nil": array(1, 9, "m", [], {}, None),
    "a key given twice": b"\x95\x01\x09\xa1m\x90\x82\xa1k\x01\xa1k\x02",
    "error that is a string": array(4, 1, "failed"),
    "error with keys that are not text": array(4, 1, {1: 2}),
    "reason that is a number": array(5, 1, 7),
    # too deep
    "depth": b"\x94\x01\x09\xa1m" + b"\x91" * 100 + b"\x90",
    "a depth bomb": b"\x94\x01\x09\xa1m" + b"\x91" * 10_000,
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_message_ends_the_session_in_every_state(state, name):
    """A malformed message ends the session, by a stated rule."""
    protocol = state()
    ours = protocol.ours
    with pytest.raises(RemoteProtocolError):
        list(protocol.receive(MALFORMED[name]))
    assert protocol.theirs is Half.ENDED
    assert protocol.ours is ours
    with pytest.raises(RemoteProtocolError):  # it stays ended
        received(protocol, m.Ping(1))


def test_messages_before_a_malformed_one_are_delivered():
    events = []
    with pytest.raises(RemoteProtocolError):
        for event in opened().receive(encoded(m.Request(1, "method", [])) + b"\xc1"):
            events.append(event)  # noqa: PERF402 - each event must be kept when the next one raises
    assert events == [m.Request(1, "method", [])]


def test_after_bad_input_our_end_can_still_send_the_reason():
    protocol = busy()
    packets(protocol)
    with pytest.raises(RemoteProtocolError) as caught:
        list(protocol.receive(b"\xc1"))
    protocol.reply_error(1, {"code": "cancelled"})
    protocol.goodbye("protocol_error", str(caught.value))
    assert len(packets(protocol)) == 1


# ── calls ────────────────────────────────────────────────────────────────────────────────────

ILLEGAL = {
    "a reply to an unknown call": [m.Reply(9, None)],
    "an error reply to an unknown call": [m.ReplyErr(9, {})],
    "a second reply": [m.Reply(1, None), m.Reply(1, None)],
    "a reply and then an error": [m.Reply(1, None), m.ReplyErr(1, {})],
    "an id that is in flight already": [m.Request(3, "method", [])],
    "a call beyond the credit": [m.Request(4, "method", [])],
    "more notifications than the credit": [m.Notification("method", [])] * 3,
    "credit for notifications that were not sent": [m.Credit(1)],
    "Hello again": [m.Hello(m.PROTOCOL_VERSION, INFO)],
    "Welcome again": [m.Welcome()],
    "Goodbye twice": [m.Goodbye("done")] * 2,
    "two drops of one message": [m.LastPiece(b""), m.LastPiece(b"")],
    "pieces of an unknown type of message": [m.LastPiece(b"\x91\x00")],
    "pieces with a byte too many": [
        m.LastPiece(b""),
        m.LastPiece(encoded(m.Reply(1, 1)) + b"\x00"),
    ],
    "pieces of two messages": [m.LastPiece(b""), m.LastPiece(encoded(m.Reply(1, 1)) * 2)],
    "a Piece in pieces": [m.LastPiece(b""), m.LastPiece(encoded(m.Piece(b"x")))],
    "Ping in pieces": [m.LastPiece(b""), m.LastPiece(encoded(m.Ping(1)))],
    "an id in flight, in pieces": [
        m.LastPiece(b""),
        m.LastPiece(encoded(m.Request(1, "method", []))),
    ],
}


@pytest.mark.parametrize("name", ILLEGAL)
@pytest.mark.parametrize("together", [False, True])
def test_an_illegal_message_ends_the_session(name, together):
    protocol = busy()
    with pytest.raises(RemoteProtocolError):
        if together:
            received(protocol, *ILLEGAL[name])
        else:
            for message in ILLEGAL[name]:
                received(protocol, message)


@pytest.mark.parametrize("in_pieces", [False, True])
def test_an_id_may_be_used_again_once_its_answer_has_left(in_pieces):
    request = m.Request(5, "method", [])
    again = m.LastPiece(encoded(request)) if in_pieces else request
    protocol = opened()
    received(protocol, request)
    protocol.reply(5, None)
    packets(protocol)
    assert received(protocol, again) == [request]
    protocol.reply(5, None)
    with pytest.raises(RemoteProtocolError, match="already in flight"):
        received(protocol, again)


def test_ids_may_arrive_in_any_order_and_may_be_the_largest_number():
    protocol = opened()
    last = m.Request(2**53 - 1, "method", [])
    received(
        protocol, last, m.LastPiece(encoded(m.Request(7, "method", []))), m.Request(2, "m", [])
    )
    assert list(protocol.incoming) == [2**53 - 1, 7, 2]


def test_a_message_in_pieces_may_be_as_large_as_the_announced_limit():
    protocol = opened()
    piece = m.Piece(b"x" * 16_000)
    for _ in range(4):
        received(protocol, piece)
    received(protocol, m.Piece(b"x" * (SMALL_LIMITS.max_message - 64_000)))
    with pytest.raises(RemoteProtocolError, match="larger than 65536"):
        received(protocol, m.Piece(b"x"))


def test_a_packet_may_be_as_large_as_the_announced_limit():
    protocol = opened()
    fitting = encoded(m.Reply(1, b"x" * (SMALL_LIMITS.max_packet - 6)))
    assert len(fitting) == SMALL_LIMITS.max_packet
    with pytest.raises(RemoteProtocolError, match="not in flight"):
        list(protocol.receive(fitting))
    with pytest.raises(RemoteProtocolError, match="16,385 bytes"):
        list(opened().receive(fitting + b"\xc0"))


FIVE = msgpack.ExtType(10, b"\x05")
PAIRS = msgpack.ExtType(12, msgpack.packb(["k", 1]))

CONTEXTS = {
    "callback": [FIVE],
    "scope": [FIVE],
    "stream": [[FIVE, 5], [5, FIVE], [5], [0, 5]],
    "deadline": [FIVE, -1, -0.1, math.nan, math.inf, -math.inf, True, None, "1", [], 2**70],
    "sent": [FIVE, -1, -0.1, math.nan, math.inf, -math.inf, True, None, "1", [], 2**70],
    "parent": [FIVE, -1, 1.0, True, None, "1", []],
    "depth": [FIVE, -1, 1.0, True, None, "1", {}],
    "metadata": [PAIRS, None, [], "text", {1: 2}, {b"k": 1}],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in CONTEXTS.items() for value in values]
)
@pytest.mark.parametrize("kind", [m.Request, m.Notification])
def test_a_malformed_context_ends_the_session(name, value, kind):
    head = (1, 9) if kind is m.Request else (2,)
    if value == 2**70:
        # It can be compared with any time, but not added to one.
        value = msgpack.ExtType(10, (2**8000).to_bytes(1001, "big"))
    with pytest.raises(RemoteProtocolError):
        list(opened().receive(array(*head, "method", [], {}, {name: value})))


@pytest.mark.parametrize(
    "context",
    [
        {"deadline": 0},
        {"deadline": 1.7e308, "sent": 1.7e308},
        {"parent": 0, "depth": 0, "metadata": {}},
        {"metadata": {"user": [1, {"a": None}]}},
        {"from the future": 1},
    ],
)
def test_a_valid_context_is_delivered_as_it_is(context):
    protocol = opened()
    request, notification = received(
        protocol,
        m.Request(1, "method", [], None, context),
        m.Notification("method", [], None, context),
    )
    assert request.context == notification.context == context
    assert math.isfinite(1e9 + request.context.get("deadline", 0))


@pytest.mark.parametrize("name", ["__class__", "a.b.c", "../x", "", "\0", "x" * 15_000, "\x1b[2J"])
def test_any_text_is_a_method_name_for_the_protocol(name):  # services check whether it exists
    (event,) = received(opened(), m.Request(1, name, []))
    assert event.method == name


def test_of_ten_thousand_requests_in_one_packet_only_the_credit_is_accepted():
    protocol = Protocol(Codec(), DEFAULT_LIMITS)
    protocol.hello()
    received(protocol, m.Hello(m.PROTOCOL_VERSION, INFO))
    protocol.welcome()
    received(protocol, m.Welcome())
    flood = encoded(*(m.Request(number, "m", []) for number in range(1, 10_001)))
    seen = 0
    with pytest.raises(RemoteProtocolError, match="more than 1024 calls"):
        for _ in protocol.receive(flood):
            seen += 1
    assert seen == len(protocol.incoming) == 1024


# ── Hello ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("fields", [(10, 2), (10, 2, INFO), (10, 0, [], "new"), (10, 2**53 - 1)])
@pytest.mark.parametrize("state", [silent, greeting])
def test_another_version_is_refused_with_both_versions_in_the_error(fields, state):
    protocol = state()
    with pytest.raises(Refused) as caught:
        list(protocol.receive(array(*fields)))
    assert f"version {m.PROTOCOL_VERSION} " in str(caught.value)
    assert str(fields[1]) in str(caught.value)
    assert protocol.theirs is Half.ENDED
    if state is greeting:
        protocol.goodbye("refused", str(caught.value))
        assert protocol.ours is Half.ENDED


def test_another_message_before_hello_is_refused_with_an_error_that_says_so():
    with pytest.raises(RemoteProtocolError, match=r"Hello must come first, of version 1"):
        received(greeting(), m.Request(1, "method", []))


BAD_NUMBERS = [None, "1", 1.0, True, -1, 0, b"", []]


@pytest.mark.parametrize("name", sorted(INFO))
@pytest.mark.parametrize("value", [*BAD_NUMBERS, "missing"])
def test_limits_of_the_wrong_type_or_size_are_refused(name, value):
    info = {**INFO, name: value}
    if value == "missing":
        del info[name]
    protocol = greeting()
    with pytest.raises(Refused, match=name):
        list(protocol.receive(array(10, m.PROTOCOL_VERSION, info)))
    assert protocol.theirs is Half.ENDED


@pytest.mark.parametrize("name", ["max_message", "max_packet", "max_depth", "max_nodes"])
def test_limits_too_small_to_work_with_are_refused(name):
    with pytest.raises(Refused, match=f"{name}' as 7, not"):
        received(greeting(), m.Hello(m.PROTOCOL_VERSION, {**INFO, name: 7}))


@pytest.mark.parametrize("name", sorted(INFO))
def test_a_limit_may_be_2_to_the_53_minus_1_and_no_larger(name):
    for number in (2**53, 2**64, 2**1000):
        with pytest.raises(Refused, match="2\\*\\*53") as caught:
            received(greeting(), m.Hello(m.PROTOCOL_VERSION, {**INFO, name: number}))
        assert len(str(caught.value)) < 200
    protocol = greeting()
    received(protocol, m.Hello(m.PROTOCOL_VERSION, {**INFO, name: 2**53 - 1}), m.Welcome())
    protocol.welcome()
    protocol.request("method", [{"a": [1, (2, 3)]}])
    protocol.request("method", [b"x" * 40_000])
    assert len(packets(protocol)) >= 1


def test_unknown_keys_of_a_hello_are_ignored():
    protocol = greeting()
    received(protocol, m.Hello(m.PROTOCOL_VERSION, {**INFO, "streams": 7}))
    assert protocol.peer.max_calls == SMALL_LIMITS.max_calls


# ── damage ───────────────────────────────────────────────────────────────────────────────────


class Damaged(Exception):
    """The exchange has ended early with one of the errors that a peer's input may cause."""


class Exchange:
    """A session that uses every kind of message and may have one of its packets damaged."""

    def __init__(self, damage=lambda number, packet: packet):
        self.pair = Pair(opened=False)
        self.damage = damage
        self.sizes = []

    def carry(self, sender):
        events = []
        for packet in packets(sender):
            damaged = self.damage(len(self.sizes), packet)
            self.sizes.append(len(packet))
            try:
                events += self.pair.other(sender).receive(damaged)
            except (RemoteProtocolError, Refused) as exc:
                raise Damaged from exc
            except (LocalProtocolError, EncodeError) as exc:
                raise AssertionError("receive() must not raise that") from exc
        return events

    def run(self):
        # After damage a method may be called in the wrong state, which is not receive()'s fault.
        with contextlib.suppress(Damaged, LocalProtocolError, EncodeError):
            self._run(self.pair.a, self.pair.b)

    def _run(self, a, b):
        for end in (a, b):
            end.hello({"token": "t"})
            self.carry(end)
        for end in (a, b):
            end.welcome()
            self.carry(end)
        a.request("service.method", [1, "text", (2.5, None)], {"key": b"bytes"}, {"deadline": 9.5})
        a.request("service.other", [])
        a.notify("service.note", [{"a": [1]}])
        a.ping()
        calls = [event.id for event in self.carry(a) if isinstance(event, m.Request)]
        a.cancel(2, "stop")
        self.carry(a)
        b.grant_notifications(1)
        b.request("service.back", [], None, {"parent": 1, "depth": 1})
        b.goodbye("done", "bye")
        for call in calls[:1]:
            b.reply(call, {"answer": [42]})
        for call in calls[1:]:
            b.reply_error(call, {"code": "cancelled", "message": "stopped"})
        for event in self.carry(b):
            if isinstance(event, m.Request):
                a.reply(event.id, None)
        a.goodbye("done")
        self.carry(a)
        self.carry(b)


def test_the_exchange_succeeds_when_nothing_is_damaged():
    exchange = Exchange()
    exchange._run(exchange.pair.a, exchange.pair.b)
    exchange.pair.assert_no_calls()
    exchange.pair.assert_halves(Half.LEAVING, Half.LEAVING)


def whole_exchange() -> list[int]:
    exchange = Exchange()
    exchange.run()
    return exchange.sizes


@pytest.mark.parametrize(("number", "size"), list(enumerate(whole_exchange())))
def test_any_flipped_bit_is_harmless_or_a_protocol_error(number, size):
    for position in range(size):
        for bit in range(8):

            def flip(at, packet, position=position, bit=bit):
                if at != number:
                    return packet
                damaged = bytearray(packet)
                damaged[position] ^= 1 << bit
                return bytes(damaged)

            Exchange(flip).run()


@pytest.mark.parametrize(("number", "size"), list(enumerate(whole_exchange())))
def test_a_packet_cut_at_any_byte_is_harmless_or_a_protocol_error(number, size):
    for length in range(size):
        Exchange(lambda at, packet, n=length: packet[:n] if at == number else packet).run()


@pytest.mark.parametrize("state", STATES)
@given(st.binary(max_size=200))
def test_random_bytes_are_harmless_or_a_protocol_error(state, noise):
    with contextlib.suppress(RemoteProtocolError, Refused):
        list(state().receive(noise))


FIELDS = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2**64 - 1) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@pytest.mark.parametrize("state", STATES)
@given(
    st.lists(
        st.tuples(st.integers(0, 20), st.lists(FIELDS | st.integers(1, 4), max_size=5)),
        min_size=1,
        max_size=4,
    )
)
def test_messages_with_random_fields_are_harmless_or_a_protocol_error(state, messages):
    packet = b"".join(array(kind, *fields) for kind, fields in messages)
    with contextlib.suppress(RemoteProtocolError, Refused):
        list(state().receive(packet))


def test_a_claimed_length_of_4_gib_is_a_protocol_error():
    for head in (b"\xdd", b"\xdf", b"\xc6", b"\xdb", b"\xc9"):
        bomb = b"\x94\x01\x09\xa1m" + head + struct.pack(">I", 2**32 - 1)
        with pytest.raises(RemoteProtocolError):
            list(opened().receive(bomb))

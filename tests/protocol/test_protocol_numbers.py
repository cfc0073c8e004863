"""Every number in the protocol's messages is at most 2**53 - 1, when sent and when received."""

from __future__ import annotations

import dataclasses

import msgpack
import pytest
from helpers.protocol_pair import Pair, encoded, make_protocol, received

from trio_rpc.errors import DecodeError, EncodeError, Refused, RemoteProtocolError
from trio_rpc.protocol import hello
from trio_rpc.protocol.context import KNOWN
from trio_rpc.protocol.hello import make_info
from trio_rpc.wire import messages as m
from trio_rpc.wire.codec import Codec
from trio_rpc.wire.limits import DEFAULT_LIMITS, Limits

MOST = 2**53 - 1
EXAMPLES = [
    m.Request(1, "m", []),
    m.Notification("m", []),
    m.Reply(1, None),
    m.ReplyErr(1, {}),
    m.Cancel(1),
    m.Hello(1, {}),
    m.Welcome(),
    m.Goodbye("done"),
    m.Ping(1),
    m.Pong(1),
    m.Credit(1, 1, 1),
    m.Piece(b"x"),
    m.LastPiece(b"x"),
    m.Item(1, None),
    m.EndOfItems(1),
    m.Started(1, None),
]
NUMBERS = [
    (example, field.name)
    for example in EXAMPLES
    for field in dataclasses.fields(example)
    if field.init and "int" in str(field.type).split(" | ")
]
CONTEXTS = {
    "deadline": lambda number: number,
    "sent": lambda number: number,
    "parent": lambda number: number,
    "depth": lambda number: number,
    "callback": lambda number: number,
    "scope": lambda number: number,
    "stream": lambda number: [number, 1],
}


def test_the_table_has_every_message_and_every_number():
    assert {type(example) for example in EXAMPLES} == set(m.Message.__args__)
    assert [(type(example).__name__, name) for example, name in NUMBERS] == [
        ("Request", "id"),
        ("Reply", "id"),
        ("ReplyErr", "id"),
        ("Cancel", "id"),
        ("Hello", "version"),
        ("Ping", "number"),
        ("Pong", "number"),
        ("Credit", "count"),
        ("Credit", "id"),
        ("Credit", "size"),
        ("Item", "id"),
        ("EndOfItems", "id"),
        ("Started", "id"),
    ]
    assert KNOWN.keys() - CONTEXTS.keys() == {"metadata", "task_status"}


@pytest.mark.parametrize(
    ("example", "name"), NUMBERS, ids=[f"{type(one).__name__}.{name}" for one, name in NUMBERS]
)
def test_a_number_in_a_message_is_at_most_2_to_the_53_minus_1(example, name):
    largest = dataclasses.replace(example, **{name: MOST})
    assert list(Codec().decode(encoded(largest))) == [largest]
    for number in (MOST + 1, 2**63, 2**64 - 1, 2**64, -1, -MOST):
        with pytest.raises(DecodeError):
            list(Codec().decode(encoded(dataclasses.replace(example, **{name: number}))))


@pytest.mark.parametrize("name", CONTEXTS)
@pytest.mark.parametrize("kind", [m.Request, m.Notification])
def test_a_number_in_a_context_is_at_most_2_to_the_53_minus_1(name, kind):
    def message(number):
        context = {name: CONTEXTS[name](number)}
        args = (5, "method", [], None, context) if kind is m.Request else ("m", [], None, context)
        return kind(*args)

    pair = Pair()
    received(pair.a, message(MOST))  # such a depth gets an error reply, and the session goes on
    for number in (MOST + 1, 2**64):
        with pytest.raises(RemoteProtocolError, match=name):
            received(Pair().a, message(number))


def test_the_second_number_of_a_stream_has_the_same_bound():
    received(Pair().a, m.Request(1, "method", [], None, {"stream": [1, MOST]}))
    with pytest.raises(RemoteProtocolError, match="stream"):
        received(Pair().a, m.Request(1, "method", [], None, {"stream": [1, MOST + 1]}))


@pytest.mark.parametrize("name", hello._NUMBERS)
def test_a_number_of_a_hello_has_the_same_bound_on_both_sides(name):
    field, _ = hello._NUMBERS[name]
    info = make_info(DEFAULT_LIMITS, None)
    protocol = make_protocol()
    received(protocol, m.Hello(1, {**info, name: MOST}))
    assert getattr(protocol.peer, field) == MOST
    with pytest.raises(Refused, match=name):
        received(make_protocol(), m.Hello(1, {**info, name: MOST + 1}))
    # The same bound holds for an end's own limits; max_message is at least as large as max_packet.
    others = {"max_message": MOST} if field == "max_packet" else {}
    assert make_info(Limits(**others, **{field: MOST}), None)[name] == MOST
    with pytest.raises(ValueError, match=field):
        Limits(**others, **{field: MOST + 1})


@pytest.mark.parametrize("field", ["stream_items", "stream_bytes"])
def test_the_first_credit_that_an_end_grants_a_stream_has_the_same_bound(field):
    assert getattr(Limits(**{field: MOST}), field) == MOST
    with pytest.raises(ValueError, match=field):
        Limits(**{field: MOST + 1})


@pytest.mark.parametrize("numbers", [(MOST, 0), (0, MOST)])
def test_the_numbers_of_a_reference_have_the_same_bound_on_both_sides(numbers):
    reference = m.Reference(*numbers)
    largest = m.Request(1, "m", [reference])
    (message,) = Codec().decode(encoded(largest))
    assert message.args == [reference]
    beyond = [number + (number == MOST) for number in numbers]
    with pytest.raises(EncodeError, match="2\\*\\*53"):
        encoded(m.Request(1, "m", [m.Reference(*beyond)]))
    head = msgpack.packb([1, 1, "m"])[1:]
    data = b"\x94" + head + b"\x91" + msgpack.packb(msgpack.ExtType(32, msgpack.packb(beyond)))
    with pytest.raises(DecodeError, match="2\\*\\*53"):
        list(Codec().decode(data))


def test_integers_of_applications_may_be_larger():
    (message,) = Codec().decode(encoded(m.Request(1, "m", [2**64 - 1, 2**200])))
    assert message.args == [2**64 - 1, 2**200]

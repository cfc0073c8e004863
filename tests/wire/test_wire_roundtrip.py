from __future__ import annotations

import datetime as dt
import decimal
import math
import uuid

import pytest
from helpers.wire_values import QUICK, hashables, messages, same, values
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_rpc.wire import Codec, Reference
from trio_rpc.wire.messages import Notification, Reply, ReplyErr, Request
from trio_rpc.wire.scan import SMALL


def through(value, codec=None):
    codec = codec or Codec()
    [reply] = codec.decode(codec.encode(Reply(1, value)))
    assert reply.problem is None
    return reply.result


def fields_of(message):
    fields = {name: getattr(message, name) for name in type(message).__slots__}
    fields.pop("references", None)
    # A missing map and an empty one mean the same.
    return fields | {name: fields[name] or None for name in ("kwargs", "context") & fields.keys()}


@given(values)
@settings(QUICK, max_examples=300)
def test_every_value_is_decoded_equal(value):
    """Bytes travel as they are, and every other value by its type."""
    assert same(through(value), value)


@given(hashables)
@QUICK
def test_every_hashable_value_can_be_a_key_and_in_a_set(value):
    assert same(through({value: 1}), {value: 1})
    assert same(through({value}), {value})


@given(messages)
@settings(QUICK, max_examples=300)
def test_every_message_is_decoded_equal(message):
    codec = Codec()
    encoded = codec.encode(message)
    [decoded] = codec.decode(encoded)
    assert type(decoded) is type(message)
    assert same(fields_of(decoded), fields_of(message))
    assert same(fields_of(codec.decode_message(encoded)), fields_of(message))


@given(st.lists(messages, min_size=1, max_size=6))
@QUICK
def test_a_packet_holds_any_messages_back_to_back(sent):
    codec = Codec()
    received = list(codec.decode(b"".join(map(codec.encode, sent))))
    assert [type(message) for message in received] == [type(message) for message in sent]
    assert same([fields_of(m) for m in received], [fields_of(m) for m in sent])


@pytest.mark.parametrize("size", [SMALL - 20, SMALL, SMALL + 1, 70_000, 3_000_000])
def test_any_size_of_message_is_decoded(size):
    codec = Codec()
    message = Request(1, "m", [b"x" * size, ["y"] * (size // 100)])
    encoded = codec.encode(message)
    assert list(codec.decode(encoded)) == [message]
    assert list(codec.decode(encoded * 2)) == [message, message]
    assert codec.decode_message(encoded) == message


def test_decoding_is_lazy():
    codec = Codec()
    arriving = codec.decode(codec.encode(Reply(1, None)) + codec.encode(Reply(2, None)) + b"\xc1")
    assert next(arriving) == Reply(1, None)
    assert next(arriving) == Reply(2, None)


@pytest.mark.parametrize("value", [math.inf, -math.inf, -0.0, 5e-324])
def test_special_floats_are_decoded_equal(value):
    assert same(through(value), value)


def test_nan_is_decoded_as_nan():
    assert math.isnan(through(math.nan))
    assert through(decimal.Decimal("NaN")).is_nan()
    assert through(decimal.Decimal("-sNaN")).is_snan()
    assert math.isnan(through(complex(math.nan, 1)).real)


@pytest.mark.parametrize(
    "value",
    [0, 127, 128, -32, -33, 2**31, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, -(2**8183)],
)
def test_ints_of_every_width_are_decoded_equal(value):
    assert same(through(value), value)


def test_a_time_keeps_its_offset_but_not_the_name_of_its_zone():
    zone = dt.timezone(dt.timedelta(hours=5, minutes=30, seconds=15), "Somewhere")
    moment = dt.datetime(2024, 2, 29, 12, 0, 0, 1, zone)
    arrived = through(moment)
    assert arrived == moment
    assert arrived.utcoffset() == moment.utcoffset()
    assert arrived.tzname() != "Somewhere"


def test_bytes_like_values_arrive_as_bytes():
    assert through([bytearray(b"ab"), memoryview(b"cd")]) == [b"ab", b"cd"]


def test_dicts_keep_their_order_and_the_types_of_their_keys():
    value = {3: "c", "a": 1, None: [], (1, (2,)): {1: 2}, dt.date(2024, 1, 1): 0, 1.5: 1, b"x": 2}
    assert same(through(value), value)
    assert list(through(value)) == list(value)


def test_encoding_does_not_change_its_arguments():
    args = [[1, (2, {3})], {"a": [(1,)]}, {1: [2]}]
    kwargs = {"k": {4: 5}}
    Codec().encode(Request(1, "m", args, kwargs))
    assert args == [[1, (2, {3})], {"a": [(1,)]}, {1: [2]}]
    assert kwargs == {"k": {4: 5}}


def test_each_message_lists_only_its_own_references():
    codec = Codec()
    one, two = Reference(1, 5), Reference(2, 6)
    packet = (
        codec.encode(Request(1, "m", [one, {"a": (two,)}]))
        + codec.encode(Reply(1, None))
        + codec.encode(Notification("n", [], {"f": one}))
    )
    first, second, third = codec.decode(packet)
    assert first.references == (one, two)
    assert first.args == [one, {"a": (two,)}]
    assert second.references == ()
    assert third.references == (one,)
    assert codec.decode_message(codec.encode(Request(2, "m", [[two]]))).references == (two,)


def test_functions_are_sent_as_the_references_that_the_given_function_returns():
    asked = []

    def number(value):
        asked.append(value)
        return Reference(1, len(asked))

    codec = Codec()
    request = Request(1, "m", [print, {"f": [len]}, {repr}, 5])
    [decoded] = codec.decode(codec.encode(request, number))
    assert asked == [print, len, repr]
    assert decoded.args == [Reference(1, 1), {"f": [Reference(1, 2)]}, {Reference(1, 3)}, 5]


def test_an_error_may_carry_every_type_of_value():
    error = {"code": "raised", "args": [uuid.UUID(int=5), (1, 2), {3}]}
    codec = Codec()
    [decoded] = codec.decode(codec.encode(ReplyErr(1, error)))
    assert decoded == ReplyErr(1, error)

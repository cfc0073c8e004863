"""Packets with several short messages: read in one pass, or one by one, with the same result."""

from __future__ import annotations

import math

import pytest
from helpers.wire_values import QUICK, messages, same
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_rpc.errors import DecodeError
from trio_rpc.wire.codec import REFUSED, Codec
from trio_rpc.wire.limits import Limits
from trio_rpc.wire.many import MOST, read_many
from trio_rpc.wire.messages import (
    Cancel,
    Goodbye,
    Item,
    Notification,
    Ping,
    Reply,
    ReplyErr,
    Request,
)

ids = st.integers(1, 2**53 - 1)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
)
flat = scalars | st.lists(scalars, max_size=20)
short = st.one_of(
    st.builds(Request, ids, st.text(st.characters(exclude_categories=["Cs"])), st.lists(scalars)),
    st.builds(Reply, ids, flat),
    st.builds(Item, ids, flat),
    st.builds(Cancel, ids),
    st.builds(ReplyErr, ids, st.dictionaries(st.text(max_size=9), scalars, max_size=5)),
)


def joined(sent):
    return b"".join(map(Codec().encode, sent))


def outcome(codec, packet):
    """Return the messages of a packet, and the text of the error that ends it."""
    read = []
    try:
        read.extend(codec.decode(packet))
    except DecodeError as exc:
        return read, str(exc)
    return read, None


def slow_codec(limits=None):
    """Return a codec that reads messages only one by one."""
    codec = Codec(None, limits or Limits())
    codec._most_at_once = 0
    return codec


def check(packet, limits=None):
    """Compare the two ways, and return the messages."""
    (quick, quick_error) = outcome(Codec(None, limits or Limits()), packet)
    (slow, slow_error) = outcome(slow_codec(limits), packet)
    assert quick_error == slow_error
    # repr compares nan, -0.0 and the types of values as well.
    assert repr(quick) == repr(slow)
    return quick


@given(st.lists(short, min_size=2, max_size=40))
@settings(QUICK, max_examples=300)
def test_short_messages_are_read_in_one_pass(sent):
    packet = joined(sent)
    read = read_many(packet)
    assert read is not None
    assert repr(read) == repr(list(slow_codec().decode(packet)))
    sizes = [len(Codec().encode(one)) for one in sent]
    assert [one.size for one in read if type(one) is Item] == [
        size for one, size in zip(sent, sizes, strict=True) if type(one) is Item
    ]
    check(packet)


@given(st.lists(short | messages, min_size=2, max_size=8))
@QUICK
def test_packets_with_any_messages_are_read_as_one_by_one(sent):
    packet = joined(sent)
    (quick, error), (slow, _) = outcome(Codec(), packet), outcome(slow_codec(), packet)
    assert error is None
    assert same([fields(one) for one in quick], [fields(one) for one in slow])


def fields(message):
    return [type(message), *(getattr(message, name) for name in type(message).__slots__)]


@given(st.lists(short, min_size=2, max_size=5), st.data())
@settings(QUICK, max_examples=500)
def test_changed_bytes_mean_the_same_in_both_ways(sent, data):
    packet = bytearray(joined(sent))
    for _ in range(data.draw(st.integers(1, 3))):
        packet[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))
    check(bytes(packet[: data.draw(st.integers(1, len(packet)))]))


REPLY = Codec().encode(Reply(7, "x"))


@pytest.mark.parametrize(
    ("what", "data"),
    [
        ("a key given twice", b"\x93\x04\x01\x82\xa1a\x01\xa1a\x02"),
        ("an id of two bytes for a small number", b"\x93\x03\xcc\x01\x01"),
        ("an array header of three bytes", b"\xdc\x00\x03\x03\x01\x01"),
        ("a text with a length of one byte", b"\x93\x03\x01\xd9\x01x"),
        ("a float of four bytes", b"\x93\x03\x01\xca\x3f\x80\x00\x00"),
    ],
)
def test_other_forms_of_the_same_values_are_read_one_by_one(what, data):
    assert read_many(REPLY + REPLY) is not None
    assert read_many(REPLY + data) is None, what
    check(REPLY + data)
    check(data + REPLY)


@pytest.mark.parametrize(
    ("what", "data"),
    [
        ("an id of zero", b"\x93\x03\x00\x01"),
        ("an id of 2**53", b"\x93\x03\xcf\x00\x20\x00\x00\x00\x00\x00\x00\x01"),
        ("an id that is a text", b"\x93\x03\xa1x\x01"),
        ("too many elements", b"\x94\x03\x01\x01\x01"),
        ("too few elements", b"\x92\x03\x01"),
        ("text that is not UTF-8", b"\x93\x03\x01\xa1\xff"),
        ("arguments that are not an array", b"\x94\x01\x01\xa1m\x80"),
        ("an error that is not a map", b"\x93\x04\x01\x90"),
        ("an unknown type", b"\x93\x1e\x01\x01"),
        ("a byte that is never used", b"\xc1"),
        ("an end inside a message", b"\x93\x03"),
        ("a claim of 4 GiB", b"\x93\x03\x01\xdb\xff\xff\xff\xff"),
        ("a claim of an endless array", b"\x93\x03\x01\xdd\xff\xff\xff\xff"),
    ],
)
def test_malformed_messages_are_refused_alike(what, data):
    assert read_many(REPLY + data) is None, what
    assert outcome(Codec(), REPLY + data)[1] is not None
    check(REPLY + data)


def test_other_messages_and_values_are_left_to_the_other_way():
    for other in (Ping(1), Goodbye("done"), Notification("m", []), Reply(1, b"x"), Reply(1, {})):
        assert read_many(joined([Reply(7, 1), other])) is None
        assert check(joined([Reply(7, 1), other])) == [Reply(7, 1), other]
    assert read_many(joined([Reply(7, [[1]])])) is None


def test_special_floats_are_the_same():
    [one, other] = check(joined([Reply(1, math.nan), Reply(2, -0.0)]))
    assert math.isnan(one.result)
    assert math.copysign(1, other.result) == -1


def test_a_long_packet_is_read_lazily():
    packet = joined([Reply(number + 1, "x" * 20) for number in range(MOST // 20)])
    assert len(packet) > MOST
    assert not isinstance(Codec().decode(packet), list)
    assert isinstance(Codec().decode(packet[:0] + joined([Reply(1, 1)] * 100)), list)


def test_limits_that_a_short_packet_could_break_apply():
    deep = joined([Reply(1, [1]), Reply(2, [1])])
    assert outcome(Codec(None, Limits(max_depth=1)), deep)[1] is not None
    check(deep, Limits(max_depth=1))
    check(deep, Limits(max_depth=2))
    many = joined([Reply(1, [1] * 15), Reply(2, [1] * 15)])
    check(many, Limits(max_nodes=10))
    assert outcome(Codec(None, Limits(max_nodes=10)), many)[1] is not None


def test_after_a_packet_that_was_refused_the_next_ones_are_not_tried(monkeypatch):
    tried = []

    def spy(packet):
        tried.append(packet)
        return read_many(packet)

    monkeypatch.setattr("trio_rpc.wire.codec.read_many", spy)
    codec = Codec()
    bad, good = joined([Reply(1, b"x"), Reply(2, 1)]), joined([Reply(1, 1), Reply(2, 1)])
    for packet in (bad, *[good] * (REFUSED + 1)):
        assert len([*codec.decode(packet)]) == 2
    assert tried == [bad, good]

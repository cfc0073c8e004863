"""Every malformed byte sequence raises the same kind of error, DecodeError (law 14)."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools

import msgpack
import pytest
from helpers.wire_values import QUICK, messages
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trio_rpc.errors import DecodeError, EncodeError
from trio_rpc.wire import Codec, Limits
from trio_rpc.wire.keys import KeyBuilder, collide
from trio_rpc.wire.messages import Reply, Request

CODEC = Codec()


def packed(*fields, **options):
    return msgpack.packb(list(fields), **options)


REFERENCE = msgpack.ExtType(32, packed(1, 0))
FIVE = msgpack.ExtType(10, b"\x05")
"""The integer 5 in the extension for large integers, which may stand for it in values only."""


def reply(raw):
    """Encode a Reply with these bytes as its result."""
    return b"\x93\x03\x01" + raw


def ext(code, payload):
    return reply(b"\xc8" + len(payload).to_bytes(2, "big") + bytes([code & 255]) + payload)


def refuse(data, codec=CODEC):
    with pytest.raises(DecodeError) as caught:
        list(codec.decode(data))
    assert len(str(caught.value)) < 400
    with pytest.raises(DecodeError):
        codec.decode_message(data)


def nested(depth, inner=b"\x90"):
    """Encode a Reply whose arrays nest ``depth`` deep, including the message itself."""
    return reply(b"\x91" * (depth - 2) + inner)


MALFORMED = {
    "nothing": b"",
    "never used byte": b"\xc1",
    "never used byte inside": reply(b"\xc1"),
    "not an array": b"\x05",
    "a map": b"\x80",
    "empty array": b"\x90",
    "text for a type": packed("1", 1, "m", []),
    "nil for a type": packed(None, 1, "m", []),
    "bool for a type": packed(True, 1, "m", []),
    "float for a type": packed(1.0, 1, "m", []),
    "unknown type 0": packed(0),
    "unknown type 6": packed(6, 1),
    "unknown type 255": packed(255),
    "negative type": packed(-1),
    "TLS hello": bytes.fromhex("16030100c8010000c40303"),
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "zeros": bytes(1000),
    "invalid UTF-8 in a name": b"\x94\x01\x01\xa2\xff\xfe\x90",
    "invalid UTF-8 in an argument": b"\x94\x01\x01\xa1m\x91\xa1\xff",
    "surrogate in an argument": b"\x94\x01\x01\xa1m\x91\xa3\xed\xa0\x80",
    "bytes for a name": packed(1, 1, b"m", []),
    "extension for a type": packed(FIVE, 1),
    "extension for an id": packed(1, FIVE, "m", []),
    "extension for the number of a Ping": packed(13, FIVE),
    "extension for the count of a Credit": packed(15, FIVE),
    "extension for the size of a Credit": packed(15, 1, 1, FIVE),
    "extension for kwargs": packed(1, 1, "m", [], msgpack.ExtType(12, packed("a", 1))),
    "extension for empty kwargs": packed(2, "m", [], msgpack.ExtType(12, packed())),
    "extension for a context": packed(1, 1, "m", [], {}, msgpack.ExtType(12, packed("depth", 1))),
    "extension for an error": packed(4, 1, msgpack.ExtType(12, packed("code", "internal"))),
    "extension for the map of a Hello": packed(10, 1, msgpack.ExtType(12, packed("calls", 1))),
    "list as a key": reply(b"\x81\x90\x01"),
    "nil as a key": reply(b"\x81\xc0\x01"),
    "int as a key": reply(b"\x81\x05\x01"),
    "extension as a key": reply(b"\x81\xd4\x01\x90\x01"),
    "key twice in a map": reply(b"\x82\xa1a\x01\xa1a\x02"),
    "key twice in kwargs": b"\x95\x01\x01\xa1m\x90\x82\xa1a\x01\xa1a\x02",
    "timestamp of 5 bytes": ext(-1, bytes(5)),
    "timestamp of nothing": ext(-1, b""),
    "timestamp with 2**30 - 1 nanoseconds": ext(-1, (2**30 - 1 << 34).to_bytes(8, "big")),
    "timestamp with 2**30 nanoseconds": ext(-1, (2**30).to_bytes(4, "big") + bytes(8)),
    "timestamp of the year 10**9": ext(-1, bytes(4) + (10**9 * 31_556_952).to_bytes(8, "big")),
    "timestamp long before": ext(-1, bytes(4) + b"\x80" + bytes(7)),
    "another negative code": reply(b"\xd4\x80\x00"),
    "tuple of nothing": ext(1, b""),
    "tuple that is not an array": ext(1, b"\x05"),
    "tuple and something": ext(1, b"\x90\x90"),
    "tuple cut short": ext(1, b"\x92\x01"),
    "set of lists": ext(2, b"\x91\x90"),
    "set of maps": ext(3, b"\x91\x80"),
    "set that is a map": ext(2, b"\x80"),
    "not a datetime": ext(4, b"yesterday"),
    "datetime of the year 0": ext(4, b"0000-01-01T00:00:00"),
    "datetime that is not ASCII": ext(4, "2024-01-0¹T00:00:00".encode()),
    "datetime that is too long": ext(4, b"2024-01-01T00:00:00" + b"0" * 2000),
    "date of nothing": ext(5, b""),
    "date of 30 February": ext(5, b"2024-02-30"),
    "time of 25 hours": ext(6, b"25:00:00"),
    "timedelta of two": ext(7, packed(1, 2)),
    "timedelta of floats": ext(7, packed(1, 2, 3.0)),
    "timedelta of bools": ext(7, packed(1, 2, True)),
    "timedelta that is not an array": ext(7, b"\x05"),
    "timedelta of too many days": ext(7, packed(10**9, 0, 0)),
    "timedelta and something": ext(7, packed(1, 2, 3) + b"\x05"),
    "timedelta not normalised": ext(7, packed(0, 86_400, 0)),
    "not a Decimal": ext(8, b"one"),
    "Decimal of nothing": ext(8, b""),
    "Decimal with too large an exponent": ext(8, b"1e99999999999999999999"),
    "Decimal too long": ext(8, b"1" * 1025),
    "UUID of 15 bytes": ext(9, bytes(15)),
    "int of nothing": ext(10, b""),
    "int of 1,025 bytes": ext(10, bytes(1025)),
    "complex of 15 bytes": ext(11, bytes(15)),
    "map with a key and no value": ext(12, b"\x93\x01\x01\x02"),
    "map with a list as a key": ext(12, b"\x92\x90\x01"),
    "map that has a key twice": ext(12, b"\x94\x01\x01\x01\x02"),
    "map that is a map": ext(12, b"\x81\xa1a\x01"),
    "reference of one": ext(32, packed(1)),
    "reference and something": ext(32, packed(1, 2) + b"\x05"),
    "reference to text": ext(32, packed(1, "a")),
    "reference to a negative": ext(32, packed(1, -1)),
    "reference in metadata": packed(1, 1, "m", [], {}, {"metadata": {"f": REFERENCE}}),
    "reference in an unknown entry of a context": packed(1, 1, "m", [], {}, {"later": [REFERENCE]}),
    "reference in a tuple in a context": packed(
        2, "m", [], {}, {"metadata": {"f": msgpack.ExtType(1, packed(REFERENCE))}}
    ),
    "reference in an error": packed(4, 1, {"a": msgpack.ExtType(32, packed(1, 1))}),
    "the array32 of 4 GiB": b"\xdd\xff\xff\xff\xff",
    "the map32 of 4 GiB": b"\xdf\xff\xff\xff\xff",
    "the str32 of 4 GiB": b"\xdb\xff\xff\xff\xff",
    "the bin32 of 4 GiB": b"\xc6\xff\xff\xff\xff",
    "the ext32 of 4 GiB": b"\xc9\xff\xff\xff\xff\x01",
}
for _name in [name for name in MALFORMED if name.startswith("the ")]:
    MALFORMED[_name + " as a result"] = reply(MALFORMED[_name])
    MALFORMED[_name + " in a tuple"] = ext(1, b"\x91" + MALFORMED[_name])
    MALFORMED[_name + " behind a long string"] = (
        b"\x94\x01\x01" + msgpack.packb("m" * 70_000) + MALFORMED[_name]
    )


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_bytes_are_a_decode_error(data):
    refuse(data)


def test_every_first_byte_gives_a_message_or_a_decode_error():
    for byte in range(256):
        for data in (bytes([byte]), reply(bytes([byte])), ext(1, bytes([byte]))):
            with contextlib.suppress(DecodeError):
                list(CODEC.decode(data))


@given(messages, st.binary(min_size=1, max_size=3))
@QUICK
def test_extra_bytes_behind_a_message_are_refused(message, more):
    data = CODEC.encode(message)
    with pytest.raises(DecodeError):
        CODEC.decode_message(data + more)
    with pytest.raises(DecodeError):
        list(CODEC.decode(data + b"\xc1"))


def test_a_message_cut_short_at_any_byte_is_refused():
    value = [1, "abc", b"x" * 300, {"a": (1, {2})}, {3: 4}, 2**70, dt.timedelta(1), 1.5, None]
    data = CODEC.encode(Request(1, "method", value, {"k": [1]}, {"deadline": 2.5}))
    for end in range(len(data)):
        refuse(data[:end])


def test_a_message_of_exactly_the_limit_of_depth_is_accepted():
    [deepest] = CODEC.decode(nested(64))
    assert CODEC.encode(deepest) == nested(64)
    refuse(nested(65))
    assert CODEC.decode_message(nested(64)) == deepest


@pytest.mark.parametrize(
    "wrap",
    [lambda v: (v,), lambda v: {"k": v}, lambda v: {1: v}, lambda v: [v], lambda v: {(v, 1), 2}],
)
def test_sender_and_receiver_count_the_same_depth(wrap):
    generous = Codec(limits=Limits(max_depth=200))
    strict = Codec(limits=Limits(max_depth=20))
    refused, value = 0, (None,) * 30
    for _ in range(30):
        data = generous.encode(Reply(1, value))
        try:
            strict.encode(Reply(1, value))
        except EncodeError:
            refused += 1
            refuse(data, strict)
        else:
            list(strict.decode(data))
        value = wrap(frozenset(value) if type(value) is set else value)
    assert 0 < refused < 30


def test_extensions_count_as_levels_even_if_their_payload_is_not_decoded():
    payload = b"\x05"
    for _ in range(100):
        payload = msgpack.packb(msgpack.ExtType(1, b"\x91" + payload))
    refuse(reply(payload))


def test_extensions_for_small_integers_and_text_keys_may_be_sent_in_values():
    pairs = msgpack.ExtType(12, packed("a", FIVE))
    [request] = CODEC.decode(packed(1, 1, "m", [FIVE], {"k": pairs}, {"metadata": {"x": pairs}}))
    assert (request.args, request.kwargs) == ([5], {"k": {"a": 5}})
    assert request.context == {"metadata": {"x": {"a": 5}}}
    for value, arrived in ((FIVE, 5), (pairs, {"a": 5})):
        [hello] = CODEC.decode(packed(10, 1, {"credentials": value}))
        assert hello.info == {"credentials": arrived}


def test_timestamps_are_read_as_utc():
    [message] = CODEC.decode(ext(-1, (1_700_000_000).to_bytes(4, "big")))
    assert message.result == dt.datetime.fromtimestamp(1_700_000_000, dt.UTC)
    assert b"2023-11-14T22:13:20+00:00" in CODEC.encode(message)
    [message] = CODEC.decode(
        ext(-1, (1999).to_bytes(4, "big") + (-1).to_bytes(8, "big", signed=True))
    )
    assert message.result == dt.datetime(1969, 12, 31, 23, 59, 59, 1, dt.UTC)


def test_unknown_extension_codes_are_kept_undecoded():
    for code in (0, 13, 31, 33, 63, 64, 127):
        [message] = CODEC.decode(ext(code, b"\x05"))
        assert message.result == msgpack.ExtType(code, b"\x05")


def test_a_set_may_contain_an_element_twice():
    # Harmless. The sender may not be able to tell: an enum and its value are one element there.
    [message] = CODEC.decode(ext(2, packed(1, 1)))
    assert message.result == {1}


def colliding(count):
    return [number * (2**61 - 1) for number in range(1, count + 1)]


def test_keys_chosen_to_collide_are_refused():
    assert len({hash(key) for key in colliding(1000)}) == 1
    for code, items in ((2, colliding(1000)), (3, colliding(1000))):
        data = [msgpack.ExtType(10, item.to_bytes(10, "big")) for item in items]
        refuse(ext(code, packed(*data)))
    pairs = [msgpack.ExtType(10, item.to_bytes(10, "big")) for item in colliding(1000)]
    refuse(ext(12, packed(*(part for pair in pairs for part in (pair, 0)))))


def test_keys_that_are_slow_to_insert_are_refused_early():
    # Keys with different hashes that still collide can only be noticed by the time they take.
    asked = []
    slow = slow_builder(0.3, asked)
    keys = list(range(50_000))
    for update, entries in ((set().update, keys), ({}.update, list(zip(keys, keys, strict=True)))):
        asked.clear()
        with pytest.raises(DecodeError, match="long"):
            slow.fill(update, entries, keys)
        assert len(asked) < 12
    assert KeyBuilder().set(list(range(200_000))) == set(range(200_000))


def slow_builder(seconds, asked):
    """Make a builder whose clock shows this many seconds for inserting keys, and 0 for hashing."""
    spent = itertools.accumulate(itertools.cycle((0.0, seconds, 0.0, 0.0)))
    return KeyBuilder(lambda: asked.append(None) or next(spent))


def test_many_small_sets_that_are_slow_together_are_refused():
    """A set of a few hundred colliding keys takes 1 ms, and a message may hold thousands."""
    slow = slow_builder(0.01, [])
    with pytest.raises(DecodeError, match="long"):
        for _ in range(7):
            slow.fill(set().update, list(range(200)), list(range(200)))


def test_keys_that_are_merely_slow_to_hash_are_not_refused():
    ticks = itertools.count()
    slow = KeyBuilder(lambda: next(ticks) * 0.3)
    assert len(slow.set(list(range(50_000)))) == 50_000


@pytest.mark.parametrize("make", [KeyBuilder.set, lambda builder, keys: builder.map(keys, keys)])
def test_keys_that_are_slow_to_hash_once_are_refused_early(make):
    """A Decimal keeps its hash. With a great exponent, the first time takes 2 microseconds."""
    asked = []
    with pytest.raises(DecodeError, match="long"):
        make(slow_builder(0.3, asked), list(range(50_000)))
    assert len(asked) < 12


def test_repeated_equal_elements_do_not_count_as_collisions():
    message = CODEC.decode_message(b"\x93\x03\x01" + packed_set([1] * 1000 + [2]))
    assert message.result == {1, 2}
    assert not collide(colliding(5) * 200)
    assert collide(colliding(102) * 20)


def packed_set(items):
    return msgpack.packb(msgpack.ExtType(2, msgpack.packb(items)))


def test_a_few_collisions_are_accepted():
    [message] = CODEC.decode(CODEC.encode(Reply(1, set(colliding(100)))))
    assert message.result == set(colliding(100))
    many = {float(n): n for n in range(20_000)} | {-1: 0, -2: 0}
    [message] = CODEC.decode(CODEC.encode(Reply(1, many)))
    assert message.result == many


def test_a_decode_error_leaves_no_state_for_the_next_message():
    codec = Codec()
    reference = b"\xc7\x03\x20\x92\x01\x01"
    refuse(reply(b"\x92" + reference + b"\xc1"), codec)
    refuse(ext(1, b"\x91" + ext(1, b"\x92\x01")), codec)
    [message] = codec.decode(reply(b"\x05"))
    assert message.references == ()
    assert message.problem is None


@given(st.binary(max_size=2000))
@settings(QUICK, max_examples=500)
@example(b"\x93\x03\x01\xc9\xff\xff\xff\xff")
def test_random_bytes_give_messages_or_a_decode_error(data):
    for read in (lambda d: list(CODEC.decode(d)), CODEC.decode_message):
        with contextlib.suppress(DecodeError):
            read(data)


@given(st.binary(max_size=200), st.integers(-128, 127))
@settings(QUICK, max_examples=500)
def test_random_payloads_give_values_or_a_decode_error(payload, code):
    head = b"\xc7" + bytes([len(payload), code & 255])
    with contextlib.suppress(DecodeError):
        list(CODEC.decode(reply(head + payload)))


@given(messages, st.data())
@settings(QUICK, max_examples=300)
def test_mutated_messages_give_messages_or_a_decode_error(message, data):
    mutant = bytearray(CODEC.encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(mutant) - 1))
        match data.draw(st.sampled_from(["flip", "set", "cut", "insert"])):
            case "flip":
                mutant[at] ^= 1 << data.draw(st.integers(0, 7))
            case "set":
                mutant[at] = data.draw(st.integers(0, 255))
            case "cut" if len(mutant) > 1:
                del mutant[at]
            case _:
                mutant[at:at] = data.draw(st.binary(max_size=4))
    for read in (lambda d: list(CODEC.decode(d)), CODEC.decode_message):
        with contextlib.suppress(DecodeError):
            read(bytes(mutant))

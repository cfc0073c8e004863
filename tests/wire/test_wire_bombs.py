"""Small inputs that would take a lot of memory or work to decode."""

from __future__ import annotations

import tracemalloc

import msgpack
import pytest

from trio_rpc.errors import DecodeError, EncodeError
from trio_rpc.wire import Codec, Limits, TypeRegistry
from trio_rpc.wire.messages import Reply, Request
from trio_rpc.wire.scan import is_deeper, walk

KIB = 1024
MIB = 1024 * KIB


def array32(count):
    return b"\xdd" + count.to_bytes(4, "big")


def peak_of(data, codec=None, *, refused=True):
    """Decode the data both ways, and return the peak memory use in bytes."""
    codec = codec or Codec()
    peaks = []
    for read in (lambda: list(codec.decode(data)), lambda: codec.decode_message(data)):
        tracemalloc.start()
        try:
            if refused:
                with pytest.raises(DecodeError):
                    read()
            else:
                read()
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    return max(peaks)


def test_deeply_nested_arrays_take_little_memory():
    """Depth and lengths are checked before anything is allocated."""
    assert peak_of(b"\x91" * 100_000) < MIB
    assert peak_of(b"\x93\x03\x01" + b"\x91" * 100_000 + b"\x90") < MIB


def test_deeply_nested_maps_take_little_memory():
    assert peak_of(b"\x93\x03\x01" + b"\x81\xa1a" * 100_000 + b"\x80") < MIB


@pytest.mark.parametrize(
    "claim",
    [
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x01",
    ],
)
@pytest.mark.parametrize("size", [0, 100, 10_000, 200_000])
def test_a_claimed_length_of_4_gib_allocates_nothing(claim, size):
    for data in (claim + bytes(size), b"\x94\x01\x01\xa1m" + claim + bytes(size)):
        assert peak_of(data) < 2 * size + 500 * KIB


def test_nested_arrays_that_claim_many_items_allocate_nothing():
    # Each array claims no more items than there are bytes; together they claim 1,000 times as many.
    size = 200_000
    assert peak_of(b"\x93\x03\x01" + array32(size) * (size // 5)) < MIB
    assert peak_of(b"\x93\x03\x01" + array32(size // 4) * 900 + bytes(size)) < MIB
    short = b"\x93\x03\x01" + (b"\xdc" + (500).to_bytes(2, "big")) * 165
    assert peak_of(short) < MIB


def test_a_mebibyte_of_empty_maps_is_refused_before_it_is_built():
    data = b"\x94\x01\x01\xa1m" + array32(MIB) + b"\x80" * MIB
    assert peak_of(data) < 3 * MIB


def test_16_mebibytes_of_empty_maps_are_refused_before_they_are_built():
    data = b"\x94\x01\x01\xa1m" + array32(16 * MIB) + b"\x80" * (16 * MIB)
    assert peak_of(data) < 40 * MIB


def test_a_byte_decodes_to_at_most_100_bytes_of_memory():
    count = 100_000  # at the limit it is ten times that
    data = b"\x94\x01\x01\xa1m" + array32(count) + b"\x80" * count
    assert peak_of(data, refused=False) < 100 * count


def test_nodes_hidden_in_extensions_are_counted():
    inner = array32(MIB) + b"\x80" * MIB
    for code in (1, 2, 12, 64):
        data = b"\x93\x03\x01" + msgpack.packb(msgpack.ExtType(code, inner))
        assert peak_of(data) < 4 * MIB


@pytest.mark.parametrize("code", [4, 5, 6, 7, 8, 9, 10, 11, 32])
def test_an_extension_payload_of_the_wrong_type_is_not_decoded(code):
    # Such a payload does not count as values, so it must not be decoded.
    inner = array32(MIB) + b"\x80" * MIB
    payload = b"\xc9" + len(inner).to_bytes(4, "big") + bytes([code]) + inner
    assert peak_of(b"\x93\x03\x01" + payload) < 4 * MIB


def test_a_string_that_claims_to_pass_the_end_of_its_extension_hides_no_nodes():
    # In the tuple, a string claims to extend far past the extension's end, over the empty maps.
    liar = b"\xc7\x06\x01\x91\xc6" + (MIB).to_bytes(4, "big")
    data = b"\x94\x03\x01" + liar + array32(MIB) + b"\x80" * MIB
    assert peak_of(data) < 4 * MIB


def nested_extensions(levels, inner):
    payload = inner
    for _ in range(levels):
        payload = b"\x91" + payload
        payload = b"\xc9" + len(payload).to_bytes(4, "big") + b"\x01" + payload
    return b"\x93\x03\x01" + payload


def test_large_nested_extensions_are_copied_only_a_few_times():
    limits = Limits(max_message=MIB)
    blob = b"\xc6" + MIB.to_bytes(4, "big") + bytes(MIB)
    assert peak_of(nested_extensions(60, blob), Codec(limits=limits)) < 8 * MIB
    assert peak_of(nested_extensions(3, blob), Codec(limits=limits), refused=False) < 8 * MIB


def test_the_limit_of_nodes_is_per_message_and_not_per_packet():
    codec = Codec(limits=Limits(max_nodes=20))
    message = Request(1, "m", [1, [2, 3], (4, 5), "x" * 600])
    packet = codec.encode(message) * 10
    assert list(codec.decode(packet)) == [message] * 10


@pytest.mark.parametrize("count", [13, 14, 15])
def test_sender_and_receiver_count_the_same_number_of_values(count):
    limits = Limits(max_nodes=20)  # the array, type, number and tuple take six of them
    value = [tuple(range(count - 1)), "x" * 30]
    generous, strict = Codec(), Codec(limits=limits)
    data = generous.encode(Reply(1, value))
    if walk(memoryview(data), 10**6) <= 20:
        assert strict.encode(Reply(1, value)) == data
        assert list(strict.decode(data)) == [Reply(1, value)]
    else:
        with pytest.raises(DecodeError):
            list(strict.decode(data))
        with pytest.raises(Exception, match="20 values"):
            strict.encode(Reply(1, value))


def test_values_are_counted_at_every_depth():
    def count(value):
        return walk(memoryview(msgpack.packb(value)), 10**6)

    assert count(None) == 1
    assert count([]) == 1
    assert count([1, "a" * 40, b"x" * 300, 1.5, -(2**40), "y" * 70_000]) == 7
    assert count({"a": [1, 2], "b": {}}) == 7
    assert count(list(range(20))) == 21
    assert count(dict.fromkeys(map(str, range(20)), 0)) == 41
    assert count(list(range(70_000))) == 70_001
    assert count(msgpack.ExtType(1, msgpack.packb([1, 2]))) == 4 + 3
    assert count(msgpack.ExtType(9, bytes(16))) == 4
    assert count([msgpack.ExtType(64, msgpack.packb([[1]])), 5]) == 1 + 4 + 3 + 1


def nested(levels, code=1, inner=b"\x05"):
    """Nest extensions, each but the innermost inside a one-item array."""
    payload = msgpack.packb(msgpack.ExtType(code, inner))
    for _ in range(levels - 1):
        payload = msgpack.packb(msgpack.ExtType(code, b"\x91" + payload))
    return payload


@pytest.mark.parametrize("code", [64, 127])
@pytest.mark.parametrize("is_registered", [False, True])
def test_the_limit_of_depth_holds_inside_registered_extensions(code, is_registered):
    registry = TypeRegistry()
    if is_registered:
        registry.register(code, Opaque, lambda value: value.content, Opaque)
    codec = Codec(registry, Limits(max_depth=20))
    for deep, shallow in (
        (b"\x91" * 18 + b"\x90", b"\x91" * 17 + b"\x90"),  # 21 levels with message and extension
        (b"\x81\xa1k" * 19 + b"\x05", b"\x81\xa1k" * 18 + b"\x05"),
        (nested(10, code), nested(9, code)),
    ):
        data = b"\x93\x03\x01" + msgpack.packb(msgpack.ExtType(code, deep))
        with pytest.raises(DecodeError, match="20 levels"):
            list(codec.decode(data))
        with pytest.raises(DecodeError, match="20 levels"):
            codec.decode_message(data)
        data = b"\x93\x03\x01" + msgpack.packb(msgpack.ExtType(code, shallow))
        assert len(list(codec.decode(data))) == 1


BROKEN = {
    "text that is not UTF-8": b"\xa1\xff",
    "an int key": b"\x81\x05\x01",
    "a key twice": b"\x82\xa1a\x01\xa1a\x02",
    "the byte c1": b"\xc1",
    "two values": b"\x05\x05",
    "no value": b"",
    "a set of arrays": b"\xd5\x02\x91\x90",
    "not a date": b"\xd4\x05x",
    "a reserved code": b"\xd4\xfe\x00",
    "an array cut short": b"\x92\x01",
}


@pytest.mark.parametrize("payload", BROKEN.values(), ids=BROKEN.keys())
def test_malformed_payloads_of_registered_extensions_are_neither_sent_nor_accepted(payload):
    for levels in (1, 3):
        data = payload
        for _ in range(levels - 1):
            data = msgpack.packb(msgpack.ExtType(65, data))
        opaque = msgpack.ExtType(64, data)
        with pytest.raises(EncodeError):
            Codec().encode(Reply(1, opaque))
        registry = TypeRegistry()
        registry.register(64, Opaque, lambda value: value.content, Opaque)
        for codec in (Codec(), Codec(registry)):
            with pytest.raises(DecodeError):
                list(codec.decode(b"\x93\x03\x01" + msgpack.packb(opaque)))


def test_an_opaque_value_that_is_too_deep_for_the_peer_is_not_sent():
    codec = Codec(limits=Limits(max_depth=20))
    codec.encode(Reply(1, [msgpack.ExtType(64, b"\x91" * 16 + b"\x90")]))
    with pytest.raises(EncodeError, match="20 levels"):
        codec.encode(Reply(1, [msgpack.ExtType(64, b"\x91" * 17 + b"\x90")]))


def test_a_set_of_unhashable_registered_values_fails_only_its_call():
    registry = TypeRegistry()
    registry.register(64, Opaque, lambda value: value.content, lambda _: [])
    for code, items in ((2, b"\x91\xd4\x40\x01"), (12, b"\x92\xd4\x40\x01\x01")):
        data = b"\x93\x03\x01" + msgpack.packb(msgpack.ExtType(code, items))
        [message] = Codec(registry).decode(data)
        assert "unhashable" in message.problem


class Opaque:
    """A user's class."""

    def __init__(self, content):
        self.content = content


def test_counting_stops_after_the_allowed_number_of_steps():
    data = memoryview(msgpack.packb([1] * 50))
    assert walk(data, 100, patience=50) == 0
    assert walk(data, 100, patience=51) == 51


def test_depth_is_counted_in_every_kind_of_container():
    for value in ([[]], {"a": []}, [1, [2]], [{}], [1, {"a": 2}]):
        assert not is_deeper(value, 2)
        assert is_deeper(value, 1)
        walk(memoryview(msgpack.packb(value)), 100, 2)
        with pytest.raises(DecodeError, match="1 levels"):
            walk(memoryview(msgpack.packb(value)), 100, 1)
    assert not is_deeper(5, 0)
    assert not is_deeper([5, "a"], 1)


@pytest.mark.parametrize("before", [1, 2, 7])
@pytest.mark.parametrize("size", [200, 5_000])
def test_the_nodes_of_every_message_in_a_packet_are_counted(before, size):
    codec = Codec(None, Limits(max_nodes=150))
    small = Codec().encode(Reply(1, None))
    large = Codec().encode(Reply(2, [0] * size))
    peak_of(small * before + large, codec)
    read = iter(codec.decode(small * before + Codec().encode(Reply(2, [0] * 100))))
    assert [each.result for each in read] == [None] * before + [[0] * 100]


@pytest.mark.parametrize("code", [1, 2, 3, 12, 64, 65, 126, 127])
@pytest.mark.parametrize("known", [True, False])
def test_the_nodes_inside_every_kind_of_extension_are_counted(code, known):
    registry = TypeRegistry()
    if known and code >= 64:
        registry.register(code, Mine, list, Mine)
    codec = Codec(registry, Limits(max_nodes=150))
    numbers = msgpack.packb(list(range(200)))
    assert peak_of(msgpack.packb([Reply.TYPE, 1, msgpack.ExtType(code, numbers)]), codec) < 64 * KIB
    some = msgpack.packb([Reply.TYPE, 1, msgpack.ExtType(code, msgpack.packb(list(range(100))))])
    assert len(list(codec.decode(some))) == 1


class Mine(list):
    """A class that a user registers."""

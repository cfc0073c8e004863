"""One message within the default limits does not hold the loop, whatever it is made of."""

from __future__ import annotations

import gc
import time

import msgpack
import pytest

from trio_rpc.errors import DecodeError
from trio_rpc.wire import Codec, Limits
from trio_rpc.wire.keys import KeyBuilder
from trio_rpc.wire.scan import walk

MOST = Limits().max_nodes
SECONDS = 2.0
"""Ten times what is promised of an ordinary machine, for one that is slow and busy."""


def extension(code, payload):
    return msgpack.packb(msgpack.ExtType(code, payload))


def nested(code, levels):
    inner = b"\x01"
    for _ in range(levels):
        inner = extension(code, b"\x91" + inner)
    return inner


KINDS = {
    "dates": extension(5, b"2026-01-02"),
    "times with offsets": extension(4, b"2026-01-02T03:04:05.000006+03:30:15.000001"),
    "decimals": extension(8, b"1"),
    "long decimals": extension(8, b"1" * 1024),
    "time spans": extension(7, bytes.fromhex("93010203")),
    "UUIDs": extension(9, bytes(16)),
    "big ints": extension(10, b"\x01" * 1024),
    "complex": extension(11, bytes(16)),
    "references": extension(32, b"\x92\x01\x01"),
    "users' types": extension(64, b"\x90"),
    "users' types in each other": nested(64, 25),
    "frozensets in each other": nested(3, 25),
    "tuples in each other": nested(1, 25),
    "maps of any keys": extension(12, b"\x92\x01\x02"),
    "maps": b"\x81\xa1a\x01",
    "empty maps": b"\x80",
    "arrays": b"\x90",
    "deep arrays": b"\x91" * 50 + b"\x01",
    "text": b"\xa1a",
}


@pytest.mark.parametrize("item", KINDS.values(), ids=KINDS.keys())
def test_the_largest_message_of_each_kind_takes_little_time(item):
    count = min((MOST - 10) // walk(memoryview(item), MOST), 15_000_000 // len(item))
    message = b"\x93\x03\x01\xdd" + count.to_bytes(4, "big") + item * count
    began = time.process_time()
    assert len(Codec().decode_message(message).result) == count
    assert time.process_time() - began < SECONDS


@pytest.mark.parametrize(
    "item", [KINDS["dates"], KINDS["decimals"], KINDS["frozensets in each other"]]
)
def test_a_million_of_them_are_refused_before_they_are_built(item):
    count = 16_000_000 // len(item)
    message = b"\x93\x03\x01\xdd" + count.to_bytes(4, "big") + item * count
    with pytest.raises(DecodeError, match="more than"):
        Codec().decode_message(message)


def test_no_garbage_is_collected_while_a_large_set_is_timed():
    seen = []
    KeyBuilder(lambda: seen.append(gc.isenabled()) or 0.0).set(list(range(5000)))
    assert seen
    assert not any(seen)
    assert gc.isenabled()

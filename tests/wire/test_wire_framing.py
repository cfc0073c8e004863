from __future__ import annotations

import tracemalloc

import pytest
from helpers.wire_values import QUICK
from hypothesis import given
from hypothesis import strategies as st

from trio_rpc.errors import DecodeError
from trio_rpc.wire import FrameReader, frame
from trio_rpc.wire.framing import frame_length, prefix

packets = st.lists(st.binary(min_size=1, max_size=300), max_size=8)


def drain(reader):
    return list(iter(reader.next_frame, None))


@given(packets, st.data())
@QUICK
def test_any_split_of_the_stream_gives_the_same_packets(sent, data):
    """Any split of the byte stream gives the same packets."""
    stream = b"".join(map(frame, sent))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    reader, received = FrameReader(300), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        reader.feed(stream[start:end])
        received += drain(reader)
    assert received == sent
    assert not reader.partial


def test_a_stream_split_anywhere_or_into_single_bytes_gives_the_same_packets():
    sent = [b"a", b"bc" * 40, b"d"]
    stream = b"".join(map(frame, sent))
    for cut in range(len(stream) + 1):
        reader = FrameReader(100)
        reader.feed(stream[:cut])
        received = drain(reader)
        reader.feed(stream[cut:])
        assert received + drain(reader) == sent
    reader, received = FrameReader(100), []
    for byte in stream:
        reader.feed(bytes([byte]))
        received += drain(reader)
    assert received == sent


@given(st.binary(max_size=200), st.integers(1, 100))
@QUICK
def test_partial_is_true_inside_a_frame_and_a_packet_is_returned_with_its_last_byte(
    stream, max_frame
):
    reader = FrameReader(max_frame)
    reader.feed(stream)
    try:
        taken = sum(4 + len(packet) for packet in drain(reader))
    except DecodeError:
        return
    assert reader.partial == (taken < len(stream))
    rest = stream[taken:]
    whole = 4 + int.from_bytes(rest[:4], "big") if len(rest) >= 4 else 4
    assert len(rest) < whole
    reader.feed(bytes(whole - len(rest) - 1))
    assert reader.next_frame() is None
    assert reader.partial
    if len(rest) >= 4:
        reader.feed(b"\0")
        assert reader.next_frame() == (rest + bytes(whole))[4:whole]


def test_many_frames_in_one_chunk_are_returned_in_order():
    sent = [b"%d" % number for number in range(20_000)]
    reader = FrameReader(100)
    reader.feed(b"".join(map(frame, sent)))
    assert drain(reader) == sent


@pytest.mark.parametrize("length", [0, 101, 2**31, 2**32 - 1])
def test_a_bad_length_is_refused_after_four_bytes(length):
    reader = FrameReader(100)
    reader.feed(length.to_bytes(4, "big")[:3])
    assert reader.next_frame() is None
    reader.feed(length.to_bytes(4, "big")[3:])
    with pytest.raises(DecodeError, match=str(length) if length else "zero"):
        reader.next_frame()


def test_a_frame_of_exactly_the_limit_is_accepted():
    reader = FrameReader(100)
    reader.feed(frame(bytes(100)))
    assert reader.next_frame() == bytes(100)
    assert frame_length(b"\0\0\0\x64", 100) == 100


def test_an_announced_length_allocates_nothing():
    reader = FrameReader(2**32 - 1)
    tracemalloc.start()
    try:
        reader.feed(b"\xff\xff\xff\xfe" + bytes(1000))
        assert reader.next_frame() is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert reader.partial
    assert peak < 50_000


def test_memory_is_freed_as_packets_are_taken():
    reader = FrameReader(100_000)
    tracemalloc.start()
    try:
        for _ in range(200):
            reader.feed(frame(bytes(100_000)) + b"\0\0")
            reader.feed(b"\0\x01x")
            assert len(drain(reader)) == 2
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def test_an_empty_packet_is_never_sent():
    for make in (frame, prefix):
        with pytest.raises(ValueError, match="empty"):
            make(b"")


def test_a_packet_that_arrives_in_single_bytes_takes_no_more_memory():
    packet = bytes(range(250)) * 80
    reader = FrameReader(len(packet))
    tracemalloc.start()
    try:
        for byte in frame(packet)[:-1]:
            reader.feed(bytes([byte]))
            assert reader.next_frame() is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    reader.feed(packet[-1:])
    assert reader.next_frame() == packet
    assert peak < 4 * len(packet) + 50_000


@given(st.lists(st.integers(1, 200_000), min_size=1, max_size=4), st.data())
@QUICK
def test_the_rest_of_a_large_packet_can_be_received_straight_into_its_buffer(sizes, data):
    sent = [bytes([number]) * size for number, size in enumerate(sizes)]
    stream = memoryview(b"".join(map(frame, sent)))
    reader, received = FrameReader(200_000), []
    while stream:
        space = reader.space()
        most = 100_000 if space is None else len(space)
        count = min(len(stream), data.draw(st.integers(1, most) | st.just(most)))
        if space is None:
            reader.feed(bytes(stream[:count]))
        else:
            space[:count] = stream[:count]
            reader.filled(count)
        stream = stream[count:]
        received += drain(reader)
    assert received == sent
    assert not reader.partial


def test_the_reader_offers_its_buffer_for_a_large_packet_once_part_of_it_has_arrived():
    reader = FrameReader(2**30)
    assert reader.space() is None
    reader.feed(frame(bytes(1000))[:-1])
    assert reader.next_frame() is None
    assert reader.space() is None
    reader.feed(b"\0" + frame(bytes(800_000))[:99_000])
    assert reader.next_frame() == bytes(1000)
    assert reader.next_frame() is None
    assert reader.space() is None
    reader.feed(bytes(2000))
    space = reader.space()
    assert reader.space() is space
    assert len(space) == 800_004 - 101_000
    reader.filled(5)
    assert len(reader.space()) == 800_004 - 101_005

"""The replay buffer: messages are numbered and kept until the other end acknowledges them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trio_rpc.util.replay_buffer import ReplayBuffer


def filled(*messages):
    buffer = ReplayBuffer(100, 1000)
    for message in messages:
        buffer.append(message)
    return buffer


def test_numbers_start_at_one_and_go_on_after_an_acknowledgement():
    buffer = ReplayBuffer(10, 10)
    assert buffer.last == 0
    assert [buffer.append(b"a"), buffer.append(b"b")] == [1, 2]
    buffer.acknowledge(2)
    assert (len(buffer), buffer.last, buffer.acknowledged) == (0, 2, 2)
    assert buffer.append(b"c") == 3


def test_the_buffer_has_room_below_its_limits_of_messages_and_bytes():
    by_count, by_bytes = ReplayBuffer(2, 100), ReplayBuffer(100, 4)
    by_count.append(b"a")
    by_bytes.append(b"abc")
    assert by_count.has_room
    assert by_bytes.has_room
    by_count.append(b"")
    by_bytes.append(bytes(1000))
    assert not by_count.has_room
    assert not by_bytes.has_room
    by_count.acknowledge(1)
    by_bytes.acknowledge(2)
    assert by_count.has_room
    assert by_bytes.has_room
    assert by_bytes.size == 0


def test_the_messages_after_a_number_are_replayed():
    buffer = filled(b"a", b"b", b"c")
    assert list(buffer.after(0)) == [(1, b"a"), (2, b"b"), (3, b"c")]
    assert list(buffer.after(2)) == [(3, b"c")]
    assert list(buffer.after(3)) == []
    assert len(buffer) == 3


def test_acknowledging_an_acknowledged_message_changes_nothing():
    buffer = filled(b"a", b"b")
    buffer.acknowledge(1)
    buffer.acknowledge(1)
    buffer.acknowledge(-3)
    assert list(buffer.after(0)) == [(2, b"b")]


@given(st.lists(st.sampled_from(["append", "next", "acknowledge"]), max_size=60))
def test_a_replay_skips_messages_acknowledged_meanwhile_and_yields_each_other_once(steps):
    buffer = filled(b"1", b"2", b"3")
    iterator, met, skipped = buffer.after(0), [], set()
    for step in steps:
        if step == "append":
            buffer.append(b"%d" % (buffer.last + 1))
        elif step == "acknowledge" and len(buffer):
            buffer.acknowledge(buffer.acknowledged + 1)
            skipped.add(buffer.acknowledged)
        elif (
            step == "next"
            and max(buffer.acknowledged, *(number for number, _ in met), 0) < buffer.last
        ):
            met.append(next(iterator))
    met += iterator
    assert all(message == b"%d" % number for number, message in met)
    numbers = [number for number, _ in met]
    assert numbers == sorted(set(numbers))
    assert {*numbers, *skipped} >= set(range(1, buffer.last + 1))

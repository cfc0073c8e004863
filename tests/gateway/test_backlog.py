"""Messages for one client: queued until they are sent, and kept for a client that reconnects."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trio_rpc.gateway.server.backlog import PIECE, Backlog


def filled(*messages: bytes, keeps: bool = True) -> Backlog:
    backlog = Backlog(10_000, 1_000_000, keeps=keeps)
    for message in messages:
        backlog.put(message)
    return backlog


def test_messages_are_numbered_from_one():
    backlog = Backlog(10, 10, keeps=True)
    assert backlog.next_number == 1
    backlog.put(b"a")
    assert backlog.next_number == 2


def test_a_frame_takes_as_many_messages_as_fit_but_at_least_one():
    backlog = filled(b"aa", b"bb", b"cc")
    assert backlog.take(4) == [b"aa", b"bb"]
    assert backlog.take(1) == [b"cc"]
    assert backlog.take(4) == []


def test_a_large_message_shares_no_frame():
    large = b"x" * (PIECE + 1)
    backlog = filled(b"a", large, b"b", b"c", large, large)
    frames = [backlog.take(10 * PIECE) for _ in range(6)]
    assert frames == [[b"a"], [large], [b"b", b"c"], [large], [large], []]


def test_a_backlog_is_full_by_messages_or_by_bytes():
    by_messages = Backlog(2, 100, keeps=True)
    by_messages.put(b"a")
    assert not by_messages.is_full
    by_messages.put(b"b")
    assert by_messages.is_full
    by_bytes = Backlog(100, 3, keeps=True)
    by_bytes.put(b"abc")
    assert by_bytes.is_full


def test_acknowledged_messages_make_room():
    backlog = Backlog(1, 100, keeps=True)
    backlog.put(b"a")
    assert backlog.take(100) == [b"a"]
    assert backlog.is_full
    assert backlog.acknowledge(1)
    assert not backlog.is_full


def test_a_number_that_was_not_sent_cannot_be_acknowledged():
    backlog = filled(b"a", b"b")
    assert not backlog.acknowledge(1)
    backlog.take(1)
    assert not backlog.acknowledge(2)
    assert backlog.acknowledge(1)
    assert backlog.acknowledge(1)  # again, without effect
    assert backlog.acknowledge(-5)
    assert backlog.take(100) == [b"b"]


def test_for_a_client_that_cannot_resume_no_message_is_kept():
    backlog = filled(b"a", b"b", keeps=False)
    assert backlog.take(0) == [b"a"]
    assert not backlog.rewind(0)
    assert backlog.take(0) == [b"b"]
    assert not backlog.has_news


def test_for_a_client_that_can_resume_a_sent_message_is_kept_until_it_is_acknowledged():
    backlog = filled(b"a", b"b")
    assert backlog.take(100) == [b"a", b"b"]
    backlog.were_sent()
    assert backlog.acknowledge(1)
    assert backlog.rewind(1)
    assert backlog.take(100) == [b"b"]


def test_rewinding_to_a_message_that_is_not_kept_is_refused():
    backlog = filled(b"a", b"b")
    backlog.take(100)
    backlog.acknowledge(1)
    assert not backlog.rewind(0)
    assert not backlog.rewind(3)
    assert backlog.rewind(2)
    assert backlog.rewind(2)


@given(st.data())
def test_a_reconnecting_client_gets_each_message_once_and_in_order(data):
    backlog = Backlog(10_000, 1_000_000, keeps=True)
    put: list[bytes] = []
    received: list[bytes] = []
    under_way: list[bytes] = []
    for _ in range(data.draw(st.integers(1, 60), label="steps")):
        step = data.draw(st.sampled_from(["put", "take", "receive", "acknowledge", "cut"]))
        if step == "put":
            put.append(str(len(put)).encode())
            backlog.put(put[-1])
        elif step == "take":
            under_way += backlog.take(data.draw(st.integers(1, 8)))
        elif step == "receive":
            count = data.draw(st.integers(0, len(under_way)))
            received += under_way[:count]
            del under_way[:count]
        elif step == "acknowledge":
            assert backlog.acknowledge(data.draw(st.integers(0, len(received))))
        else:
            under_way.clear()
            assert backlog.rewind(len(received))
        assert received == put[: len(received)]
    under_way.clear()
    assert backlog.rewind(len(received))
    assert received + backlog.take(1_000_000) == put
    assert backlog.acknowledge(len(put))
    assert backlog._buffer.size == 0

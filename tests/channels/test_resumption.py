"""Numbering, acknowledgement and replay of packets, without I/O."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_rpc.channels.resumable.replay import (
    ACK_PACKETS,
    END,
    HEADER,
    MAX_PACKETS,
    Frame,
    Kind,
    Resumption,
    decode,
    encode,
)
from trio_rpc.errors import DecodeError

FRAMES = [
    Frame(Kind.OPEN, rest=b"\1"),
    Frame(Kind.RESUME, ack=5, rest=b"\1" + b"t" * 16),
    Frame(Kind.ACCEPT, ack=2**64 - 1, rest=b"t" * 16),
    Frame(Kind.REFUSE, rest=b"no"),
    Frame(Kind.DATA, 1, 0, b"packet"),
    Frame(Kind.ACK, ack=7),
    Frame(Kind.END, 2**63, 3),
]


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: frame.kind.name)
def test_a_frame_is_decoded_as_it_was_encoded(frame):
    assert decode(encode(frame)) == frame


BAD = {
    "nothing": b"",
    "a short header": encode(FRAMES[5])[:-1],
    "a packet of a session": b"\x93\1\2\3" + bytes(20),
    "an unknown kind": b"\x47" + bytes(16),
    "an Open without a version": encode(Frame(Kind.OPEN)),
    "a Resume with half a token": encode(Frame(Kind.RESUME, rest=b"\1" + bytes(8))),
    "Data without a packet": encode(Frame(Kind.DATA, 1)),
    "Data without a number": encode(Frame(Kind.DATA, 0, 0, b"x")),
    "an Ack with a number": encode(Frame(Kind.ACK, 1)),
    "an Ack with extra bytes": encode(Frame(Kind.ACK, rest=b"x")),
    "a refusal that is too long": encode(Frame(Kind.REFUSE, rest=b"x" * 1001)),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_malformed_frames_are_refused(data):
    with pytest.raises(DecodeError):
        decode(data)


@given(st.binary(max_size=60))
def test_any_bytes_give_a_frame_or_a_decode_error(data):
    try:
        frame = decode(data)
    except DecodeError:
        return
    assert encode(frame) == data


def send(numbers, packet):
    frame = numbers.frame(packet)
    numbers.keep(packet)
    return frame


@pytest.mark.parametrize(
    ("frame", "error_text"),
    [
        (Frame(Kind.DATA, 2, 0, b"x"), "packet 2 came after packet 0"),
        (Frame(Kind.DATA, 1, 1, b"x"), "packet 1 was acknowledged, but never sent"),
        (Frame(Kind.ACK, ack=9), "packet 9 was acknowledged, but never sent"),
        (Frame(Kind.OPEN, rest=b"\1"), "OPEN is allowed only as the first frame"),
    ],
)
def test_a_frame_that_is_not_allowed_now_is_refused(frame, error_text):
    with pytest.raises(DecodeError, match=error_text):
        Resumption(100).receive(encode(frame))


def test_a_packet_after_the_end_is_refused():
    numbers = Resumption(100)
    assert numbers.receive(encode(Frame(Kind.END, 1))) is None
    assert numbers.has_peer_ended
    with pytest.raises(DecodeError, match="after the end"):
        numbers.receive(encode(Frame(Kind.DATA, 2, 0, b"x")))


def test_a_packet_that_arrives_twice_is_delivered_once():
    numbers = Resumption(1000)
    assert numbers.receive(encode(Frame(Kind.DATA, 1, 0, b"first"))) == b"first"
    assert numbers.receive(encode(Frame(Kind.DATA, 2, 0, b"second"))) == b"second"
    for number in (1, 2):
        with pytest.raises(DecodeError, match=f"packet {number} came after packet 2"):
            numbers.receive(encode(Frame(Kind.DATA, number, 0, b"again")))
    assert numbers.receive(encode(Frame(Kind.DATA, 3, 0, b"third"))) == b"third"


def test_acknowledged_packets_cannot_be_requested_again():
    a, b = Resumption(100), Resumption(100)
    b.receive(send(a, b"x"))
    a.receive(b.ack())
    with pytest.raises(DecodeError, match="requested again"):
        list(a.replay(0))


def test_the_buffer_is_bounded_in_bytes_and_in_packets():
    numbers = Resumption(100)
    send(numbers, b"x" * 99)
    assert numbers.has_room
    send(numbers, b"x" * 500)
    assert not numbers.has_room
    numbers.receive(encode(Frame(Kind.ACK, ack=2)))
    for _ in range(MAX_PACKETS):
        assert numbers.has_room
        numbers.keep(END)
    assert not numbers.has_room


def test_an_acknowledgement_is_due_after_many_packets_or_many_bytes_or_the_end():
    a, b = Resumption(10**9), Resumption(100)
    for _ in range(ACK_PACKETS):
        assert not b.is_ack_due
        b.receive(send(a, b"x"))
    assert b.is_ack_due
    b.ack()
    assert not b.is_ack_due
    b.receive(send(a, bytes(300_000)))
    assert b.is_ack_due
    send(b, b"an answer")  # the answer carries the acknowledgement
    assert not b.is_ack_due
    b.receive(a.end())
    assert b.is_ack_due


def test_the_header_has_the_stated_length():
    assert len(send(Resumption(1), b"abc")) == HEADER + 3


@given(st.lists(st.sampled_from(["send", "back", "pass", "return", "ack", "cut"]), max_size=80))
def test_every_packet_arrives_once_and_in_order(steps):
    """Two ends, a link in each direction, and cuts that lose all frames in transit."""
    a, b = Resumption(10**9), Resumption(10**9)
    forth, back = deque(), deque()
    sent, arrived = {a: [], b: []}, {a: [], b: []}

    def push(numbers, link):
        packet = b"%d" % len(sent[numbers])
        sent[numbers].append(packet)
        link.append(send(numbers, packet))

    def deliver(link, numbers):
        if link:
            packet = numbers.receive(link.popleft())
            if packet is not None:
                arrived[numbers].append(packet)

    def cut():
        forth.clear()
        back.clear()
        again, back_again = list(a.replay(b.received)), list(b.replay(a.received))
        forth.extend(again)
        back.extend(back_again)

    for step in steps:
        match step:
            case "send":
                push(a, forth)
            case "back":
                push(b, back)
            case "pass":
                deliver(forth, b)
            case "return":
                deliver(back, a)
            case "ack":
                back.append(b.ack())
            case "cut":
                cut()
        assert arrived[b] == sent[a][: len(arrived[b])]
        assert arrived[a] == sent[b][: len(arrived[a])]
        assert a.unconfirmed >= len(sent[a]) - len(arrived[b])
    cut()
    while forth or back:
        deliver(forth, b)
        deliver(back, a)
    assert (arrived[b], arrived[a]) == (sent[a], sent[b])
    a.receive(b.ack())
    assert a.unconfirmed == 0

"""Forwarding without I/O: legal frames, sharing the carrier, and bounds."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import Counter

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_rpc.channels.forwarding import core as forwarding_core
from trio_rpc.channels.forwarding import frames as forwarding_frames
from trio_rpc.channels.forwarding.core import OVERHEAD, ForwardingCore, Half, TooLarge
from trio_rpc.channels.forwarding.frames import (
    Abort,
    Accept,
    Close,
    Credit,
    Data,
    Goodbye,
    Hello,
    Open,
    Part,
    Refuse,
    decode_frames,
    encode,
    encode_data_header,
)
from trio_rpc.errors import DecodeError, LocalProtocolError, RemoteProtocolError
from trio_rpc.wire.limits import Limits

MAX = 16 * 1024
SMALL = Limits(max_packet=MAX, max_channels=3)
WINDOW = 4 * MAX


def pump(sender, receiver):
    """Deliver all frames that ``sender`` can send, and return the events."""
    events = []
    while (taken := sender.next_packet()) is not None:
        assert len(taken[0]) <= receiver._limits.max_packet
        events += receiver.receive(taken[0])
    return events


def join(limits_a=SMALL, limits_b=SMALL):
    a, b = ForwardingCore(limits_a), ForwardingCore(limits_b)
    assert pump(a, b) == pump(b, a) == []
    return a, b


def open_channel(a, b, name="x"):
    """Return the two ends of a channel that ``a`` opens and ``b`` accepts."""
    here = a.open(name)
    [(there, frame)] = pump(a, b)
    assert type(frame) is Open
    b.accept(there)
    [(heard, frame)] = pump(b, a)
    assert heard is here
    assert type(frame) is Accept
    return here, there


def raw(*frames):
    return b"".join(map(msgpack.packb, frames))


HELLO = [0, 1, MAX, 3]


def peer(*frames):
    """Make a core that has received a Hello and these frames from a hand-written peer."""
    core = ForwardingCore(SMALL)
    core.next_packet()
    events = list(core.receive(raw(HELLO, *frames)))
    return core, [channel for channel, frame in events if type(frame) is Open]


# ── the frames ───────────────────────────────────────────────────────────────────────────────

FRAMES = [
    (Hello(1, 2**18, 256), [0, 1, 2**18, 256]),
    (Open(1, "name", 2**20), [1, 1, "name", 2**20]),
    (Accept(-1, 2**20), [2, -1, 2**20]),
    (Refuse(-1, "why"), [3, -1, "why"]),
    (Data(1, b"x"), [4, 1, b"x"]),
    (Part(-1, b"x"), [5, -1, b"x"]),
    (Credit(1, 500), [6, 1, 500]),
    (Close(-3), [7, -3]),
    (Abort(3, "why"), [8, 3, "why"]),
    (Goodbye("why"), [9, "why"]),
]


@pytest.mark.parametrize(("frame", "wire"), FRAMES, ids=lambda value: type(value).__name__)
def test_a_frame_is_an_array_that_begins_with_its_type(frame, wire):
    assert msgpack.unpackb(encode(frame)) == wire
    assert list(decode_frames(encode(frame) * 3)) == [frame] * 3


@settings(deadline=None)
@given(st.integers(-(2**40), 2**40).filter(bool), st.binary(min_size=1), st.booleans())
def test_a_header_and_content_are_a_frame(number, content, last):
    kind = Data if last else Part
    header = encode_data_header(kind, number, len(content))
    assert len(header) <= forwarding_frames.DATA_HEADER
    assert list(decode_frames(header + content)) == [kind(number, content)]


@settings(deadline=None)
@given(st.binary())
def test_any_bytes_are_frames_or_a_decode_error(packet):
    with contextlib.suppress(DecodeError):
        assert b"".join(map(encode, decode_frames(packet))) or not packet


# ── illegal frames ───────────────────────────────────────────────────────────────────────────

OPEN = [1, 1, "x", 1000]
MALFORMED = {
    "no MessagePack": b"\xc1",
    "half a frame": raw(OPEN)[:-1],
    "a number": raw(7),
    "a map": raw({0: 1}),
    "an empty array": raw([]),
    "no type": raw(["x", 1]),
    "a true type": raw([True, 1]),
    "an unknown type": raw([10, 1]),
    "a field too few": raw([7]),
    "a field too many": raw([7, 1, 1]),
    "a long array": raw([0, 1, MAX, 3, 4]),
    "a true id": raw([7, True]),
    "a text for bytes": raw([4, 1, "x"]),
    "bytes for a text": raw([8, 1, b"x"]),
    "a float": raw([6, 1, 1.0]),
    "an extension": raw([7, msgpack.ExtType(1, b"x")]),
    "a timestamp": raw([7, msgpack.Timestamp(0)]),
    "no UTF-8": b"\x93\x08\x01\xa1\xff",
    "a long reason": raw([8, 1, "x" * 1025]),
    "a long name": raw([1, 1, "x" * 1025, 1]),
    "deep": b"\x91" * 10_000,
    "a claim of many items": b"\xdd\xff\xff\xff\xff",
    "a claim of many bytes": b"\x93\x04\x01\xc6\xff\xff\xff\xff",
}


@pytest.mark.parametrize("packet", MALFORMED.values(), ids=MALFORMED)
def test_malformed_frames_are_decode_errors(packet):
    core, _ = peer()
    with pytest.raises(DecodeError):
        list(core.receive(packet))


ILLEGAL_FIRST = {
    "another version": ([0, 2, MAX, 3], "version 2 of forwarding, this end 1"),
    "small packets": ([0, 1, MAX - 1, 3], "impossible"),
    "a negative number of channels": ([0, 1, MAX, -1], "impossible"),
    "no Hello": (OPEN, "Open came before Hello"),
    "data": ([4, 1, b"x"], "not open"),
}


@pytest.mark.parametrize(("frame", "why"), ILLEGAL_FIRST.values(), ids=ILLEGAL_FIRST)
def test_a_first_frame_other_than_hello_is_illegal(frame, why):
    core = ForwardingCore(SMALL)
    with pytest.raises(RemoteProtocolError, match=why):
        list(core.receive(raw(frame)))


ILLEGAL = {
    "a second Hello": ([HELLO], "second Hello"),
    "an id that is not the next": ([[1, 2, "x", 1000]], "the next id is 1"),
    "an id twice": ([OPEN, OPEN], "the next id is 2"),
    "id 0": ([[1, 0, "x", 1]], "the next id is 1"),
    "an id that only this end may use": ([[1, -1, "x", 1]], "the next id is 1"),
    "no name": ([[1, 1, "", 1]], "without a name"),
    "no credit": ([[1, 1, "x", 0]], "without a name or without credit"),
    "too many": ([[1, number, "x", 1] for number in range(1, 5)], "more than 3 channels"),
    "an Accept of an unknown channel": ([[2, -1, 1000]], "not open"),
    "an Accept for a channel that the peer opened": ([OPEN, [2, 1, 1000]], "Accept for channel 1"),
    "a Refuse for a channel that the peer opened": ([OPEN, [3, 1, "x"]], "Refuse for channel 1"),
    "data for an unknown channel": ([[4, 5, b"x"]], "Data for channel 5, which is not open"),
    "credit for an unknown channel": ([[6, -1, 5]], "not open"),
    "a Close of an unknown channel": ([[7, -1]], "not open"),
    "data before the Accept": ([OPEN, [4, 1, b"x"]], "more than was granted"),
    "credit beyond the window": ([OPEN, [6, 1, 1]], "whose window is 1000"),
    "credit of zero": ([OPEN, [6, 1, 0]], "credit of 0"),
    "negative credit": ([OPEN, [6, 1, -1]], "credit of -1"),
    "a frame after Close": ([OPEN, [7, 1], [6, 1, 1]], "has sent its last frame"),
    "a second Close": ([OPEN, [7, 1], [7, 1]], "has sent its last frame"),
    "an Abort after Close": ([OPEN, [7, 1], [8, 1, "x"]], "has sent its last frame"),
}


@pytest.mark.parametrize(("frames", "why"), ILLEGAL.values(), ids=ILLEGAL)
def test_illegal_frames_raise_remote_protocol_error(frames, why):
    with pytest.raises(RemoteProtocolError, match=why):
        peer(*frames)


ILLEGAL_ANSWERS = {
    "data before an answer": ([[4, -1, b"x"]], "has not answered"),
    "credit before an answer": ([[6, -1, 5]], "has not answered"),
    "a Close as the answer": ([[7, -1]], "has not answered"),
    "an Abort as the answer": ([[8, -1, ""]], "has not answered"),
    "an Accept without credit": ([[2, -1, 0]], "without credit"),
    "two answers": ([[2, -1, 500], [2, -1, 500]], "has opened or accepted"),
    "a Refuse after Accept": ([[2, -1, 500], [3, -1, ""]], "has opened or accepted"),
    "an Accept after Refuse": ([[3, -1, ""], [2, -1, 500]], "last frame|not open"),
    "empty data": ([[2, -1, 500], [4, -1, b""]], "more than was granted"),
    "an empty part": ([[2, -1, 500], [5, -1, b""]], "more than was granted"),
}


@pytest.mark.parametrize(("frames", "why"), ILLEGAL_ANSWERS.values(), ids=ILLEGAL_ANSWERS)
def test_illegal_answers_raise_remote_protocol_error(frames, why):
    core, _ = peer()
    core.open("x")
    core.next_packet()
    with pytest.raises(RemoteProtocolError, match=why):
        list(core.receive(raw(*frames)))


def test_a_packet_beyond_the_limit_is_illegal():
    core, _ = peer()
    with pytest.raises(RemoteProtocolError, match="16385 bytes"):
        list(core.receive(bytes(MAX + 1)))


@pytest.mark.parametrize("number", range(1, 200))
def test_exceeding_the_credit_by_one_byte_is_illegal(number):
    """However a packet is cut, it uses credit for its bytes and, once, for the overhead."""
    core, [channel] = peer(OPEN)
    core.accept(channel)
    size = number % 90 + 1
    spent = 0
    for index in itertools.count():
        last = index % (number % 5 + 1) == 0
        cost = size + (0 if channel.arriving else OVERHEAD)
        frame = raw([4 if last else 5, 1, bytes(size)])
        if spent + cost > WINDOW:
            with pytest.raises(RemoteProtocolError, match="more than was granted"):
                list(core.receive(frame))
            return
        list(core.receive(frame))
        spent += cost


def test_illegal_calls_of_this_end_raise_local_protocol_error():
    a, b = join()
    here, there = open_channel(a, b)
    with pytest.raises(LocalProtocolError):
        b.accept(there)
    a.send(here, b"x")
    with pytest.raises(LocalProtocolError):
        a.send(here, b"y")
    pump(a, b)
    a.close(here)
    with pytest.raises(LocalProtocolError):
        a.send(here, b"z")
    for name in ("", "x" * 1025):
        with pytest.raises(ValueError):
            a.open(name)
    while a.room:
        a.open("y")
    with pytest.raises(LocalProtocolError):
        a.open("y")


# ── closing and aborting ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("words", [*itertools.product(["close", "abort"], repeat=2)], ids=str)
@pytest.mark.parametrize("crossing", [False, True])
def test_a_channel_is_forgotten_once_both_ends_have_closed_or_aborted_it(words, crossing):
    a, b = join()
    for _ in range(5):  # more often than there are places
        here, there = open_channel(a, b)
        a.close(here) if words[0] == "close" else a.abort(here, "x")
        if not crossing:
            pump(a, b)
            assert len(a) == len(b) == 1  # the other end's user has not closed it
        b.close(there) if words[1] == "close" else b.abort(there, "x")
        pump(b, a)
        pump(a, b)
        assert len(a) == len(b) == 0
        assert a.room == 3


@pytest.mark.parametrize("crossing", [False, True])
def test_a_refused_channel_is_forgotten_at_both_ends(crossing):
    a, b = join()
    for _ in range(5):
        here = a.open("x")
        [(there, _)] = pump(a, b)
        b.close(there, "no")
        if crossing:
            a.close(here)
            pump(a, b)
        [(heard, frame)] = pump(b, a)
        assert heard is here
        assert frame.reason == "no"
        pump(a, b)
        assert len(a) == len(b) == 0


@pytest.mark.parametrize("answer", ["accept", "refuse"])
def test_a_channel_closed_before_its_answer_is_forgotten(answer):
    a, b = join()
    here = a.open("x")
    a.close(here)
    (there, _), (_, frame) = pump(a, b)
    assert type(frame) is Close
    if answer == "accept":
        b.accept(there)
    b.close(there)
    pump(b, a)
    assert len(a) == len(b) == 0


def test_an_answer_that_crosses_the_close_of_its_channel_is_legal():
    a, b = join()
    here = a.open("x")
    [(there, _)] = pump(a, b)
    a.close(here)
    b.accept(there)
    b.send(there, b"nobody wants this")
    pump(b, a)
    pump(a, b)
    b.close(there)
    pump(b, a)
    assert len(a) == len(b) == 0


def test_late_data_for_a_closed_channel_is_dropped():
    a, b = join()
    here, there = open_channel(a, b)
    b.close(there)
    a.send(here, b"late")
    assert pump(a, b) == []
    [(_, frame)] = pump(b, a)
    assert type(frame) is Close
    with pytest.raises(LocalProtocolError):
        a.send(here, b"too late")


def test_parts_for_a_closed_channel_use_the_right_amount_of_credit():
    a, b = join(limits_b=Limits(max_packet=4 * MAX))
    here, there = open_channel(b, a)  # a packet may have 4 * MAX bytes, a carrier's packet MAX
    b.send(here, bytes(3 * MAX))
    packet, _ = b.next_packet()
    list(a.receive(packet))
    a.close(there)
    assert pump(b, a) == []
    assert there.granted == WINDOW - 3 * MAX - OVERHEAD


def test_a_waiting_packet_is_dropped_when_the_other_end_has_closed():
    a, b = join()
    here, there = open_channel(a, b)
    for _ in range(3):
        a.send(here, bytes(MAX))
        pump(a, b)
    a.send(here, bytes(MAX))
    pump(a, b)
    assert here.packet is not None  # there is not enough credit for it
    b.close(there)
    a.close(here)
    pump(b, a)
    assert [frame for _, frame in pump(a, b)] == [Close(1)]
    assert len(a) == len(b) == 0
    assert not a.has_data


def test_a_close_is_sent_after_the_waiting_packet():
    a, b = join()
    here, there = open_channel(a, b)
    a.send(here, b"x" * 100)
    a.close(here)
    packet, emptied = a.next_packet()
    assert emptied == [here]
    assert [type(frame) for _, frame in b.receive(packet)] == [Data, Close]
    assert there.theirs is Half.DONE


def test_an_abort_drops_the_waiting_packet():
    a, b = join()
    here, _ = open_channel(a, b)
    a.send(here, b"x" * 100)
    a.abort(here, "why")
    assert [frame for _, frame in pump(a, b)] == [Abort(1, "why")]


def test_a_packet_that_grows_too_large_aborts_its_channel():
    a, b = join(limits_b=Limits(max_packet=2 * MAX))
    here, there = open_channel(b, a)
    b.send(here, bytes(MAX + 1))
    *parts, (channel, event) = pump(b, a)
    assert {type(part) for _, part in parts} == {Part}
    assert channel is there
    assert event == TooLarge(there.id, MAX)
    [(channel, frame)] = pump(a, b)
    assert channel is here
    assert type(frame) is Abort
    b.close(here)
    pump(b, a)
    assert len(a) == len(b) == 0


def test_after_a_failure_only_goodbye_is_sent():
    a, b = join()
    here, _ = open_channel(a, b)
    a.send(here, b"x")
    a.fail("your fault")
    assert pump(a, b) == [(None, Goodbye("your fault"))]
    assert len(a) == 0
    a.close(here)
    assert not a.has_data


@pytest.mark.parametrize("accepted", [False, True])
def test_answers_for_a_peer_that_does_not_read_are_bounded(accepted):
    core, _ = peer()
    with pytest.raises(RemoteProtocolError, match="more than 3 channels"):
        for number in range(1, 100):
            for channel, frame in core.receive(raw([1, number, "x", 9], [7, number])):
                if type(frame) is Open and accepted:
                    core.accept(channel)
                if type(frame) is Open:
                    core.close(channel, "no")
    assert len(core._control) <= 3 * 2


def test_a_peer_that_does_not_read_gets_no_more_credit():
    core, [channel] = peer(OPEN)
    core.accept(channel)
    with pytest.raises(RemoteProtocolError, match="more than was granted"):
        for _ in range(9):
            list(core.receive(raw([4, 1, bytes(MAX // 2)])))
            core.taken(channel, MAX // 2)
    assert len(core._owing) == 1


def test_a_channel_is_in_the_round_only_once():
    a, b = join()
    here, there = open_channel(a, b)
    for _ in range(2):
        a.send(here, bytes(MAX))
        pump(a, b)
        b.taken(there, MAX)
    a.send(here, b"waits")
    pump(b, a)
    assert here.credit == WINDOW
    assert len(a._round) == 1


# ── batching and fairness ────────────────────────────────────────────────────────────────────


def kinds(packet):
    return [type(frame) for frame in decode_frames(packet)]


def test_all_waiting_frames_leave_in_one_packet_control_frames_first():
    a, b = join()
    pairs = [open_channel(a, b) for _ in range(2)]
    a.send(pairs[0][0], b"x" * 10)
    a.send(pairs[1][0], b"y" * 10)
    a.open("z")
    a.close(pairs[1][0])
    packet, emptied = a.next_packet()
    assert kinds(packet) == [Open, Data, Data, Close]
    assert emptied == [pairs[0][0], pairs[1][0]]
    assert a.next_packet() is None


def test_packets_of_the_carrier_are_full_but_bounded():
    limits = Limits(max_packet=MAX, max_channels=100)
    a, b = join(limits, limits)
    channels = [open_channel(a, b)[0] for _ in range(100)]
    for channel in channels:
        a.send(channel, bytes(1000))
    sizes = []
    while (taken := a.next_packet()) is not None:
        sizes.append(len(taken[0]))
    assert len(sizes) == -(-100 * 1009 // MAX)
    assert max(sizes) <= MAX
    assert all(size > MAX - 1009 for size in sizes[:-1])


def test_control_frames_are_split_over_full_packets():
    limits = Limits(max_packet=MAX, max_channels=100)
    a, _ = join(limits, limits)
    for _ in range(100):
        a.open("x" * 1000)
    sizes = []
    while (taken := a.next_packet()) is not None:
        sizes.append(len(taken[0]))
    assert len(sizes) == 7
    assert all(MAX - 1010 <= size <= MAX for size in sizes[:-1])


def test_a_large_packet_does_not_delay_small_ones():
    limits = Limits(max_packet=16 * MAX, max_channels=100)
    a, b = join(limits, limits)
    large, *small = [open_channel(a, b)[0] for _ in range(40)]
    a.send(large, bytes(16 * MAX))
    for channel in small:
        a.send(channel, b"x" * 100)
    packet, emptied = a.next_packet()
    frames = list(decode_frames(packet))
    assert emptied == small
    assert [type(frame) for frame in frames] == [Part] + [Data] * 39 + [Part]
    assert len(frames[0].content) == forwarding_core.SHARE
    assert len(packet) > 16 * MAX - forwarding_frames.DATA_HEADER
    assert kinds(a.next_packet()[0]) == [Data]


def test_large_packets_take_turns():
    a, b = join(limits_b=Limits(max_packet=8 * MAX, max_channels=9))
    pairs = [open_channel(b, a) for _ in range(3)]
    for here, _ in pairs:
        b.send(here, bytes(3 * MAX))
    order = []
    while (taken := b.next_packet()) is not None:
        order += [frame.id for frame in decode_frames(taken[0])]
    assert {number for number, _ in itertools.groupby(order)} == {1, 2, 3}
    assert all(count >= 3 for count in Counter(order).values())
    assert len(list(itertools.groupby(order))) >= 9  # no channel sent all of its packet at once


def test_a_stopped_channel_leaves_the_round():
    a, b = join()
    stopped, _ = open_channel(a, b)
    other, _ = open_channel(a, b)
    while True:
        a.send(stopped, bytes(MAX))
        pump(a, b)
        if stopped.packet is not None:
            break
    assert a.has_data
    assert not a.can_send
    for _ in range(10):
        a.send(other, b"x")
        pump(a, b)
    assert stopped.credit == 0


def test_credit_is_granted_in_halves_of_a_window():
    a, b = join()
    here, there = open_channel(a, b)
    for _ in range(10):
        for _ in range(2):
            a.send(here, bytes(MAX))
            pump(a, b)
        b.taken(there, MAX)
        assert not b.can_send
        b.taken(there, MAX)
        pump(b, a)
        assert here.credit == WINDOW


# ── everything together ──────────────────────────────────────────────────────────────────────


class CoresModel:
    """Two cores, the packets in transit, and records of their users' events."""

    def __init__(self):
        limits = Limits(max_packet=2 * MAX, max_channels=3), Limits(max_packet=MAX, max_channels=4)
        self.cores = [ForwardingCore(each) for each in limits]
        self.wires = [[], []]
        """The packets in transit from each end."""
        self.ends = [{}, {}]
        """The channels at each end that its user has not closed, by id."""
        self.sent = {}
        self.inbox = {}
        self.received = {}
        self.ended = {}
        """The last frame about a channel that the user at an end has received."""
        self.closed = {}
        self.number = 0

    def key(self, side, number):
        """Return a key for a channel's direction from ``side``, which is the same at both ends."""
        return (number > 0) == (side == 0), abs(number), side

    def leave(self, side):
        taken = self.cores[side].next_packet()
        if taken is not None:
            self.wires[side].append(taken[0])

    def arrive(self, side):
        """Deliver one packet that ``side`` has sent."""
        if not self.wires[side]:
            return
        other = 1 - side
        for channel, frame in self.cores[other].receive(self.wires[side].pop(0)):
            match frame:
                case Open():
                    self.ends[other][channel.id] = channel
                case Data(content=packet):
                    assert channel.id in self.ends[other], (
                        "data for a channel that the user has closed"
                    )
                    self.inbox.setdefault(self.key(side, -channel.id), []).append(packet)
                case Close() | Abort() | Refuse():
                    self.ended[self.key(side, -channel.id)] = type(frame)

    def open(self, side):
        core = self.cores[side]
        if core.room > 0:
            channel = core.open("x")
            self.ends[side][channel.id] = channel

    def pick(self, side, number):
        channels = list(self.ends[side].values())
        return channels[number % len(channels)] if channels else None

    def accept(self, side, channel):
        if channel.ours is Half.SILENT:
            self.cores[side].accept(channel)

    def send(self, side, channel, size):
        if channel.ours is not Half.TALKING or channel.theirs is not Half.TALKING:
            return
        if channel.packet is None:
            self.number += 1
            packet = (self.number.to_bytes(8) * (size // 8 + 1))[:size]
            self.cores[side].send(channel, packet)
            self.sent.setdefault(self.key(side, channel.id), []).append(packet)

    def take(self, side, channel):
        key = self.key(1 - side, -channel.id)
        if self.inbox.get(key):
            packet = self.inbox[key].pop(0)
            self.received.setdefault(key, []).append(packet)
            self.cores[side].taken(channel, len(packet))

    def close(self, side, channel, *, abort=False):
        del self.ends[side][channel.id]
        self.closed[self.key(side, channel.id)] = abort
        if abort:
            self.cores[side].abort(channel, "x")
        else:
            self.cores[side].close(channel)

    def check(self):
        for key, received in self.received.items():
            assert self.sent[key][: len(received)] == received
        for core in self.cores:
            assert len(set(core._round)) == len(core._round)
            for channel in core._channels.values():
                assert 0 <= channel.credit <= max(channel.window, 0)
                assert 0 <= channel.granted <= core._window
                assert len(channel.partial) <= core._limits.max_packet

    def finish(self):
        """Receive all packets, then close all channels, and check that nothing is left."""
        for closing in (False, True):
            for _ in range(200):
                for side in (0, 1):
                    for channel in list(self.ends[side].values()):
                        self.accept(side, channel)
                        self.take(side, channel)
                        if closing:
                            self.close(side, channel)
                    self.leave(side)
                    self.arrive(side)
            if not closing:
                self.assert_nothing_lost()
        for core in self.cores:
            assert len(core) == 0
            assert not core.has_data
            assert core._opened == core._accepted == 0
        assert self.wires == [[], []]

    def assert_nothing_lost(self):
        """Check that all packets of channels that were neither closed nor aborted have arrived."""
        for key, sent in self.sent.items():
            opened_by_first, number, side = key
            other = (opened_by_first, number, 1 - side)
            if not self.closed.get(key) and other not in self.closed:
                assert self.received.get(key, []) == sent


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "open",
                "accept",
                "send",
                "send",
                "send",
                "take",
                "take",
                "leave",
                "leave",
                "arrive",
                "arrive",
                "close",
                "abort",
            ]
        ),
        st.integers(0, 1),
        st.integers(0, 5),
        st.sampled_from([1, 8, 100, 700, 5000, MAX - 16, MAX]),
    ),
    max_size=150,
)


@settings(deadline=None)
@given(STEPS, st.sampled_from([600, 1000, 16 * 1024]))
def test_after_any_steps_packets_are_in_order_and_none_is_lost(steps, share):
    link = CoresModel()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forwarding_core, "SHARE", share)
        for step, side, number, size in steps:
            if step in ("leave", "arrive", "open"):
                getattr(link, step)(side)
                continue
            channel = link.pick(side, number)
            if channel is None:
                continue
            if step == "send":
                link.send(side, channel, size)
            elif step == "abort":
                link.close(side, channel, abort=True)
            else:
                getattr(link, step)(side, channel)
            link.check()
        link.finish()


@settings(deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=5), st.randoms(use_true_random=False))
def test_hostile_frames_raise_or_are_bounded(packets, random):
    """Receive legal frames, then bytes that are almost frames."""
    core, channels = peer(OPEN, [1, 2, "y", 50])
    core.accept(channels[0])
    for packet in packets:
        mutated = bytearray(raw([4, 1, packet], [random.randrange(10), random.randrange(-3, 3)]))
        mutated[random.randrange(len(mutated))] = random.randrange(256)
        try:
            list(core.receive(bytes(mutated)))
        except (DecodeError, RemoteProtocolError):
            break
    assert len(core) <= SMALL.max_channels


def test_invalid_names_raise_at_the_opener():
    core, _ = peer()
    for name in (os.fsdecode(b"\xff"), "x" * 1025):
        with pytest.raises(ValueError):
            core.open(name)

"""The protocol of NATS: both directions, any bytes in any slices, and bounds."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from helpers.nats_events import encode
from hypothesis import given
from hypothesis import strategies as st

from trio_rpc.errors import DecodeError
from trio_rpc.nats import parser as p

subjects = st.from_regex(r"[A-Za-z0-9_-]{1,10}(\.[A-Za-z0-9_-]{1,10}){0,3}", fullmatch=True)
replies = st.just("") | subjects
sids = st.integers(0, 2**53 - 1)
headers = st.just(b"") | st.dictionaries(
    st.from_regex(r"[A-Za-z]{1,8}", fullmatch=True),
    st.from_regex(r"[ -~]{0,20}", fullmatch=True),
    min_size=1,
    max_size=3,
).map(p.format_headers)
facts = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=4)

messages = st.builds(p.Msg, subjects, sids, replies, st.binary(max_size=300), headers)
publishings = st.builds(p.Pub, subjects, replies, st.binary(max_size=300), headers)
EVENTS = st.one_of(
    messages,
    publishings,
    st.builds(p.Sub, subjects, replies, sids),
    st.builds(p.Unsub, sids, st.integers(0, 10)),
    st.builds(p.Info, facts),
    st.builds(p.Connect, facts),
    st.sampled_from([p.Ping(), p.Pong(), p.Ok(), p.Err("Authorization Violation")]),
)


def slices(data, cuts):
    """Cut bytes at these places."""
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(places)]


@given(st.lists(EVENTS, max_size=8), st.lists(st.integers(0, 10_000), max_size=20))
def test_each_event_is_parsed_equal_in_any_slices(events, cuts):
    parser = p.Parser()
    data = b"".join(map(encode, events))
    parsed = [event for part in slices(data, cuts) for event in parser.feed(part)]
    assert parsed == events
    assert [type(each) for each in parsed] == [type(each) for each in events]


@given(
    st.lists(
        st.binary(max_size=40)
        | st.sampled_from(
            [b"\r\n", b"MSG a 1 ", b"HMSG a 1 2 ", b"INFO {", b"5\r\nhello\r\n", b" "]
        ),
        max_size=30,
    )
)
def test_any_bytes_give_events_or_a_decode_error(parts):
    parser = p.Parser(max_payload=1000)
    try:
        for part in parts:
            for event in parser.feed(part):
                assert isinstance(event, p.Event)
                if isinstance(event, p.Msg):
                    assert 0 <= event.status < 1000
                    event.header("a")
    except DecodeError:
        pass


@given(messages, st.data())
def test_a_flipped_bit_gives_events_or_a_decode_error(message, data):
    sent = bytearray(encode(message))
    sent[data.draw(st.integers(0, len(sent) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with contextlib.suppress(DecodeError):
        p.Parser().feed(bytes(sent))


@pytest.mark.parametrize(
    "line",
    [
        b"MSG a 1 1001\r\n",
        b"MSG a 1 -1\r\n",
        b"MSG a 1 1e3\r\n",
        b"MSG a 1\r\n",
        b"MSG a b c d e\r\n",
        b"MSG a 99999999999999999999 1\r\n",
        b"HMSG a 1 6 5\r\n",
        b"MSG a 1 2\r\nabXX",
        b"PUB a b c d\r\n",
        b"INFO []\r\n",
        b"INFO {\r\n",
        b"INFO " + b"[" * 10_000 + b"\r\n",
        b"SUB a\r\n",
        b"UNSUB\r\n",
        b"GET / HTTP/1.1\r\n",
        b"\r\n",
        b"MSG " + b"a" * 5000,
        b"MSG " + b"a" * 5000 + b"\r\n",
        b"INFO " + b" " * 40_000,
    ],
)
def test_bytes_against_the_protocol_are_refused(line):
    with pytest.raises(DecodeError):
        p.Parser(max_payload=1000).feed(line)


def test_a_payload_keeps_no_more_than_itself_while_it_arrives():
    parser = p.Parser()
    parser.feed(b"MSG a 1 1000000\r\n")
    for _ in range(999):
        assert parser.feed(bytes(1000)) == []
    [message] = parser.feed(bytes(1000) + b"\r\n")
    assert message.data == bytes(1_000_000)


def test_the_status_and_the_headers_of_a_message():
    nobody = p.Msg("a", 1, "", b"", b"NATS/1.0 503\r\n\r\n")
    assert nobody.status == 503
    message = p.Msg("a", 1, "", b"", p.format_headers({"Number": "7", "Other": "x: y"}))
    assert message.status == 0
    assert message.header("Number") == "7"
    assert message.header("Other") == "x: y"
    assert message.header("number") is None


@pytest.mark.parametrize("bad", [{"a": "b\r\nc"}, {"a\n": "b"}, {"a:b": "c"}, {"": "c"}])
def test_a_header_cannot_begin_another_line(bad):
    with pytest.raises(ValueError, match="not a header"):
        p.format_headers(bad)

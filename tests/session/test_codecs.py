"""Codecs that users give to a session: their comparison in the handshake, and faulty codecs."""

from __future__ import annotations

import datetime as dt
import math

import pytest
import trio
from helpers.handlers import Echo
from helpers.raw_peer import HELLO, session_with_raw_peer
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc import (
    DecodeError,
    EncodeError,
    Fate,
    Refused,
    RemoteError,
    RemoteProtocolError,
    SessionBroken,
    TypeRegistry,
    codecs,
    open_session,
)
from trio_rpc.codecs import JsonCodec, ReadBuffer
from trio_rpc.testing import memory_channel_pair
from trio_rpc.wire import messages as m
from trio_rpc.wire.codec import Codec
from trio_rpc.wire.coded import CodedCodec


class Point:
    def __init__(self, x):
        self.x = x

    def __eq__(self, other):
        return type(other) is Point and other.x == self.x

    __hash__ = None


def registry(*tags):
    made = TypeRegistry()
    for tag in tags:
        made.register(tag, type(f"Type{tag}", (), {}), str, str)
    return made


class Named(JsonCodec):
    """JSON under another name or version."""

    def __init__(self, name="json", version=1):
        self.name = name
        self.version = version


# ── the handshake ────────────────────────────────────────────────────────────────────────────

MISFITS = {
    "one codec": ({"codec": JsonCodec()}, {}, "json version 1", "msgpack version 1"),
    "another name": (
        {"codec": JsonCodec()},
        {"codec": Named("yaml")},
        "json version 1",
        "yaml version 1",
    ),
    "another version": (
        {"codec": JsonCodec()},
        {"codec": Named(version=2)},
        "json version 1",
        "json version 2",
    ),
    "more tags": ({"registry": registry(64, 66)}, {"registry": registry(64)}, "64, 66", "64"),
    "other tags": ({"registry": registry(64)}, {"registry": registry(65)}, "tags 64", "tags 65"),
    "no tags": ({"registry": registry(64)}, {}, "the tags 64", "no tags"),
}


@pytest.mark.parametrize("misfit", MISFITS.values(), ids=MISFITS)
async def test_ends_that_do_not_fit_refuse_each_other_and_both_name_both(misfit, no_time):
    """Both ends need the same codec and the same tags."""
    options_a, options_b, text_a, text_b = misfit
    ends = memory_channel_pair()
    refused = []

    async def is_refused(channel, options, ours, theirs):
        with pytest.raises(Refused) as caught:
            async with open_session(channel, Echo(), **options):
                raise AssertionError("it must not open")
        here, _, there = str(caught.value).partition("the other end")
        assert ours in here
        assert theirs in there
        refused.append(caught.value.fate)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(is_refused, ends[0], options_a, text_a, text_b)
        nursery.start_soon(is_refused, ends[1], options_b, text_b, text_a)
    assert refused == [Fate.NOT_STARTED] * 2


async def test_registries_with_the_same_tags_fit_in_any_order_and_with_other_classes(
    session_pair, no_time
):
    options_a, options_b = {"registry": registry(65, 64)}, {"registry": registry(64, 65)}
    async with session_pair(Echo(), options_a=options_a, options_b=options_b) as (_, b):
        assert await b.call("echo", 1) == 1


@pytest.mark.parametrize(
    "extra",
    [
        {"codec": "msgpack"},
        {"codec": ["msgpack"]},
        {"codec": ["msgpack", True]},
        {"codec": ["msgpack", -1]},
        {"codec": None},
        {"tags": 64},
        {"tags": [True]},
        {"tags": {}},
        {"tags": list(range(64, 128)) * 50},
        {"codec": ["x" * 10_000, 1]},
    ],
    ids=repr,
)
async def test_a_malformed_codec_or_tags_in_a_hello_are_refused_in_one_line(extra, no_time):
    ours, theirs = memory_channel_pair()
    await theirs.send(Codec().encode(m.Hello(1, HELLO.info | extra)))
    with pytest.raises(Refused) as caught:
        async with open_session(ours):
            raise AssertionError("it must not open")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


async def test_the_usual_codec_without_types_adds_nothing_to_a_hello(no_time):
    async with session_with_raw_peer() as (_, peer):
        [hello] = [each for each in peer.received if isinstance(each, m.Hello)]
    assert hello.info.keys() & {"codec", "tags"} == set()


# ── values ───────────────────────────────────────────────────────────────────────────────────


async def test_json_is_on_the_wire_and_all_values_arrive_as_they_were(no_time):
    """Encoder and decoder can be replaced: they write to a buffer, and read from one, without sending."""
    ours, theirs = memory_channel_pair()
    packets = []
    ours.on_send = lambda packet: packets.append(packet) or packet
    types = TypeRegistry()
    types.register(64, Point, lambda point: point.x, Point)
    options = {"codec": JsonCodec(), "registry": types}
    values = [
        [None, True, 1, -1.5, 1e300, "é\u2028\0", [], {}],
        {"$bytes": 1, "b": {"$": 2}},
        {1: "a", (2, 3): b"c", b"d": 4},
        (1, (2,), {3}, frozenset({4})),
        [2**70, -(2**64), 1j, dt.timedelta(-1, 5), dt.datetime(2026, 1, 2, tzinfo=dt.UTC)],
        Point([1, (2,)]),
        bytes(range(256)) * 2_000,
    ]
    async with (
        trio.open_nursery() as nursery,
        _pair(nursery, ours, theirs, options) as session,
    ):
        for value in values:
            result = await session.call("echo", value)
            assert result == value
            assert type(result) is type(value)

        async def double(x):
            return 2 * x

        assert await session.call("apply", double, 4) == 8
        assert await session.call("echo", 7) == 7
    assert any(b'[1,9,"echo",[7]' in packet for packet in packets)


class Applies(Echo):
    @trio_rpc.method
    async def apply(self, function, value):
        return await function(value)


def _pair(nursery, ours, theirs, options):
    nursery.start_soon(_serve, theirs, options)
    return open_session(ours, **options)


async def _serve(channel, options):
    await trio_rpc.serve_session(channel, Applies(), **options)


async def test_json_cannot_say_nan_so_nothing_is_sent(session_pair, no_time):
    options = {"codec": JsonCodec()}
    async with session_pair(Echo(), options_a=options, options_b=options) as (_, b):
        for value in (math.nan, [math.inf], {"a": -math.inf}):
            with pytest.raises(EncodeError, match="JSON cannot represent it") as caught:
                await b.call("echo", value)
            assert caught.value.fate is Fate.NOT_STARTED
        assert await b.call("echo", 1) == 1


# ── codecs that misbehave ────────────────────────────────────────────────────────────────────


class Unable(JsonCodec):
    """Cannot write the text "strange", and cannot read the text "evil"."""

    def encode(self, message, buffer):
        if "strange" in repr(message):
            raise ZeroDivisionError("a bad value")
        super().encode(message, buffer)

    def decode(self, buffer):
        value = super().decode(buffer)
        if "evil" in repr(value):
            raise ZeroDivisionError("an evil value")
        return value


class Strange:
    @trio_rpc.method
    async def result(self):
        return "strange"

    @trio_rpc.method
    async def echo(self, value):
        return value


async def test_a_codec_that_raises_fails_the_call_whose_message_it_cannot_write(
    session_pair, no_time
):
    options = {"codec": Unable()}
    async with session_pair(Strange(), options_a=options, options_b=options) as (a, b):
        received = a.statistics().messages_received
        with pytest.raises(EncodeError, match="the codec json raised ZeroDivisionError") as caught:
            await b.call("echo", "strange")
        assert caught.value.fate is Fate.NOT_STARTED
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        await wait_all_tasks_blocked()
        assert a.statistics().messages_received == received
        assert await b.call("echo", 1) == 1
    async with session_pair(Strange(), options_a=options, options_b=options) as (_, b):
        with pytest.raises(RemoteError, match="the codec json raised"):
            await b.call("result")
        assert await b.call("echo", 1) == 1


async def test_law_4_a_codec_that_can_write_no_error_leaves_no_call_without_an_answer(
    session_pair, no_time
):
    class NoErrors(JsonCodec):
        def encode(self, message, buffer):
            if message[0] == m.ReplyErr.TYPE:
                raise ZeroDivisionError
            super().encode(message, buffer)

    options = {"codec": NoErrors()}
    async with session_pair(Strange(), options_a=options, options_b=options) as (_, b):
        with pytest.raises(trio_rpc.MethodNotFound):
            await b.call("missing")
        assert await b.call("echo", 1) == 1


async def test_a_message_that_a_codec_cannot_read_ends_that_session_only(session_pair, no_time):
    strict, lax = {"codec": Unable()}, {"codec": JsonCodec()}
    async with (
        session_pair(Echo(), options_a=strict, options_b=lax, on_end="keep") as (a, b),
        session_pair(Echo(), options_a=strict, options_b=lax) as (_, other),
    ):
        with pytest.raises(SessionBroken, match="broke the protocol"):
            await b.call("echo", "evil")
        end = await a.wait_closed()
        assert isinstance(end.cause, RemoteProtocolError)
        assert "the codec json cannot read it: ZeroDivisionError('an evil value')" in end.reason
        assert await other.call("echo", 1) == 1


# ── bytes that a peer must not send ──────────────────────────────────────────────────────────

CODED = CodedCodec(Codec(), JsonCodec())
PLAIN = Codec()


def coded(number, call, text):
    return PLAIN._packer.pack([18, number, call, text])


BAD = {
    "a Request that is not in the codec": PLAIN.encode(m.Request(1, "echo", [1])),
    "a control message in the codec": coded(13, None, b"[13,1]"),
    "another type": coded(2, 1, b'[1,1,"echo",[1]]'),
    "another id": coded(1, 2, b'[1,1,"echo",[1]]'),
    "a value that follows": coded(1, 1, b'[1,1,"echo",[1]] 2'),
    "no JSON": coded(1, 1, b"\xff"),
    "no bytes": coded(1, 1, '[1,1,"echo",[1]]'),
    "too few elements": PLAIN._packer.pack([18, 1, 1]),
    "too many values around": b"\x94\x12" + b"\x90" * 1000,
    "a key twice": coded(1, 1, b'[1,1,"echo",[{"a":1,"a":2}]]'),
    "NaN": coded(1, 1, b'[1,1,"echo",[NaN]]'),
    "deep": coded(1, 1, b'[1,1,"echo",[' + b"[" * 100 + b"]" * 100 + b"]]"),
    "very deep": coded(1, 1, b"[" * 15_000),
    "many values": coded(1, 1, b'[1,1,"echo",[[' + b"0," * 7_000 + b"0]]]"),
    "an unknown mark": coded(1, 1, b'[1,1,"echo",[{"$what":1}]]'),
    "a mark and more": coded(1, 1, b'[1,1,"echo",[{"$bytes":"","a":1}]]'),
    "no base64": coded(1, 1, b'[1,1,"echo",[{"$bytes":"?"}]]'),
    "an extension that is reserved": coded(1, 1, b'[1,1,"echo",[{"$ext":[-2,{"$bytes":""}]}]]'),
    "an extension whose code is true": coded(1, 1, b'[1,1,"echo",[{"$ext":[true,[]]}]]'),
    "an id in an extension": coded(1, 1, b'[1,{"$ext":[10,{"$bytes":"AQ=="}]},"echo",[1]]'),
    "a space before the array": coded(1, 1, b' [1,1,"echo",[1]]'),
    "a timestamp of 5 bytes": coded(1, 1, b'[1,1,"echo",[{"$ext":[-1,{"$bytes":"AAAAAAA="}]}]]'),
    "an extension of another form": coded(1, 1, b'[1,1,"echo",[{"$ext":[4,5]}]]'),
    "a set with a list": coded(1, 1, b'[1,1,"echo",[{"$ext":[2,[[1]]]}]]'),
    "a reference in a Reply": coded(1, 1, b'[1,0,"echo",[1]]'),
    "a number that is too large": coded(1, 1, b'[1,1,"echo",[' + b"9" * 100 + b"]]"),
}


@pytest.mark.parametrize("packet", BAD.values(), ids=BAD)
async def test_law_14_bad_input_in_a_codec_ends_that_session(packet, no_time):
    limits = trio_rpc.Limits(max_nodes=5_000)
    with pytest.raises(DecodeError):
        list(CodedCodec(Codec(None, limits), JsonCodec()).decode(packet))
    ours, theirs = memory_channel_pair()
    hello = m.Hello(1, HELLO.info | {"codec": ["json", 1]})
    await theirs.send(PLAIN.encode(hello) + PLAIN.encode(m.Welcome()))
    async with open_session(
        ours, Echo(), codec=JsonCodec(), limits=limits, on_end="keep"
    ) as session:
        await theirs.send(packet)
        end = await session.wait_closed()
        assert end.by == "peer"
        assert isinstance(end.cause, RemoteProtocolError)


async def test_a_message_in_a_codec_that_was_not_agreed_ends_the_session(no_time):
    async with session_with_raw_peer(Echo()) as (session, peer):
        await peer.channel.send(coded(1, 1, b'[1,1,"echo",[1]]'))
        assert isinstance((await session.wait_closed()).cause, RemoteProtocolError)


async def test_json_with_too_many_values_is_refused_before_they_are_made(monkeypatch):
    data = b"[" + b"0," * 10_000 + b"0]"
    with monkeypatch.context() as patch:
        patch.delattr(codecs.json, "loads")
        with pytest.raises(DecodeError, match="more than 10000 values"):
            JsonCodec().decode(ReadBuffer(data, 10_000))
    assert len(JsonCodec().decode(ReadBuffer(data, 10_001))) == 10_001


async def test_a_timestamp_of_messagepack_may_come_in_json():
    [request] = CodedCodec(Codec(), JsonCodec()).decode(
        coded(1, 1, b'[1,1,"echo",[{"$ext":[-1,{"$bytes":"ZVPxAA=="}]}]]')
    )
    assert request.args == [dt.datetime(2023, 11, 14, 22, 13, 20, tzinfo=dt.UTC)]


async def test_signs_in_json_texts_do_not_count_as_values():
    text = '["' + ",[{:" * 10_000 + '","a\\"b,,,,,,\\\\"]'
    assert len(JsonCodec().decode(ReadBuffer(text.encode(), 100))) == 2


class Endless(JsonCodec):
    """Returns more values than the session allows, whatever it reads."""

    def decode(self, buffer):
        buffer.read_bytes()
        return [1, 1, "echo", [[0] * 10**6]]


async def test_a_codec_cannot_return_more_values_than_the_session_allows():
    with pytest.raises(DecodeError, match="more values than this end allows"):
        list(CodedCodec(Codec(), Endless()).decode(coded(1, 1, b"x")))


class Lying(JsonCodec):
    """Reads another number of bytes than there are."""

    def __init__(self, count):
        self.count = count

    def decode(self, buffer):
        buffer.read_bytes(len(buffer) + self.count)
        return [1, 1, "echo", [1]]


@pytest.mark.parametrize(
    ("count", "text"), [(-1, "left 1 bytes unread"), (1, "bytes, but only 16 follow")]
)
async def test_a_codec_that_lies_about_its_length_is_found(count, text):
    with pytest.raises(DecodeError, match=text):
        list(CodedCodec(Codec(), Lying(count)).decode(coded(1, 1, b'[1,1,"echo",[1]]')))


@pytest.mark.parametrize("value", [None, 7, [1, 1, "echo", [object()]], [1, 1, "echo", {1: 2}], ()])
async def test_a_codec_that_returns_no_message_is_found(value):
    class Wrong(JsonCodec):
        def decode(self, buffer):
            buffer.read_bytes()
            return value

    with pytest.raises(DecodeError):
        list(CodedCodec(Codec(), Wrong()).decode(coded(1, 1, b"x")))


@pytest.mark.parametrize(
    ("codec", "error", "text"),
    [
        (JsonCodec, TypeError, "an object, not the class JsonCodec"),
        ("json", TypeError, "methods encode and decode"),
        (Named(name=7), TypeError, "a name and a version"),
        (Named(version=True), TypeError, "a name and a version"),
        (Named(name=""), ValueError, "cannot have the name ''"),
        (Named(name="a\nb"), ValueError, "cannot have the name"),
        (Named(name="x" * 65), ValueError, "cannot have the name"),
        (Named(name="msgpack"), ValueError, "cannot have the name 'msgpack'"),
        (Named(version=-1), ValueError, "cannot have the version -1"),
        (Named(version=2**53), ValueError, "cannot have the version"),
    ],
)
async def test_an_object_that_is_not_a_codec_is_refused(codec, error, text):
    with pytest.raises(error, match=text):
        trio_rpc.Options(codec=codec)

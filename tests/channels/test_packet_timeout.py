"""``Limits.packet_timeout`` over each transport: a peer starts a packet and does not finish it.

For TCP and child processes, see ``test_stream.py`` and ``test_channel_bounds.py``.
"""

from __future__ import annotations

import contextlib
import functools

import pytest
import trio
from helpers.forwarding_pairs import Acceptor
from helpers.tls import make_contexts
from helpers.websocket_peer import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    RawPeer,
    answer,
    frame,
    key_of,
    request,
)
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

import trio_rpc
from trio_rpc import ConnectionState, SessionBroken
from trio_rpc.channels import (
    ResumableSessions,
    StreamChannel,
    carrier_limits,
    memory_channel_pair,
    open_forwarding,
    open_resumable,
)
from trio_rpc.channels.forwarding.frames import (
    Abort,
    Accept,
    Close,
    Data,
    Hello,
    Open,
    Part,
    decode_frames,
    encode,
)
from trio_rpc.channels.resumable.replay import Frame as ResumableFrame
from trio_rpc.channels.resumable.replay import Kind
from trio_rpc.channels.resumable.replay import encode as encode_resumable
from trio_rpc.channels.urls import parse_url
from trio_rpc.channels.websocket.channel import WebSocketConnection, open_websocket
from trio_rpc.testing import Faults
from trio_rpc.testing.faults import Link
from trio_rpc.wire.framing import frame as frame_of_stream
from trio_rpc.wire.limits import Limits

LIMITS = Limits(max_packet=20_000, packet_timeout=30)
TOO_LONG = "the peer began a packet and took more than 30 s over it"


# ── a channel, and a peer that sends single bytes ────────────────────────────────────────────


@contextlib.asynccontextmanager
async def websocket_of_server(limits=LIMITS):
    ours, theirs = memory_stream_pair()
    peer = RawPeer(theirs)
    await peer.send(request())
    async with WebSocketConnection(ours, limits, name="peer").prepared() as channel:
        await peer.read_head()
        yield channel, peer


@contextlib.asynccontextmanager
async def websocket_of_client(limits=LIMITS):
    ours, theirs = memory_stream_pair()
    peer = RawPeer(theirs)

    async def do_handshake():
        await peer.send(answer(key_of(await peer.read_head())))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(do_handshake)
        async with open_websocket(ours, parse_url("ws://example.org:8000"), limits) as channel:
            yield channel, peer


@pytest.fixture(scope="module")
def contexts():
    return make_contexts("example.org")


@contextlib.asynccontextmanager
async def secure_websocket_of_server(contexts, limits=LIMITS):
    ours, theirs = memory_stream_pair()
    server = trio.SSLStream(ours, contexts[0], server_side=True, https_compatible=True)
    peer = RawPeer(
        trio.SSLStream(theirs, contexts[1], server_hostname="example.org", https_compatible=True)
    )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.send, request())
        async with WebSocketConnection(server, limits, name="peer").prepared() as channel:
            await peer.read_head()
            yield channel, peer


@pytest.fixture(params=["of a server", "of a client", "of a server with TLS"])
async def websocket(request, contexts, autojump_clock):
    """A WebSocket's channel, its peer, and a function that makes a frame of the peer."""

    def make(opcode, payload=b"", *, fin=True):
        return frame(opcode, payload, fin=fin, masked=request.param != "of a client")

    if request.param == "of a client":
        opened = websocket_of_client()
    elif request.param == "of a server":
        opened = websocket_of_server()
    else:
        opened = secure_websocket_of_server(contexts)
    async with opened as (channel, peer):
        yield channel, peer, make


def unfinished(make):
    """Return the first parts of messages that are never finished, by name."""
    small, large = make(BINARY, b"hello"), make(BINARY, bytes(1000))
    return {
        "the first byte": small[:1],
        "half a header": small[:2],
        "half a length": large[:3],
        "a header": large[: len(large) - 1000],
        "all but the last byte": small[:-1],
        "a fragment": make(BINARY, b"he", fin=False),
        "an empty fragment": make(BINARY, b"", fin=False),
        "two fragments": make(BINARY, b"he", fin=False) + make(0, b"ll", fin=False),
        "a fragment and half of the next": make(BINARY, b"he", fin=False) + make(0, b"llo")[:-1],
        "a Ping within a message": make(BINARY, b"he", fin=False) + make(PING, b"there?"),
        "half a Ping": make(PING, b"there?")[:-1],
        "half a Pong": make(PONG, b"here")[:1],
        "half a Close": make(CLOSE, b"\x03\xe8why")[:-1],
    }


@pytest.mark.parametrize("what", unfinished(frame))
async def test_an_unfinished_message_breaks_the_channel(websocket, what, autojump_clock):
    channel, peer, make = websocket
    await peer.send(make(BINARY, b"before") + unfinished(make)[what])
    assert await channel.receive() == b"before"
    started = trio.current_time()
    with pytest.raises(trio.BrokenResourceError, match=TOO_LONG):
        await channel.receive()
    assert trio.current_time() - started == 30
    with pytest.raises(trio.BrokenResourceError):
        await channel.receive()
    with pytest.raises(trio.BrokenResourceError):
        await channel.send(b"x")


async def send_slowly(peer, parts):
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        for part in parts:
            await peer.send(part)
            await trio.sleep(1)


def dripping(make):
    """Return endless ways to send a message slowly, by name."""
    whole = make(BINARY, bytes(1000))
    return {
        "byte by byte": [whole[at : at + 1] for at in range(100)],
        "in fragments": [make(BINARY, b"x", fin=False)] + 100 * [make(0, b"x", fin=False)],
        "in empty fragments": [make(BINARY, b"", fin=False)] + 100 * [make(0, b"", fin=False)],
        "with Pings": [make(BINARY, b"x", fin=False)] + 100 * [make(PING, b"x")],
    }


@pytest.mark.parametrize("way", dripping(frame))
async def test_sending_a_message_slowly_does_not_extend_its_time(
    websocket, nursery, way, autojump_clock
):
    channel, peer, make = websocket
    nursery.start_soon(send_slowly, peer, dripping(make)[way])
    started = trio.current_time()
    with pytest.raises(trio.BrokenResourceError, match=TOO_LONG):
        await channel.receive()
    assert trio.current_time() - started == 30


def slow_but_in_time(make):
    """Return parts that arrive 29 seconds apart, by name, and the number of packets in them."""
    halves = make(BINARY, b"a")[:-1], make(BINARY, b"a")[-1:]
    return {
        "two parts each": ([*halves, *halves, *halves], 3),
        "each part ends a packet and begins the next": (
            [halves[0], halves[1] + halves[0], halves[1] + halves[0], halves[1]],
            3,
        ),
        "fragments": ([make(BINARY, b"a", fin=False), make(0, b"b"), make(BINARY, b"c")], 2),
        "Pings between messages": ([make(BINARY, b"a"), *[make(PING, b"x")] * 4], 1),
        "the first fragment in two parts": (
            [
                make(BINARY, b"a", fin=False)[:-1],
                make(BINARY, b"a", fin=False)[-1:] + make(0, b"b"),
            ],
            1,
        ),
    }


@pytest.mark.parametrize("way", slow_but_in_time(frame))
async def test_each_packet_has_its_own_time_and_silence_between_packets_is_allowed(
    websocket, nursery, way, autojump_clock
):
    channel, peer, make = websocket
    parts, packets = slow_but_in_time(make)[way]

    async def send():
        for part in parts:
            await peer.send(part)
            await trio.sleep(29)
        await trio.sleep(1000)
        await peer.send(make(BINARY, b"last"))

    nursery.start_soon(send)
    for _ in range(packets):
        assert await channel.receive() != b"last"
    assert await channel.receive() == b"last"


async def test_time_in_which_no_task_receives_does_not_count(websocket, autojump_clock):
    channel, peer, make = websocket
    # The library holds two messages, and reads no further until one is received.
    await peer.send(3 * make(BINARY, b"full") + make(BINARY, b"half")[:-1])
    await trio.sleep(1000)
    for _ in range(3):
        assert await channel.receive() == b"full"
    await trio.sleep(29)
    await peer.send(make(BINARY, b"half")[-1:])
    assert await channel.receive() == b"half"


# ── this program is blocked ──────────────────────────────────────────────────────────────────


async def blocked_in_a_packet(nursery, channel, clock, go_on):
    """Block the program during a packet whose rest ``go_on`` sends; return the received packets."""
    results = []

    async def receive():
        try:
            results.append(await channel.receive())
        except trio.BrokenResourceError as exc:
            results.append(str(exc))

    nursery.start_soon(receive)
    await wait_all_tasks_blocked()
    clock.jump(1000)  # as time.sleep() would
    nursery.start_soon(go_on)
    await trio.sleep(29)
    await wait_all_tasks_blocked()
    return results


async def test_time_in_which_this_program_is_blocked_does_not_count(
    websocket, nursery, autojump_clock
):
    channel, peer, make = websocket
    whole = make(BINARY, b"hello")
    await peer.send(whole[:-1])

    async def go_on():
        await peer.send(whole[-1:])

    results = await blocked_in_a_packet(nursery, channel, autojump_clock, go_on)
    assert results == [b"hello"]


async def test_time_in_which_this_program_is_blocked_does_not_count_over_a_byte_stream(
    nursery, autojump_clock
):
    ours, theirs = memory_stream_pair()
    channel, whole = StreamChannel(ours, packet_timeout=30), frame_of_stream(b"hello")
    await theirs.send_all(whole[:-1])

    async def go_on():
        await theirs.send_all(whole[-1:])

    results = await blocked_in_a_packet(nursery, channel, autojump_clock, go_on)
    assert results == [b"hello"]


@pytest.mark.parametrize("rest", [b"", b"x"], ids=["silence", "one more byte"])
async def test_after_the_program_was_blocked_a_packet_has_the_whole_time_once_more(
    nursery, autojump_clock, rest
):
    ours, theirs = memory_stream_pair()
    channel = StreamChannel(ours, packet_timeout=30)
    await theirs.send_all(frame_of_stream(b"hello")[:-2])

    async def go_on():
        if rest:
            await theirs.send_all(rest)

    results = await blocked_in_a_packet(nursery, channel, autojump_clock, go_on)
    assert results == []
    await trio.sleep(1)
    await wait_all_tasks_blocked()
    assert results == [TOO_LONG]


# ── forwarding ───────────────────────────────────────────────────────────────────────────────


class RawForwarding:
    """The other end of a carrier, which sends and receives frames."""

    def __init__(self, carrier):
        self.carrier = carrier
        self.heard = []

    async def send(self, *frames):
        await self.carrier.send(b"".join(map(encode, frames)))

    async def listen(self):
        with contextlib.suppress(trio.EndOfChannel, trio.ClosedResourceError):
            async for packet in self.carrier:
                self.heard += decode_frames(packet)


@pytest.fixture
async def forwarded(autojump_clock, nursery):
    """Open a forwarded channel, and yield it with the end that opened it."""
    ours, theirs = memory_channel_pair()
    acceptor, peer = Acceptor(), RawForwarding(theirs)
    nursery.start_soon(peer.listen)
    async with open_forwarding(ours, {"a": acceptor, "b": acceptor}, limits=LIMITS):
        await peer.send(Hello(1, 20_000, 10), Open(1, "a", 100_000))
        yield await acceptor.next(), peer
    await theirs.aclose()


async def test_an_unfinished_forwarded_packet_breaks_only_its_channel(forwarded, autojump_clock):
    channel, peer = forwarded
    await peer.send(Data(1, b"before"), Part(1, b"he"))
    assert await channel.receive() == b"before"
    started = trio.current_time()
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError, match=TOO_LONG):
            await channel.receive()
        assert trio.current_time() - started == 30
    with pytest.raises(trio.BrokenResourceError, match=TOO_LONG):
        await channel.send(b"x")
    await wait_all_tasks_blocked()
    assert [type(heard) for heard in peer.heard] == [Hello, Accept, Abort]
    await peer.send(Part(1, b"late"), Close(1), Open(2, "b", 100_000), Data(2, b"as ever"))


async def test_sending_a_forwarded_packet_slowly_does_not_extend_its_time(
    forwarded, nursery, autojump_clock
):
    channel, peer = forwarded

    async def drip():
        for _ in range(100):
            await peer.send(Part(1, b"x"))
            await trio.sleep(1)

    nursery.start_soon(drip)
    started = trio.current_time()
    with pytest.raises(trio.BrokenResourceError, match=TOO_LONG):
        await channel.receive()
    assert trio.current_time() - started == 30
    nursery.cancel_scope.cancel()


async def test_each_forwarded_packet_has_its_own_time_while_a_task_receives(
    forwarded, nursery, autojump_clock
):
    channel, peer = forwarded

    async def send():
        for _ in range(3):
            await peer.send(Part(1, b"he"))
            await trio.sleep(29)
            await peer.send(Data(1, b"llo"), Part(1, b"he"))
            await trio.sleep(29)
            await peer.send(Data(1, b"llo"))
        await trio.sleep(1000)
        await peer.send(Part(1, b"la"))

    nursery.start_soon(send)
    for _ in range(6):
        assert await channel.receive() == b"hello"
    await trio.sleep(2000)
    await peer.send(Data(1, b"st"))
    assert await channel.receive() == b"last"


async def test_time_in_which_this_program_is_blocked_does_not_count_for_a_forwarded_packet(
    forwarded, nursery, autojump_clock
):
    channel, peer = forwarded
    await peer.send(Part(1, b"he"))

    async def go_on():
        await peer.send(Data(1, b"llo"))

    results = await blocked_in_a_packet(nursery, channel, autojump_clock, go_on)
    assert results == [b"hello"]


# ── a slow packet counts as a sign of life ───────────────────────────────────────────────────


class Sink:
    @trio_rpc.method
    def take(self, content: bytes) -> int:
        return len(content)


LARGE = 100_000
"""Bytes of a packet that takes 20 seconds to arrive."""

SHORT_KEEPALIVE = Limits(keepalive_interval=1, keepalive_pings=1, packet_timeout=30)


@contextlib.asynccontextmanager
async def slow_link():
    """Yield two streams; the bytes that the second one sends arrive slowly."""
    (first, plug), (other_plug, second) = memory_stream_pair(), memory_stream_pair()
    slow = Faults(rate=LARGE / 20, max_slice=500)
    link = Link(plug, other_plug, forth=Faults(), back=slow, reset=trio.aclose_forcefully, seed=0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run)
        yield first, second
        nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def slow_byte_streams(limits):
    async with slow_link() as (first, second):
        yield StreamChannel(first, limits.max_packet), StreamChannel(second, limits.max_packet)


@contextlib.asynccontextmanager
async def slow_websockets(limits):
    async with slow_link() as (first, second):
        client = open_websocket(second, parse_url("ws://example.org:8000"), limits)
        server = WebSocketConnection(first, limits, name="client").prepared()
        opened, is_open = [], trio.Event()

        async def connect():
            async with client as channel:
                opened.append(channel)
                is_open.set()
                await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(connect)
            async with server as channel:
                await is_open.wait()
                yield channel, opened[0]
                nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def slow_resumable_channels(limits):
    sessions = ResumableSessions(trio_rpc.Resume(), handshake_timeout=10)
    async with slow_websockets(carrier_limits(limits)) as (first, second):

        @contextlib.asynccontextmanager
        async def carrier():
            yield second

        async def serve(*, task_status):
            arrival = await sessions.receive(first)
            async with sessions.own(arrival.channel):
                task_status.started(arrival.channel)
                await arrival.channel.accept(first, arrival.received)

        async with trio.open_nursery() as nursery:
            opening = open_resumable(carrier, trio_rpc.Resume(), handshake_timeout=10)
            served = []

            async def start():
                served.append(await nursery.start(serve))

            nursery.start_soon(start)
            async with opening as client:
                yield served[0], client
            nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def slow_plain_channels_of_a_resumable_server(limits):
    sessions = ResumableSessions(trio_rpc.Resume(), handshake_timeout=10)
    async with slow_byte_streams(carrier_limits(limits)) as (first, second):
        await second.send(b"\x90")
        channel = (await sessions.receive(first)).channel
        assert await channel.receive() == b"\x90"
        yield channel, second


@pytest.mark.parametrize(
    "channels",
    [
        slow_byte_streams,
        slow_websockets,
        slow_resumable_channels,
        slow_plain_channels_of_a_resumable_server,
    ],
)
async def test_a_part_of_a_packet_counts_as_a_sign_of_life(autojump_clock, channels):
    async with (
        channels(SHORT_KEEPALIVE) as (here, there),
        trio.open_nursery() as nursery,
    ):
        options = {"limits": SHORT_KEEPALIVE}
        nursery.start_soon(functools.partial(trio_rpc.serve_session, here, Sink(), **options))
        async with trio_rpc.open_session(there) as session:
            started = trio.current_time()
            assert await session.call("take", bytes(LARGE)) == LARGE
            assert trio.current_time() - started > 19


async def test_a_part_of_a_forwarded_packet_counts_as_a_sign_of_life(forwarded, autojump_clock):
    channel, peer = forwarded
    for frames in ([Part(1, b"a")], [Part(1, b"b")], [Data(1, b"c")]):
        heard = channel.heard
        await peer.send(*frames)
        await wait_all_tasks_blocked()
        assert channel.heard > heard
    assert await channel.receive() == b"abc"


async def test_a_websocket_ping_does_not_count_as_a_sign_of_life(autojump_clock):
    async with websocket_of_server() as (channel, peer):
        heard = channel.heard
        await peer.send(frame(PING, b"x") + frame(PONG, b"x"))
        await wait_all_tasks_blocked()
        assert channel.heard == heard
        await peer.send(frame(BINARY, b"hello")[:-1])
        await wait_all_tasks_blocked()
        assert channel.heard > heard


# ── sessions ─────────────────────────────────────────────────────────────────────────────────


async def test_a_session_over_a_websocket_ends_if_a_packet_is_not_finished(autojump_clock):
    limits = Limits(packet_timeout=3, keepalive_interval=1000, handshake_timeout=1000)
    async with websocket_of_server(limits) as (channel, peer):
        await peer.send(frame(BINARY, b"he", fin=False))
        started = trio.current_time()
        with pytest.raises(SessionBroken, match="took more than 3 s") as caught:
            async with trio_rpc.open_session(channel, limits=limits):
                raise AssertionError("it must not open")
        assert trio.current_time() - started == 3
        assert isinstance(caught.value.__cause__, trio.BrokenResourceError)


async def test_an_unfinished_packet_breaks_only_the_connection_of_a_resumable_session(
    autojump_clock,
):
    sessions = ResumableSessions(trio_rpc.Resume(), handshake_timeout=10)
    async with websocket_of_server(carrier_limits(LIMITS)) as (carrier, peer):
        await peer.send(frame(BINARY, encode_resumable(ResumableFrame(Kind.OPEN, rest=b"\x01"))))
        channel = (await sessions.receive(carrier)).channel
        async with sessions.own(channel), trio.open_nursery() as receiving:
            receiving.start_soon(channel.receive)
            await peer.send(frame(BINARY, b"he", fin=False))
            started = trio.current_time()
            await channel.accept(carrier, 0)
            assert trio.current_time() - started == 30
            assert channel.state is ConnectionState.RECONNECTING
            receiving.cancel_scope.cancel()

"""WebSockets: refusals, closing, and pitfalls of the trio-websocket library.

Peers send single bytes or frames. The mock clock shows that no task waits for a timeout.
"""

from __future__ import annotations

import contextlib
import ssl

import pytest
import trio
from helpers.channel_pairs import connected, fails_to_open, open_descriptors
from helpers.websocket_peer import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    RawPeer,
    answer,
    frame,
    key_of,
    request,
)
from trio.testing import wait_all_tasks_blocked

from trio_rpc.channels import (
    ChannelBroken,
    ChannelEnded,
    WebSocketClose,
    open_channel,
    open_listeners,
)
from trio_rpc.channels.websocket.stream import WatchedStream
from trio_rpc.errors import DecodeError
from trio_rpc.wire.limits import Limits

LIMITS = Limits(max_packet=20_000)


@pytest.fixture
def autojump_clock():
    """Make a mock clock that lets the system deliver bytes in transit before it jumps."""
    return trio.testing.MockClock(autojump_threshold=0.01)


@pytest.fixture
def at_once(autojump_clock):
    """Check that no task has waited for a timeout."""
    started = autojump_clock.current_time()
    yield
    assert autojump_clock.current_time() == started


@contextlib.asynccontextmanager
async def raw_client(url="ws://127.0.0.1:0", **options):
    """Connect a raw client, and yield it with the connection that the listener accepted."""
    (listener,) = await open_listeners(url, limits=LIMITS, **options)
    port = int(listener.url.split(":")[2].split("/")[0])
    async with listener, await trio.open_tcp_stream("127.0.0.1", port) as stream:
        yield RawPeer(stream), await listener.accept()


@contextlib.asynccontextmanager
async def raw_to_channel():
    """Yield a raw client, and the server's channel to it, after the handshake."""
    async with raw_client() as (peer, connection):
        await peer.send(request())
        async with connection.prepared() as channel:
            assert b" 101 " in await peer.read_head()
            yield peer, channel


@contextlib.asynccontextmanager
async def raw_server(serve_one):
    """Yield the URL of a server that runs ``serve_one`` for its one client."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def accept():
        async with await listener.accept() as stream:
            await serve_one(RawPeer(stream))

    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        yield f"ws://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def channel_to_raw():
    """Yield a client's channel, and the raw server at its other end, after the handshake."""
    peers = []

    async def do_handshake(peer):
        await peer.send(answer(key_of(await peer.read_head())))
        peers.append(peer)
        await trio.sleep_forever()

    async with raw_server(do_handshake) as url, open_channel(url, limits=LIMITS) as channel:
        yield channel, peers[0]


async def refused(peer, connection, sent):
    """Send a request that is refused, and return the response and the error."""
    await peer.send(sent)
    with pytest.raises(OSError) as caught:
        async with connection.prepared():
            raise AssertionError("it must not open")
    assert "\n" not in str(caught.value)
    return await peer.read_to_end(), str(caught.value)


# ---- the handshake, at the server


ORIGINS = [
    (None, {}, True),
    ("http://example.org:8000", {}, True),
    ("https://EXAMPLE.org:8000", {}, True),
    ("https://example.org", {}, False),
    ("https://example.org:8000.evil", {}, False),
    ("https://good.example.evil", {}, False),
    ("ftp://example.org:8000", {}, False),
    ("null", {}, False),
    ("", {}, False),
    ("http://example.org:8000, http://example.org:8000", {}, False),
    (None, {"allowed_origins": ["https://good.example"]}, True),
    ("https://good.example", {"allowed_origins": ["https://good.example"]}, True),
    ("https://Good.example", {"allowed_origins": ["https://good.example/"]}, True),
    ("https://good.example.evil", {"allowed_origins": ["https://good.example"]}, False),
    ("http://example.org:8000", {"allowed_origins": ["https://good.example"]}, False),
    ("null", {"allowed_origins": []}, False),
]


@pytest.mark.parametrize(("origin", "options", "is_allowed"), ORIGINS)
async def test_the_origin_is_checked(at_once, origin, options, is_allowed):
    async with raw_client(**options) as (peer, connection):
        sent = request(Origin=origin)
        if is_allowed:
            await peer.send(sent)
            async with connection.prepared():
                assert b" 101 " in await peer.read_head()
        else:
            came, error = await refused(peer, connection, sent)
            assert came.startswith(b"HTTP/1.1 403 ")
            assert "is not allowed" in error


@pytest.mark.parametrize(
    ("origins", "kind"),
    [
        ("https://good.example", TypeError),
        (["good.example"], ValueError),
        (["https://good.example/path"], ValueError),
        (["*"], ValueError),
        (["https://a b"], ValueError),
    ],
)
async def test_invalid_allowed_origins_are_refused(origins, kind):
    with pytest.raises(kind, match="origin"):
        await open_listeners("ws://127.0.0.1:0", allowed_origins=origins)


async def test_a_request_with_two_origins_is_refused(at_once):
    async with raw_client() as (peer, connection):
        sent = request(Origin="http://example.org:8000\r\nOrigin: http://example.org:8000")
        came, _ = await refused(peer, connection, sent)
        assert came.startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize("offered", [None, "chat", "trio-rpc.v2", "trio-rpc.v1x, chat"])
async def test_a_client_without_the_subprotocol_is_refused(at_once, offered):
    async with raw_client() as (peer, connection):
        came, error = await refused(peer, connection, request(Sec_WebSocket_Protocol=offered))
        assert came.startswith(b"HTTP/1.1 400 ")
        assert b"trio-rpc.v1" in came
        assert "refused with 400: the subprotocol must be trio-rpc.v1" in error


async def test_the_subprotocol_may_be_one_of_several(at_once):
    async with raw_client() as (peer, connection):
        await peer.send(request(Sec_WebSocket_Protocol="chat, trio-rpc.v1"))
        async with connection.prepared():
            assert b"sec-websocket-protocol: trio-rpc.v1" in (await peer.read_head()).lower()


async def test_compression_is_not_negotiated(at_once):
    async with raw_client() as (peer, connection):
        await peer.send(request(Sec_WebSocket_Extensions="permessage-deflate"))
        async with connection.prepared():
            assert b"extensions" not in (await peer.read_head()).lower()


@pytest.mark.parametrize("path", ["/", "/other", "/rpc/", "/rp", "/RPC", "/%72pc", "http://x/rpc"])
async def test_other_paths_are_not_found(at_once, path):
    async with raw_client("ws://127.0.0.1:0/rpc") as (peer, connection):
        came, _ = await refused(peer, connection, request(path))
        assert came.startswith(b"HTTP/1.1 404 ")


async def test_a_query_in_the_request_is_ignored(at_once):
    async with raw_client("ws://127.0.0.1:0/rpc") as (peer, connection):
        await peer.send(request("/rpc?a=b"))
        async with connection.prepared():
            assert b" 101 " in await peer.read_head()


INVALID_REQUESTS = {
    "TLS": (b"\x16\x03\x01\x02\x00\x01", "this is not a TLS port"),
    "packet": (b"\0\0\0\x05hello", "does not speak HTTP"),
    "zeros": (bytes(1_000_000), "does not speak HTTP"),
    "0xff": (b"\xff" * 100, "does not speak HTTP"),
    "letters": (b"hello\r\n\r\n", "did not do the WebSocket handshake"),
    "POST": (request(method="POST"), "did not do the WebSocket handshake: .* must be GET"),
    "page": (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "Missing header, 'Connection: Upgrade'"),
    "no host": (request(Host=None), "did not do the WebSocket handshake"),
    "version": (request(Sec_WebSocket_Version="12"), "did not do the WebSocket handshake"),
    "no key": (request(Sec_WebSocket_Key=None), "did not do the WebSocket handshake"),
    "endless": (b"GET / HTTP/1.1\r\nA: " + b"x" * 200_000, "did not do the WebSocket handshake"),
    "headers": (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 50_000, "did not do the WebSocket"),
    "not ASCII": (request(Sec_WebSocket_Protocol="\xff"), "handshake failed"),
    "early": (request() + frame(BINARY, b"early"), "did not wait"),
    "early byte": (request() + b"\x82", "did not wait"),
}


@pytest.mark.parametrize(("sent", "error_text"), INVALID_REQUESTS.values(), ids=INVALID_REQUESTS)
async def test_an_invalid_request_is_refused_at_once(at_once, sent, error_text):
    async with raw_client() as (peer, connection), trio.open_nursery() as nursery:

        async def send():
            with contextlib.suppress(trio.BrokenResourceError):
                await peer.send(sent)

        nursery.start_soon(send)
        with pytest.raises(OSError, match=error_text):
            async with connection.prepared():
                raise AssertionError("it must not open")


@pytest.mark.parametrize("sent", [b"", b"GET", request()[:-2]], ids=["nothing", "a word", "half"])
async def test_a_client_that_leaves_during_the_handshake_is_an_error(at_once, sent):
    async with raw_client() as (peer, connection):
        await peer.send(sent)
        await peer.stream.aclose()
        with pytest.raises(ConnectionError, match="left during the WebSocket handshake"):
            async with connection.prepared():
                raise AssertionError("it must not open")


@pytest.mark.parametrize("sent", [b"", request()[:-2]], ids=["nothing", "half"])
async def test_a_silent_client_is_a_handshake_timeout(autojump_clock, sent):
    before = open_descriptors()
    started = trio.current_time()
    async with raw_client() as (peer, connection):
        await peer.send(sent)
        with pytest.raises(TimeoutError, match="no WebSocket handshake within 10 s"):
            async with connection.prepared():
                raise AssertionError("it must not open")
        assert trio.current_time() == started + 10
        assert await peer.read_to_end() == b""
    assert open_descriptors() <= before


async def test_sending_a_request_slowly_does_not_extend_its_time(autojump_clock):
    started = trio.current_time()
    async with raw_client() as (peer, connection), trio.open_nursery() as nursery:

        async def drip():
            with contextlib.suppress(trio.BrokenResourceError):
                for byte in request():
                    await peer.send(bytes([byte]))
                    await trio.sleep(1)

        nursery.start_soon(drip)
        with pytest.raises(TimeoutError):
            async with connection.prepared():
                raise AssertionError("it must not open")
        nursery.cancel_scope.cancel()
    assert trio.current_time() - started < 11


# ---- the handshake, at the client


async def send_text(peer, text):
    await peer.read_head()
    await peer.send(text)


ANSWERS = {
    "nothing": (b"", "left during the WebSocket handshake"),
    "half": (b"HTTP/1.1 101 Sw", "left during the WebSocket handshake"),
    "503": (b"HTTP/1.1 503 \r\n\r\n", "answered 503 Service Unavailable"),
    "503 with a body": (
        b"HTTP/1.1 503 Busy\r\nContent-Length: 5\r\n\r\nlater",
        "answered 503 Service Unavailable",
    ),
    "503 with half a body": (
        b"HTTP/1.1 503 Busy\r\nContent-Length: 500\r\n\r\nlater",
        "answered 503 Service Unavailable",
    ),
    "302": (b"HTTP/1.1 302 Found\r\nLocation: /a\r\n\r\n", "answered 302 Found"),
    "200": (b"HTTP/1.0 200 OK\r\n\r\nwelcome", "answered 200 OK"),
    "999": (b"HTTP/1.1 999 What\r\n\r\n", "answered with status 999"),
    "words": (b"HTTP/1. is nice\r\n", "answered with a line that is not HTTP"),
    "not HTTP": (b"\0\0\0\x05hello", "does not speak HTTP"),
    "SSH": (b"SSH-2.0-x\r\n", "does not speak HTTP"),
    "wrong key": (answer("wrong"), "handshake failed: Bad accept token"),
    "no upgrade": (b"HTTP/1.1 101 \r\n\r\n", "handshake failed: Missing header"),
    "endless": (
        b"HTTP/1.1 101 \r\nA: " + b"x" * 100_000,
        "handshake failed: Receive buffer too long",
    ),
}


@pytest.mark.parametrize("stays", [False, True], ids=["closes", "stays"])
@pytest.mark.parametrize(("sent", "error_text"), ANSWERS.values(), ids=ANSWERS)
async def test_a_server_that_closes_or_answers_503_is_reported_at_once(
    at_once, sent, error_text, stays
):  # not after the connect_timeout of 60 s
    if stays and error_text.startswith("left"):
        return
    before = open_descriptors()

    async def serve_one(peer):
        with contextlib.suppress(trio.BrokenResourceError):
            await send_text(peer, sent)
        if stays:
            await trio.sleep_forever()

    async with raw_server(serve_one) as url:
        with pytest.raises(ConnectionError, match=error_text) as caught:
            await fails_to_open(url)
    assert str(caught.value).startswith(f"cannot connect to {url}: ")
    assert "\n" not in str(caught.value)
    assert open_descriptors() <= before


async def test_a_server_that_closes_before_the_request_is_reported_at_once(at_once):
    async def leave(peer):
        await trio.lowlevel.checkpoint()

    async with raw_server(leave) as url:
        with pytest.raises(ConnectionError, match=f"cannot connect to {url}: "):
            await fails_to_open(url)


@pytest.mark.parametrize("chosen", [None, "chat", "trio-rpc.v2"])
async def test_a_server_without_the_subprotocol_is_refused(at_once, chosen):
    async def serve_one(peer):
        key = key_of(await peer.read_head())
        await peer.send(answer(key, Sec_WebSocket_Protocol=chosen))
        await trio.sleep_forever()

    async with raw_server(serve_one) as url:
        error_text = "does not speak trio-rpc.v1" if chosen is None else "unrecognized subprotocol"
        with pytest.raises(ConnectionError, match=error_text):
            await fails_to_open(url)


async def test_a_silent_server_is_a_handshake_timeout(autojump_clock):
    started = trio.current_time()

    async def serve_one(peer):
        await trio.sleep_forever()

    async with raw_server(serve_one) as url:
        with pytest.raises(TimeoutError, match="no WebSocket handshake within 10 s"):
            await fails_to_open(url)
    assert trio.current_time() == started + 10


async def test_a_client_may_be_cancelled_during_its_handshake(at_once):
    before = open_descriptors()

    async def serve_one(peer):
        await trio.sleep_forever()

    async with raw_server(serve_one) as url, trio.open_nursery() as nursery:
        nursery.start_soon(fails_to_open, url)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert open_descriptors() <= before


async def test_packets_that_arrive_with_the_response_are_not_lost(at_once):
    """The Close frame and the end may arrive in the same segment."""

    async def serve_one(peer):
        key = key_of(await peer.read_head())
        packets = [frame(BINARY, each, masked=False) for each in (b"one", b"two", b"three")]
        end = frame(CLOSE, (1000).to_bytes(2), masked=False)
        await peer.send(answer(key) + b"".join(packets) + end)

    async with raw_server(serve_one) as url, open_channel(url) as channel:
        assert [packet async for packet in channel] == [b"one", b"two", b"three"]


async def test_the_request_contains_host_and_path(at_once):
    heads = []

    async def serve_one(peer):
        heads.append(await peer.read_head())

    async with raw_server(serve_one) as url:
        with pytest.raises(ConnectionError):
            await fails_to_open(f"{url}/a%20b/c")
    assert heads[0].startswith(b"GET /a%20b/c HTTP/1.1\r\n")
    assert f"Host: {url.removeprefix('ws://')}".encode() in heads[0]
    assert b"Origin" not in heads[0]


# ---- TLS


async def test_plaintext_to_a_wss_port_is_named_in_the_error(at_once, certificates):
    async with raw_client("wss://127.0.0.1:0", ssl_context=certificates.server) as (
        peer,
        connection,
    ):
        _, error = await refused(peer, connection, request())
        assert "does not speak TLS" in error


async def test_wss_to_a_plaintext_port_is_named_in_the_error(at_once, certificates):
    (listener,) = await open_listeners("ws://127.0.0.1:0")
    errors = []

    async def accept():
        connection = await listener.accept()
        try:
            async with connection.prepared():
                raise AssertionError("it must not open")
        except OSError as exc:
            errors.append(exc)

    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        with pytest.raises(ssl.SSLError):
            await fails_to_open(
                listener.url.replace("ws:", "wss:"), ssl_context=certificates.client
            )
    assert "this is not a TLS port" in str(errors[0])


async def test_a_client_of_wss_verifies_the_server(at_once, certificates):
    (listener,) = await open_listeners("wss://127.0.0.1:0", ssl_context=certificates.server)

    async def accept():
        connection = await listener.accept()
        with pytest.raises(ssl.SSLError):
            async with connection.prepared():
                raise AssertionError("it must not open")

    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        with pytest.raises(ssl.SSLCertVerificationError, match=listener.url):
            await fails_to_open(listener.url)


async def test_a_server_for_wss_requires_a_certificate(certificates):
    with pytest.raises(ValueError, match="requires an ssl_context"):
        await open_listeners("wss://127.0.0.1:0")
    with pytest.raises(ValueError, match="not encrypted"):
        await open_listeners("ws://127.0.0.1:0", ssl_context=certificates.server)
    with pytest.raises(ValueError, match="not encrypted"):
        await fails_to_open("ws://127.0.0.1:1", ssl_context=certificates.client)


# ---- frames


async def closed_with(peer, channel):
    """Close the channel, and return the code that the peer receives."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(channel.aclose)
        while True:
            opcode, payload = await peer.read_frame()
            if opcode == CLOSE:
                await peer.stream.aclose()
                return int.from_bytes(payload[:2])


async def test_one_packet_is_one_binary_frame(at_once):
    """A WebSocket is a channel."""
    async with raw_to_channel() as (peer, channel):
        await channel.send(b"packet")
        assert await peer.read_frame() == (BINARY, b"packet")
        await peer.send(frame(BINARY, b"another"))
        assert await channel.receive() == b"another"


async def test_a_text_frame_is_refused_with_1003(at_once):
    async with raw_to_channel() as (peer, channel):
        await peer.send(frame(TEXT, b"hello"))
        with pytest.raises(DecodeError, match="text"):
            await channel.receive()
        assert await closed_with(peer, channel) == 1003


async def test_an_empty_packet_is_refused(at_once):
    async with raw_to_channel() as (peer, channel):
        await peer.send(frame(BINARY))
        with pytest.raises(DecodeError, match="empty"):
            await channel.receive()
        assert await closed_with(peer, channel) == 1002


async def test_a_packet_of_exactly_the_limit_is_accepted(at_once):
    packet = bytes(LIMITS.max_packet)
    async with raw_to_channel() as (peer, channel), trio.open_nursery() as nursery:
        nursery.start_soon(peer.send, frame(BINARY, packet))
        assert await channel.receive() == packet


@pytest.mark.parametrize("pieces", [1, 2])
async def test_a_packet_beyond_the_limit_is_refused_with_1009(at_once, pieces):
    size = LIMITS.max_packet // pieces + 1
    async with raw_to_channel() as (peer, channel):
        await peer.send(frame(BINARY, b"small"))
        assert await channel.receive() == b"small"
        await peer.send(frame(BINARY, bytes(size), fin=pieces == 1))
        if pieces == 2:
            await peer.send(frame(0, bytes(size)))
        opcode, payload = await peer.read_frame()
        assert (opcode, int.from_bytes(payload[:2])) == (CLOSE, 1009)
        for _ in range(2):
            with pytest.raises(DecodeError, match="more than 20000 bytes"):
                await channel.receive()


async def test_a_peer_that_refuses_a_packet_with_1009_breaks_the_channel_with_that_error(at_once):
    async with raw_to_channel() as (peer, channel):
        await peer.send(frame(CLOSE, (1009).to_bytes(2) + b"too big for me"))
        with pytest.raises(trio.BrokenResourceError, match="1009 too big for me"):
            await channel.receive()


MALFORMED = {
    "not masked": frame(BINARY, b"x", masked=False),
    "RSV1": frame(BINARY, b"x", rsv=4),
    "RSV3": frame(BINARY, b"x", rsv=1),
    "opcode 3": frame(3, b"x"),
    "opcode 11": frame(11),
    "a Ping in fragments": frame(PING, b"x", fin=False),
    "a Ping of 126 bytes": frame(PING, bytes(126)),
    "continues nothing": frame(0, b"x"),
    "a message within a message": frame(BINARY, b"x", fin=False) + frame(BINARY, b"x"),
    "size in too many bytes": b"\x82\xfe\x00\x05" + bytes(9),
    "size of 2^63": b"\x82\xff" + b"\xff" * 8 + bytes(4),
    "close code 999": frame(CLOSE, (999).to_bytes(2)),
    "close code 1005": frame(CLOSE, (1005).to_bytes(2)),
    "a Close of one byte": frame(CLOSE, b"\x03"),
    "text that is not UTF-8": frame(TEXT, b"\xff"),
}


@pytest.mark.parametrize("sent", MALFORMED.values(), ids=MALFORMED)
async def test_malformed_frames_end_the_connection(at_once, sent):
    async with raw_to_channel() as (peer, channel):
        await peer.send(sent)
        with pytest.raises(DecodeError, match="malformed"):
            await channel.receive()
        with pytest.raises(trio.BrokenResourceError):
            await channel.send(b"x")
        await channel.aclose()
        await peer.read_to_end()


async def test_malformed_frames_end_a_clients_connection(at_once):
    async with channel_to_raw() as (channel, peer):
        await peer.send(frame(BINARY, b"masked"))
        with pytest.raises(DecodeError, match="malformed"):
            await channel.receive()
        await peer.send(frame(BINARY, b"later", masked=False))
        await channel.aclose()


async def test_a_packet_may_arrive_in_fragments_of_one_byte(at_once):
    packet = bytes(range(256)) * 8
    pieces = [frame(0, bytes([byte]), fin=False) for byte in packet[1:-1]]
    async with raw_to_channel() as (peer, channel), trio.open_nursery() as nursery:
        first, last = frame(BINARY, packet[:1], fin=False), frame(0, packet[-1:])
        nursery.start_soon(peer.send, first + b"".join(pieces) + last)
        assert await channel.receive() == packet


@pytest.mark.parametrize(
    "flood",
    [frame(BINARY, fin=False) + frame(0, fin=False) * 100_000, frame(PONG) * 100_000],
    ids=["empty fragments", "Pongs"],
)
async def test_bytes_without_a_packet_are_bounded(at_once, flood):
    async with raw_to_channel() as (peer, channel), trio.open_nursery() as nursery:

        async def send():
            with pytest.raises(trio.BrokenResourceError):
                while True:
                    await peer.send(flood)

        nursery.start_soon(send)
        with pytest.raises(trio.BrokenResourceError, match="bytes arrived without a packet"):
            await channel.receive()
        await channel.aclose()


async def test_packets_do_not_count_as_bytes_without_a_packet(at_once):
    packet = bytes(LIMITS.max_packet)
    async with raw_to_channel() as (peer, channel), trio.open_nursery() as nursery:
        nursery.start_soon(peer.send, frame(BINARY, packet) * 60)
        for _ in range(60):
            await wait_all_tasks_blocked()  # the library has read ahead as far as it can
            assert await channel.receive() == packet


# ---- closing


class SlowToClose(trio.abc.AsyncResource):
    """A connection whose close waits for the peer, unless it is cancelled."""

    async def aclose(self):
        await trio.sleep_forever()


async def test_a_stream_is_closed_only_once_its_close_has_ended(nursery):
    stream = WatchedStream(SlowToClose(), is_client=True, max_unread=1)
    stream.opened()
    nursery.start_soon(stream.aclose)
    await wait_all_tasks_blocked()
    assert not stream.is_closed  # so that a second close, which does not wait, has an effect
    nursery.cancel_scope.cancel()
    with trio.CancelScope(shield=True):
        await wait_all_tasks_blocked()
    assert stream.is_closed


@pytest.mark.parametrize(
    ("payload", "detail"),
    [
        (b"", WebSocketClose(1005, "")),
        ((1000).to_bytes(2), WebSocketClose(1000, "")),
        ((1001).to_bytes(2) + b"bye", WebSocketClose(1001, "bye")),
    ],
)
async def test_an_orderly_close_is_the_end_of_the_channel(at_once, payload, detail):
    async with raw_to_channel() as (peer, channel):
        await peer.send(frame(BINARY, b"last") + frame(CLOSE, payload))
        assert await channel.receive() == b"last"
        for _ in range(2):
            with pytest.raises(ChannelEnded) as caught:
                await channel.receive()
            assert caught.value.detail == detail
        with pytest.raises(ChannelBroken) as broken:
            await channel.send(b"x")
        assert broken.value.detail == detail


async def test_a_close_for_an_error_breaks_the_channel_with_its_code(at_once):
    async with channel_to_raw() as (channel, peer):
        await peer.send(frame(CLOSE, (1011).to_bytes(2) + b"out of luck", masked=False))
        with pytest.raises(ChannelBroken, match="1011 out of luck") as caught:
            await channel.receive()
        assert caught.value.detail == WebSocketClose(1011, "out of luck")
        with pytest.raises(trio.BrokenResourceError, match="1011 out of luck"):
            await channel.send(b"x")


async def test_an_end_without_a_close_frame_breaks_the_channel(at_once):
    async with raw_to_channel() as (peer, channel):
        await peer.stream.aclose()
        with pytest.raises(trio.BrokenResourceError, match="without a Close frame"):
            await channel.receive()


async def test_an_end_inside_a_frame_breaks_the_channel(at_once):
    async with raw_to_channel() as (peer, channel):
        await peer.send(frame(BINARY, b"whole") + frame(BINARY, b"half")[:-2])
        await peer.stream.aclose()
        assert await channel.receive() == b"whole"
        with pytest.raises(trio.BrokenResourceError):
            await channel.receive()


async def test_no_task_or_descriptor_remains_after_the_block(at_once):
    before = open_descriptors(), trio.lowlevel.current_statistics().tasks_living
    async with raw_to_channel() as (peer, channel):
        for number in range(5):  # more than the library buffers, so its task waits
            await peer.send(frame(BINARY, b"%d" % number))
        await wait_all_tasks_blocked()
    assert (open_descriptors(), trio.lowlevel.current_statistics().tasks_living) == before
    with pytest.raises(trio.ClosedResourceError):
        await channel.receive()


# ---- pitfalls of trio-websocket


async def fill_up(channel):
    with trio.move_on_after(1000):
        while True:
            await channel.send(bytes(LIMITS.max_packet))


async def test_after_a_cancelled_send_message_later_sends_raise(at_once):
    """Later sends raise, and no bytes of this end follow the half frame."""
    async with raw_to_channel() as (peer, channel):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fill_up, channel)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await peer.send(frame(PING, b"answer me"))
        await wait_all_tasks_blocked()
        for _ in range(2):
            with pytest.raises(trio.BrokenResourceError):
                await channel.send(b"vanishes")
        await channel.aclose()
        with contextlib.suppress(EOFError):
            while True:
                assert await peer.read_frame() == (BINARY, bytes(LIMITS.max_packet))


async def test_a_send_cancelled_before_its_first_byte_has_no_effect(at_once):
    async with raw_to_channel() as (peer, channel):
        with trio.CancelScope() as scope:
            scope.cancel()
            await channel.send(b"not sent")
        await channel.send(b"sent")
        assert await peer.read_frame() == (BINARY, b"sent")


async def test_the_receive_buffer_is_larger_than_the_librarys_default(at_once, monkeypatch):
    asked = []
    receive_some = trio.SocketStream.receive_some

    async def spy(stream, max_bytes=None):
        asked.append(max_bytes)
        return await receive_some(stream, max_bytes)

    async with raw_to_channel() as (peer, channel):
        monkeypatch.setattr(trio.SocketStream, "receive_some", spy)
        await peer.send(frame(BINARY, b"x"))
        await channel.receive()
        await wait_all_tasks_blocked()
        monkeypatch.undo()
    assert asked == [262144]


async def test_a_ping_is_answered_while_a_task_receives(at_once):
    async with raw_to_channel() as (peer, channel), trio.open_nursery() as nursery:
        nursery.start_soon(channel.receive)
        await peer.send(frame(PING, b"are you there?"))
        assert await peer.read_frame() == (PONG, b"are you there?")
        nursery.cancel_scope.cancel()


async def test_an_exception_of_the_librarys_task_ends_only_its_connection(at_once):
    """wsproto refuses to send a Pong while it is closing, and raises in the library's own task."""
    async with raw_to_channel() as (peer, channel):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.aclose)
            assert await peer.read_frame() == (CLOSE, (1000).to_bytes(2))
            await peer.send(frame(PING, b"too late"))  # no Close follows: aclose must not wait
        assert await peer.read_to_end() == b""


async def test_an_exception_of_the_librarys_task_is_raised_at_the_receiver(at_once, monkeypatch):
    async with raw_to_channel() as (peer, channel):

        async def fail(stream, max_bytes=None):
            raise RuntimeError("a bug")

        monkeypatch.setattr(trio.SocketStream, "receive_some", fail)
        await peer.send(frame(BINARY, b"x"))
        with pytest.raises(trio.BrokenResourceError):  # a packet that had arrived may be received
            await channel.receive()
            await channel.receive()
        monkeypatch.undo()


async def test_closing_after_the_peer_closes_the_connection(at_once):
    """A client of the library would leave the connection open."""
    before = open_descriptors()
    async with channel_to_raw() as (channel, peer):
        await peer.send(frame(CLOSE, (1000).to_bytes(2), masked=False))
        with pytest.raises(trio.EndOfChannel):
            await channel.receive()
        assert (await peer.read_frame())[0] == CLOSE
        await channel.aclose()
        assert await peer.read_to_end() == b""
    assert open_descriptors() <= before


async def test_errors_are_raised_without_groups(at_once):
    async def serve_one(peer):
        await send_text(peer, answer("wrong"))

    async with raw_server(serve_one) as url:
        with pytest.raises(ConnectionError):
            await fails_to_open(url)
    async with raw_client() as (peer, connection):
        await peer.send(request())
        with pytest.raises(ValueError, match="the body's"):
            async with connection.prepared():
                raise ValueError("the body's")


async def test_both_ends_close_at_once(nursery, at_once):
    left, right = await connected(nursery, "ws://127.0.0.1:0")
    async with trio.open_nursery() as closing:
        closing.start_soon(left.aclose)
        closing.start_soon(right.aclose)
    for end in (left, right):
        with pytest.raises(trio.ClosedResourceError):
            await end.receive()

"""Sessions over WebSockets: invalid clients, browsers, and clients of other libraries."""

from __future__ import annotations

import contextlib
import logging

import pytest
import trio
import trio_websocket
from helpers.handlers import Echo, Sleeper
from helpers.raw_peer import HELLO
from helpers.websocket_peer import BINARY, CLOSE, TEXT, RawPeer, frame, request
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc import Limits, connect, open_server
from trio_rpc.wire import messages as m
from trio_rpc.wire.codec import Codec


@contextlib.asynccontextmanager
async def raw_client(server):
    port = int(server.urls[0].rpartition(":")[2])
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        yield RawPeer(stream)


INVALID_INPUT = {
    "nothing": b"",
    "zeros": bytes(100_000),
    "TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
    "packets": b"\0\0\0\x05hello",
    "a page": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a form": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na=b",
    "no subprotocol": request(Sec_WebSocket_Protocol=None),
    "another origin": request(Origin="https://evil.example"),
    "garbage in a frame": request() + frame(BINARY, b"\xc1" * 100),
    "an endless head": b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 100_000,
}


@pytest.mark.parametrize("scheme", ["ws", "wss"])
@pytest.mark.parametrize("sent", INVALID_INPUT.values(), ids=INVALID_INPUT)
async def test_a_server_survives_invalid_input(no_time, caplog, server_tls, scheme, sent):
    contexts = server_tls if scheme == "wss" else (None, None)
    caplog.set_level(logging.INFO, "trio_rpc")
    async with open_server(Echo(), f"{scheme}://127.0.0.1:0", ssl_context=contexts[0]) as server:
        await wait_all_tasks_blocked()
        before = trio.lowlevel.current_statistics().tasks_living
        async with raw_client(server) as client:
            with contextlib.suppress(trio.BrokenResourceError):
                await client.send(sent)
                await client.stream.send_eof()
            await client.read_to_end()
        async with connect(server.urls[0], ssl_context=contexts[1]) as session:
            assert await session.call("echo", "still here") == "still here"
        await wait_all_tasks_blocked()
        assert server.sessions == set()
        assert trio.lowlevel.current_statistics().tasks_living == before
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert caplog.records[0].exc_info is None
    assert "\n" not in caplog.text.strip()
    assert "did not become a session" in caplog.text or "was not opened" in caplog.text


async def test_no_service_is_made_for_an_origin_that_is_not_allowed(no_time):
    def services(session):
        raise AssertionError("no session may be opened")

    origins = ["https://good.example"]
    async with open_server(services, "ws://127.0.0.1:0", allowed_origins=origins) as server:
        async with raw_client(server) as page:
            await page.send(request(Origin="https://good.example.evil"))
            assert (await page.read_to_end()).startswith(b"HTTP/1.1 403 ")
        async with raw_client(server) as page:
            await page.send(request(Origin="https://good.example"))
            assert b" 101 " in await page.read_head()
        await wait_all_tasks_blocked()


@pytest.mark.parametrize("allowed", [None, ["https://good.example"]])
async def test_the_origin_is_checked_if_sessions_are_resumable(no_time, allowed):
    """A page that resumes a session says so in its first frame, which is after the check."""

    def services(session):
        raise AssertionError("no session may be opened")

    options = {"allowed_origins": allowed, "resume": True}
    async with open_server(services, "ws://127.0.0.1:0", **options) as server:
        host = server.urls[0].removeprefix("ws://").rstrip("/")
        good = f"http://{host}" if allowed is None else allowed[0]
        for bad in (
            f"http://evil{host}",
            f"http://evil.{host}",
            f"{good}.evil",
            "null",
            f"{good}0",
        ):
            async with raw_client(server) as page:
                await page.send(request(Host=host, Origin=bad))
                assert (await page.read_to_end()).startswith(b"HTTP/1.1 403 "), bad
        async with raw_client(server) as page:
            await page.send(request(Host=host, Origin=good))
            assert b" 101 " in await page.read_head()


async def test_text_ends_the_session_with_1003(no_time):
    async with open_server(Echo(), "ws://127.0.0.1:0") as server, raw_client(server) as peer:
        await peer.send(request())
        await peer.read_head()
        await peer.send(frame(TEXT, b"hello"))
        frames = []
        while not frames or frames[-1][0] != CLOSE:
            frames.append(await peer.read_frame())
        assert int.from_bytes(frames[-1][1][:2]) == 1003
        goodbye = list(Codec().decode(frames[-2][1]))[-1]
        assert isinstance(goodbye, m.Goodbye)
        assert "text" in goodbye.message


async def test_a_peer_may_be_any_websocket_client(no_time):
    """Use a session as docs/protocol.md describes it, over another WebSocket library."""
    codec = Codec()

    async with (
        open_server(Echo(), "ws://127.0.0.1:0/rpc") as server,
        trio_websocket.open_websocket_url(
            server.urls[0], subprotocols=["trio-rpc.v1"]
        ) as websocket,
    ):
        await websocket.send_message(codec.encode(HELLO) + codec.encode(m.Welcome()))
        await websocket.send_message(codec.encode(m.Request(1, "echo", ["one"], None, None)))
        received = []
        while not any(isinstance(each, m.Reply) for each in received):
            received += codec.decode(await websocket.get_message())
        assert [type(each) for each in received] == [m.Hello, m.Welcome, m.Reply]
        assert received[-1].result == "one"


async def test_websocket_pings_are_answered_while_handlers_run(no_time):
    """The WebSocket library answers pings only while the session reads."""
    codec = Codec()
    sleeper = Sleeper()
    async with (
        open_server(sleeper, "ws://127.0.0.1:0") as server,
        trio_websocket.open_websocket_url(
            server.urls[0], subprotocols=["trio-rpc.v1"]
        ) as websocket,
    ):
        await websocket.send_message(codec.encode(HELLO) + codec.encode(m.Welcome()))
        for number in range(1, 51):
            call = m.Request(number, "sleep", [], None, None)
            await websocket.send_message(codec.encode(call))
        async with trio.open_nursery() as nursery:

            async def read():
                while True:
                    await websocket.get_message()

            nursery.start_soon(read)
            await websocket.ping(b"are you there?")
            nursery.cancel_scope.cancel()
        await wait_all_tasks_blocked()
        assert sleeper.running == 50
        sleeper.go.set()


async def test_messages_queued_in_a_tick_leave_in_one_frame(no_time):
    frames = []
    async with open_server(Echo(), "ws://127.0.0.1:0") as server:
        send_message = trio_websocket.WebSocketConnection.send_message

        async def spy(websocket, message):
            if websocket.is_client:
                frames.append(message)
            await send_message(websocket, message)

        async with connect(server.urls[0]) as session:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(trio_websocket.WebSocketConnection, "send_message", spy)
                async with trio.open_nursery() as nursery:
                    for number in range(50):
                        nursery.start_soon(session.call, "echo", number)
    requests = [
        [each for each in Codec().decode(packet) if isinstance(each, m.Request)]
        for packet in frames
    ]
    assert max(map(len, requests)) == 50


async def test_small_limits_hold_over_a_websocket(no_time):
    limits = Limits(max_packet=16 * 1024)
    async with (
        open_server(Echo(), "ws://127.0.0.1:0", limits=limits) as server,
        connect(server.urls[0], limits=limits) as session,
    ):
        value = bytes(range(256)) * 4_000
        assert await session.call("echo", value) == value


async def test_connecting_to_a_server_of_another_scheme_is_one_error(no_time):
    async with open_server(Echo(), "tcp://127.0.0.1:0") as server:
        url = server.urls[0].replace("tcp:", "ws:")
        with pytest.raises(ConnectionError, match="does not speak HTTP") as caught:
            async with connect(url):
                raise AssertionError("it must not open")
        assert str(caught.value).startswith(f"cannot connect to {url}: ")
    async with open_server(Echo(), "ws://127.0.0.1:0") as server:
        url = server.urls[0].replace("ws:", "tcp:")
        with pytest.raises((trio_rpc.SessionBroken, trio_rpc.RemoteProtocolError)):
            async with connect(url):
                raise AssertionError("it must not open")


async def test_a_server_may_listen_at_an_ipv6_address(no_time):
    try:
        async with (
            open_server(Echo(), "ws://[::1]:0/rpc") as server,
            connect(server.urls[0]) as session,
        ):
            assert await session.call("echo", "six") == "six"
    except OSError:
        pytest.skip("no IPv6 here")

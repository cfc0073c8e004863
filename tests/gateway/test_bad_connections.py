"""Connections with invalid input or an abrupt end: their log lines, and their closing."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trio
from helpers.gateway_tools import TIME_LIMIT, browsing, closed_with, hosting, websocket
from hypercorn.config import Config
from hypercorn.trio import serve as hypercorn_serve
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket
from trio_websocket import ConnectionClosed

import trio_rpc
from trio_rpc.gateway import Gateway, GatewayLimits, Message, without_deflate
from trio_rpc.gateway.server.browser import Client
from trio_rpc.gateway.server.connection import Connection, End
from trio_rpc.util.rate_limited_log import RateLimitedLog

UPGRADE = (
    b"GET /ws?resumable=1 HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
HEAD = b"POST /api/echo HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
POST = HEAD + b'Content-Length: 17\r\n\r\n{"size": 3000000}'


class Service:
    @trio_rpc.method
    async def echo(self, size: int = 1) -> str:
        return "x" * size

    @trio_rpc.method
    async def hold(self, found: Callable[[int], Awaitable[None]] | None = None) -> None:
        await trio.sleep_forever()


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def reset(stream: trio.SocketStream) -> None:
    """Close a connection so that the other end gets a reset."""
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


BAD = {
    "a byte after an upgrade": [UPGRADE + b"x"],
    "a frame after an upgrade": [UPGRADE + b"\x81\x80abcd"],
    "an upgrade in two parts and extra bytes": [UPGRADE[:-2], b"\r\nxyz"],
    "an upgrade of another version": [UPGRADE.replace(b" 13", b" 12")],
    "an upgrade without a key": [UPGRADE.replace(b"Sec-WebSocket-Key", b"X")],
    "an upgrade without a version": [UPGRADE.replace(b"Sec-WebSocket-Version", b"X")],
    "an upgrade of an unknown path": [UPGRADE.replace(b"/ws", b"/nowhere")],
    "an upgrade of a POST": [UPGRADE.replace(b"GET", b"POST")],
    "an upgrade to HTTP/2": [UPGRADE.replace(b"websocket", b"h2c")],
    "invalid bytes after an upgrade": [UPGRADE, b"\xff" * 100],
    "an unmasked frame after an upgrade": [UPGRADE, b"\x81\x01a"],
    "text that is not UTF-8 after an upgrade": [UPGRADE, b"\x81\x81\0\0\0\0\xff"],
    "a close frame with a bad code": [UPGRADE, b"\x88\x82\0\0\0\0\x00\x01"],
    "half a head": [UPGRADE[:40]],
    "no head": [b""],
    "HTTP/2": [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 50],
    "a path that is not text": [b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n"],
    "no request at all": [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" * 10],
    "half a body": [POST[:-3]],
    "two lengths": [HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}"],
    "bad chunks": [HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}"],
    "more than one body": [POST + b"extra bytes that are not a request"],
    "a large response": [POST],
    "two requests at once": [POST + POST],
    "an end while a call runs": [
        POST.replace(b"echo", b"hold").replace(b'{"size": 3000000}', b"{               }")
    ],
}
BAD_ENDS = ["close", "half", "reset"]


async def misbehave(port: int, parts: list[bytes], end: str) -> None:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        with contextlib.suppress(trio.BrokenResourceError):
            for part in parts:
                await stream.send_all(part)
                with trio.move_on_after(0.02):
                    await stream.receive_some()
            if end == "half":
                await stream.send_eof()
                with trio.move_on_after(0.5):
                    while await stream.receive_some():
                        pass
        if end == "reset":
            reset(stream)


async def echo_body(request: Request) -> Response:
    return Response(await request.body())


async def echo_socket(websocket: WebSocket) -> None:
    await websocket.accept()
    while True:
        await websocket.send_text(await websocket.receive_text())


@contextlib.asynccontextmanager
async def mounted() -> AsyncIterator[str]:
    gateway = Gateway(Service())
    app = Starlette(
        routes=[
            Route("/api/echo", echo_body, methods=["POST"]),
            WebSocketRoute("/ws", echo_socket),
            Mount("/rpc", gateway),
        ],
        lifespan=lambda _: gateway.run(),
    )
    async with hosting(app) as url:
        yield url


@pytest.mark.parametrize("end", BAD_ENDS)
@pytest.mark.parametrize("is_mounted", [False, True])
async def test_invalid_connections_log_at_most_one_short_line_a_minute(is_mounted, end, caplog):
    caplog.set_level(logging.INFO)
    async with mounted() if is_mounted else hosting(Gateway(Service())) as url:
        async with trio.open_nursery() as nursery:
            for parts in BAD.values():
                for _ in range(2):
                    nursery.start_soon(misbehave, port_of(url), parts, end)
        # It still serves, and each connection has ended.
        if not is_mounted:
            async with browsing(url) as browser:
                assert (await browser.http.post("/api/echo", json={})).json()["payload"] == "x"
    lines = [record for record in caplog.records if record.name.startswith(("trio_rpc", "hyper"))]
    assert len(lines) <= 1, [record.getMessage() for record in lines]
    assert all(record.exc_info is None and len(record.getMessage()) < 300 for record in lines)


async def test_a_bug_of_the_application_is_logged_with_its_traceback(caplog):
    async def fails(_: Request) -> Response:
        raise LookupError("the application's own bug")

    async def socket_fails(websocket: WebSocket) -> None:
        await websocket.accept()
        raise LookupError("another")

    app = Starlette(routes=[Route("/", fails), WebSocketRoute("/ws", socket_fails)])
    async with hosting(app) as url:
        stream = await trio.open_tcp_stream("127.0.0.1", port_of(url))
        async with stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert b" 500 " in await stream.receive_some()
        async with websocket(url) as ws:
            assert await closed_with(ws) == 1011
    assert caplog.text.count("LookupError: the application's own bug") == 1
    assert caplog.text.count("LookupError: another") == 1


async def test_the_rate_limit_of_log_lines_is_per_gateway_and_not_per_client(caplog):
    async with hosting(Gateway(Service())) as url:
        for _ in range(30):
            async with websocket(url) as ws:
                await ws.get_message()
                await ws.send_message("no JSON")
                await ws.send_message('{"type": "ping", "id": 1}')
                await ws.get_message()
    assert caplog.text.count("sent invalid JSON") == 20


def test_the_rate_limited_log_counts_the_lines_it_leaves_out(caplog, autojump_clock):
    async def main() -> None:
        one = RateLimitedLog(logging.getLogger("trio_rpc.gateway"), lines=1)
        for number in range(3):
            one.log(logging.WARNING, "line %d", number)
        await trio.sleep(61)
        one.log(logging.WARNING, "line %d", 3)

    trio.run(main, clock=autojump_clock)
    assert [record.getMessage() for record in caplog.records] == [
        "line 0",
        "2 more lines were not logged",
        "line 3",
    ]


# ── messages that are too large ──────────────────────────────────────────────────────────────


def message_of(size: int, pad: str = "x") -> str:
    """Make a message of this many bytes, of an unknown type."""
    bare = len(json.dumps({"type": "unknown", "pad": ""}))
    return json.dumps(
        {"type": "unknown", "pad": pad * ((size - bare) // len(pad.encode()))}, ensure_ascii=False
    )


@contextlib.asynccontextmanager
async def limited(limits: GatewayLimits, *, is_mounted: bool) -> AsyncIterator[str]:
    gateway = Gateway(Service(), limits=limits)
    if not is_mounted:
        async with hosting(gateway) as url:
            yield url
        return
    async with hosting(
        Starlette(routes=[Mount("/rpc", gateway)], lifespan=lambda _: gateway.run())
    ) as url:
        yield f"{url}/rpc"


@pytest.mark.parametrize("pad", ["x", "ä"])
@pytest.mark.parametrize("most", [1000, 1_000_000])
@pytest.mark.parametrize("is_mounted", [False, True])
async def test_max_message_is_the_limit_of_a_gateways_websockets(is_mounted, most, pad):
    async with limited(GatewayLimits(max_message=most), is_mounted=is_mounted) as url:
        async with browsing(url) as browser:
            await browser.ws.send_message(message_of(most, pad))
            await browser.send("ping", id=1)
            assert (await browser.next())["id"] == 1
            await browser.ws.send_message(message_of(most + 2, pad))
            assert await closed_with(browser.ws) == 1009


async def test_a_message_that_is_too_large_is_refused_before_it_ends():
    """The server that buffers the message has the gateway's limit."""
    async with hosting(Gateway(Service(), limits=GatewayLimits(max_message=1000))) as url:
        async with await trio.open_tcp_stream("127.0.0.1", port_of(url)) as stream:
            await stream.send_all(UPGRADE)
            received = await stream.receive_some()
            await stream.send_all(b"\x01\xfe\x10\x00\0\0\0\0" + b"x" * 4096)  # FIN is not set
            with trio.fail_after(5):
                while b"\x03\xf1" not in received:  # a Close frame with 1009
                    received += await stream.receive_some()


@pytest.mark.parametrize("size", [70_000, 900_000])
async def test_the_gateways_limits_do_not_apply_to_other_websockets_of_its_host(size):
    async with mounted() as url, websocket(url) as ws:
        await ws.send_message("x" * size)
        assert await ws.get_message() == "x" * size


async def test_other_websockets_of_a_host_have_the_limit_of_its_server(nursery):
    config = Config()
    config.bind, config.loglevel = ["127.0.0.1:0"], "ERROR"
    config.websocket_max_message_size = 100_000
    app = without_deflate(Starlette(routes=[WebSocketRoute("/ws", echo_socket)]))
    stop = trio.Event()

    async def run(task_status: trio.TaskStatus[list[str]]) -> None:
        await hypercorn_serve(app, config, shutdown_trigger=stop.wait, task_status=task_status)

    [url] = await nursery.start(run)
    with trio.fail_after(TIME_LIMIT):
        async with websocket(url) as ws:
            await ws.send_message("ä" * 50_000)  # the limit counts bytes, not characters
            assert len(await ws.get_message()) == 50_000
            await ws.send_message("ä" * 50_001)
            assert await closed_with(ws) == 1009
    stop.set()


async def test_max_body_is_independent_of_max_message():
    limits = GatewayLimits(max_message=10, max_body=100_000)
    async with hosting(Gateway(Service(), limits=limits)) as url, browsing(url) as browser:
        for size, status in ((99_000, 422), (101_000, 413)):
            got = await browser.http.post("/api/echo", json={"x": "y" * size})
            assert got.status_code == status


@pytest.mark.parametrize("reads", [True, False])
@pytest.mark.parametrize("goes_on", [True, False])
async def test_after_1009_the_socket_is_closed_within_the_shutdown_timeout(goes_on, reads):
    limits = GatewayLimits(max_message=1000, shutdown_timeout=0.1, grace=0.1)
    gateway = Gateway(Service(), limits=limits)
    async with hosting(gateway) as url:
        stream = await trio.open_tcp_stream("127.0.0.1", port_of(url))
        async with stream:
            await stream.send_all(UPGRADE)
            await stream.receive_some()
            frame = b"\x81\xfe\x10\x00\0\0\0\0" + b"x" * 4096  # no Close frame follows
            with trio.fail_after(5), contextlib.suppress(trio.BrokenResourceError):
                await stream.send_all(frame)
                while goes_on:
                    await stream.send_all(frame)
                    await trio.sleep(0.01)
                while reads and await stream.receive_some():
                    pass
            with trio.fail_after(5):
                while gateway.clients:  # noqa: ASYNC110 - no event tells
                    await trio.sleep(0.01)


async def test_a_client_can_read_the_close_code_1009():
    async with hosting(Gateway(Service(), limits=GatewayLimits(max_message=1000))) as url:
        async with websocket(url) as ws:
            await ws.get_message()
            for _ in range(50):
                with contextlib.suppress(ConnectionClosed):
                    await ws.send_message("x" * 60_000)
            assert await closed_with(ws) == 1009


async def test_a_message_that_is_too_large_ends_the_connection_of_a_server_without_a_limit():
    """Without ``without_deflate``, hypercorn sets no limit, and the connection checks the size."""
    client = Client(GatewayLimits(max_message=10), resumable=True)

    async def send(_: str) -> None:
        await trio.lowlevel.checkpoint()

    async def receive() -> str:
        await trio.lowlevel.checkpoint()
        return "x" * 11

    async with trio.open_nursery() as nursery:
        await nursery.start(client.run)
        assert await Connection(client, {"type": "uuid"}, send, receive).run() is End.TOO_LARGE
        nursery.cancel_scope.cancel()
    assert End.TOO_LARGE.value[0] == 1009


async def test_limits_may_be_infinite():
    inf = float("inf")
    limits = GatewayLimits(grace=inf, keepalive=inf, handshake_timeout=inf, body_timeout=inf)
    async with hosting(Gateway(Service(), limits=limits)) as url:
        async with websocket(url) as ws:
            hello = json.loads(await ws.get_message())
            assert (hello["grace"], hello["keepalive"]) == (None, None)
        async with Message("127.0.0.1", port_of(url)).connect() as message:
            assert await message.post("echo", {}) == "x"
            assert message._session.grace == inf

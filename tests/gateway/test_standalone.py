"""The HTTP server alone: refusals, independence of connections, and its end."""

from __future__ import annotations

import base64
import contextlib
import json
import struct
import tracemalloc
import zlib
from collections.abc import Awaitable, Callable

import httpx
import pytest
import trio
from helpers.gateway_tools import TIME_LIMIT, browsing, closed_with, hosting, websocket
from helpers.tls import make_contexts
from hypercorn.config import Config
from hypercorn.trio import serve as hypercorn_serve
from starlette.applications import Starlette
from starlette.routing import Mount
from trio_websocket import open_websocket_url

import trio_rpc
from trio_rpc.gateway import Gateway, open_http_server, serve, without_deflate
from trio_rpc.gateway.server import standalone


class Adder:
    def __init__(self) -> None:
        self.begun = trio.Event()
        self.ended = trio.Event()

    @trio_rpc.method
    async def hold(self) -> None:
        self.begun.set()
        await trio.sleep_forever()

    @trio_rpc.method
    async def add(self, a: int, b: int) -> int:
        return a + b

    @trio_rpc.method
    async def flood(self, found: Callable[[str], Awaitable[None]]) -> None:
        try:
            while True:
                await found("x" * 60_000)
        finally:
            self.ended.set()


UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + base64.b64encode(bytes(16)) + b"\r\n"
)
BOMB_SIZE = 256 * 1024 * 1024


def bomb() -> bytes:
    """Make the payload of one frame, 254 KiB that inflate to 256 MiB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    parts = [packer.compress(bytes(1 << 20)) for _ in range(BOMB_SIZE >> 20)]
    return (b"".join(parts) + packer.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\0\0\xff\xff")


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


async def read_head(stream: trio.SocketStream) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        more = await stream.receive_some()
        assert more, head
        head += more
    return head


async def read_all(stream: trio.SocketStream) -> bytes:
    got = b""
    with contextlib.suppress(trio.BrokenResourceError):
        while more := await stream.receive_some():
            got += more
    return got


async def test_a_deflate_bomb_does_not_inflate():
    payload = bomb()
    assert len(payload) < 256 * 1024
    frame = bytes([0x80 | 0x40 | 1, 0x80 | 127]) + struct.pack(">Q", len(payload)) + bytes(4)
    async with hosting(Gateway(Adder())) as url:
        async with await trio.open_tcp_stream("127.0.0.1", port_of(url)) as stream:
            offer = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
            await stream.send_all(UPGRADE + offer)
            head = await read_head(stream)
            assert b" 101 " in head
            assert b"extensions" not in head.lower()
            tracemalloc.start()
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(read_all, stream)
                    with contextlib.suppress(trio.BrokenResourceError):  # refused early
                        await stream.send_all(frame + payload)
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            assert peak < 8 * 1024 * 1024
        async with browsing(url):
            pass


INVALID = [
    UPGRADE + b"\r\n" + b"one byte more than a request",
    UPGRADE + b"\r\n" + b"\xff" * 200,
    UPGRADE + b"\r\n" + b"\x88\x82\0\0\0\0\x03\xe8" + b"\x81\x85\0\0\0\0hello",
    UPGRADE + b"Sec-WebSocket-Protocol: \xff\xfe\r\n\r\n",
    UPGRADE * 2 + b"\r\n",
    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100,
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nHTTP2-Settings: !\r\n\r\n",
    b"\x16\x03\x01" + b"\xa5" * 300,
    b"\x00" * 100_000,
    b"POST /api/add HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
]


@pytest.mark.parametrize("number", range(len(INVALID)))
@pytest.mark.parametrize("size", [1_000_000, 7])
async def test_law_14_invalid_input_ends_only_its_own_connection(number, size):
    data = INVALID[number]
    async with hosting(Gateway(Adder())) as url, browsing(url) as browser:
        async with await trio.open_tcp_stream("127.0.0.1", port_of(url)) as stream:
            try:
                for start in range(0, min(len(data), 2000) if size == 7 else len(data), size):
                    await stream.send_all(data[start : start + size])
                await stream.send_eof()
            except trio.BrokenResourceError:
                pass
            await read_all(stream)
        await browser.start("add", a=1, b=2)
        assert (await browser.next())["payload"] == 3


async def test_a_connection_with_an_unfinished_request_is_closed(monkeypatch):
    monkeypatch.setattr(standalone, "HEAD_TIMEOUT", 0.05)
    async with hosting(Gateway(Adder())) as url:
        async with await trio.open_tcp_stream("127.0.0.1", port_of(url)) as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost:")
            assert await read_all(stream) == b""


async def test_a_client_that_does_not_read_does_not_delay_the_end():
    """hypercorn shields its sends, so only closing the connection ends them."""
    adder = Adder()
    async with hosting(Gateway(adder)) as url, httpx.AsyncClient(base_url=url) as http:
        stream = await trio.open_tcp_stream("127.0.0.1", port_of(url))
        async with stream:
            await stream.send_all(UPGRADE.replace(b"/ws", b"/ws?resumable=1") + b"\r\n")
            got = await read_head(stream)
            hello = got.partition(b"\r\n\r\n")[2]
            while b"}" not in hello:
                hello += await stream.receive_some()
            first_message = json.loads(hello[hello.index(b"{") :])
            await http.post(
                f"/api/flood/{first_message['uuid']}",
                json={},
                headers={"Trio-Rpc-Token": first_message["token"]},
            )
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert not adder.ended.is_set()
            # The end of the block is under test. hosting() has a time limit.
            left = trio.current_time()
    assert adder.ended.is_set()
    assert trio.current_time() - left < 10


async def test_on_loopback_only_its_own_names_are_accepted_as_host():
    async with hosting(Gateway(Adder())) as url, browsing(url) as browser:
        assert (
            await browser.post("add", headers={"Host": "evil.example"}, a=1, b=2)
        ).status_code == 403
    async with hosting(Gateway(Adder(), allowed_hosts=["my.example"])) as url:
        async with httpx.AsyncClient(base_url=url) as http:
            for host, status in (("my.example", 200), ("localhost", 403)):
                got = await http.post("/api/add", json={"a": 1, "b": 1}, headers={"Host": host})
                assert got.status_code == status


@pytest.mark.parametrize(
    "url",
    ["tcp://127.0.0.1:0", "http://", "http://a:x", "http://a:1/path", "http://u@a:1", "a", ""],
)
async def test_an_invalid_url_is_refused(url):
    with pytest.raises(ValueError, match="accepted are"):
        async with open_http_server(Gateway(Adder()), url):
            pass


async def test_a_missing_url_or_certificate_is_an_error():
    with pytest.raises(ValueError, match="needs a URL"):
        async with open_http_server(Gateway(Adder())):
            pass
    with pytest.raises(ValueError, match="ssl_context"):
        async with open_http_server(Gateway(Adder()), "https://127.0.0.1:0"):
            pass


async def test_an_address_in_use_is_an_error_with_its_url(nursery):
    [url] = await nursery.start(serve, Gateway(Adder()), "http://127.0.0.1:0")
    with pytest.raises(OSError, match=f"cannot listen at {url}: "):
        async with open_http_server(Gateway(Adder()), "http://127.0.0.1:0", url):
            pass


async def test_the_servers_block_raises_the_exception_of_its_body():
    with pytest.raises(KeyError):
        async with open_http_server(Gateway(Adder()), "http://127.0.0.1:0"):
            raise KeyError


async def test_a_gateway_can_be_served_over_tls():
    context, client_context = make_contexts()
    async with open_http_server(
        Gateway(Adder()), "https://localhost:0", ssl_context=context
    ) as urls:
        assert urls[0].startswith("https://")
        url = f"https://localhost:{port_of(urls[0])}"
        async with httpx.AsyncClient(base_url=url, verify=client_context) as http:
            assert (await http.post("/api/add", json={"a": 1, "b": 1})).json()["payload"] == 2
        async with open_websocket_url(f"wss{url[5:]}/ws", ssl_context=client_context) as ws:
            assert json.loads(await ws.get_message())["type"] == "uuid"


async def test_without_deflate_must_be_directly_below_hypercorn():
    async def app(scope, receive, send):
        raise AssertionError

    with pytest.raises(RuntimeError, match="directly below hypercorn"):
        await without_deflate(app)({"type": "websocket"}, app, app)


@contextlib.asynccontextmanager
async def serving_until_cancelled(app):
    """Serve during the block, and end by a cancellation, as Ctrl-C or an outer scope does."""
    async with trio.open_nursery() as serving:
        [url] = await serving.start(serve, app, "http://127.0.0.1:0")
        yield url
        serving.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def cancelled_from_outside(app):
    """Serve around the block, whose own scope is cancelled at its end."""
    with trio.CancelScope() as scope:
        async with open_http_server(app, "http://127.0.0.1:0") as [url]:
            yield url
            scope.cancel()
            await trio.lowlevel.checkpoint()


def mounted(gateway):
    return Starlette(routes=[Mount("/", gateway)], lifespan=lambda _app: gateway.run())


@pytest.mark.parametrize("wrap", [lambda gateway: gateway, mounted])
@pytest.mark.parametrize("open_it", [hosting, serving_until_cancelled, cancelled_from_outside])
async def test_browsers_get_close_code_1001_at_the_end_also_when_it_is_cancelled(
    nursery, open_it, wrap
):
    codes = []

    async def listen(url, task_status):
        async with websocket(url) as ws:
            task_status.started()
            codes.append(await closed_with(ws))

    async with open_it(wrap(Gateway(Adder()))) as url:
        await nursery.start(listen, url)
    await trio.testing.wait_all_tasks_blocked()
    assert codes == [1001]


@pytest.mark.parametrize("open_it", [hosting, serving_until_cancelled, cancelled_from_outside])
async def test_law_4_a_call_within_its_request_gets_an_answer_when_the_server_is_cancelled(
    nursery, open_it
):
    adder, answers = Adder(), []

    async def ask(url):
        async with httpx.AsyncClient(base_url=url) as http:
            answers.append(await http.post("/api/hold", json={}))

    async with open_it(Gateway(adder)) as url:
        nursery.start_soon(ask, url)
        await adder.begun.wait()
    with trio.fail_after(TIME_LIMIT):
        while not answers:
            await trio.testing.wait_all_tasks_blocked(0.01)
    assert (answers[0].status_code, answers[0].json()["code"]) == (500, "cancelled")


async def test_a_request_to_a_gateway_that_no_longer_runs_gets_the_reason(caplog):
    gateway = Gateway(Adder())
    http = httpx.AsyncClient(transport=httpx.ASGITransport(gateway), base_url="http://here")
    async with http:
        assert "is not running" in (await http.post("/api/add", json={"a": 1, "b": 1})).text
        caplog.clear()
        async with gateway.run():
            pass
        got = await http.post("/api/add", json={"a": 1, "b": 1})
        assert (got.status_code, got.json()) == (503, {"error": "this gateway is closing"})
        assert not caplog.records
        async with gateway.run():
            assert (await http.post("/api/add", json={"a": 1, "b": 1})).status_code == 200


@pytest.mark.parametrize("is_wrapped", [True, False])
async def test_under_a_users_hypercorn_compression_is_disabled_or_logged_as_a_warning(
    is_wrapped, nursery, caplog
):
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.loglevel = "ERROR"
    stop = trio.Event()
    app = Gateway(Adder())
    hosted = without_deflate(app) if is_wrapped else app

    async def run(task_status):
        await hypercorn_serve(hosted, config, shutdown_trigger=stop.wait, task_status=task_status)

    [url] = await nursery.start(run)
    for _ in range(2):
        async with await trio.open_tcp_stream("127.0.0.1", port_of(url)) as stream:
            await stream.send_all(UPGRADE + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n")
            head = await read_head(stream)
            assert (b"permessage-deflate" in head) is not is_wrapped
    assert caplog.text.count("a thousand times their size") == (0 if is_wrapped else 1)
    stop.set()

"""Requests that the gateway refuses, with their status. None of them reaches a handler."""

from __future__ import annotations

import gzip
import json
import pathlib
from collections.abc import Awaitable, Callable

import httpx
import pytest
import trio
import trio_websocket
from helpers.gateway_tools import browsing, closed_with, hosting, websocket
from starlette.applications import Starlette
from starlette.routing import Mount
from trio_websocket import wrap_client_stream

import trio_rpc
from trio_rpc.gateway import Gateway, GatewayLimits


class Counter:
    def __init__(self) -> None:
        self.calls = 0

    @trio_rpc.method
    async def add(self, number: int, found: Callable[[int], Awaitable[None]] | None = None) -> int:
        self.calls += 1
        return self.calls + number

    @trio_rpc.stream
    async def ticks(self):
        yield 1

    async def secret(self) -> None:
        self.calls += 1


@pytest.fixture
def counter():
    return Counter()


def status_and_error(got: httpx.Response) -> tuple[int, str]:
    return got.status_code, got.json()["error"]


async def test_the_token_and_not_the_id_authorises_a_client(counter):
    """A client_id cannot be guessed, and only its owner can post with it."""
    async with hosting(Gateway(counter)) as url, browsing(url) as browser, browsing(url) as other:
        path = f"/api/add/{browser.id}"
        none = await browser.http.post(path, json={"number": 1})
        assert status_and_error(none) == (401, "the header Trio-Rpc-Token is missing")
        for token in ("", "wrong", other.token, browser.token[:-1], "\xe9"):
            headers = {"Trio-Rpc-Token": token.encode("latin-1")}
            got = await browser.http.post(path, json={"number": 1}, headers=headers)
            assert status_and_error(got) == (403, "this token does not belong to that client")
        browser.id = "somebody"
        assert status_and_error(await browser.post("add", number=1)) == (
            403,
            "there is no such client",
        )
    assert counter.calls == 0


async def test_a_legacy_client_needs_only_its_id_but_a_wrong_token_is_refused(counter):
    async with hosting(Gateway(counter, legacy_clients=True)) as url, browsing(url) as browser:
        path = f"/api/add/{browser.id}"
        assert (await browser.http.post(path, json={"number": 1})).status_code == 200
        browser.token += "x"
        assert (await browser.post("add", number=1)).status_code == 403


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonp"]
)
async def test_only_json_is_accepted(counter, kind):
    async with hosting(Gateway(counter)) as url, browsing(url) as browser:
        for path in (f"/api/add/{browser.id}", "/api/add"):
            got = await browser.http.post(
                path,
                content=b'{"number": 1}',
                headers={"Trio-Rpc-Token": browser.token, "Content-Type": kind},
            )
            assert status_and_error(got) == (415, "the content type must be application/json")
    assert counter.calls == 0


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b'{"number": 1', 400, "the body is not JSON"),
        (b"\xff", 400, "the body is not JSON"),
        (b"[" * 100_000, 400, "the body is not JSON"),
        (b"[1]", 422, "the body must be an object"),
        (b'{"number": "1"}', 422, "parameter 'number'"),
        (b'{"number": null}', 422, "Expected `int`, got `null`"),
        (b"{}", 422, "lacks parameter 'number'"),
        (b'{"number": 1, "other": 2}', 422, "has no parameter 'other'"),
        (b'{"number": 1, "found": 2}', 422, "'found' is a callback"),
        (b'{"number": 1, "self": 2}', 422, "has no parameter 'self'"),
    ],
)
async def test_an_invalid_body_is_refused_with_an_error_that_says_why(counter, body, status, text):
    """The body of a request is checked against the declared types, and a bad body is an error."""
    async with hosting(Gateway(counter)) as url, browsing(url) as browser:
        headers = {"Trio-Rpc-Token": browser.token, "Content-Type": "application/json"}
        for path in (f"/api/add/{browser.id}", "/api/add"):
            got = await browser.http.post(path, content=body, headers=headers)
            assert got.status_code == status
            assert text in got.json()["error"]
            assert "\n" not in got.json()["error"]
    assert counter.calls == 0


async def test_the_error_names_the_field_that_does_not_fit(counter):
    async with hosting(Gateway(counter)) as url, browsing(url) as browser:
        assert (await browser.post("add", number="1")).json()["parameter"] == "number"


async def test_an_undeclared_callback_is_refused_before_the_handler_starts(counter):
    """A callback that the client asks for and the method does not declare is refused."""
    async with hosting(Gateway(counter)) as url, browsing(url) as browser:
        got = await browser.post("add", headers={"Trio-Rpc-Callbacks": "found, lost"}, number=1)
        assert status_and_error(got) == (422, "add has no callback 'lost'")
        assert got.json()["parameter"] == "lost"
    assert counter.calls == 0


async def test_the_cost_of_converting_arguments_is_bounded():
    class Service:
        @trio_rpc.method
        async def take(self, paths: list[pathlib.Path]) -> int:
            return len(paths)

    gateway = Gateway(Service(), limits=GatewayLimits(max_nodes=500))
    async with hosting(gateway) as url, browsing(url) as browser:
        assert (await browser.post("take", paths=["a"] * 10)).status_code == 200
        status, text = status_and_error(await browser.post("take", paths=["a"] * 100))
        assert status == 422
        assert "too costly to convert to the annotated types: max_nodes (500)" in text


async def test_the_size_of_a_body_is_bounded(counter):
    limits = GatewayLimits(max_body=1000)
    async with hosting(Gateway(counter, limits=limits)) as url, browsing(url) as browser:
        assert status_and_error(await browser.post("add", number=1, x="y" * 1000))[0] == 413
        headers = {"Trio-Rpc-Token": browser.token, "Content-Type": "application/json"}

        async def chunks():
            for _ in range(11):
                yield b" " * 100

        path = f"/api/add/{browser.id}"
        got = await browser.http.post(path, content=chunks(), headers=headers)
        assert status_and_error(got) == (413, "the body is larger than 1,000 bytes")
    assert counter.calls == 0


@pytest.mark.parametrize(
    "name", ["nope", "secret", "ticks", "__init__", "__class__.__init__", "a.b", "%00", "add%0a"]
)
async def test_law_13_only_decorated_methods_can_be_called_through_a_gateway(counter, name):
    async with hosting(Gateway(counter)) as url, browsing(url) as browser:
        got = await browser.post(name, number=1)
        assert got.status_code == 404
        assert "\n" not in got.json()["error"]
    assert counter.calls == 0


async def test_other_paths_and_verbs_are_refused(counter):
    async with hosting(Gateway(counter)) as url, httpx.AsyncClient(base_url=url) as http:
        assert status_and_error(await http.get("/")) == (404, "this gateway has no page '/'")
        status, text = status_and_error(await http.post("/rpc/api/a%0Ab" + "x" * 200))
        assert (status, text[:41]) == (404, r"this gateway has no page '/rpc/api/a\nbxx")
        assert text.endswith("… (212 characters)'")
        assert status_and_error(await http.get("/api/add")) == (405, "Method Not Allowed")


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "https://good.example.evil",
        "http://127.0.0.1",
        "http://127.0.0.1:1",
        "https://good.example:444",
        "http://[",
        "ftp://127.0.0.1",
        "",
    ],
)
async def test_pages_of_other_origins_are_refused(counter, origin):
    gateway = Gateway(counter, allowed_origins=["https://good.example"])
    async with hosting(gateway) as url, browsing(url) as browser:
        got = await browser.post("add", headers={"Origin": origin}, number=1)
        assert got.status_code == 403
        assert "Access-Control-Allow-Origin" not in got.headers
        with pytest.raises(trio_websocket.ConnectionRejected) as refused:
            async with refused_websocket(url, [("Origin", origin)]):
                pass
        assert refused.value.status_code == 403
    assert counter.calls == 0


@pytest.mark.parametrize("query", ["resumable=1", "resume=1", ""])
async def test_an_origin_that_only_contains_the_gateways_host_is_refused(counter, query):
    async with hosting(Gateway(counter)) as url, browsing(url) as browser:
        host = url.removeprefix("http://")
        for origin in (
            f"http://evil{host}",
            f"http://evil.{host}",
            f"http://evil.example/{host}",
            f"http://user@{host}",
            f"{url}.evil.example",
            f"{url}0",
            f"{url}/",
            f"http://{host.rpartition(':')[0]}",
            host,
        ):
            got = await browser.post("add", headers={"Origin": origin}, number=1)
            assert got.status_code == 403, origin
            got = await browser.http.post(
                "/api/add", json={"number": 1}, headers={"Origin": origin}
            )
            assert got.status_code == 403, origin
            with pytest.raises(trio_websocket.ConnectionRejected) as refused:
                async with refused_websocket(url, [("Origin", origin)], query):
                    pass
            assert refused.value.status_code == 403
    assert counter.calls == 0


async def test_origin_and_host_are_checked_when_a_session_is_resumed(counter):
    """The token is not enough, because a page of another site may have obtained it."""
    gateway = Gateway(
        counter, allowed_origins=["https://good.example"], allowed_hosts=["127.0.0.1"]
    )
    async with hosting(gateway) as url, browsing(url) as browser:
        address = httpx.URL(url)
        for host, origin in (
            ("127.0.0.1", "https://evil.example"),
            ("127.0.0.1", "https://evilgood.example"),
            ("evil.example", None),
            ("evil.example", "http://evil.example"),
        ):
            stream = await trio.open_tcp_stream(address.host, address.port)
            async with stream:
                head = ["GET /ws?resume=1 HTTP/1.1", f"Host: {host}", "Connection: Upgrade"]
                head += ["Upgrade: websocket", "Sec-WebSocket-Version: 13"]
                head += ["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="]
                head += [f"Origin: {origin}"] if origin else []
                await stream.send_all("\r\n".join([*head, "", ""]).encode())
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 403 "), (host, origin)
        assert gateway.clients == 1
        async with websocket(url, "resume=1", [("Origin", "https://good.example")]) as browser.ws:
            await browser.send("resume", uuid=browser.id, token=browser.token, seq=0)
            assert (await browser.next())["type"] == "resumed"


@pytest.mark.parametrize(
    ("query", "leaves"), [("", False), ("resumable=1", False), ("resumable=1", True)]
)
async def test_a_client_that_has_left_is_removed_from_the_table(counter, query, leaves):
    gateway = Gateway(counter, limits=GatewayLimits(grace=0.05), legacy_clients=True)
    async with hosting(gateway) as url, httpx.AsyncClient() as http:
        async with browsing(url, query) as browser:
            assert gateway.clients == 1
            if leaves:
                await browser.send("bye")
                assert await closed_with(browser.ws) == 1001
        while gateway.clients:  # noqa: ASYNC110 - hosting has a time limit; no event tells
            await trio.sleep(0.01)
        for path in (f"/api/add/{browser.id}", f"/api/nothing/{browser.id}"):
            got = await http.post(f"{url}{path}", json={"number": 1})
            assert got.status_code == 410
    assert counter.calls == 0


def refused_websocket(url, headers, query="resumable=1"):
    return without_group(websocket(url, query, headers=headers))


class without_group:  # noqa: N801 - reads as a function
    """Raise the single exception of a test tool's nursery without its group."""

    def __init__(self, manager):
        self._manager = manager

    async def __aenter__(self):
        try:
            return await self._manager.__aenter__()
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None

    async def __aexit__(self, *exc):
        return await self._manager.__aexit__(*exc)


async def test_its_own_pages_and_pages_of_allowed_origins_are_accepted(counter):
    gateway = Gateway(counter, allowed_origins=["https://good.example/"])
    async with hosting(gateway) as url, browsing(url) as browser:
        for origin in (url, "https://good.example", "HTTPS://GOOD.example"):
            got = await browser.post("add", headers={"Origin": origin}, number=1)
            assert got.status_code == 200
            async with websocket(url, headers=[("Origin", origin)]) as ws:
                assert json.loads(await ws.get_message())["type"] == "uuid"


async def test_preflight_requests_name_the_allowed_origin(counter):
    gateway = Gateway(counter, allowed_origins=["https://good.example"])
    preflight = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type,trio-rpc-token,idempotency-key",
    }
    async with hosting(gateway) as url, httpx.AsyncClient(base_url=url) as http:
        good = await http.options(
            "/api/add", headers={"Origin": "https://good.example", **preflight}
        )
        assert good.status_code == 200
        assert good.headers["Access-Control-Allow-Origin"] == "https://good.example"
        evil = await http.options(
            "/api/add", headers={"Origin": "https://evil.example", **preflight}
        )
        assert evil.status_code == 400
        assert "Access-Control-Allow-Origin" not in evil.headers


async def test_an_unknown_host_is_refused(counter):  # it prevents DNS rebinding
    gateway = Gateway(counter, allowed_hosts=["127.0.0.1", "localhost"])
    async with hosting(gateway) as url, browsing(url) as browser:
        for host in ("evil.example", "127.0.0.1.evil.example:80", "[::1]", "", "[", "[::", "a b"):
            got = await browser.post("add", headers={"Host": host}, number=1)
            assert got.status_code == 403
        got = await browser.post("add", headers={"Host": "LOCALHOST:99"}, number=1)
        assert got.status_code == 200


async def test_the_calls_of_a_client_and_the_clients_are_bounded():
    class Holder:
        @trio_rpc.method
        async def hold(self) -> None:
            await trio.sleep_forever()

    limits = GatewayLimits(max_works=2, max_clients=1, max_direct=1)
    async with hosting(Gateway(Holder(), limits=limits)) as url, browsing(url) as browser:
        assert [(await browser.post("hold")).status_code for _ in range(3)] == [200, 200, 429]
        with pytest.raises(trio_websocket.ConnectionRejected) as refused:
            async with refused_websocket(url, None):
                pass
        assert refused.value.status_code == 503
        assert b"too many clients" in refused.value.body


async def test_a_new_client_replaces_a_disconnected_one_without_calls_when_the_gateway_is_full(
    counter,
):
    limits = GatewayLimits(max_clients=2)
    gateway = Gateway(counter, limits=limits)
    async with hosting(gateway) as url:
        gone = []
        for _ in range(20):  # clients that disconnect do not take the places of others
            async with browsing(url) as browser:
                gone.append(browser)
                browser.cut()
                while not gateway._state.clients[browser.id].is_disconnected:
                    await trio.lowlevel.checkpoint()
        async with browsing(url) as one, browsing(url) as two:
            assert gateway.clients == 2
            for browser in (one, two):
                assert (await browser.post("add", number=1)).status_code == 200
            gone[-1].http = one.http
            assert (await gone[-1].post("add", number=1)).status_code == 410


async def test_a_client_that_does_not_acknowledge_messages_cannot_start_calls(counter):
    limits = GatewayLimits(backlog_messages=2)
    async with hosting(Gateway(counter, limits=limits)) as url, browsing(url) as browser:
        for _ in range(2):
            await browser.start("add", number=1)
            await browser.next()
        got = await browser.post("add", number=1)
        assert got.status_code == 429
        await browser.send("ack", seq=2)
        await browser.send("ping")
        await browser.next()
        await browser.start("add", number=1)


async def test_the_wait_for_a_body_is_bounded(counter):
    limits = GatewayLimits(body_timeout=0.05)
    async with hosting(Gateway(counter, limits=limits)) as url:
        stream = await trio.open_tcp_stream("127.0.0.1", int(url.rpartition(":")[2]))
        async with stream:
            head = b"POST /api/add HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n"
            await stream.send_all(head + b"Content-Type: application/json\r\n\r\n{")
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 408 ")


async def test_the_wait_for_a_resume_message_is_bounded(counter):
    limits = GatewayLimits(handshake_timeout=0.05)
    async with hosting(Gateway(counter, limits=limits)) as url:
        async with websocket(url, "resume=1") as ws:
            assert json.loads(await ws.get_message())["type"] == "lost"
            assert await closed_with(ws) == 4404


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "identity", "x-anything"])
async def test_a_compressed_body_is_refused(counter, coding):
    body = gzip.compress(b'{"number": 1}')
    async with hosting(Gateway(counter)) as url, browsing(url) as browser:
        for path in ("/api/add", f"/api/add/{browser.id}"):
            headers = {
                "Content-Type": "application/json",
                "Content-Encoding": coding,
                "Trio-Rpc-Token": browser.token,
            }
            got = await browser.http.post(path, content=body, headers=headers)
            assert (got.status_code, "must not be compressed" in got.text) == (415, True)


async def test_hidden_files_are_not_served_as_pages(counter, tmp_path):
    for name in (".env", ".git/config", "docs/.cache/a", ".well-known/a", ".well-known/.b", "a.b"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text")
    (tmp_path / "404.html").write_text("no such page")
    statuses = {}
    async with hosting(Gateway(counter, pages=tmp_path)) as url, httpx.AsyncClient() as http:
        for path in (
            ".env", "%2eenv", "docs/../.env", ".git/config", ".git", ".git/", "docs/.cache/a",
            ".well-known/a", ".well-known/.b", "a.b",
        ):  # fmt: skip
            got = await http.get(f"{url}/{path}")
            statuses[path] = got.status_code
            assert got.text == ("text" if got.status_code == 200 else "no such page")
    assert [path for path, status in statuses.items() if status == 200] == [".well-known/a", "a.b"]
    assert set(statuses.values()) == {200, 404}


async def test_a_trailing_slash_makes_no_difference(counter, tmp_path):
    (tmp_path / "docs: a").mkdir()
    (tmp_path / "docs: a" / "index.html").write_text("index")
    gateway = Gateway(counter, pages=tmp_path)
    app = Starlette(routes=[Mount("/rpc", gateway)], lifespan=lambda _: gateway.run())
    async with hosting(app) as host:
        url = f"{host}/rpc"
        async with browsing(url) as browser, httpx.AsyncClient() as http:
            headers = {"Trio-Rpc-Token": browser.token}
            for path in ("/api/add", f"/api/add/{browser.id}"):
                for end in ("", "/"):
                    got = await http.post(f"{url}{path}{end}", json={"number": 1}, headers=headers)
                    assert got.status_code == 200, (path, end)
            assert (await http.get(f"{url}/message.js/")).status_code == 200
            for path in ("/nothing/", "/api/", "/api/add/a/b/"):
                got = await http.post(f"{url}{path}", json={})
                assert got.status_code in {404, 405}
                assert "location" not in got.headers
            got = await http.get(f"{url}/docs: a", headers={"Host": "inner:1"})
            assert (got.status_code, got.headers["location"]) == (307, "./docs%3A%20a/")
            assert (await http.get(f"{url}/docs: a", follow_redirects=True)).text == "index"
        address = httpx.URL(url)
        stream = await trio.open_tcp_stream(address.host, address.port)
        async with stream, trio.open_nursery() as nursery:
            ws = await wrap_client_stream(nursery, stream, address.netloc.decode(), "/rpc/ws/")
            assert "uuid" in await ws.get_message()
            nursery.cancel_scope.cancel()


async def test_a_page_of_an_allowed_origin_may_call_a_private_network(counter):
    origin = "https://example.org"
    preflight = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type, trio-rpc-token",
        "Access-Control-Request-Private-Network": "true",
    }
    async with (
        hosting(Gateway(counter, allowed_origins=[origin])) as url,
        httpx.AsyncClient() as http,
    ):
        got = await http.options(f"{url}/api/add", headers={**preflight, "Origin": origin})
        assert got.status_code == 200
        assert got.headers["access-control-allow-private-network"] == "true"
        assert got.headers["access-control-allow-origin"] == origin
        got = await http.options(
            f"{url}/api/add", headers={**preflight, "Origin": "https://evil.org"}
        )
        assert got.status_code == 400
        assert "access-control-allow-origin" not in got.headers


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"filters": 5}, TypeError),
        ({"filters": [5]}, TypeError),
        ({"filters": "abc"}, TypeError),
        ({"error_detail": "None"}, ValueError),
        ({"error_detail": None}, ValueError),
    ],
    ids=str,
)
def test_invalid_options_are_refused_by_the_constructor(options, kind):
    with pytest.raises(kind, match=next(iter(options))):
        Gateway(Counter(), **options)

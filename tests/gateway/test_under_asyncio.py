"""A gateway in an application on asyncio runs Trio as a guest of the host's event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from typing import Any

import httpx
import pytest
import trio
import trio.lowlevel
from helpers.asyncio_hosts import RUNNERS, serving_with_uvicorn
from helpers.gateway_tools import TIME_LIMIT, browsing, closed_with, hosting
from starlette.applications import Starlette
from starlette.routing import Mount

import trio_rpc
from trio_rpc.gateway import Gateway, open_http_server, run_in_asyncio, run_in_trio

SENTENCE = "this gateway is not running: enter `async with gateway.run():` in its host's lifespan"

user: ContextVar[str] = ContextVar("user", default="nobody")


class Service:
    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.ended: list[str] = []
        self.release = trio.Event()

    @trio_rpc.method
    async def add(self, a: int, b: int) -> int:
        return a + b

    @trio_rpc.method
    async def who(self) -> str:
        return user.get()

    @trio_rpc.method
    async def hold(self) -> None:
        self.started.set()
        try:
            await trio.sleep_forever()
        finally:
            self.ended.append("hold")

    @trio_rpc.method
    async def exit(self) -> None:
        raise SystemExit(3)

    @trio_rpc.method
    async def query(self) -> str:
        async def coroutine(of: str) -> str:
            await asyncio.sleep(0)
            assert asyncio.current_task() is not None
            return f"{of} for {user.get()}"

        return await run_in_asyncio(coroutine, "rows")

    @trio_rpc.method
    async def query_fails(self) -> None:
        async def coroutine() -> None:
            await asyncio.sleep(0)
            raise LookupError("no rows")

        await run_in_asyncio(coroutine)

    @trio_rpc.method
    async def query_forever(self) -> None:
        async def coroutine() -> None:
            self.started.set()
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                self.ended.append("coroutine")

        try:
            await run_in_asyncio(coroutine)
        finally:
            self.ended.append("handler")

    @trio_rpc.method
    async def query_that_wins(self) -> str:
        async def coroutine() -> str:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return "a result in spite of it"
            raise AssertionError

        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_soon, scope)
                return await run_in_asyncio(coroutine)
        return "nothing"

    @trio_rpc.method
    async def query_in_cancelled_scope(self) -> list[str]:
        ran: list[str] = []

        async def coroutine() -> None:
            ran.append("ran")

        with trio.CancelScope() as scope:
            scope.cancel()
            await run_in_asyncio(coroutine)
        return ran


async def _cancel_soon(scope: trio.CancelScope) -> None:
    await trio.testing.wait_all_tasks_blocked()
    scope.cancel()


async def exchange(
    app: Any, scope: dict[str, Any], *messages: dict[str, Any]
) -> list[dict[str, Any]]:
    """Send messages to an application as a server would, and return the messages it sends."""
    incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    for message in messages:
        incoming.put_nowait(message)
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await asyncio.wait_for(app({"asgi": {"version": "3.0"}, **scope}, incoming.get, send), 10)
    return sent


@contextlib.asynccontextmanager
async def calling(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


def on_asyncio(function: Callable[[], Any]) -> Any:
    """Run a coroutine on asyncio, and check that its guest run, if any, has ended."""
    try:
        return asyncio.run(asyncio.wait_for(function(), TIME_LIMIT))
    finally:
        assert not trio.lowlevel.in_trio_run()


# ── without a lifespan ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["/api/add", "/rpc/api/add", "/message.js"])
@pytest.mark.parametrize("is_mounted", [False, True])
def test_a_gateway_that_does_not_run_says_what_to_write(caplog, is_mounted, path):
    gateway = Gateway(Service())
    app = Starlette(routes=[Mount("/", gateway)]) if is_mounted else gateway

    async def ask() -> list[httpx.Response]:
        async with calling(app) as client:
            return [await client.post(path, json={"a": 1, "b": 2}) for _ in range(3)]

    for answer in on_asyncio(ask):
        assert answer.status_code == 503
        assert answer.json()["error"].startswith(SENTENCE)
    assert caplog.text.count(SENTENCE) == 1


@pytest.mark.parametrize("can_deny", [False, True])
def test_its_websocket_is_refused_with_the_sentence(can_deny):
    scope = {"type": "websocket", "path": "/ws", "query_string": b"", "headers": []}
    if can_deny:
        scope["extensions"] = {"websocket.http.response": {}}
    connect = {"type": "websocket.connect"}
    sent = on_asyncio(lambda: exchange(Gateway(Service()), scope, connect))
    if can_deny:
        assert sent[0]["status"] == 503
        assert SENTENCE in sent[1]["body"].decode()
    else:
        assert (sent[0]["type"], sent[0]["code"]) == ("websocket.close", 1011)
        assert sent[0]["reason"].startswith(SENTENCE)


def test_serving_on_asyncio_says_what_to_do_instead():
    async def serve() -> None:
        async with open_http_server(Gateway(Service()), "http://127.0.0.1:0"):
            pass

    with pytest.raises(RuntimeError, match=r"need Trio.*uvicorn.*gateway\.run"):
        on_asyncio(serve)


# ── with a lifespan ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("runs", [1, 3])
def test_a_gateway_answers_on_asyncio_and_can_be_run_again(runs):
    gateway = Gateway(Service())

    async def ask() -> list[Any]:
        answers = []
        for _ in range(runs):
            async with gateway.run(), calling(gateway) as client:
                answers.append((await client.post("/api/add", json={"a": 1, "b": 2})).json())
        async with calling(gateway) as client:
            assert (await client.post("/api/add", json={})).status_code == 503
        return answers

    assert [each["payload"] for each in on_asyncio(ask)] == [3] * runs


def test_a_post_wakes_the_thread_that_waits_for_trios_events_once():
    """Each time costs two switches between threads, which a busy machine makes expensive."""
    woken = 0
    body = {"type": "http.request", "body": b'{"a": 1, "b": 2}', "more_body": False}
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/add",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }

    async def ask() -> None:
        loop = asyncio.get_running_loop()
        call_soon = loop.call_soon_threadsafe

        def counted(*args: Any, **kwargs: Any) -> asyncio.Handle:
            nonlocal woken
            woken += 1
            return call_soon(*args, **kwargs)

        loop.call_soon_threadsafe = counted
        gateway = Gateway(Service())
        async with gateway.run():
            await exchange(gateway, scope, body)
            await asyncio.sleep(0.05)  # until Trio has nothing to do
            before = woken
            for _ in range(10):
                start, answer = await exchange(gateway, scope, body)
                assert (start["status"], b'"payload":3' in answer["body"]) == (200, True)
            assert 1 <= woken - before <= 10

    on_asyncio(ask)


def test_a_running_gateway_is_not_run_twice():
    gateway = Gateway(Service())

    async def run() -> None:
        async with gateway.run(), gateway.run():
            pass

    with pytest.raises(RuntimeError, match="already running"):
        on_asyncio(run)


def test_the_gateways_of_one_host_share_a_guest_run_and_leave_in_any_order():
    first, second = Gateway(Service()), Gateway(Service())

    async def run() -> None:
        outer, inner = first.run(), second.run()
        await outer.__aenter__()
        await inner.__aenter__()
        async with calling(first) as one, calling(second) as two:
            for client in (one, two):
                assert (await client.post("/api/add", json={"a": 1, "b": 2})).status_code == 200
            await outer.__aexit__(None, None, None)
            assert (await one.post("/api/add", json={"a": 1, "b": 2})).status_code == 503
            assert (await two.post("/api/add", json={"a": 1, "b": 2})).status_code == 200
            await inner.__aexit__(None, None, None)

    on_asyncio(run)


def test_leaving_the_lifespan_cancels_the_calls_and_waits_for_them():
    service = Service()
    gateway = Gateway(service)

    async def run() -> int:
        async with calling(gateway) as client:
            async with gateway.run():
                post = asyncio.ensure_future(client.post("/api/hold", json={}))
                await service.started.wait()
            assert service.ended == ["hold"]
            return (await post).status_code

    assert on_asyncio(run) == 500


@pytest.mark.parametrize("method", ["hold", "query_forever"])
def test_cancelling_the_hosts_task_of_a_request_cancels_its_call(method):
    service = Service()
    gateway = Gateway(service)

    async def run() -> None:
        async with calling(gateway) as client, gateway.run():
            post = asyncio.ensure_future(client.post(f"/api/{method}", json={}))
            await service.started.wait()
            post.cancel()
            with pytest.raises(asyncio.CancelledError):
                await post
            await gateway.drain()
            assert service.ended == {"hold": ["hold"]}.get(method, ["coroutine", "handler"])

    on_asyncio(run)


def test_an_exception_of_the_body_passes_through_and_ends_the_guest_run():
    async def run() -> None:
        async with Gateway(Service()).run():
            raise ValueError("the host's own")

    with pytest.raises(ValueError, match="the host's own"):
        on_asyncio(run)


def test_law_7_an_exception_that_ends_the_program_ends_the_hosts():
    gateway = Gateway(Service())

    async def run() -> None:
        async with gateway.run(), calling(gateway) as client:
            await client.post("/api/exit", json={})
            await asyncio.Event().wait()

    with pytest.raises(SystemExit) as caught:
        asyncio.run(run())
    assert caught.value.code == 3
    assert not trio.lowlevel.in_trio_run()


def test_a_context_variable_of_a_middleware_reaches_the_handler_and_its_coroutines():
    gateway = Gateway(Service())

    async def middleware(scope, receive, send):
        user.set("ann")
        await gateway(scope, receive, send)

    async def run() -> list[str]:
        async with gateway.run(), calling(middleware) as client:
            posts = [await client.post(f"/api/{each}", json={}) for each in ("who", "query")]
            return [post.json()["payload"] for post in posts]

    assert on_asyncio(run) == ["ann", "rows for ann"]


# ── the bridge ───────────────────────────────────────────────────────────────────────────────────


def call(method: str) -> dict[str, Any]:
    gateway = Gateway(Service())

    async def run() -> Any:
        async with gateway.run(), calling(gateway) as client:
            return (await client.post(f"/api/{method}", json={})).json()

    return on_asyncio(run)


def test_the_exception_of_a_coroutine_is_raised_in_the_handler():
    got = call("query_fails")
    assert (got["error_type"], got["error"]) == ("builtins.LookupError", "no rows")


def test_law_3_the_result_of_a_coroutine_that_won_the_race_is_returned():
    assert call("query_that_wins")["payload"] == "a result in spite of it"


def test_a_coroutine_is_not_started_in_a_cancelled_scope():
    assert call("query_in_cancelled_scope")["payload"] == []


def test_law_2_cancelling_a_call_cancels_its_coroutine_and_waits_for_its_end():
    service = Service()
    gateway = Gateway(service)

    async def run() -> Any:
        async with gateway.run(), calling(gateway) as client:
            post = client.post("/api/query_forever", json={}, headers={"Trio-Rpc-Timeout": "0.1"})
            return (await post).json()

    assert on_asyncio(run)["code"] == "deadline"
    assert service.ended == ["coroutine", "handler"]


def test_a_route_of_the_host_awaits_a_trio_function():
    async def double(number: int) -> int:
        await trio.lowlevel.checkpoint()
        return 2 * number

    async def fails() -> None:
        await trio.lowlevel.checkpoint()
        raise LookupError("on Trio")

    async def run() -> int:
        async with Gateway(Service()).run():
            with pytest.raises(LookupError, match="on Trio"):
                await run_in_trio(fails)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(run_in_trio(trio.sleep_forever), 0.01)
            return await run_in_trio(double, 4)

    assert on_asyncio(run) == 8


async def nothing() -> None:
    pass


@pytest.mark.parametrize("bridge", [run_in_asyncio, run_in_trio])
def test_the_bridge_needs_a_gateway_that_runs_in_the_hosts_loop(bridge):
    with pytest.raises(RuntimeError, match="no gateway is running"):
        on_asyncio(lambda: bridge(nothing))
    with pytest.raises(RuntimeError, match="no gateway is running"):
        trio.run(bridge, nothing)


def test_the_bridge_is_crossed_from_the_other_side():
    async def run() -> None:
        async with Gateway(Service()).run():
            with pytest.raises(RuntimeError, match="no gateway is running"):
                await run_in_asyncio(nothing)

    on_asyncio(run)


# ── under uvicorn ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("runner", RUNNERS)
def test_the_end_of_the_host_ends_the_connections_and_the_calls(runner):
    service = Service()

    async def run() -> None:
        with trio.fail_after(TIME_LIMIT):
            async with contextlib.AsyncExitStack() as stack:
                url = await stack.enter_async_context(serving_with_uvicorn(Gateway(service)))
                async with browsing(url) as browser:
                    await browser.start("hold")
                    while not service.started.is_set():
                        await trio.testing.wait_all_tasks_blocked(0.01)
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(stack.aclose)
                        assert await closed_with(browser.ws) in (1001, 1012)
            assert service.ended == ["hold"]

    RUNNERS[runner](run)


async def test_the_bridge_says_that_a_server_on_trio_has_no_loop_of_asyncio(server):
    async with hosting(Gateway(Service())) as url, httpx.AsyncClient(base_url=url) as http:
        got = (await http.post("/api/query", json={})).json()
    if server == "trio":
        assert got["error"] == "no gateway is running in an event loop of asyncio here"
    else:
        assert got["payload"] == "rows for nobody"

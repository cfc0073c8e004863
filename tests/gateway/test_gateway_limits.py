"""Bounds of GatewayLimits that other tests do not cover."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace

import httpx
import pytest
import trio
import trio.testing
from helpers.gateway_tools import browsing, hosting
from starlette.requests import Request

import trio_rpc
from trio_rpc.gateway import Gateway, GatewayLimits, Message, outlives
from trio_rpc.gateway.server.browser import Client
from trio_rpc.gateway.server.checks import Refusal, read_body
from trio_rpc.gateway.server.connection import Connection, End
from trio_rpc.gateway.server.memory_budget import MemoryBudget, MemoryShare


class Service:
    def __init__(self) -> None:
        self.running = 0
        self.count = 0

    @trio_rpc.method
    async def hold(self) -> None:
        self.running += 1
        await trio.sleep_forever()

    @trio_rpc.method
    @outlives
    async def long(self) -> None:
        self.running += 1
        await trio.sleep_forever()

    @trio_rpc.method
    async def call_back_forever(self, found: Callable[[str], Awaitable[None]]) -> None:
        while True:
            await found("x" * 1000)
            self.count += 1


@asynccontextmanager
async def client_of(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    """Run a gateway without a server, whose requests are handled in the same task."""
    transport = httpx.ASGITransport(gateway)
    async with (
        gateway.run(),
        httpx.AsyncClient(transport=transport, base_url="http://here") as http,
    ):
        yield http


async def test_max_direct_bounds_the_calls_without_a_websocket():
    service = Service()
    gateway = Gateway(service, limits=GatewayLimits(max_direct=2))
    async with client_of(gateway) as http, trio.open_nursery() as nursery:
        scopes: list[trio.CancelScope] = []

        async def ask() -> None:
            with trio.CancelScope() as scope:
                scopes.append(scope)
                await http.post("/api/hold", json={})

        for _ in range(2):
            nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        assert service.running == 2
        with trio.fail_after(5):
            got = await http.post("/api/hold", json={})
        assert (got.status_code, service.running) == (503, 2)
        scopes[0].cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert gateway.works == 1
        nursery.start_soon(ask)  # its place is free again
        await trio.testing.wait_all_tasks_blocked()
        assert (gateway.works, service.running) == (2, 3)
        nursery.cancel_scope.cancel()


async def test_max_results_bounds_the_calls_that_may_outlive_their_clients():
    service = Service()
    gateway = Gateway(service, limits=GatewayLimits(max_results=2))
    async with hosting(gateway) as url, browsing(url) as browser:
        assert [(await browser.post("long")).status_code for _ in range(3)] == [200, 200, 503]
        assert gateway.works == 2
        assert (await browser.post("hold")).status_code == 200  # other calls are not bounded by it


async def test_backlog_bytes_makes_callbacks_wait_and_refuses_new_calls():
    service = Service()
    gateway = Gateway(service, limits=GatewayLimits(backlog_bytes=5000))
    async with hosting(gateway) as url, browsing(url) as browser:
        await browser.start("call_back_forever")
        for _ in range(5):
            await browser.next()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert service.count == 5
        assert (await browser.post("hold")).status_code == 429
        await browser.send("ack", seq=5)
        assert (await browser.next())["seq"] == 6


@pytest.mark.parametrize(("most", "frames"), [(1, [1] * 6), (250, [2] * 3), (10_000, [6])])
async def test_frame_bytes_bounds_the_messages_joined_in_one_frame(most, frames):
    client = Client(GatewayLimits(frame_bytes=most), resumable=True)
    sent: list[int] = []

    async def send(text: str) -> None:
        got = json.loads(text)
        if type(got) is list or got["type"] == "callback":
            sent.append(len(got) if type(got) is list else 1)

    async with trio.open_nursery() as nursery:
        await nursery.start(client.run)
        for _ in range(6):
            client.say({"type": "callback", "found": "x" * 60})
        nursery.start_soon(Connection(client, {"type": "first"}, send, trio.sleep_forever).run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert sent == frames


@pytest.mark.parametrize("seconds", [3, 500])
async def test_a_client_is_pinged_after_the_keepalive_time_and_disconnected_after_twice_that(
    seconds, autojump_clock
):
    client = Client(GatewayLimits(keepalive=seconds), resumable=True)
    sent: list[tuple[float, str]] = []
    start = trio.current_time()

    async def send(text: str) -> None:
        sent.append((trio.current_time() - start, json.loads(text)["type"]))

    end = await Connection(client, {"type": "first"}, send, trio.sleep_forever).run()
    assert sent == [(0, "first"), (seconds, "ping")]
    assert (end, trio.current_time() - start) == (End.SILENT, pytest.approx(2 * seconds))


@pytest.mark.parametrize("blocked", [20, 21.9, 1000])
async def test_time_in_which_the_gateways_program_is_blocked_does_not_count_as_silence(
    autojump_clock, nursery, blocked
):
    """The pong is unread when a handler has blocked for as long as ``keepalive``, or longer."""
    client = Client(GatewayLimits(keepalive=20), resumable=True)
    answers, received = trio.open_memory_channel[str](10)
    ends: list[End] = []

    async def send(text: str) -> None:
        if json.loads(text)["type"] == "ping":
            nursery.start_soon(block_and_answer)

    async def block_and_answer() -> None:
        autojump_clock.jump(blocked)  # as time.sleep() would
        await trio.sleep(0.1)
        answers.send_nowait('{"type": "pong"}')

    async def run() -> None:
        ends.append(await Connection(client, {"type": "first"}, send, received.receive).run())

    nursery.start_soon(run)
    await trio.sleep(10_000)
    assert ends == []
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("blocked", "seconds"), [(40, 80.1), (1000, 1040.1)])
async def test_time_in_which_the_clients_program_is_blocked_does_not_count_as_silence(
    autojump_clock, nursery, blocked, seconds
):
    messages, received = trio.open_memory_channel[str](10)
    heard: list[str] = []
    session = SimpleNamespace(keepalive=20, hear=heard.append)
    reading = Message("example.org", 80)._read(SimpleNamespace(receive=received.receive), session)

    async def block() -> None:
        await trio.testing.wait_all_tasks_blocked()
        autojump_clock.jump(blocked)  # as time.sleep() would
        await trio.sleep(0.1)
        messages.send_nowait("late")

    nursery.start_soon(block)
    with pytest.raises(TimeoutError, match="nothing was heard for 40 s"):
        await reading
    assert heard == ["late"]
    assert trio.current_time() == pytest.approx(seconds)


async def test_time_in_which_this_program_is_blocked_is_not_counted_for_a_body(autojump_clock):
    jumps = iter([1000])

    async def receive() -> dict[str, object]:
        autojump_clock.jump(next(jumps, 0))  # as time.sleep() would do it
        await trio.sleep(29)
        return {"type": "http.request", "body": b"{}", "more_body": False}

    headers = [(b"content-type", b"application/json")]
    request = Request({"type": "http", "method": "POST", "headers": headers}, receive)
    assert await read_body(request, 100, 30, MemoryShare(MemoryBudget(1))) == b"{}"


async def test_the_parts_of_a_body_share_its_time(autojump_clock):
    async def receive() -> dict[str, object]:
        await trio.sleep(20)
        return {"type": "http.request", "body": b" ", "more_body": True}

    headers = [(b"content-type", b"application/json")]
    request = Request({"type": "http", "method": "POST", "headers": headers}, receive)
    with pytest.raises(Refusal, match="the body did not arrive within 30 s") as refused:
        await read_body(request, 100, 30, MemoryShare(MemoryBudget(100)))
    assert refused.value.status == 408
    assert trio.current_time() == 30


async def test_time_in_which_this_program_is_blocked_is_not_counted_for_a_first_message(
    autojump_clock,
):
    messages = iter([{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "{}"}])
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        message = next(messages, {"type": "websocket.disconnect"})
        if message["type"] == "websocket.receive":
            autojump_clock.jump(1000)
            await trio.sleep(9)
            sent.append(message)
        return message

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    gateway = Gateway(Service())
    scope = {"type": "websocket", "path": "/ws", "query_string": b"resume=1", "headers": []}
    async with gateway.run():
        await gateway(scope, receive, send)
    assert [each["type"] for each in sent[:3]] == [
        "websocket.accept",
        "websocket.receive",  # the gateway waited for it
        "websocket.send",
    ]


@pytest.mark.parametrize("returns", [True, False])
async def test_a_client_is_kept_if_its_next_connection_waited_while_this_program_was_blocked(
    autojump_clock, nursery, returns
):
    client = Client(GatewayLimits(grace=60, keepalive=1000), resumable=True)
    nursery.start_soon(client.run)
    await trio.testing.wait_all_tasks_blocked()
    autojump_clock.jump(1000)
    started = trio.current_time()
    await trio.sleep(59)
    assert not client.is_over
    if returns:
        nursery.start_soon(Connection(client, {"type": "first"}, nothing, trio.sleep_forever).run)
    await trio.sleep(2)
    assert client.is_over is not returns
    assert trio.current_time() - started == 61
    nursery.cancel_scope.cancel()


async def nothing(_text: str) -> None:
    await trio.lowlevel.checkpoint()

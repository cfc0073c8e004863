"""Servers that leave, freeze, never answer or speak something else: one line, in bounded time."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from helpers.cli_tools import run_cli

import trio_rpc
from trio_rpc.cli import calling
from trio_rpc.cli.benching import Bench
from trio_rpc.cli.connecting import Connection, Target
from trio_rpc.cli.exits import GRACE, CallFailed, Exit, OutputFailed, Unreachable, Usage
from trio_rpc.cli.output import Output
from trio_rpc.cli.top import show
from trio_rpc.testing import open_chaos_proxy


class Service:
    def __init__(self) -> None:
        self.release = trio.Event()

    @trio_rpc.stream
    async def ticks(self) -> AsyncGenerator[int, None]:
        yield 1
        await trio.sleep_forever()

    @trio_rpc.method
    async def cling(self) -> None:
        with trio.CancelScope(shield=True):
            await self.release.wait()

    @trio_rpc.method
    async def report(self, progress: Callable[[float], Awaitable[None]]) -> None:
        while True:
            try:
                await progress(0.5)
            except Exception:  # noqa: BLE001 - a handler that ignores failed callbacks
                await trio.lowlevel.checkpoint()


class Noticing(Output):
    """An output that tells when something was printed."""

    def __init__(self) -> None:
        super().__init__(as_json=True)
        self.printed = trio.Event()

    def text(self, text: str) -> None:
        super().text(text)
        self.printed.set()

    def line(self, *args: object) -> None:
        self.printed.set()


async def stream(target, output):
    await calling.stream(target, "ticks", "[]", output, count=9, patience=60)


async def ping(target, output):
    output.as_json = False
    await calling.ping(target, output, count=9, interval=60)


@pytest.mark.parametrize("command", [stream, ping])
async def test_a_server_that_leaves_while_nothing_is_asked_of_it_is_one_line(command):
    output, texts = Noticing(), []

    async def run(target):
        try:
            await command(target, output)
        except Unreachable as exc:
            texts.append(str(exc))

    async with (
        trio_rpc.open_server(Service(), "tcp://127.0.0.1:0") as server,
        open_chaos_proxy(server.urls[0]) as proxy,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(run, Target(url=proxy.url))
        await output.printed.wait()
        await trio.testing.wait_all_tasks_blocked()
        proxy.cut()
    assert len(texts) == 1
    assert texts[0].startswith(f"{proxy.url}: the session is over: ")


async def test_a_handler_that_outlasts_its_cancellation_is_said_to_run(autojump_clock):
    service = Service()
    async with trio_rpc.open_server(service, "tcp://127.0.0.1:0") as server:
        target = Target(url=server.urls[0])
        started = trio.current_time()
        with pytest.raises(CallFailed, match=r"did not end within 2 s: it may still run"):
            await calling.call(target, "cling", "[]", Output(as_json=True), patience=0.5)
        assert trio.current_time() - started < 0.5 + GRACE + 1.5
        service.release.set()


async def test_output_that_fails_in_a_callback_ends_the_call(monkeypatch):
    def fail(_self, _value):
        raise OutputFailed("the disk is full")

    monkeypatch.setattr(Output, "json", fail)
    async with trio_rpc.open_server(Service(), "tcp://127.0.0.1:0") as server:
        target, output = Target(url=server.urls[0]), Output(as_json=True)
        with pytest.raises(OutputFailed, match="the disk is full"):
            await calling.call(target, "report", "{}", output, patience=60, callbacks=["progress"])


# ── http:// URLs ─────────────────────────────────────────────────────────────────────────────


async def silent(stream):
    while await stream.receive_some():
        pass


async def leaving(stream):
    await stream.receive_some()


async def greeting(stream):
    await stream.send_all(b"-ERR unknown command\r\n\r\n")
    await silent(stream)


def make_page(body):
    async def page(stream):
        await stream.receive_some()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n"
        await stream.send_all(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    return page


@asynccontextmanager
async def peer(handler):
    async def handle(stream):
        async with stream:
            await handler(stream)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, handle, 0)
        port = listeners[0].socket.getsockname()[1]
        yield Target(url=f"http://127.0.0.1:{port}")
        nursery.cancel_scope.cancel()


async def call(target):
    await calling.call(target, "m", "{}", Output(as_json=True), patience=60)


async def notify(target):
    await calling.notify(target, "m", "{}")


async def describe(target):
    await calling.describe(target, Output(as_json=True))


async def bench(target):
    await Bench(target, "m", [], {}, 2, 9, 60).run(Output(as_json=True))


async def top(target):
    await show(target, Output(as_json=True), every=None, named="introspection")


COMMANDS = [call, notify, describe, bench, top]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("handler", "text"),
    [
        (silent, "no HTTP answer within 10 s"),
        (leaving, "no complete HTTP answer to a GET from http"),
        (greeting, "illegal status line"),
    ],
)
async def test_a_peer_without_http_is_not_a_gateway(command, handler, text, autojump_clock):
    autojump_clock.autojump_threshold = 0.5  # not while bytes travel over loopback
    async with peer(handler) as target:
        with pytest.raises(Unreachable, match=text) as caught:
            await command(target)
    assert "handler" not in str(caught.value)  # nothing was asked of one


async def test_a_page_in_place_of_an_answer_is_named():
    async with peer(make_page(b"<html>")) as target:
        with pytest.raises(CallFailed, match="is not JSON, as a gateway's would be, but text/html"):
            await call(target)


async def test_bench_ends_when_its_gateway_cannot_be_reached_any_more(monkeypatch):
    from trio_rpc.cli.through_gateway import GatewayCalls

    async def refuse(*_):
        raise Unreachable("gone")

    monkeypatch.setattr(GatewayCalls, "_post", refuse)
    async with peer(make_page(b"{}")) as target:
        run = Bench(target, "m", [], {}, 1, 1000, 60)
        async with trio.open_nursery() as nursery:
            with pytest.raises(BaseExceptionGroup) as caught:
                await run.run(Output(as_json=True))
            nursery.cancel_scope.cancel()
    assert caught.group_contains(Unreachable, match="gone")
    assert run.done == 0


async def test_a_program_that_cannot_be_started_is_one_line_without_the_log():
    done = await run_cli("instances", "exec:/nowhere/program")
    assert done.returncode == Exit.UNREACHABLE
    assert len(done.stderr.splitlines()) == 1
    assert b"cannot start" in done.stderr
    done = await run_cli("describe", "exec:'")
    assert done.returncode == Exit.USAGE
    assert b"cannot be split into words" in done.stderr


def test_a_file_without_a_certificate_is_explained(tmp_path):
    path = tmp_path / "certificate.pem"
    path.write_text("hello", "utf-8")
    for given, text in (
        ({"ca": path}, "has no certificate in PEM form"),
        ({"cert": path}, "has no certificate with its private key"),
    ):
        with pytest.raises(Usage, match=text):
            Connection(**given).context()

"""Commands at the http:// URL of a gateway."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable

import pytest
import trio
import trustme
from helpers.gateway_tools import hosting, hosting_on_trio
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

import trio_rpc
from trio_rpc.cli import calling, main
from trio_rpc.cli.benching import Bench
from trio_rpc.cli.checking import check_health
from trio_rpc.cli.connecting import Connection, Target
from trio_rpc.cli.exits import CallFailed, CommandError, Exit, Unreachable, Usage
from trio_rpc.cli.output import Output
from trio_rpc.cli.top import show
from trio_rpc.gateway import Gateway, open_http_server
from trio_rpc.health import Health
from trio_rpc.introspection import Introspection

NOWHERE = "http://127.0.0.1:1"


class Shop:
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.ended = trio.Event()

    @trio_rpc.method(raises=(ZeroDivisionError,))
    async def add(self, a: int, b: int = 2) -> int:
        """Add two numbers."""
        return a + b

    @trio_rpc.method
    async def scan(
        self,
        found: Callable[[int, str], Awaitable[None]],
        progress: Callable[[float], Awaitable[None]] | None = None,
    ) -> str:
        await found(1, "\x1b[2J")
        if progress is not None:
            await progress(0.5)
        return "scanned"

    @trio_rpc.method
    async def hold(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.ended.set()

    @trio_rpc.method
    async def fail(self) -> None:
        raise LookupError("no such \x1b[2J")

    @trio_rpc.notification
    async def note(self, text: str) -> None:
        self.notes.append(text)

    @trio_rpc.stream
    async def ticks(self) -> AsyncGenerator[int, None]:
        yield 1


@pytest.fixture
async def shop():
    """Serve a gateway, and yield its services and its target."""
    one = Shop()
    async with hosting(Gateway({"shop": one}, openapi=True, authenticate=_nobody)) as url:
        yield one, Target(url=url)


async def _nobody(request):
    if request.headers.get("authorization") == "Bearer wrong":
        raise trio_rpc.Refused("log in first")


def out(*, as_json=True):
    return Output(as_json=as_json)


async def test_a_method_is_called_with_arguments_by_name(shop, capsys):
    _, target = shop
    await calling.call(target, "shop.add", '{"a": 1}', out(), patience=20)
    assert json.loads(capsys.readouterr().out) == 3
    with pytest.raises(Usage, match="by name"):
        await calling.call(target, "shop.add", "[1]", out(), patience=20)


async def test_callbacks_are_printed_as_they_come(shop, capsys):
    _, target = shop
    callbacks = ("found", "progress")
    await calling.call(target, "shop.scan", "{}", out(), patience=20, callbacks=callbacks)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        {"callback": "found", "args": [1, "\x1b[2J"], "kwargs": {}},
        {"callback": "progress", "args": [0.5], "kwargs": {}},
        "scanned",
    ]


@pytest.mark.parametrize(
    ("method", "text"),
    [
        ("shop.fail", "LookupError: no such \\x1b[2J"),
        ("shop.nothing", "MethodNotFound: there is no method 'shop.nothing' (the handler never"),
        ("shop.scan", "required callbacks"),
        ("shop.add", "'a'"),
    ],
)
async def test_a_failed_call_is_one_line(shop, method, text):
    _, target = shop
    with pytest.raises(CallFailed) as caught:
        await calling.call(target, method, "{}", out(), patience=20)
    assert text in str(caught.value)
    assert str(caught.value).isprintable()


async def test_a_call_that_takes_too_long_is_cancelled(shop):
    one, target = shop
    with pytest.raises(CallFailed, match="no result in time"):
        await calling.call(target, "shop.hold", "{}", out(), patience=0.3)
    await one.ended.wait()


async def test_a_notification_is_handled(shop):
    one, target = shop
    await calling.notify(target, "shop.note", '{"text": "hello"}')
    assert one.notes == ["hello"]


async def test_a_stream_is_refused_with_the_alternative(shop):
    _, target = shop
    with pytest.raises(Usage, match="open it over a session"):
        await calling.stream(target, "shop.ticks", "{}", out(), count=1, patience=20)


async def test_a_gateway_is_described_as_a_session_is(shop, capsys, nursery):
    one, target = shop
    await calling.describe(target, out())
    over_http = json.loads(capsys.readouterr().out)
    [url] = await nursery.start(trio_rpc.serve, {"shop": one}, "tcp://127.0.0.1:0")
    await calling.describe(Target(url=url), out())
    over_session = json.loads(capsys.readouterr().out)
    assert over_http == [each for each in over_session if each["kind"] != "stream"]
    nursery.cancel_scope.cancel()


async def test_a_gateway_without_a_document_is_not_described():
    async with hosting(Gateway(Shop())) as url:
        with pytest.raises(CallFailed, match="does not describe itself"):
            await calling.describe(Target(url=url), out())


async def test_another_document_is_reported():
    async def other(_request):
        return JSONResponse({"paths": [1]})

    async with hosting_on_trio(Starlette(routes=[Route("/openapi.json", other)])) as url:
        with pytest.raises(CallFailed, match="another way"):
            await calling.describe(Target(url=url), out())


async def test_a_gateway_is_pinged(shop, capsys):
    _, target = shop
    await calling.ping(target, out(), count=2, interval=0)
    assert json.loads(capsys.readouterr().out)["count"] == 2


async def test_the_health_of_a_gateway_is_its_service_or_whether_it_drains(capsys):
    ask = {"service": "", "named": "health", "patience": 20}
    health, plain = Health(), Gateway(Shop())
    async with hosting(Gateway({"health": health})) as url:
        await check_health(Target(url=url), out(as_json=False), **ask)
        health.set("", "draining")
        with pytest.raises(CommandError):
            await check_health(Target(url=url), out(as_json=False), **ask)
    async with hosting(plain) as url:
        await check_health(Target(url=url), out(as_json=False), **ask)
        with pytest.raises(CallFailed, match="MethodNotFound"):
            await check_health(Target(url=url), out(), **{**ask, "service": "shop"})
    assert capsys.readouterr().out.split() == ["serving", "draining", "serving"]


async def test_a_gateway_is_measured_and_watched(shop, capsys):
    _, target = shop
    run = Bench(target, "shop.add", [], {"a": 1}, callers=2, count=6, duration=20)
    await run.run(out())
    assert (run.done, run.errors) == (6, {})
    introspection = Introspection()
    gateway = Gateway({"introspection": introspection})
    introspection.add(gateway)
    async with hosting(gateway) as url:
        await show(Target(url=url), out(), every=None, named="introspection")
    assert json.loads(capsys.readouterr().out)["sessions"] == []


async def test_headers_are_sent_and_a_refusal_is_one_line(shop):
    _, target = shop
    wrong = Connection(header=["Authorization: Bearer wrong"])
    with pytest.raises(Unreachable, match="log in first"):
        await calling.call(
            Target(url=target.url, connection=wrong), "shop.add", '{"a": 1}', out(), patience=20
        )


async def test_a_certificate_is_checked():
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    gateway = Gateway(Shop())
    with trio.fail_after(60):
        async with open_http_server(gateway, "https://127.0.0.1:0", ssl_context=context) as [url]:
            with pytest.raises(Unreachable, match="certificate verify failed"):
                await calling.ping(Target(url=url), out(), count=1, interval=0)
            trusting = Connection(insecure=True)
            target = Target(url=url, connection=trusting)
            await calling.call(target, "add", '{"a": 1}', out(), patience=20)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["call", NOWHERE, "m", "{}"], "refused"),
        (["ping", NOWHERE], "refused"),
        (["describe", NOWHERE], "refused"),
        (["health", NOWHERE], "refused"),
        (["notify", NOWHERE, "m", "{}"], "refused"),
        (["top", NOWHERE], "refused"),
        (["call", "http://nohost.invalid", "m", "{}"], "nohost.invalid"),
    ],
)
def test_without_a_gateway_one_line_says_why(words, text, capsys):
    assert main(words) == Exit.UNREACHABLE
    printed = capsys.readouterr().err
    assert text in printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["call", NOWHERE, "m", "[1]"],
        ["call", NOWHERE, "m", "{}", "--trace"],
        ["call", NOWHERE, "m", "{}", "--metadata", "a=b"],
        ["call", NOWHERE, "m", "{}", "--credentials", "1"],
        ["call", NOWHERE, "m", "{}", "--also", NOWHERE],
        ["call", NOWHERE, "m", "{}", "--header", "none"],
        ["call", NOWHERE, "m", "{}", "--header", "Host: x"],
        ["call", NOWHERE, "m", "{}", "--header", "X: \x1b"],
        ["call", "tcp://127.0.0.1:1", "m", "{}", "--header", "X: y"],
        ["stream", NOWHERE, "m", "{}"],
        ["instances", NOWHERE],
        ["call", "http://127.0.0.1:99999", "m", "{}"],
        ["call", "http://", "m", "{}"],
        ["call", "http://127.0.0.1/?q=1", "m", "{}"],
        ["call", "http://ann:s3cr3t@127.0.0.1/", "m", "{}"],
        ["call", "http://\x1b[2J/", "m", "{}"],
    ],
)
def test_bad_usage_at_a_gateway_is_one_line(words, capsys):
    assert main(words) == Exit.USAGE
    printed = capsys.readouterr().err
    assert printed[:-1].isprintable()
    assert printed.count("\n") == 1
    assert "s3cr3t" not in printed

"""Make each mistake of docs/faq.md, and compare the error texts with those quoted there."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import re
import sys
import traceback
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import IO

import httpx
import pytest
import trio
import trio.testing
from helpers.cli_tools import run_cli
from helpers.pages import blocks_of, found_in_prose
from helpers.programs import free_port
from helpers.tls import make_contexts

import trio_rpc
from trio_rpc.testing import open_faulty_pair, open_session_pair

PAGE = "docs/faq.md"
TCP = "tcp://127.0.0.1:0"
MISTAKES = {}
SLOW = set()


def mistake(function):
    """Register a mistake: an async function that raises, or returns a text."""
    MISTAKES[function.__name__] = function
    return function


def slow(function):
    SLOW.add(function.__name__)
    return function


class OutOfMilk(Exception):
    pass


class Shop:
    """The service of most mistakes."""

    def __init__(self):
        self.kept = None

    @trio_rpc.method
    async def buy(self, item: str, amount: int = 1) -> int:
        if item == "milk":
            raise OutOfMilk(item)
        return amount

    @trio_rpc.method
    async def buy_in_a_nursery(self, item: str) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.buy, item)

    @trio_rpc.method
    async def tell(self, on_news: Callable[[str], Awaitable[None]]) -> None:
        on_news("news")

    @trio_rpc.method
    async def stock(self) -> dict[str, int]:
        return {"tea": "three"}

    @trio_rpc.method
    async def wait(self) -> None:
        await trio.sleep_forever()

    @trio_rpc.method
    async def keep(self, on_news: Callable[[str], Awaitable[None]]) -> None:
        self.kept = on_news

    @trio_rpc.method
    async def use_kept(self) -> None:
        await self.kept("news")

    @trio_rpc.method
    async def start(self) -> None:
        trio_rpc.current_call().nursery.start_soon(trio.sleep, 1)

    @trio_rpc.stream
    async def news(self) -> AsyncGenerator[str, None]:
        yield "news"

    @trio_rpc.notification
    async def log(self, line: str) -> None: ...

    async def secret(self) -> None: ...


class Stubborn:
    @trio_rpc.method
    async def wait(self) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(0.2)


class Customer:
    pass


class Printer:
    @trio_rpc.method
    async def print_out(self, page: Page) -> None: ...  # noqa: F821 - the mistake


class FilePrinter:
    @trio_rpc.method
    async def print_out(self, page: IO[str]) -> None: ...


class Adder:
    @trio_rpc.method
    async def total(self, prices: AsyncIterator[int]) -> int: ...


class Renderer:
    @trio_rpc.method
    async def render(self, progress: Callable[[float], Awaitable[None]]) -> None: ...


for each in (OutOfMilk, Shop, Customer, Printer, FilePrinter):
    each.__module__ = "shop"  # the module's name on the page


@contextlib.asynccontextmanager
async def shop(**options):
    async with open_session_pair({"shop": Shop()}, None, **options) as (_, session):
        yield session


def text_of(exc):
    """Return the last line of an exception's traceback."""
    return "".join(traceback.format_exception_only(exc)).strip()


# ── opening a session ──────────────────────────────────────────────────────────────────────────


async def connect(url, **options):
    async with trio_rpc.connect(url, **options):
        pass


@mistake
async def no_server():
    await connect(f"tcp://127.0.0.1:{free_port()}")


@mistake
async def no_such_host():
    await connect("tcp://no-such-host.invalid:5000")


@mistake
async def bad_url():
    await connect("localhost:5000")


@mistake
async def address_in_use():
    async with trio_rpc.open_server({}, TCP) as server:
        await trio_rpc.serve({}, server.urls[0])


@mistake
async def tls_without_context():
    await trio_rpc.serve({}, "tls://127.0.0.1:5000")


@mistake
async def unknown_certificate():
    context, _ = make_contexts()
    async with trio_rpc.open_server({}, "tls://127.0.0.1:0", ssl_context=context) as server:
        await connect(server.urls[0])


@mistake
async def tcp_to_websocket():
    async with trio_rpc.open_server({}, "ws://127.0.0.1:0/rpc") as server:
        await connect(re.sub(r"ws:(.*)/rpc", r"tcp:\1", server.urls[0]))


@mistake
async def tcp_to_tls():
    context, _ = make_contexts()
    async with trio_rpc.open_server({}, "tls://127.0.0.1:0", ssl_context=context) as server:
        await connect(server.urls[0].replace("tls", "tcp"))


@mistake
async def websocket_to_tcp():
    async with trio_rpc.open_server({}, TCP) as server:
        await connect(server.urls[0].replace("tcp", "ws"))


@mistake
async def wrong_path():
    async with trio_rpc.open_server({}, "ws://127.0.0.1:0/rpc") as server:
        await connect(server.urls[0].removesuffix("/rpc"))


@mistake
async def wrong_token():
    async def authenticate(_session, credentials):
        if credentials != "this one":
            raise trio_rpc.Refused("wrong token")

    async with trio_rpc.open_server({}, TCP, authenticate=authenticate) as server:
        await connect(server.urls[0], credentials="another one")


@mistake
async def no_resume():
    async with trio_rpc.open_server({}, TCP) as server:
        await connect(server.urls[0], resume=True)


@mistake
async def silent_server():
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        port = listener.socket.getsockname()[1]
        limits = trio_rpc.Limits(handshake_timeout=0.1)
        await connect(f"tcp://127.0.0.1:{port}", limits=limits)


@mistake
async def program_is_missing():
    async with trio_rpc.open_process(["no-such-program"]):
        pass


@slow
@mistake
async def program_does_not_serve():
    async with trio_rpc.open_process([sys.executable, "-c", "pass"], name="plugin.py"):
        pass


@mistake
async def not_a_child():
    await trio_rpc.serve_parent(Shop())


@mistake
async def on_asyncio():
    await trio.to_thread.run_sync(asyncio.run, connect("tcp://127.0.0.1:5000"))


@mistake
async def awaited_connect():
    await trio_rpc.connect("tcp://127.0.0.1:5000")


@mistake
async def awaited_stream():
    async with shop() as session:
        await session.proxy("shop", Shop).news()


@mistake
async def for_over_a_block():
    async with shop() as session:
        async for _ in session.proxy("shop", Shop).news():
            pass


@mistake
async def unknown_option():
    await trio_rpc.serve({}, TCP, timeout=3)


# ── a service is refused ─────────────────────────────────────────────────────────────────────────


@mistake
async def not_a_service():
    await trio_rpc.serve({"customer": Customer()}, TCP)


@mistake
async def class_as_service():
    await trio_rpc.serve({"shop": Shop}, TCP)


@mistake
async def not_an_interface():
    async with shop() as session:
        session.proxy("shop", Customer)


@mistake
async def stream_without_yield():
    class Ticker:
        @trio_rpc.stream
        async def ticks(self) -> int:
            return 1


@mistake
async def unknown_annotation():
    await trio_rpc.serve(Printer(), TCP)


@mistake
async def impossible_annotation():
    await trio_rpc.serve(FilePrinter(), TCP)


@mistake
async def plain_callback():
    class Shop:
        @trio_rpc.method
        async def order(self, on_progress: Callable[[float], None]) -> None: ...

    await trio_rpc.serve({"shop": Shop()}, TCP)


# ── a call fails ─────────────────────────────────────────────────────────────────────────────────


@mistake
async def no_such_service():
    async with shop() as session:
        await session.call("jobs.add", 2, 3)


@mistake
async def service_left_out():
    async with shop() as session:
        await session.call("buy", "tea")


@mistake
async def no_such_method():
    async with shop() as session:
        await session.proxy("shop").sell("tea")


@mistake
async def not_decorated():
    async with shop() as session:
        await session.proxy("shop", Shop).secret()


@mistake
async def wrong_argument():
    async with shop() as session:
        await session.call("shop.buy", "tea", "two")


@mistake
async def missing_argument():
    async with shop() as session:
        await session.call("shop.buy")


@mistake
async def timeout_as_argument():
    async with shop() as session:
        await session.call("shop.buy", "tea", timeout=3)


@mistake
async def undeclared_exception():
    async with shop() as session:
        await session.proxy("shop", Shop).buy("milk")


@mistake
async def nursery_in_a_handler():
    async with shop() as session:
        with pytest.raises(ExceptionGroup) as info:
            await session.proxy("shop", Shop).buy_in_a_nursery("milk")
        assert [type(exc) for exc in info.value.exceptions] == [trio_rpc.RemoteError]
        return text_of(info.value)


@mistake
async def wrong_result():
    async with shop() as session:
        await session.proxy("shop", Shop).stock()


@mistake
async def strange_argument():
    async with shop() as session:
        await session.call("shop.buy", Customer())


@mistake
async def large_argument():
    async with shop() as session:
        await session.call("shop.buy", bytes(2**24))


@mistake
async def function_in_a_notification():
    async with shop() as session:
        await session.notify("shop.log", print)


@mistake
async def called_stream():
    async with shop() as session:
        await session.call("shop.news")


@mistake
async def kept_callback():
    async with shop() as session:
        await session.call("shop.keep", lambda news: None)
        await session.call("shop.use_kept")


@mistake
async def no_remote_scope():
    async with shop() as session:
        try:
            await session.call("shop.start")
        except RuntimeError as exc:
            return text_of(exc)


@mistake
async def no_current_call():
    trio_rpc.current_call()


@mistake
async def other_thread():
    async with shop() as session:
        await trio.to_thread.run_sync(
            trio.run, session.call, "shop.buy", "tea", thread_name="Thread-1"
        )


@mistake
async def endless_recursion():
    class Echo:
        @trio_rpc.method
        async def call_back(self, function: Callable[[], Awaitable[None]]) -> None:
            await function()

    async with open_session_pair(Echo(), None) as (_, session):

        async def again():
            await session.call("call_back", again)

        with pytest.raises(trio_rpc.RemoteError) as info:
            await again()
    return text_of(info.value)


@mistake
async def forgotten_await():
    async with shop() as session:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            session.proxy("shop", Shop).buy("tea")
            gc.collect()
        return f"RuntimeWarning: {caught[0].message}"


@mistake
async def forgotten_await_of_a_callback():
    received = []
    async with shop() as session:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            await session.call("shop.tell", received.append)
            gc.collect()
    assert received == []
    return f"RuntimeWarning: {caught[0].message}"


# ── the session ends ─────────────────────────────────────────────────────────────────────────────


@mistake
async def session_of_the_past():
    async with trio_rpc.open_server({"shop": Shop()}, TCP) as server:
        async with trio_rpc.connect(server.urls[0]) as session:
            pass
        await session.call("shop.buy", "tea")


@mistake
async def server_left():
    async with open_session_pair({"shop": Shop()}, None, on_end="keep") as (server, session):
        await server.aclose()
        await session.call("shop.buy", "tea")


@mistake
async def server_left_in_a_call():
    texts = []
    async with open_session_pair({"shop": Shop()}, None, on_end="keep") as (server, session):

        async def wait():
            try:
                await session.call("shop.wait")
            except trio_rpc.RemoteCancelled as exc:
                texts.append(text_of(exc))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await session.ping()
            await server.aclose(grace=0)
    return texts[0]


@contextlib.asynccontextmanager
async def shop_over_a_link(**limits):
    async with (
        open_faulty_pair() as pair,
        open_session_pair(
            {"shop": Shop()},
            None,
            channels=(pair.first, pair.second),
            on_end="keep",
            options_b={"limits": trio_rpc.Limits(**limits)},
        ) as (_, session),
    ):
        yield pair.link, session


@mistake
async def server_crashed():
    async with shop_over_a_link() as (link, session):
        link.cut()
        await session.wait_closed()
        await session.call("shop.wait")


@mistake
async def server_silent():
    async with shop_over_a_link(keepalive_interval=0.02) as (link, session):
        link.freeze()
        await session.wait_closed()
        await session.call("shop.wait")


# ── in the log ───────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def logged(logger):
    """Collect the lines of a logger, each with its level and the logger's name."""
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(
        f"{record.levelname} {record.name}: {record.getMessage()}"
    )
    logging.getLogger(logger).addHandler(handler)
    try:
        yield lines
    finally:
        logging.getLogger(logger).removeHandler(handler)


@mistake
async def bug_in_a_handler():
    with logged("trio_rpc.handlers") as lines:
        async with trio_rpc.open_server({"shop": Shop()}, TCP) as server:
            async with trio_rpc.connect(server.urls[0]) as session:
                with contextlib.suppress(trio_rpc.RemoteError):
                    await session.call("shop.buy", "milk")
    return lines[0]


@mistake
async def handler_that_does_not_end():
    options = {"limits": trio_rpc.Limits(cancel_grace=0.01)}
    with logged("trio_rpc") as lines:
        async with (
            trio_rpc.open_server({"shop": Stubborn()}, TCP) as server,
            trio_rpc.connect(server.urls[0], **options) as session,
        ):
            with trio.move_on_after(0.01):
                await session.call("shop.wait")
    return lines[0]


# ── the gateway ──────────────────────────────────────────────────────────────────────────────────


async def last_line_of(code):
    run = await trio.run_process([sys.executable, "-c", code], check=False, capture_stderr=True)
    return run.stderr.decode().splitlines()[-1]


@slow
@mistake
async def gateway_extra_missing():
    return await last_line_of("import sys; sys.modules['httpx'] = None; import trio_rpc.gateway")


@mistake
async def gateway_on_asyncio():
    from trio_rpc.gateway import Gateway, serve

    def main():
        asyncio.run(serve(Gateway(Shop4Pages()), "http://127.0.0.1:0"))

    with pytest.raises(RuntimeError) as caught:
        await trio.to_thread.run_sync(main)
    return str(caught.value)


class Shop4Pages:
    @trio_rpc.method
    async def buy(self) -> None: ...


@mistake
async def gateway_not_running():
    from starlette.applications import Starlette
    from starlette.routing import Mount

    from trio_rpc.gateway import Gateway

    transport = httpx.ASGITransport(Starlette(routes=[Mount("/rpc", Gateway(Shop4Pages()))]))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        return (await http.post("/rpc/api/buy", json={})).text


@mistake
async def gateway_callback_over_http():
    from trio_rpc.gateway import Gateway

    gateway = Gateway(Renderer())
    async with (
        gateway.run(),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(gateway), base_url="http://localhost"
        ) as http,
    ):
        answer = await http.post("/api/render", json={})
    assert answer.status_code == 422
    return answer.text


@mistake
async def gateway_stream():
    from trio_rpc.gateway import Gateway

    Gateway(Adder())


@mistake
async def gateway_wrong_path():
    from starlette.responses import JSONResponse

    from trio_rpc.gateway import Message, open_http_server

    not_found = JSONResponse({"detail": "Not Found"}, 404)  # as FastAPI does
    async with open_http_server(not_found, "http://127.0.0.1:0") as [url]:
        await Message("127.0.0.1", int(url.rpartition(":")[2])).post("render")


# ── the command line ─────────────────────────────────────────────────────────────────────────────


@slow
@mistake
async def cli_extra_missing():
    hide = "import sys; sys.modules['cyclopts'] = None"
    return await last_line_of(f"{hide}; from trio_rpc.cli import main; main(['demo'])")


@slow
@mistake
async def cli_bad_target():
    return (await run_cli("serve", "examples.market", "--listen", TCP)).stderr.decode()


@slow
@mistake
async def cli_no_module():
    return (await run_cli("serve", "nothing:services", "--listen", TCP)).stderr.decode()


@slow
@mistake
async def cli_bad_json():
    return (await run_cli("call", "tcp://127.0.0.1:5000", "market.price", "BTC")).stderr.decode()


# ── the page ─────────────────────────────────────────────────────────────────────────────────────


SAME_TEXT = {"tcp_to_tls": "tcp_to_websocket", "awaited_stream": "awaited_connect"}
"""Mistakes with the same text as another one."""

QUOTED = {block.note.removeprefix("mistake: "): block for block in blocks_of(PAGE) if block.note}


def normal(text):
    """Return a text in one line, without the parts that differ between runs."""
    text = text.replace(__name__.rpartition(".")[2], "shop")
    text = re.sub(r"\w+\.<locals>\.", "", text)
    text = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:PORT", " ".join(text.split()))
    text = re.sub(r"process \d+", "process N", text)
    return re.sub(r"\b[\d.]+ s\b", "N s", text)


def test_each_mistake_is_quoted_on_the_page():
    assert set(QUOTED) | set(SAME_TEXT) == set(MISTAKES)


def test_each_quotation_names_its_mistake():
    assert [block.place for block in blocks_of(PAGE) if not block.note] == []


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in MISTAKES],
)
def test_the_library_prints_the_quoted_text(name, monkeypatch):
    monkeypatch.delenv("TRIO_RPC_CHANNEL_FD", raising=False)
    if name.startswith("gateway_"):
        pytest.importorskip("hypercorn", reason="the extra gateway is not installed")
    if name.startswith("cli_"):
        pytest.importorskip("cyclopts", reason="the extra cli is not installed")
    try:
        printed = trio.run(MISTAKES[name])
    except Exception as exc:  # noqa: BLE001 - any exception is compared
        printed = text_of(exc)
    block = QUOTED[SAME_TEXT.get(name, name)]
    assert normal(printed) == normal(block.text), block.place


def test_times_on_the_page_are_the_defaults():
    limits = trio_rpc.DEFAULT_LIMITS
    silence = limits.keepalive_interval * (limits.keepalive_pings + 1)
    for name, seconds in (
        ("silent_server", limits.handshake_timeout),
        ("server_silent", silence),
        ("handler_that_does_not_end", limits.cancel_grace),
    ):
        assert f" {seconds:g} s" in QUOTED[name].text
    [(_, found)] = found_in_prose(PAGE, r"`Limits.close_grace`\s\((\d+)\ss\)")
    assert float(found[1]) == limits.close_grace

"""message.js and the page of examples/scan in a real Chromium."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from helpers.chromium import MESSAGE, Chromium, evaluate_at, screenshot, why_not
from helpers.gateway_tools import hosting, until_it_fails
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

import trio_rpc
from examples.scan.__main__ import PAGES
from examples.scan.service import Scanner
from trio_rpc.gateway import Gateway, GatewayLimits, outlives
from trio_rpc.testing import ChaosProxy, open_chaos_proxy

if why_not() and not os.environ.get("CI"):
    pytest.skip(f"no browser: {why_not()}", allow_module_level=True)


class Service:
    """The methods that the pages of these tests call."""

    def __init__(self) -> None:
        self.started = trio.Event()
        self.noted = trio.Event()
        self.ended = trio.Event()
        self.cancelled = 0
        self.proxy: ChaosProxy | None = None

    @trio_rpc.method
    async def count(
        self, to: int, found: Callable[[int], Awaitable[None]], cut_every: int = 0
    ) -> int:
        for number in range(to):
            await found(number)
            if cut_every and number % cut_every == cut_every // 2 and self.proxy is not None:
                self.proxy.cut()
        return to

    @trio_rpc.method
    async def hold(self, found: Callable[[int], Awaitable[None]]) -> None:
        try:
            await found(1)
            self.started.set()
            await trio.sleep_forever()
        finally:
            self.cancelled += 1
            self.ended.set()

    @trio_rpc.method
    @outlives
    async def build(self, progress: Callable[[float], Awaitable[None]]) -> str:
        await progress(0.5)
        try:
            await self.noted.wait()
        finally:
            self.ended.set()
        await progress(1.0)
        return "built"

    @trio_rpc.method
    async def note(self) -> None:
        self.noted.set()

    @trio_rpc.method
    async def fail(self) -> None:
        raise LookupError("not here")

    @trio_rpc.method
    async def tell(self, found: Callable[[int], Awaitable[None]]) -> str:
        return await until_it_fails(found)

    @trio_rpc.method
    async def finish_anyway(self) -> str:
        self.started.set()
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            return "finished"

    @trio_rpc.method
    async def result(self, number: int) -> object:
        return [None, 7, {"a": 1}, {}, {"payload": 2}][number]


@contextlib.asynccontextmanager
async def serving(service: object, **options: Any) -> AsyncIterator[ChaosProxy]:
    """Serve a page and a gateway behind a proxy that can cut connections."""
    async with hosting(Gateway(service, pages=PAGES, **options)) as url:
        async with open_chaos_proxy(f"tcp{url.removeprefix('http')}") as proxy:
            if isinstance(service, Service):
                service.proxy = proxy
            yield proxy


def url_of(proxy: ChaosProxy) -> str:
    return f"http{proxy.url.removeprefix('tcp')}/"


async def evaluate(chromium: Chromium, proxy: ChaosProxy, script: str) -> Any:
    return await evaluate_at(chromium, url_of(proxy), script)


async def test_a_browser_can_make_a_call_with_callbacks(chromium):
    async with serving(Service()) as proxy:
        assert await evaluate(
            chromium,
            proxy,
            """
            const states = [];
            message.addEventListener("state", (event) => states.push(event.detail.state));
            const before = message.clientId;
            await message.connect();
            const found = [];
            const result = await message.post("count", { to: 3 }, { found: (n) => found.push(n) });
            const id = message.clientId;
            message.close();
            return { before, found, result, states, id: typeof id, after: message.clientId };
            """,
        ) == {
            "before": None,
            "found": [0, 1, 2],
            "result": 3,
            "states": ["connecting", "open", "closed"],
            "id": "string",
            "after": None,
        }


async def test_results_of_every_type_arrive(chromium):
    async with serving(Service()) as proxy:
        script = """
            await message.connect();
            const results = [];
            for (let number = 0; number < 5; number++) {
              results.push(await message.post("result", { number }));
            }
            return results;
        """
        assert await evaluate(chromium, proxy, script) == [None, 7, {"a": 1}, {}, {"payload": 2}]


async def test_without_connect_a_connection_is_made_for_the_call(chromium):
    async with serving(Service()) as proxy:
        script = """
            const result = await message.post("count", { to: 2 }, { found: () => {} });
            return [result, message.state];
        """
        assert await evaluate(chromium, proxy, script) == [2, "closed"]


async def test_failed_calls_reject_with_a_message_error(chromium):
    async with serving(Service()) as proxy:
        script = """
            await message.connect();
            const errors = [];
            for (const [method, data, callbacks] of [
              ["fail", {}, {}],
              ["nope", {}, {}],
              ["count", { to: "x" }, { found: () => {} }],
              ["count", { to: 1 }, { lost: () => {} }],
            ]) {
              await message.post(method, data, callbacks).catch((error) => errors.push([
                error instanceof MessageError, error.code, error.status, error.parameter,
                error.errorType, error.message,
              ]));
            }
            return errors;
        """
        assert await evaluate(chromium, proxy, script) == [
            [True, "raised", 0, "", "builtins.LookupError", "not here"],
            [True, "refused", 404, "", "", "there is no method 'nope'"],
            [True, "refused", 422, "to", "", "count() parameter 'to': Expected `int`, got `str`"],
            [True, "refused", 422, "lost", "", "count has no callback 'lost'"],
        ]


async def test_law_2_aborting_cancels_the_handler_and_waits_for_its_end(chromium):
    service = Service()
    async with serving(service) as proxy:
        script = """
            await message.connect();
            const scope = new AbortController();
            const found = () => scope.abort();
            const [outcome] = await Promise.allSettled([
              message.post("hold", {}, { found }, { signal: scope.signal }),
            ]);
            const again = await message.post("hold", {}, {}, { signal: scope.signal })
              .catch((error) => error.name);
            return [outcome.reason.name, again];
        """
        assert await evaluate(chromium, proxy, script) == ["AbortError", "AbortError"]
        assert service.cancelled == 1


async def test_a_result_that_won_the_race_is_returned(chromium):
    service = Service()
    async with serving(service) as proxy, trio.open_nursery() as nursery:
        script = """
            await message.connect();
            const scope = new AbortController();
            setTimeout(() => scope.abort(), 100);
            return await message.post("finish_anyway", {}, {}, { signal: scope.signal });
        """
        assert await evaluate(chromium, proxy, script) == "finished"
        nursery.cancel_scope.cancel()


async def test_law_5_the_timeout_of_a_browsers_call_travels(chromium):
    service = Service()
    async with serving(service) as proxy:
        script = """
            await message.connect();
            const now = Date.now();
            Date.now = () => now; // so that the whole time is left when the request is made
            return await message.post("hold", {}, { found: () => {} }, { timeoutMs: 100 })
              .catch((error) => error.name);
        """
        assert await evaluate(chromium, proxy, script) == "TimeoutError"
        assert service.cancelled == 1


async def test_a_callback_that_throws_is_reported_and_the_call_goes_on(chromium):
    async with serving(Service()) as proxy:
        script = """
            await message.connect();
            const found = async () => { throw new Error("cannot show it"); };
            const told = await message.post("tell", {}, { found });
            const other = await message.post("count", { to: 1 }, { found: () => {} });
            return [told, other];
        """
        told, other = await evaluate(chromium, proxy, script)
        assert told == "Error: found: Error: cannot show it"
        assert other == 1


async def test_ten_thousand_callbacks_arrive_in_order(chromium):
    async with serving(Service()) as proxy:
        script = """
            await message.connect();
            const found = [];
            await message.post("count", { to: 10000 }, { found: (n) => found.push(n) });
            return found.length === 10000 && found.every((n, index) => n === index);
        """
        assert await evaluate(chromium, proxy, script) is True


async def test_no_message_is_lost_or_repeated_over_five_cuts(chromium):
    limits = GatewayLimits(callbacks_ahead=200)
    async with serving(Service(), limits=limits) as proxy:
        script = """
            await message.connect();
            const id = message.clientId;
            const found = [];
            let cuts = 0;
            message.addEventListener("state", ({ detail }) => cuts += detail.state === "connecting");
            const take = (n) => found.push(n);
            await message.post("count", { to: 10000, cut_every: 2000 }, { found: take });
            const whole = found.length === 10000 && found.every((n, index) => n === index);
            return { whole, cuts, same: id === message.clientId };
        """
        got = await evaluate(chromium, proxy, script)
        assert got == {"whole": True, "cuts": 5, "same": True}


async def test_a_lost_session_rejects_its_calls_and_a_new_one_starts(chromium):
    service = Service()
    async with serving(service) as proxy, hosting(Gateway(Service())) as other:

        async def move() -> None:
            await service.noted.wait()  # the page has the response and a callback
            proxy.target = f"tcp{other.removeprefix('http')}"
            proxy.cut()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(move)
            script = """
                await message.connect();
                const lost = [];
                message.addEventListener("lost", ({ detail }) => lost.push(detail.reason));
                const found = () => message.post("note");
                const error = await message.post("hold", {}, { found }).catch((e) => e);
                const next = await message.post("count", { to: 2 }, { found: () => {} });
                return [error.code, error.message, lost.length, next];
            """
            code, text, lost, following = await evaluate(chromium, proxy, script)
        assert (code, lost, following) == ("lost", 1, 2)
        assert text == "session lost: the gateway does not know it any more"


async def test_calls_to_an_unreachable_gateway_reject(chromium):
    async with serving(Service()) as proxy:
        script = """
            const first = await new Message("127.0.0.1", 1).connect().catch((error) => error.code);
            const broken = new Message("127.0.0.1", 1);
            const second = await broken.post("x", {}, {}).catch((error) => error.code);
            return [first, second, broken.state];
        """
        assert await evaluate(chromium, proxy, script) == ["unreachable", "unreachable", "closed"]


async def test_closing_a_client_before_it_is_open_leaves_no_connection(chromium):
    gateway = Gateway(Service(), pages=PAGES)
    async with hosting(gateway) as url, open_chaos_proxy(f"tcp{url[4:]}") as proxy:
        script = """
            const waiting = message.connect().catch((error) => error.code);
            message.close();
            const other = await new Message().connect(); // in the same order as the first one
            other.close();
            return [await waiting, message.state];
        """
        assert await evaluate(chromium, proxy, script) == ["closed", "closed"]
        while proxy.links:  # the browser's HTTP connections end with the tab
            await trio.lowlevel.checkpoint()


async def test_race_a_post_that_is_answered_after_close_is_rejected(chromium):
    async with serving(Service()) as proxy:
        script = """
            await message.connect();
            const post = message.post("hold", {}, { found: () => {} }).catch((error) => error.code);
            const other = message.post("hold", {}, { found: () => {} }).catch((error) => error.code);
            setTimeout(() => message.close());
            return [await post, await other];
        """
        assert await evaluate(chromium, proxy, script) == ["closed", "closed"]


async def test_ordinary_requests(chromium):
    async def any_verb(request):
        told = {"verb": request.method, "query": dict(request.query_params)}
        return JSONResponse({**told, "body": (await request.body()).decode()})

    gateway = Gateway(Service(), pages=PAGES)
    verbs = ["GET", "PUT", "DELETE"]
    host = Starlette(
        routes=[Route("/thing", any_verb, methods=verbs), Mount("/", gateway)],
        lifespan=lambda _: gateway.run(),
    )
    async with hosting(host) as url, open_chaos_proxy(f"tcp{url[4:]}") as proxy:
        script = """
            return [
              await message.get("/thing", { a: 1 }),
              await message.put("/thing", { b: 2 }),
              await message.delete("thing"),
              await message.get("/nowhere").catch((error) => [error.code, error.status]),
              await message.get("/message.js").catch((error) => error.code),
            ];
        """
        assert await evaluate(chromium, proxy, script) == [
            {"verb": "GET", "query": {"a": "1"}, "body": ""},
            {"verb": "PUT", "query": {}, "body": '{"b":2}'},
            {"verb": "DELETE", "query": {}, "body": ""},
            ["refused", 404],
            "invalid",
        ]


async def test_closing_a_tab_cancels_its_calls_at_once(chromium):
    service = Service()
    async with serving(service) as proxy:

        def leave() -> None:
            page = chromium.new_page(url_of(proxy))
            page.evaluate(
                f"""async () => {{ {MESSAGE}
                    await message.connect();
                    await new Promise((found) => {{ message.post("hold", {{}}, {{ found }}); }});
                }}"""
            )
            page.close(run_before_unload=True)

        await chromium.run(leave)
        await service.ended.wait()


async def test_the_page_shows_the_files_that_are_found(chromium, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for number in range(20):
            (tmp_path / folder / f"{number:02}.txt").write_text("x" * number)
    (tmp_path / "<b>bold.txt").write_text("")
    async with serving(Scanner(tmp_path)) as proxy:

        def look() -> None:
            page = chromium.new_page(url_of(proxy))
            page.wait_for_selector('#state[data-state="open"]')
            page.click("#start")
            page.wait_for_selector("#start:enabled")
            assert page.inner_text("#outcome").startswith("41 files of 380 bytes in ")
            assert page.inner_text("#count") == "41"
            assert page.locator("#found li").count() == 41
            assert page.locator("#found b").count() == 0
            assert page.evaluate("document.getElementById('progress').value") == 1
            screenshot(page, "scan")
            page.fill("#folder", "../..")
            page.click("#start")
            page.wait_for_selector("#outcome.failed")
            assert page.inner_text("#outcome") == "there is no folder '../..' here"
            assert page.errors == []
            page.close()

        await chromium.run(look)


async def test_the_page_numbers_all_rows_and_fits_a_phone(chromium, tmp_path):
    for number in range(600):
        (tmp_path / f"{number:03}.txt").write_text("x")
    long_name = "z" * 200
    (tmp_path / long_name).write_bytes(b"x" * 5_000_000)
    async with serving(Scanner(tmp_path)) as proxy:

        def look() -> None:
            page = chromium.new_page(url_of(proxy))
            page.set_viewport_size({"width": 360, "height": 640})
            page.wait_for_selector('#state[data-state="open"]')
            page.click("#start")
            page.wait_for_selector("#start:enabled")
            assert page.inner_text("#outcome").startswith("601 files of 4.8 MiB in ")
            numbers = page.evaluate("[...document.querySelectorAll('li')].map((li) => li.value)")
            assert numbers == list(range(102, 602))
            assert page.inner_text("#found li:last-child") == f"{long_name} 4.8 MiB"
            assert page.evaluate("document.documentElement.scrollWidth") <= 360
            assert page.errors == []
            page.close()

        await chromium.run(look)


async def test_the_page_can_cancel_and_goes_on_after_a_cut(chromium, tmp_path):
    for number in range(500):
        (tmp_path / f"{number:03}.txt").write_text("x")
    async with serving(Scanner(tmp_path)) as proxy:

        def begin() -> Any:
            page = chromium.new_page(url_of(proxy))
            page.fill("#pause", "0.05")  # 25 s in all, so that the cancellation is in time
            page.click("#start")
            page.wait_for_function("Number(document.getElementById('count').textContent) > 5")
            return page

        page = await chromium.run(begin)
        proxy.cut()

        def go_on() -> None:
            before = int(page.inner_text("#count"))
            page.wait_for_function(
                f"Number(document.getElementById('count').textContent) > {before + 20}"
            )
            assert page.get_attribute("#state", "data-state") == "open"
            screenshot(page, "scan-running")
            page.click("#cancel")
            page.wait_for_selector("#start:enabled")
            assert page.inner_text("#outcome").startswith("cancelled")
            rows = page.locator("#found li").all_inner_texts()
            assert [row.split()[0] for row in rows] == [f"{n:03}.txt" for n in range(len(rows))]
            assert 5 < len(rows) < 500
            page.close()

        await chromium.run(go_on)


async def test_two_tabs_are_two_sessions(chromium, tmp_path):
    for folder, count in (("one", 30), ("two", 50)):
        (tmp_path / folder).mkdir()
        for number in range(count):
            (tmp_path / folder / f"{number:02}.txt").write_text("")
    async with serving(Scanner(tmp_path)) as proxy:

        def look() -> None:
            pages = [chromium.new_page(url_of(proxy)) for _ in range(2)]
            for page, folder in zip(pages, ("one", "two"), strict=True):
                page.fill("#folder", folder)
                page.fill("#pause", "0.05")  # 25 s in all, so that the cancellation is in time
                page.click("#start")
            for page, folder, count in zip(pages, ("one", "two"), (30, 50), strict=True):
                page.wait_for_selector("#start:enabled")
                rows = page.locator("#found li").all_inner_texts()
                assert len(rows) == count
                assert all(row.startswith(f"{folder}/") for row in rows)
                page.close()

        await chromium.run(look)


def test_git_ignores_the_build_output():
    ignored = (Path(__file__).parents[2] / ".gitignore").read_text()
    assert "/out/" in ignored


async def test_a_job_goes_on_while_its_page_is_loaded_again(chromium):
    """Start a job, reload the page in the middle, and find it again: progress, result, cancel."""
    start = "localStorage.job = (await message.start('build')).id; return localStorage.job;"
    back = """
        const job = message.job(localStorage.job);
        const shown = [];
        const progress = (share) => { shown.push(share); if (share < 1) message.post("note"); };
        return [await job.result({ progress }), shown, await job.progress()];
    """
    cancel = """
        const job = message.job(localStorage.job);
        await job.cancel();
        return await job.result().catch((error) => error.code);
    """
    service = Service()
    async with serving(service) as proxy:

        def run() -> Any:
            page = chromium.new_page(url_of(proxy))
            try:
                got = []
                for script in (start, back):
                    got.append(page.evaluate(f"async () => {{ {MESSAGE} {script} }}"))
                    page.reload()
                service.noted = trio.Event()
                for script in (start, cancel):
                    got.append(page.evaluate(f"async () => {{ {MESSAGE} {script} }}"))
                    page.reload()
            finally:
                assert page.errors == []
                page.close()
            return got

        first, back_again, _, cancelled = await chromium.run(run)
    assert isinstance(first, str)
    assert back_again == ["built", [0.5, 1], {"progress": 1}]
    assert cancelled == "cancelled"
    assert service.ended.is_set()

"""The fate of calls when pages fail, leave, reload, freeze, or are opened twice."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable
from urllib.parse import quote

import pytest
import trio
from helpers.chromium import why_not
from helpers.gateway_tools import hosting

import trio_rpc
from trio_rpc import Limits
from trio_rpc.gateway import Gateway
from trio_rpc.testing import open_chaos_proxy

pytestmark = pytest.mark.slow
if why_not() and not os.environ.get("CI"):
    pytest.skip(f"no browser: {why_not()}", allow_module_level=True)


class Service:
    def __init__(self):
        self.running = 0
        self.ended = trio.Event()
        self.caught = []

    @trio_rpc.method
    async def wait(self) -> None:
        self.running += 1
        try:
            await trio.sleep_forever()
        finally:
            self.running -= 1
            self.ended.set()

    @trio_rpc.method
    async def call_back(self, function: Callable[[int], Awaitable[object]]) -> str:
        try:
            await function(1)
        except trio_rpc.RemoteError as exc:
            return f"{exc.type_name}: {exc.message}"
        return "it did not fail"


PAGE = """<!doctype html><title>a page</title><script type="module">
import * as rpc from "/session.js";
const options = JSON.parse(decodeURIComponent(location.hash.slice(1) || "{}"));
window.session = await rpc.connect(options.url, options);
window.service = session.proxy();
window.outcome = (promise) => promise.then((value) => ["ok", value], (e) => [e.name, e.fate ?? null]);
window.isReady = true;
</script>"""


class Site:
    """Pages of one origin, and the server of their sessions."""

    def __init__(self, chromium, origin, server, service, resumes):
        self.chromium = chromium
        self.origin = origin
        self.server = server
        self.service = service
        self.resumes = resumes

    async def open(self, **options):
        text = quote(json.dumps({"url": self.server.urls[0], **options}))
        page = await self.do(self.chromium.new_page, f"{self.origin}/#{text}")
        await self.do(page.wait_for_function, "window.isReady")
        return page

    async def do(self, function, *args):
        return await self.chromium.run(function, *args)

    async def until(self, condition):
        with trio.fail_after(20):
            while not condition():  # noqa: ASYNC110 - the browser has no event here
                await trio.sleep(0.01)


@pytest.fixture
async def site(chromium, tmp_path, request):
    (tmp_path / "index.html").write_text(PAGE)
    options = getattr(request, "param", {})
    service = Service()
    async with hosting(Gateway({}, pages=tmp_path)) as origin:
        async with trio_rpc.open_server(
            service, "ws://127.0.0.1:0", allowed_origins=[origin], **options
        ) as server:
            yield Site(chromium, origin, server, service, "resume" in options)


async def test_an_error_in_a_callback_of_the_page_is_raised_in_the_handler(site):
    page = await site.open()
    script = """() => service.call_back(() => { throw new RangeError("too far"); })"""
    assert await site.do(page.evaluate, script) == "RangeError: too far"
    script = """() => service.call_back(() => Promise.reject(undefined))"""
    assert await site.do(page.evaluate, script) == "thrown: undefined"
    assert await site.do(page.evaluate, "() => session.statistics") == {"callsOut": 0, "callsIn": 0}
    await site.do(page.close)


async def test_two_tabs_are_two_sessions(site):
    one, other = await site.open(), await site.open()
    assert len(site.server.sessions) == 2
    await site.do(one.evaluate, "() => { outcome(service.wait()); }")
    await site.do(other.evaluate, "() => { outcome(service.wait()); }")
    await site.until(lambda: site.service.running == 2)
    await site.do(one.close)
    await site.until(lambda: site.service.running == 1)
    assert await site.do(other.evaluate, "() => session.ping().then((ms) => ms >= 0)")
    await site.do(other.close)
    await site.until(lambda: not site.server.sessions)


PENDING = """
    const stop = new AbortController();
    const asked = new Promise((resolve) => {
      const question = () => { resolve(); return new Promise(() => {}); }; // ignores its signal
      outcome(session.call("call_back", [question], { signal: stop.signal }));
    });
    await asked;
"""
QUESTIONS = {"nothing": "", "pending": PENDING, "aborted": f"{PENDING} stop.abort();"}


@pytest.mark.parametrize("site", [{}, {"resume": True}], indirect=True, ids=["plain", "resuming"])
@pytest.mark.parametrize("question", QUESTIONS)
async def test_a_reload_in_the_middle_of_a_call_cancels_its_handler(site, question):
    page = await site.open(resume=True) if site.resumes else await site.open()
    await site.do(page.evaluate, "() => { outcome(service.wait()); }")
    await site.do(page.evaluate, f"async () => {{ {QUESTIONS[question]} }}")
    await site.until(lambda: site.service.running == 1)
    await site.do(page.reload)
    with trio.fail_after(20):
        await site.service.ended.wait()
    await site.do(page.wait_for_function, "window.isReady")
    await site.until(lambda: len(site.server.sessions) == 1)
    await site.do(page.close)


FAST = Limits(keepalive_interval=0.2, keepalive_pings=2)


@pytest.mark.parametrize("site", [{"limits": FAST}], indirect=True)
async def test_a_frozen_tab_is_given_up_and_learns_it_when_it_returns(site):
    page = await site.open()
    await site.do(page.evaluate, "() => { window.waiting = outcome(service.wait()); }")
    await site.until(lambda: site.service.running == 1)

    def block():  # the page does not take its turn for longer than the server waits
        return page.evaluate("() => { const end = Date.now() + 3000; while (Date.now() < end); }")

    await site.do(block)
    await site.until(lambda: site.service.running == 0)
    # The server's last messages say that the handler was stopped, if they have arrived.
    waiting = await site.do(page.evaluate, "() => waiting")
    assert waiting in (["SessionBroken", "unknown"], ["RemoteCancelled", "stopped"])
    assert await site.do(page.evaluate, "() => session.closed.then(() => session.state)") == "lost"
    assert await site.do(page.evaluate, "() => outcome(service.wait())") == [
        "SessionBroken",
        "not started",
    ]
    await site.do(page.close)


@pytest.mark.parametrize("site", [{"resume": True}], indirect=True)
@pytest.mark.parametrize(
    "event",
    [
        "window.dispatchEvent(new Event('online'))",
        "document.dispatchEvent(new Event('visibilitychange'))",
    ],
    ids=["online", "visible"],
)
async def test_a_page_connects_at_once_when_the_network_is_back_or_it_is_shown(site, event):
    endless = {"firstDelayMs": 10**9, "maxDelayMs": 10**9, "graceMs": 10**9}
    async with open_chaos_proxy(site.server.urls[0]) as proxy:
        page = await site.open(url=proxy.url, resume=endless)
        await site.do(page.evaluate, "() => { Math.random = () => 0.9; }")
        proxy.cut()
        await site.do(page.wait_for_function, "session.state === 'reconnecting'")
        await site.do(
            page.evaluate, "() => { window.called = outcome(service.call_back(() => 1)); }"
        )
        await site.do(page.evaluate, f"() => {{ {event}; }}")
        assert await site.do(page.evaluate, "() => called") == ["ok", "it did not fail"]
        assert await site.do(page.evaluate, "() => session.state") == "resumed"
        await site.do(page.close)

"""A session in JavaScript survives lost connections, as one in Python does, or says that it is lost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trio
from helpers import node
from helpers.node_session import run_node
from helpers.session_js import NodeEnd, run_both

import trio_rpc
from trio_rpc.testing import open_chaos_proxy

pytestmark = [node.needs_node, pytest.mark.slow]


class Cutter:
    """A service whose methods cut the connection while they run."""

    def __init__(self):
        self.proxy = None
        self.calls = 0

    @trio_rpc.method
    async def call(self, cut: int) -> int:
        self.calls += 1
        if cut:
            self.proxy.cut()
        await trio.sleep(0.01)
        return self.calls

    @trio_rpc.stream
    async def numbers(self, count: int, cut_every: int) -> AsyncIterator[int]:
        for number in range(count):
            if number % cut_every == cut_every // 2:
                self.proxy.cut()
            yield number

    @trio_rpc.method
    async def call_back(self, found: Callable[[int], Awaitable[int]], count: int) -> list[int]:
        answers = []
        for number in range(count):
            if number % 40 == 20:
                self.proxy.cut()
            answers.append(await found(number))
        return answers

    @trio_rpc.method
    async def total(self, numbers: AsyncIterator[int]) -> int:
        total = 0
        async for number in numbers:
            total += number
            if number % 1000 == 500:
                self.proxy.cut()
        return total

    @trio_rpc.method
    async def wait(self) -> None:
        await trio.sleep_forever()


async def run(tmp_path, script, **options):
    cutter = Cutter()
    script = f"""
    const states = [];
    const session = await rpc.connect(url, {{ resume: {{ firstDelayMs: 10, graceMs: 20_000 }} }});
    session.addEventListener("state", (event) => states.push(event.detail));
    const cutter = session.proxy();
    {script}
    """

    def proxied(proxy):
        cutter.proxy = proxy

    return await run_both(
        NodeEnd(), tmp_path, script, cutter, proxied=proxied, resume=True, **options
    )


async def test_calls_streams_and_callbacks_notice_only_the_delay(tmp_path):
    script = """
    for (let number = 1; number <= 20; number++) report(await cutter.call(number % 4 ? 0 : 1) === number);
    let next = 0;
    for await (const number of cutter.numbers(5000, 1000)) if (number !== next++) report(number);
    report(next);
    const answers = await cutter.call_back((number) => 2 * number, 200);
    report(answers.every((answer, number) => answer === 2 * number) && answers.length);
    async function* numbers() { for (let number = 0; number < 3000; number++) yield number; }
    report(await cutter.total(numbers()));
    report(new Set(states).size === 2 && states.includes("resumed") && states.includes("reconnecting"));
    await session.close();
    report(session.state);
    report((await session.closed).error.name);
    """
    reported = await run(tmp_path, script)
    assert reported == [*[True] * 20, 5000, 200, 4_498_500, True, "closed", "SessionClosed"]


async def test_a_server_that_has_restarted_loses_the_session_with_a_reason(tmp_path):
    script = """
    const session = await rpc.connect(url, { resume: { firstDelayMs: 10, graceMs: 20_000 } });
    const waiting = outcome(session.call("wait"));
    const [name, text, fate] = await outcome(session.call("restart"));
    report([name, fate, text]);
    report((await waiting).toSpliced(1, 1));
    report(session.state);
    report((await outcome(session.call("wait"))).toSpliced(1, 1));
    """

    class Service(Cutter):
        @trio_rpc.method
        async def restart(self) -> None:
            proxy.target = other.urls[0]
            proxy.cut()
            await trio.sleep_forever()

    async with (
        trio_rpc.open_server(Service(), "ws://127.0.0.1:0", resume=True) as one,
        trio_rpc.open_server(Service(), "ws://127.0.0.1:0", resume=True) as other,
        open_chaos_proxy(one.urls[0]) as proxy,
    ):
        reported = await run_node(tmp_path, script, proxy.url)
    text = reported[0].pop()
    assert reported == [
        ["SessionBroken", "unknown"],
        ["SessionBroken", "unknown"],
        "lost",
        ["SessionBroken", "not started"],
    ]
    assert text.startswith("the session is lost: ")
    assert "unknown" in text or "does not know" in text or "no session" in text


async def test_a_session_without_a_server_is_lost_after_the_grace_time(tmp_path):
    script = """
    const session = await rpc.connect(url, { resume: { firstDelayMs: 10, graceMs: 300 } });
    report(await outcome(session.call("vanish")));
    report(session.state);
    """

    class Service(Cutter):
        @trio_rpc.method
        async def vanish(self) -> None:
            proxy.is_refusing = True
            proxy.cut()
            await trio.sleep_forever()

    async with (
        trio_rpc.open_server(Service(), "ws://127.0.0.1:0", resume=True) as server,
        open_chaos_proxy(server.urls[0]) as proxy,
    ):
        reported = await run_node(tmp_path, script, proxy.url)
    text = "the session is lost: no connection for 300 ms"
    assert reported[0][0] == "SessionBroken"
    assert reported[0][1].startswith(text)
    assert reported[1] == "lost"


async def test_without_resume_a_cut_ends_the_session_with_a_reason(tmp_path):
    script = """
    const session = await rpc.connect(url);
    report(await outcome(session.call("wait_and_cut")));
    report([session.state, session.isOpen, (await session.closed).orderly]);
    """

    class Service(Cutter):
        @trio_rpc.method
        async def wait_and_cut(self) -> None:
            proxy.cut()
            await trio.sleep_forever()

    async with (
        trio_rpc.open_server(Service(), "ws://127.0.0.1:0") as server,
        open_chaos_proxy(server.urls[0]) as proxy,
    ):
        reported = await run_node(tmp_path, script, proxy.url)
    assert reported[0][0::2] == ["SessionBroken", "unknown"]
    assert reported[1] == ["lost", False, False]


async def test_a_server_that_does_not_resume_refuses_clearly(tmp_path):
    script = "report(await outcome(rpc.connect(url, { resume: true })));"
    reported = await run_both(NodeEnd(), tmp_path, script, Cutter())
    [[name, text, _]] = reported
    assert name == "Refused"
    assert "resume" in text


async def test_a_session_is_closed_as_soon_as_its_server_has_ended_in_good_order(tmp_path):
    """It does not wait until a server that has left acknowledges the end."""
    script = """
    setTimeout(() => process.exit(1), 20_000).unref();
    const session = await rpc.connect(url, { resume: true });
    outcome(session.call("leave"));
    const isLost = new Promise((resolve) => session.addEventListener("state", resolve));
    globalThis.setTimeout = () => 0; // no timer ends a wait
    await isLost;
    report((await session.closed).orderly);
    report(session.state);
    """

    class Leaving:
        def __init__(self):
            self.left = trio.Event()

        @trio_rpc.method
        async def leave(self) -> None:
            self.left.set()
            await trio.sleep_forever()

    service = Leaving()
    reported = []
    async with trio.open_nursery() as nursery:
        async with trio_rpc.open_server(service, "ws://127.0.0.1:0", resume=True) as server:

            async def run_page():
                reported.extend(await run_node(tmp_path, script, server.urls[0]))

            nursery.start_soon(run_page)
            await service.left.wait()
    assert reported == [True, "lost"]

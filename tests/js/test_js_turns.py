"""A page has its turns while many packets arrive: session.js works in slices of 8 ms."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
from helpers import node
from helpers.session_js import ChromiumEnd, NodeEnd, run_both

import trio_rpc

pytestmark = [node.needs_node, pytest.mark.slow]

ITEMS = 1024
"""The number of items that the page gets before it returns credit."""

CLOCK = """
// Each piece of work takes a millisecond of this clock, and nothing else does.
let now = 1e6;
performance.now = () => now;
// A task that the page has queued beside ours runs in each turn of the event loop.
let [inTurn, most, isOver] = [0, 0, false];
const work = () => { now++; most = Math.max(most, ++inTurn); };
const turn = new MessageChannel();
turn.port1.onmessage = () => {
  inTurn = 0;
  if (isOver) turn.port1.close(); else turn.port2.postMessage(0);
};
turn.port2.postMessage(0);
"""


class Flood:
    """Sends as much as it may at once."""

    def __init__(self, session: trio_rpc.Session) -> None:
        self.session = session

    @trio_rpc.stream
    async def numbers(self) -> AsyncIterator[int]:
        for number in range(ITEMS):
            yield number

    @trio_rpc.method
    async def notify(self) -> None:
        for number in range(ITEMS):
            await self.session.notify("page.note", number)

    @trio_rpc.method
    async def call(self) -> list[int]:
        results: list[int] = []

        async def call(number: int) -> None:
            results.append(await self.session.call("page.echo", number))

        async with trio.open_nursery() as nursery:
            for number in range(ITEMS):
                nursery.start_soon(call, number)
        return results


@pytest.fixture(params=["Node", "Chromium"])
def end(request):
    if request.param == "Node":
        return NodeEnd()
    return ChromiumEnd(request.getfixturevalue("chromium"))


async def test_a_page_has_a_turn_after_8_ms_of_work_on_items(end, tmp_path):
    script = f"""
    {CLOCK}
    const session = await rpc.connect(url);
    const items = session.stream("numbers")[Symbol.asyncIterator]();
    const got = [(await items.next()).value];
    await sleep(500); // all others have arrived
    inTurn = most = 0;
    for await (const item of items) {{ work(); got.push(item); }}
    isOver = true;
    await session.close();
    report(got);
    report(most);
    """
    got, most = await run_both(end, tmp_path, script, Flood)
    assert got == list(range(ITEMS))
    assert 1 <= most <= 20  # 9, and 9 more if the turns of the two channels change places


@pytest.mark.parametrize("how", ["notify", "call"])
async def test_a_page_has_a_turn_after_8_ms_of_work_in_handlers(end, tmp_path, how):
    script = f"""
    {CLOCK}
    const got = [];
    const note = rpc.notification((number) => {{ work(); got.push(number); }});
    const echo = (number) => {{ work(); got.push(number); return number; }};
    const session = await rpc.connect(url, {{ services: {{ page: {{ note, echo }} }} }});
    await session.call("{how}");
    while (got.length < {ITEMS}) await sleep(10);
    isOver = true;
    await session.close();
    report(got);
    report(most);
    """
    got, most = await run_both(end, tmp_path, script, Flood)
    assert sorted(got) == list(range(ITEMS))
    assert how == "call" or got == sorted(got)
    assert 1 <= most <= 20


async def test_calls_that_a_page_breaks_off_as_it_closes_say_why(end, tmp_path):
    """They were not cancelled by their caller."""

    class Asking:
        outcome = ""

        def for_session(self, session):
            self.session = session
            return self

        @trio_rpc.method
        async def ask(self) -> None:
            try:
                await self.session.call("page.wait")
            except trio_rpc.RemoteCancelled as exc:
                self.outcome = f"{exc}, {exc.fate.value}"

    script = """
    let wasAsked;
    const asked = new Promise((resolve) => { wasAsked = resolve; });
    const wait = rpc.withCall((call) => new Promise((_, reject) => {
      wasAsked();
      call.signal.addEventListener("abort", () => reject(call.signal.reason));
    }));
    const session = await rpc.connect(url, { services: { page: { wait } } });
    const ending = outcome(session.call("ask"));
    await asked;
    await session.close({ graceMs: 0 });
    report((await ending)[0]);
    """
    asking = Asking()
    assert await run_both(end, tmp_path, script, asking.for_session) == ["SessionClosed"]
    assert asking.outcome == "this session is ending, stopped"

"""The laws of docs/guarantees.md between Python and JavaScript: Node, and a page in Chromium."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from helpers import node
from helpers.session_js import ChromiumEnd, JavaScriptEnd, NodeEnd, run_both

import trio_rpc

pytestmark = [node.needs_node, pytest.mark.slow]

CONNECT = """
const log = [];
/** Waits until the call is stopped, and for `ms` more to clean up. */
const stopped = (call, ms = 0) => new Promise((_, reject) => {
  call.signal.addEventListener("abort", async () => { await sleep(ms); reject(call.signal.reason); });
});
const session = await rpc.connect(url, { services: { page: {
  descend: rpc.withCall(async (call, levels) => {
    try { await call.call("main.descend", [levels - 1]); } finally { log.push(levels); }
  }),
  wait: rpc.withCall(async (call, ms = 0) => {
    log.push("began");
    try { await stopped(call, ms); } finally { log.push("ended"); }
  }),
  stubborn: rpc.withCall(async (call) => stopped(call, 30).catch(() => "done all the same")),
  timeLeft: rpc.withCall((call) => call.timeLeft / 1000),
  askBack: rpc.withCall((call) => call.call("main.seconds")),
  fail() { throw Object.assign(new RangeError("too far"), { notes: ["a note"] }); },
  keep(callback) { globalThis.kept = callback; },
  add(number) { log.push(number); },
  log: () => log,
  echo: (value) => value,
  note: rpc.notification((number) => { log.push(number); }),
} } });
const main = session.proxy("main");
"""


class Main:
    """The Python end of one session."""

    def __init__(self, session):
        self.session = session
        self.page = session.proxy("page")
        self.log = []
        self.kept = None

    @trio_rpc.method
    async def descend(self, levels: int) -> None:
        try:
            if levels:
                await self.page.descend(levels - 1)
            else:
                await trio.sleep_forever()
        finally:
            self.log.append(levels)

    @trio_rpc.method
    def logged(self) -> list[object]:
        return self.log

    @trio_rpc.method
    async def wait(self, clean_up: float = 0) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(clean_up)
            self.log.append("ended")

    @trio_rpc.method
    async def cancel_page(self, clean_up: int) -> list[object]:
        with trio.move_on_after(0.1) as scope:
            await self.page.wait(clean_up)
        assert scope.cancelled_caught
        return await self.page.log()

    @trio_rpc.method
    async def return_all_the_same(self) -> str:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            return "done all the same"
        raise AssertionError

    @trio_rpc.method
    async def a_stubborn_page(self) -> str:
        with trio.move_on_after(0.05):
            return await self.page.stubborn()
        return "lost"

    @trio_rpc.method
    async def seconds(self) -> float:
        await trio.lowlevel.checkpoint()
        return trio.current_effective_deadline() - trio.current_time()

    @trio_rpc.method
    async def with_deadline(self) -> list[float]:
        with trio.fail_after(20):
            return [await self.page.timeLeft(), await self.page.askBack()]

    @trio_rpc.method
    async def failure_of_page(self) -> list[object]:
        try:
            await self.page.fail()
        except trio_rpc.RemoteError as exc:
            return [exc.type_name, exc.message, list(exc.notes), exc.fate.value]
        raise AssertionError

    @trio_rpc.method
    async def keep(self, callback: Callable[[int], Awaitable[int]]) -> int:
        self.kept = callback
        return await callback(1)

    @trio_rpc.method
    async def use_kept(self) -> str:
        try:
            await self.kept(2)
        except trio_rpc.RpcError as exc:
            return type(exc).__name__
        return "it was called"

    @trio_rpc.method
    async def lend(self) -> None:
        async def function(number: int) -> int:
            return number

        await self.page.keep(function)

    @trio_rpc.method
    async def in_order(self, count: int) -> bool:
        async with trio.open_nursery() as nursery:
            for number in range(count):
                await self.session.notify("page.note", number)
            nursery.start_soon(self.page.add, "a call")
        return [*range(count), "a call"] == await self.page.log()

    @trio_rpc.method
    def add(self, number: int) -> None:
        self.log.append(number)

    @trio_rpc.method
    async def many(self, count: int) -> int:
        async with trio.open_nursery() as nursery:
            for number in range(count):
                nursery.start_soon(self.page.echo, number)
        return count

    @trio_rpc.method
    async def names(self, names: list[str]) -> list[str]:
        found = []
        for name in names:
            try:
                await self.session.call(name)
            except trio_rpc.MethodNotFound:
                continue
            found.append(name)
        return found


@pytest.fixture(params=["node", "chromium"])
def end(request) -> JavaScriptEnd:
    if request.param == "node":
        return NodeEnd()
    return ChromiumEnd(request.getfixturevalue("chromium"))


async def run(end, tmp_path, script, **options):
    """Run a script that has ``session``, ``main`` and ``log``; return its reports and Python's end."""
    mains = []

    def services(session):
        mains.append(Main(session))
        return {"main": mains[-1]}

    reported = await run_both(end, tmp_path, CONNECT + script, services, **options)
    return reported, mains[0]


async def test_law_1_one_tree_an_abort_of_the_root_ends_every_level_from_the_leaf_up_with_javascript(
    end, tmp_path
):
    script = """
    const stop = new AbortController();
    const root = outcome(session.call("main.descend", [4], { signal: stop.signal }));
    await sleep(200);
    stop.abort();
    report((await root)[0]);
    report(log);
    report(session.statistics);
    await session.close();
    """
    reported, main = await run(end, tmp_path, script)
    assert reported == ["AbortError", [1, 3], {"callsOut": 0, "callsIn": 0}]
    assert main.log == [0, 2, 4]


async def test_law_2_cancel_is_a_message_the_caller_goes_on_when_the_handler_has_ended_with_javascript(
    end, tmp_path
):
    script = """
    const stop = new AbortController();
    const call = outcome(session.call("main.wait", [0.1], { signal: stop.signal }));
    await session.ping();
    stop.abort(new Error("the user pressed stop"));
    report((await call)[1]);
    report(await main.logged());
    report(await main.cancel_page(50));
    await session.close();
    """
    reported, _ = await run(end, tmp_path, script)
    assert reported == ["the user pressed stop", ["ended"], ["began", "ended"]]


async def test_law_3_a_result_that_won_the_race_is_returned_with_javascript(end, tmp_path):
    script = """
    const stop = new AbortController();
    const call = session.call("main.return_all_the_same", [], { signal: stop.signal });
    await session.ping();
    stop.abort();
    report(await call);
    report(await main.a_stubborn_page());
    await session.close();
    """
    reported, _ = await run(end, tmp_path, script)
    assert reported == ["done all the same", "done all the same"]


async def test_law_5_deadlines_travel_also_through_the_page_with_javascript(end, tmp_path):
    script = """
    report(await session.call("main.seconds", [], { timeoutMs: 30_000 }));
    report(await main.with_deadline());
    await session.close();
    """
    reported, _ = await run(end, tmp_path, script)
    there, [in_page, back] = reported
    assert 0 < there <= 30
    assert 0 < back <= in_page <= 20


async def test_law_6_handlers_belong_to_the_session_with_javascript(end, tmp_path):
    script = """
    const waiting = outcome(main.wait());
    const driven = outcome(main.cancel_page(1)).catch(() => {});
    while (!log.includes("began")) await sleep(1);
    await session.close({ graceMs: 0 });
    report(log);
    report(await waiting);
    report((await session.closed).error.name);
    report(await outcome(main.logged()));
    """
    reported, main = await run(end, tmp_path, script)
    assert reported == [
        ["began", "ended"],
        ["SessionClosed", "this end has closed the session", "unknown"],
        "SessionClosed",
        ["SessionClosed", "this end has closed the session", "not started"],
    ]
    assert main.log == ["ended"]


async def test_law_7_errors_go_to_the_parent_with_javascript(end, tmp_path):
    script = """
    report(await main.failure_of_page());
    report(await main.logged());
    await session.close();
    """
    reported, _ = await run(end, tmp_path, script)
    assert reported == [["RangeError", "too far", ["a note"], "stopped"], []]


async def test_law_8_references_die_with_their_call_with_javascript(end, tmp_path):
    script = """
    report(await main.keep((number) => number + 1));
    report(await main.use_kept());
    await main.lend();
    report((await outcome(globalThis.kept(1)))[0]);
    await session.close();
    """
    reported, _ = await run(end, tmp_path, script)
    assert reported[0] == 2
    assert reported[1] in {"LocalProtocolError", "MethodNotFound"}
    assert reported[2] == "LocalProtocolError"


async def test_law_9_handlers_begin_in_the_order_of_arrival_with_javascript(end, tmp_path):
    script = """
    report(await main.in_order(300));
    await Promise.all(Array.from({ length: 300 }, (_, number) => main.add(number)));
    report((await main.logged()).every((number, index) => number === index));
    await session.close();
    """
    reported, _ = await run(end, tmp_path, script)
    assert reported == [True, True]


async def test_law_11_calls_wait_for_credit_and_the_reader_for_nothing_with_javascript(
    end, tmp_path
):
    script = """
    const stop = new AbortController();
    const waiting = Array.from({ length: 3 }, () =>
      outcome(session.call("main.wait", [], { signal: stop.signal })));
    const late = outcome(session.call("main.add", [1], { timeoutMs: 50 }));
    report((await late)[0]);
    const next = main.add(2);
    stop.abort();
    await Promise.all(waiting);
    await next;
    report(await main.many(200));
    await session.close();
    """
    reported, main = await run(end, tmp_path, script, limits=trio_rpc.Limits(max_calls=3))
    assert reported == ["TimeoutError", 200]
    assert main.log == ["ended", "ended", "ended", 2]


async def test_law_13_only_offered_methods_can_be_called_with_javascript(end, tmp_path):
    script = """
    const names = ["__proto__", "page.__proto__", "page.constructor", "page.toString", "toString",
      "constructor.constructor", "page", "page.echo.call", "window.alert", "page.hasOwnProperty"];
    report(await main.names(names));
    report(await outcome(session.call("main.__init__")));
    await session.close();
    """
    reported, _ = await run(end, tmp_path, script)
    assert reported == [
        [],
        ["MethodNotFound", "there is no method 'main.__init__'", "not started"],
    ]


async def test_law_14_an_unsendable_value_raises_at_its_sender_with_javascript(end, tmp_path):
    script = """
    const endless = [];
    endless.push(endless);
    const values = [Symbol("a"), new (class Point {})(), [undefined], "\\udfff", endless, new Date(NaN),
      new Map([[[1], 2]]), new Uint16Array(2), { a: { b: new WeakMap() } }, 1n << 9000n];
    for (const value of values) report((await outcome(session.call("main.add", [value])))[0]);
    report(session.statistics.callsOut);
    report(await outcome(main.add("text")).then(([name]) => name));
    await session.close();
    """
    reported, main = await run(end, tmp_path, script)
    assert reported == ["EncodeError"] * 10 + [0, "InvalidArguments"]
    assert main.log == []

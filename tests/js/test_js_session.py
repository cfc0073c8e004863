"""A program in Node is one end of a session: calls in both directions, streams, callbacks, ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trio
from helpers import node
from helpers.node_session import run_session

import trio_rpc

pytestmark = [node.needs_node, pytest.mark.slow]


class Market:
    """The Python end. It records the handlers that ran, and how each ended."""

    def __init__(self):
        self.log = []

    def for_session(self, session):
        self.session = session
        return {"market": self}

    @trio_rpc.method
    async def echo(self, value):
        return value

    @trio_rpc.method
    async def show(self, value) -> str:
        return repr(value)

    @trio_rpc.method
    async def price(self, symbol: str, *, currency: str = "USD") -> str:
        return f"{symbol} in {currency}"

    @trio_rpc.method
    async def sleep(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.log.append("sleep ended")

    @trio_rpc.method
    async def stubborn(self, started: Callable[[], Awaitable[None]]) -> str:
        with trio.CancelScope(shield=True):
            await started()
            await trio.sleep(0.05)
        return "done all the same"

    @trio_rpc.method
    async def fail(self) -> None:
        error = ValueError("no")
        error.add_note("a note")
        raise error

    @trio_rpc.method
    async def fold(self, function: Callable[[int, int], Awaitable[int]], count: int) -> int:
        total = 0
        for number in range(count):
            total = await function(total, number)
        return total

    @trio_rpc.stream
    async def ticks(self, count: int) -> AsyncIterator[int]:
        try:
            for number in range(count):
                yield number
        finally:
            self.log.append("ticks closed")

    @trio_rpc.method
    async def total(self, numbers: AsyncIterator[int]) -> int:
        return sum([number async for number in numbers])

    @trio_rpc.duplex
    async def chat(self, channel: trio.abc.Channel[str], room: str) -> None:
        async for text in channel:
            await channel.send(f"{room}: {text}")

    @trio_rpc.method
    async def feed(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started(5)
        try:
            await trio.sleep_forever()
        finally:
            self.log.append("feed ended")

    @trio_rpc.notification
    async def note(self, line: str) -> None:
        self.log.append(line)

    @trio_rpc.method
    async def metadata(self) -> dict[str, object]:
        return dict(trio_rpc.current_call().metadata)

    @trio_rpc.method
    async def ask(self, question: str) -> str:
        return await self.session.proxy("window").confirm(question, title="Please")

    @trio_rpc.method
    async def pull(self, count: int) -> int:
        async with self.session.stream("window.numbers", count) as numbers:
            return sum([number async for number in numbers])

    @trio_rpc.method
    async def large(self, size: int) -> bytes:
        return bytes(size)


async def run(tmp_path, script, **options):
    market = Market()
    script = (
        "const session = await rpc.connect(url, {"
        + options.pop("connect", "")
        + "});"
        + ('const market = session.proxy("market");' + script + "await session.close();")
    )
    reported = await run_session(tmp_path, script, market.for_session, **options)
    return reported, market


async def test_values_pass_through_python_unchanged(tmp_path):
    reported, _ = await run(
        tmp_path,
        """
        const values = [
          { a: [1, "x", null, true, 1.5] }, 2n ** 60n, -(2n ** 100n), new rpc.Tuple(1, 2),
          new Set([1, "a"]), new Map([[1, 2]]), new rpc.Decimal("1.50"), new rpc.PlainDate("2026-01-02"),
          new rpc.DateTime("2026-01-02T03:04:05.000001+00:00"), new Uint8Array([1, 2]), Infinity, -0,
          new rpc.UUID("00112233-4455-6677-8899-aabbccddeeff"), JSON.parse('{"__proto__": 1}'),
          "\\u{1F600}".repeat(100), 2 ** 53 - 1, -(2 ** 53 - 1), 2 ** 53, 1e300,
        ];
        const { isDeepStrictEqual } = await import("node:util");
        for (const value of values) {
          if (!isDeepStrictEqual(await market.echo(value), value)) report(String(value));
        }
        report(await market.show([new Date(0), 1.0, 2n ** 53n, undefined === null, { a: undefined }]));
        report(Object.prototype.polluted ?? "clean");
        """,
    )
    dates = "datetime.datetime(1970, 1, 1, 0, 0, tzinfo=datetime.timezone.utc)"
    assert reported == [f"[{dates}, 1, 9007199254740992, False, {{}}]", "clean"]


async def test_calls_errors_and_names(tmp_path):
    reported, _ = await run(
        tmp_path,
        """
        report(await market.price("BTC", rpc.named({ currency: "EUR" })));
        report(await outcome(market.price(5)));
        report(await outcome(market.nope()));
        const error = await market.fail().catch((error) => error);
        report([error.name, error.typeName, error.message, error.notes, error.fate]);
        report(await session.call("market.metadata", [], { metadata: { user: "ann" } }));
        report(await session.proxy("market", { metadata: { user: "bob" } }).metadata());
        report(await outcome(market.echo(() => 1)));
        report(await outcome(market.echo([undefined])));
        report(await outcome(market.echo("\\ud800")));
        const withFunction = { metadata: { f: [() => 1] } };
        report((await outcome(session.call("market.metadata", [], withFunction)))[0]);
        report((await market.large(3_000_000)).length);
        report((await market.echo(new Uint8Array(3_000_000))).length);
        """,
    )
    # A function may be an argument: here the handler returns it, which cannot be sent.
    function = reported.pop(6)
    assert function[0] == "RemoteError"
    assert reported == [
        "BTC in EUR",
        ["InvalidArguments", reported[1][1], "not started"],
        ["MethodNotFound", "there is no method 'market.nope'", "not started"],
        ["RemoteError", "builtins.ValueError", "no", ["a note"], "stopped"],
        {"user": "ann"},
        {"user": "bob"},
        ["EncodeError", "undefined cannot be sent inside an array; use null", "not started"],
        ["EncodeError", "text with half of a surrogate pair", "not started"],
        "EncodeError",
        3_000_000,
        3_000_000,
    ]


async def test_an_abort_settles_when_the_handler_has_ended(tmp_path):
    reported, market = await run(
        tmp_path,
        """
        const first = new AbortController();
        const slept = outcome(session.call("market.sleep", [], { signal: first.signal }));
        await session.ping();
        first.abort();
        report((await slept)[0]);
        report(await outcome(session.call("market.sleep", [], { timeoutMs: 30 })));
        const second = new AbortController();
        report(await session.call("market.stubborn", [() => second.abort()], { signal: second.signal }));
        report((await outcome(session.call("market.sleep", [], { signal: AbortSignal.abort() })))[0]);
        report(session.statistics);
        """,
    )
    assert reported == [
        "AbortError",
        ["TimeoutError", "the call took longer than 30 ms", None],
        "done all the same",
        "AbortError",
        {"callsOut": 0, "callsIn": 0},
    ]
    assert market.log == ["sleep ended", "sleep ended"]


async def test_streams_callbacks_duplexes_and_scopes(tmp_path):
    reported, market = await run(
        tmp_path,
        """
        let sum = 0;
        for await (const tick of market.ticks(5000)) sum += tick;
        report(sum);
        for await (const tick of market.ticks(5000)) if (tick > 3) break;
        report(await market.fold(async (total, number) => total + number, 20));
        async function* numbers() { for (let number = 0; number < 3000; number++) yield number; }
        report(await market.total(numbers()));
        const chat = session.duplex("market.chat", ["hall"]);
        const [writer, reader] = [chat.writable.getWriter(), chat.readable.getReader()];
        for (const text of ["a", "b"]) {
          await writer.write(text);
          report((await reader.read()).value);
        }
        await writer.close();
        report((await reader.read()).done);
        report(await chat.ended);
        const stop = new AbortController();
        const { value, ended } = await session.start("market.feed", [], { signal: stop.signal });
        stop.abort();
        report([value, (await outcome(ended))[0]]);
        const scope = session.openScope();
        const slept = outcome(scope.call("market.sleep"));
        report(await scope.call("market.fold", [(total, number) => total + number, 5]));
        await scope.close();
        report((await slept)[0]);
        await session.notify("market.note", ["a line"]);
        report(session.statistics);
        """,
    )
    assert reported == [
        12_497_500,
        190,
        4_498_500,
        "hall: a",
        "hall: b",
        True,
        None,
        [5, "AbortError"],
        10,
        "RemoteCancelled",
        {"callsOut": 0, "callsIn": 0},
    ]
    assert market.log == ["ticks closed", "ticks closed", "feed ended", "sleep ended", "a line"]


async def test_python_calls_the_services_of_the_page(tmp_path):
    services = """services: { window: {
      confirm: rpc.method((text, title) => `${title}: ${text}? yes`, { text: "string", "title?": "string" }),
      async *numbers(count) { for (let number = 0; number < count; number++) yield number; },
    } }"""
    reported, _ = await run(
        tmp_path,
        """
        report(await market.ask("proceed"));
        report(await market.pull(3000));
        """,
        connect=services,
    )
    assert reported == ["Please: proceed? yes", 4_498_500]


class Driver:
    """Calls the odd functions of the page, and returns the outcome of each."""

    def __init__(self, session):
        self.page = session.proxy("page")
        self.session = session

    @trio_rpc.method
    async def calls(self, names: list[str]) -> list[str]:
        return [await self.outcome(self.session.call, f"page.{name}") for name in names]

    @trio_rpc.method
    async def streams(self, names: list[str]) -> list[str]:
        async def pull(name):
            async with self.session.stream(name) as items:
                async for item in items:
                    return item
            return None

        return [await self.outcome(pull, f"page.{name}") for name in names]

    @trio_rpc.method
    async def apply(self, function: Callable[[], Awaitable[object]]) -> str:
        return await self.outcome(function)

    @trio_rpc.method
    async def first(self, items: AsyncIterator[object]) -> str:
        async def pull():
            async for item in items:
                return item
            return None

        return await self.outcome(pull)

    async def outcome(self, function, *args):
        try:
            return repr(await function(*args))
        except trio_rpc.RpcError as exc:
            return f"{type(exc).__name__} {exc}"


async def test_any_value_that_a_page_throws_is_the_answer_of_that_call_alone(tmp_path):
    script = """
    const iterable = (iterator) => ({ [Symbol.asyncIterator]: () => iterator() });
    const session = await rpc.connect(url, { services: { page: {
      throws() { throw new RangeError("now"); },
      rejects: () => Promise.reject(new RangeError("later")),
      nothing() { throw undefined; },
      bare() { throw Object.create(null); },
      thenable: () => ({ get then() { throw new RangeError("odd"); } }),
      unsendable: () => Symbol("a"),
      unsendableError() { throw new rpc.RemoteError("builtins.ValueError", "x", { args: [Symbol("a")] }); },
      badMessage() { throw Object.defineProperty(new Error(), "message", { get() { throw new Error("no"); } }); },
      badName() { throw Object.defineProperty(new Error("x"), "name", { get() { throw new Error("no"); } }); },
      badNotes() { throw Object.defineProperty(new Error("x"), "notes", { get() { throw new Error("no"); } }); },
      badProxy() { throw new Proxy({}, { getPrototypeOf() { throw new Error("no"); } }); },
      badGetter: () => ({ get a() { throw Object.create(null); } }),
      fine: () => 1,
      noIterator: rpc.stream(() => iterable(() => { throw new RangeError("none"); })),
      number: rpc.stream(() => 5),
      badNext: rpc.stream(() => iterable(() => ({ next() { throw new RangeError("next"); } }))),
      badReturn: rpc.stream(() => iterable(() => ({
        next: async () => ({ done: false, value: 1 }), return() { throw new RangeError("return"); } }))),
      badItem: rpc.stream(async function* () { yield Symbol("a"); }),
    } } });
    const driver = session.proxy();
    const calls = ["throws", "rejects", "nothing", "bare", "thenable", "unsendable", "unsendableError", "fine"];
    report(await driver.calls(calls));
    report(await driver.streams(["noIterator", "number", "badNext", "badReturn", "badItem"]));
    report(await driver.apply(() => { throw new RangeError("callback"); }));
    report(await driver.first(iterable(() => { throw new RangeError("argument"); })));
    const abort = new AbortController(), left = session.proxy("", { signal: abort.signal }).calls(["fine"]);
    abort.abort(Object.create(null));
    await left.catch(() => {});
    report(await driver.calls(["badMessage", "badName", "badNotes", "badProxy", "badGetter"]));
    report(await driver.calls(["fine"]));
    report(session.statistics);
    await session.close();
    """
    reported = await run_session(tmp_path, script, Driver)
    calls, streams, callback, argument, odd, fine, left = reported
    assert calls[:5] == [
        "RemoteError RangeError: now",
        "RemoteError RangeError: later",
        "RemoteError thrown: undefined",
        "RemoteError thrown: unreadable",
        "RemoteError RangeError: odd",
    ]
    assert "cannot be sent" in calls[5]
    assert calls[6] == "RemoteError ValueError: x"
    assert calls[7] == "1"
    assert streams[0] == "RemoteError RangeError: none"
    assert streams[1].startswith("RemoteError TypeError")
    assert streams[2] == "RemoteError RangeError: next"
    assert streams[3] in {"1", "RemoteError RangeError: return"}
    assert "cannot be sent" in streams[4]
    assert callback == "RemoteError RangeError: callback"
    assert argument == "RemoteError RangeError: argument"
    assert odd == [
        *["RemoteError thrown: unreadable"] * 4,
        "RemoteError internal: the result cannot be sent: unreadable",
    ]
    assert fine == ["1"]
    assert left == {"callsOut": 0, "callsIn": 0}


async def test_a_call_that_a_handler_has_not_awaited_ends_before_its_answer(tmp_path):
    script = """
    const session = await rpc.connect(url, { services: { page: {
      lazy: rpc.withCall(async (call) => {
        call.call("wait").catch((error) => report(error.name));
        await session.ping(); // the other end has begun it
        return "done";
      }),
    } } });
    report(await session.call("lazy"));
    report(session.statistics);
    await session.close();
    """
    ended = []

    class Service:
        def __init__(self, session):
            self.page = session.proxy("page")

        @trio_rpc.method
        async def wait(self) -> None:
            try:
                await trio.sleep_forever()
            finally:
                ended.append("wait")

        @trio_rpc.method
        async def lazy(self) -> list[str]:
            return [await self.page.lazy(), *ended]

    reported = await run_session(tmp_path, script, Service)
    assert reported == ["LocalProtocolError", ["done", "wait"], {"callsOut": 0, "callsIn": 0}]


async def test_a_session_that_is_not_opened_says_why(tmp_path):
    script = """
    report((await outcome(rpc.connect("ws://127.0.0.1:1"))).toSpliced(1, 1));
    report(await outcome(rpc.connect(url, { credentials: { token: "wrong" } })));
    report(await outcome(rpc.connect(url, { signal: AbortSignal.abort() })).then(([name]) => name));
    const stop = new AbortController();
    const session = await rpc.connect(url, { credentials: { token: "right" }, signal: stop.signal });
    const waiting = outcome(session.call("market.sleep"));
    await session.ping();
    stop.abort();
    report((await waiting)[0]);
    report((await session.closed).error.name);
    """

    def check(session, credentials):
        if credentials != {"token": "right"}:
            raise trio_rpc.Refused("who are you?")

    market = Market()
    reported = await run_session(tmp_path, script, market.for_session, authenticate=check)
    assert reported == [
        ["SessionBroken", "not started"],
        ["Refused", "the other end did not open the session: refused: who are you?", "not started"],
        "AbortError",
        "SessionClosed",
        "SessionClosed",
    ]
    assert market.log == ["sleep ended"]


async def test_a_duplex_or_a_scope_that_is_left_early_leaves_nothing_behind(tmp_path):
    reported, _ = await run(
        tmp_path,
        """
        const chat = market.chat.duplex("hall");
        await chat.writable.getWriter().write("a");
        report((await chat.readable.getReader().read()).value);
        await chat.close();
        const unused = session.duplex("market.chat", ["hall"]);
        await unused.close();
        report((await outcome(unused.ended))[0]);
        const idle = new ReadableStream({ cancel: () => report("cancelled") });
        report((await outcome(session.call("market.total", [idle], { timeoutMs: 100 })))[0]);
        const scope = session.openScope({ signal: AbortSignal.timeout(20) });
        report((await outcome(scope.call("market.sleep")))[0]);
        await scope.close();
        report((await outcome(session.call("market.price", "BTC")))[0]);
        await session.ping();
        report(session.statistics);
        """,
    )
    assert reported == [
        "hall: a",
        "AbortError",
        "cancelled",
        "TimeoutError",
        "RemoteCancelled",
        "TypeError",
        {"callsOut": 0, "callsIn": 0},
    ]

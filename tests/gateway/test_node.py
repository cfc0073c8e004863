"""message.js in Node: its requests and callbacks, without a browser."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from helpers import node
from helpers.gateway_tools import until_it_fails

import trio_rpc
from trio_rpc.gateway import Gateway, GatewayLimits, call_back

pytestmark = node.needs_node


class Service:
    @trio_rpc.method
    async def show(self, x: object = None) -> str:
        return repr(x)

    @trio_rpc.method
    async def several(
        self,
        found: Callable[..., Awaitable[None]],
        pair: Callable[[int, str], Awaitable[None]],
        done: Callable[[], Awaitable[None]],
    ) -> None:
        await found([1, 2])
        await found(1, 2)
        await found(a=1)
        await pair(1, "a")
        await call_back(found=None, pair=(2, "b"), done=())
        await done()


async def test_the_arguments_of_a_callback_arrive_one_by_one(tmp_path):
    script = """
    const say = (name) => (...given) => report([name, ...given]);
    const message = new Message(host, port);
    await message.post("several", {}, { found: say("found"), pair: say("pair"), done: say("done") });
    """
    assert await node.run(tmp_path, script, Gateway(Service())) == [
        ["found", [1, 2]],
        ["found", 1, 2],
        ["found", {"a": 1}],
        ["pair", 1, "a"],
        ["found", None],
        ["pair", 2, "b"],
        ["done"],
        ["done"],
    ]


class Asks:
    @trio_rpc.method
    async def ask(self, sure: Callable[[str, int], Awaitable[bool]]) -> list[str]:
        got = []
        for number in range(4):
            try:
                got.append(repr(await sure("proceed?", number)))
            except trio_rpc.RpcError as exc:
                got.append(f"{type(exc).__name__}: {exc}")
        return got


async def test_a_callback_returns_its_value_to_the_handler(tmp_path):
    script = """
    const sure = (text, number) => [
      () => text.length > number,
      async () => false,
      () => { throw new Error("not now"); },
      () => "x".repeat(70_000),
    ][number]();
    report(await new Message(host, port).post("ask", {}, { sure }));
    """
    [got] = await node.run(tmp_path, script, Gateway(Asks()))
    assert got[:2] == ["True", "False"]
    assert got[2] == "RemoteError: Error: sure: Error: not now"
    assert "its value is too large" in got[3]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("1e20", "1e+20"),
        ("1e300", "1e+300"),
        ("2 ** 53 - 1", str(2**53 - 1)),
        ("[null, true, 'ä😀']", "[None, True, 'ä😀']"),
        ("{ a: undefined, b: 1 }", "{'b': 1}"),
        ("undefined", "None"),
        ("Object.create(null)", "{}"),
        ("new Date(0)", "'1970-01-01T00:00:00.000Z'"),
    ],
)
async def test_json_values_are_sent_unchanged(tmp_path, value, shown):
    script = f'report(await failing(() => new Message(host, port).post("show", {{ x: {value} }})));'
    assert await node.run(tmp_path, script, Gateway(Service())) == [shown]


LOST = [
    "NaN",
    "-Infinity",
    "-0",
    "[undefined]",
    "[,]",
    "() => 1",
    "Symbol('a')",
    "10n",
    "new Map([[1, 2]])",
    "new Set([1])",
    "new Uint8Array(2)",
    "new Date(NaN)",
    "new (class Point {})()",
    "new Number(1)",
    "'\\ud800'",
    "{ '\\udfff': 1 }",
    "{ a: [{ b: NaN }] }",
]


async def test_a_value_that_json_would_change_is_refused_at_the_client(tmp_path):
    script = "".join(
        f"report(await failing(() => new Message(host, port).{verb}, {{ x: {value} }})));\n"
        for value in LOST
        for verb in ('post("show"', 'put("/x"')
    )
    reported: list[Any] = await node.run(tmp_path, script)
    assert len(reported) == 2 * len(LOST)
    for value, error in zip([value for value in LOST for _ in range(2)], reported, strict=True):
        assert error.startswith("TypeError: "), (value, error)


async def test_a_number_that_json_would_round_is_refused_by_the_gateway(tmp_path):
    script = (
        'report(await failing(() => new Message(host, port).post("show", { x: 2 ** 53 + 2 })));'
    )
    [error] = await node.run(tmp_path, script, Gateway(Service()))
    assert error == "9007199254740994.0"  # as the float that it was


async def test_a_callback_without_a_possible_name_is_refused(tmp_path):
    script = """
    const error = await new Message(host, port).post("show", {}, { "größe": report }).catch((e) => e);
    report([error.code, error.parameter]);
    """
    assert await node.run(tmp_path, script, Gateway(Service())) == [["refused", "größe"]]


async def test_a_long_error_text_may_be_cut_within_a_character(tmp_path):
    class Reporting:
        @trio_rpc.method
        async def report(self, found: Callable[[int], Awaitable[None]]) -> str:
            return await until_it_fails(found)

    script = """
    const found = () => { throw new Error("x".repeat(992) + "😀"); };
    console.warn = () => {};
    report((await new Message(host, port).post("report", {}, { found })).length > 900);
    """
    assert await node.run(tmp_path, script, Gateway(Reporting())) == [True]


# ── time ─────────────────────────────────────────────────────────────────────────────────────


class Slow:
    def __init__(self) -> None:
        self.sockets = 0
        self.started = trio.Event()
        self.ended = trio.Event()
        self.seconds = 0.0

    @trio_rpc.method
    async def work(self, found: Callable[[int], Awaitable[None]] | None = None) -> str:
        self.seconds = trio.current_effective_deadline() - trio.current_time()
        await trio.sleep(0.05)
        return "done"

    @trio_rpc.method
    async def hold(self, found: Callable[[int], Awaitable[None]] | None = None) -> None:
        self.started.set()
        if found is not None:
            await found(1)
        try:
            await trio.sleep_forever()
        finally:
            self.ended.set()

    @trio_rpc.method
    async def until_started(self) -> None:
        await self.started.wait()

    @trio_rpc.method
    async def until_ended(self) -> None:
        await self.ended.wait()

    @trio_rpc.method
    async def fail(self) -> None:
        raise LookupError("not here")


DAY = 24 * 3600 * 1000


@pytest.mark.parametrize("callbacks", ["{}", "{ found: report }"])
@pytest.mark.parametrize("ms", [25 * DAY, 30 * DAY, 50 * DAY, 2**31, 2**32 + 5, 1e15])
async def test_a_timeout_may_be_of_any_length(tmp_path, ms, callbacks):
    slow = Slow()
    script = f"""
    const message = new Message(host, port);
    report(await failing(() => message.post("work", {{}}, {callbacks}, {{ timeoutMs: {ms} }})));
    """
    assert await node.run(tmp_path, script, Gateway(slow)) == ["done"]
    assert slow.seconds == pytest.approx(ms / 1000, rel=0.01)


@pytest.mark.parametrize("callbacks", ["{}", "{ found: () => {} }"])
@pytest.mark.parametrize(
    ("ms", "error"),
    [
        ("Infinity", "done"),
        ("undefined", "done"),
        ("0", "TimeoutError: the call took too long"),
        ("-5", "TimeoutError: the call took too long"),
        ("10", "TimeoutError: the call took too long"),
        ("NaN", "TypeError: timeoutMs must be a number of milliseconds, not NaN"),
        ("'soon'", "TypeError: timeoutMs must be a number of milliseconds, not soon"),
    ],
)
async def test_an_odd_timeout_is_an_error(tmp_path, ms, error, callbacks):
    script = f"""
    const message = new Message(host, port);
    report(await failing(() => message.post("work", {{}}, {callbacks}, {{ timeoutMs: {ms} }})));
    """
    assert await node.run(tmp_path, script, Gateway(Slow())) == [error]


@pytest.mark.parametrize("seconds", [13 * DAY / 1000, 30 * DAY / 1000, 1e12, math.inf])
async def test_keepalive_and_grace_may_be_of_any_length(tmp_path, seconds):
    limits = GatewayLimits(keepalive=seconds, grace=seconds)
    script = """
    const message = new Message(host, port);
    message.addEventListener("state", (event) => report(event.detail.state));
    await message.connect();
    await new Promise((resolve) => setTimeout(resolve, 200));
    message.close();
    """
    reported = await node.run(tmp_path, script, Gateway(Slow(), limits=limits))
    assert reported == ["connecting", "open", "closed"]


async def test_every_timer_may_be_long():
    """setTimeout and AbortSignal.timeout allow at most 2^31 - 1 ms, so one place uses them."""
    text = (node.STATIC / "message.js").read_text()
    assert text.count("setTimeout(") == 1
    assert text.count("AbortSignal.timeout(") == text.count("AbortSignal.timeout(ANSWER)")


# ── objects that a page keeps ────────────────────────────────────────────────────────────────

PAGE = """
const page = new EventTarget();
let listeners = 0;
globalThis.addEventListener = (...given) => { listeners += 1; page.addEventListener(...given); };
globalThis.removeEventListener = (...given) => { listeners -= 1; page.removeEventListener(...given); };
async function collected(clients) {
  for (let i = 0; i < 20 && clients.some((client) => client.deref()); i++) {
    await new Promise((resolve) => setTimeout(resolve, 20));
    globalThis.gc();
  }
  return clients.filter((client) => client.deref()).length;
}
"""


@pytest.mark.parametrize(
    "use",
    [
        "",
        "message.close();",
        'await message.post("work");',
        'await message.post("work", {}, { found: report });',
        "await message.connect(); message.close();",
        "message.connect().catch(() => {}); message.close();",
    ],
)
async def test_a_page_keeps_no_closed_client(tmp_path, use):
    script = f"""{PAGE}
    const clients = [];
    for (let i = 0; i < 5; i++) {{
      await (async () => {{
        const message = new Message(host, port);
        clients.push(new WeakRef(message));
        {use}
      }})();
    }}
    report(await collected(clients));
    """
    assert await node.run(tmp_path, script, Gateway(Slow()), "--expose-gc") == [0]


async def test_leaving_a_page_closes_its_connections(tmp_path):
    slow = Slow()
    script = f"""{PAGE}
    const message = new Message(host, port);
    const held = message.post("hold", {{}}, {{ found: () => page.dispatchEvent(new Event("pagehide")) }});
    report(await held.catch((error) => error.code));
    report([message.state, listeners >= 0]);
    await new Message(host, port).post("until_ended");
    """
    assert await node.run(tmp_path, script, Gateway(slow)) == ["closed", ["closed", True]]
    assert slow.ended.is_set()


@pytest.mark.parametrize("callbacks", ["{}", "{ found: report }"])
@pytest.mark.parametrize("method", ["work", "fail", "nothing"])
async def test_a_signal_keeps_no_listener_of_a_finished_post(tmp_path, method, callbacks):
    script = f"""
    let listeners = 0;
    const {{ signal }} = new AbortController();
    const [add, remove] = [signal.addEventListener, signal.removeEventListener];
    signal.addEventListener = (...given) => {{ listeners += 1; add.apply(signal, given); }};
    signal.removeEventListener = (...given) => {{ listeners -= 1; remove.apply(signal, given); }};
    const message = new Message(host, port);
    await failing(() => message.post("{method}", {{}}, {callbacks}, {{ signal }}));
    report(listeners);
    """
    assert await node.run(tmp_path, script, Gateway(Slow())) == [0]


# ── without a connection ─────────────────────────────────────────────────────────────────────

NO_SOCKET = "globalThis.WebSocket = class { constructor() { throw new Error('a WebSocket'); } };\n"


async def test_a_post_without_callbacks_makes_one_request(tmp_path):
    script = f"""{NO_SOCKET}
    const message = new Message(host, port);
    message.addEventListener("state", (event) => report(event.detail.state));
    report(await message.post("work"));
    report(await message.post("fail").catch((error) => [error.code, error.message, error.errorType]));
    report(await message.post("work", {{ x: 1 }}).catch((error) => [error.code, error.status, error.parameter]));
    report(await message.post("nothing").catch((error) => [error.code, error.status]));
    """
    assert await node.run(tmp_path, script, Gateway(Slow())) == [
        "done",
        ["raised", "not here", "builtins.LookupError"],
        ["refused", 422, "x"],
        ["refused", 404],
    ]


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("signal.abort(new Error('mine'))", "Error: mine"),
        ("message.close()", "MessageError: this end has been closed"),
    ],
)
async def test_abandoning_a_post_without_a_connection_cancels_it(tmp_path, how, error):
    slow = Slow()
    script = f"""
    const message = new Message(host, port);
    const signal = new AbortController();
    const held = failing(() => message.post("hold", {{}}, {{}}, {{ signal: signal.signal }}));
    await new Message(host, port).post("until_started");
    {how};
    report(await held);
    await new Message(host, port).post("until_ended");
    """
    assert await node.run(tmp_path, script, Gateway(slow)) == [error]
    assert slow.ended.is_set()


async def test_an_open_connection_stays_open_after_an_aborted_post(tmp_path):
    slow = Slow()
    script = """
    const message = await new Message(host, port).connect();
    const signal = new AbortController();
    const held = failing(() => message.post("hold", {}, {}, { signal: signal.signal }));
    await message.post("until_started");
    signal.abort(new Error("mine"));
    report(await held);
    report(message.state);
    message.close();
    """
    assert await node.run(tmp_path, script, Gateway(slow)) == ["Error: mine", "open"]
    assert slow.ended.is_set()


async def test_a_host_that_is_a_url_is_refused_by_the_constructor(tmp_path):
    script = """
    for (const given of ["http://localhost", "localhost/rpc", "ws://localhost/", "", "localhost", "127.0.0.1:80", "[::1]"]) {
      try { report(new Message(given, 8000).base.href); } catch (error) { report(`${error.name}: ${error.message}`); }
    }
    """
    refused = "TypeError: host must be a name or an address alone, not {}: port and path are separate arguments"
    assert await node.run(tmp_path, script) == [
        *(
            refused.format(given)
            for given in ("http://localhost", "localhost/rpc", "ws://localhost/", "")
        ),
        "http://localhost:8000/",
        "http://127.0.0.1:8000/",
        "http://[::1]:8000/",
    ]

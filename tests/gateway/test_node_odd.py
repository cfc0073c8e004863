"""message.js in Node: odd values, odd listeners, and the remains of an abandoned call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from helpers import node
from helpers.gateway_tools import until_it_fails

import trio_rpc
from trio_rpc.gateway import Gateway, GatewayLimits

pytestmark = node.needs_node

THROWN = """
const THROWN = [
  Object.create(null), { toString() { throw 1; } }, { get message() { throw 1; } }, { message: Object.create(null) },
  Symbol("a"), null, new Error("plain"),
];
console.warn = () => {};
"""
COUNT = 7


class Service:
    def __init__(self) -> None:
        self.held = 0

    @trio_rpc.method
    async def show(self, x: object = None) -> str:
        return repr(x)

    @trio_rpc.method
    async def until_it_fails(self, found: Callable[[int], Awaitable[None]]) -> str:
        return await until_it_fails(found)

    @trio_rpc.method
    async def hold(self, found: Callable[[int], Awaitable[None]] | None = None) -> None:
        self.held += 1
        try:
            if found is not None:
                await found(1)
            await trio.sleep_forever()
        finally:
            self.held -= 1


# ── thrown values ────────────────────────────────────────────────────────────────────────────


async def test_a_callback_may_throw_anything(tmp_path):
    script = f"""{THROWN}
    const message = await new Message(host, port).connect();
    for (const thrown of THROWN) {{
      const found = () => {{ throw thrown; }};
      report(await message.post("until_it_fails", {{}}, {{ found }}));
    }}
    report(await message.post("show"));
    message.close();
    """
    reported = await node.run(tmp_path, script, Gateway(Service()))
    no_text = "Error: found: something that has no text was thrown"
    assert reported == [
        *([no_text] * 2),
        *(["Error: found: [object Object]"] * 2),
        "Error: found: Symbol(a)",
        "Error: found: null",
        "Error: found: Error: plain",
        "None",
    ]


@pytest.mark.parametrize("callbacks", ["{}", "{ found: () => {} }"])
async def test_a_signal_may_have_any_reason(tmp_path, callbacks):
    service = Service()
    script = f"""{THROWN}
    for (const reason of THROWN) {{
      const controller = new AbortController();
      const held = new Message(host, port).post("hold", {{}}, {callbacks}, {{ signal: controller.signal }});
      setTimeout(() => controller.abort(reason), 50);
      report(await held.then(() => "it ended", (error) => error === reason));
    }}
    """
    assert await node.run(tmp_path, script, Gateway(service)) == [True] * COUNT
    assert service.held == 0


# ── listeners that close or connect ──────────────────────────────────────────────────────────

SOCKETS = """
Math.random = () => 0;
const sockets = [];
const Real = WebSocket;
globalThis.WebSocket = class extends Real {
  constructor(...given) { super(...given); sockets.push(this); }
};
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const lose = () => { const socket = sockets.at(-1); socket.close(); socket.onclose({ code: 1006, reason: "" }); };
const open = () => sockets.filter((socket) => socket.readyState < 2).length;
"""


@pytest.mark.parametrize(
    ("listener", "rest"),
    [
        ("if (event.detail.state === 'connecting') message.close();", "message.connect()"),
        ("if (event.detail.state === 'open') message.close();", "message.connect()"),
        (
            "if (event.detail.state === 'connecting' && sockets.length) message.close();",
            "message.connect().then(lose)",
        ),
    ],
    ids=["at the first attempt", "when it is open", "when it comes back"],
)
async def test_a_listener_may_close_the_client(tmp_path, listener, rest):
    script = f"""{SOCKETS}
    const message = new Message(host, port);
    message.addEventListener("state", (event) => {{ {listener} }});
    await failing(() => {rest});
    await pause(100);
    report([message.state, message.clientId, open()]);
    """
    assert await node.run(tmp_path, script, Gateway(Service())) == [["closed", None, 0]]


@pytest.mark.parametrize(
    ("listener", "state"),
    [
        ("message.close();", ["closed", 0]),
        ("message.close(); message.connect();", ["open", 1]),
        ("message.connect();", ["open", 1]),
        ("posted = message.post('show').then(report);", ["open", 1]),
        ("", ["open", 1]),
    ],
)
async def test_a_listener_may_close_and_connect_when_the_session_is_lost(tmp_path, listener, state):
    script = f"""{SOCKETS}
    const message = await new Message(host, port).connect();
    let isLost = false;
    let posted;
    message.addEventListener("lost", () => {{ isLost = true; {listener} }}, {{ once: true }});
    Math.random = () => 5; // it reconnects after the gateway has forgotten it
    lose();
    while (!isLost || message.state === "connecting") await pause(10);
    await posted;
    await pause(100);
    report([message.state, open()]);
    message.close();
    """
    gateway = Gateway(Service(), limits=GatewayLimits(grace=0.01))
    reported = await node.run(tmp_path, script, gateway)
    assert reported[-1] == state
    assert reported[:-1] == (["None"] if "post" in listener else [])


# ── a WebSocket that cannot be made ──────────────────────────────────────────────────────────

# Node before version 22 has no WebSocket. In a page of https, `new WebSocket("ws:…")` throws.
UNMADE = {
    "none": "delete globalThis.WebSocket; globalThis.WebSocket = undefined;",
    "forbidden": "globalThis.WebSocket = class { constructor() { throw new Error('forbidden'); } };",
}


@pytest.mark.parametrize("why", UNMADE)
async def test_a_websocket_that_cannot_be_made_fails_each_attempt_alone(tmp_path, why):
    script = f"""
    const Real = WebSocket;
    {UNMADE[why]}
    const message = new Message(host, port);
    message.close();
    const uses = [() => message.connect(), () => message.connect(), () => message.post("hold", {{}}, {{ found: report }})];
    for (const use of uses) {{
      const error = await use().catch((error) => error);
      report([error.code, error.message.startsWith("cannot connect: "), message.state]);
    }}
    report(await message.post("show"));
    message.close();
    globalThis.WebSocket = Real;
    await message.connect();
    report(message.state);
    message.close();
    """
    reported = await node.run(tmp_path, script, Gateway(Service()))
    assert reported == [*3 * [["unreachable", True, "closed"]], "None", "open"]


async def test_a_websocket_that_cannot_be_made_is_tried_again_while_the_session_lives(tmp_path):
    script = f"""{SOCKETS}
    const message = await new Message(host, port).connect();
    const id = message.clientId;
    let refusals = 3;
    const Works = globalThis.WebSocket;
    globalThis.WebSocket = class extends Works {{
      constructor(...given) {{ if (refusals-- > 0) throw new Error("forbidden"); super(...given); }}
    }};
    lose();
    report(await message.post("show", {{ x: 1 }}).catch((error) => error.code));
    while (message.state !== "open") await pause(10);
    report([refusals, message.clientId === id, await message.post("show", {{ x: 2 }})]);
    message.close();
    """
    reported = await node.run(tmp_path, script, Gateway(Service()))
    assert reported == ["unreachable", [-1, True, "2"]]


async def test_a_websocket_that_cannot_be_made_after_a_lost_session_is_tried_again(tmp_path):
    script = f"""{SOCKETS}
    const message = await new Message(host, port).connect();
    const id = message.clientId;
    let refusals = 0;
    let refused = 0;
    message.addEventListener("lost", () => (refusals = 2));
    const Works = globalThis.WebSocket;
    globalThis.WebSocket = class extends Works {{
      constructor(...given) {{
        if (refusals-- > 0) {{ refused += 1; throw new Error("forbidden"); }}
        super(...given);
      }}
    }};
    Math.random = () => 5; // it reconnects after the gateway has forgotten it
    lose();
    while (message.state !== "open") await pause(10);
    report([refused, message.clientId !== id]);
    message.close();
    """
    short = GatewayLimits(grace=0.01)
    assert await node.run(tmp_path, script, Gateway(Service(), limits=short)) == [[2, True]]


# ── invalid arguments ────────────────────────────────────────────────────────────────────────


async def test_a_callback_that_is_not_a_function_is_refused_and_undefined_is_left_out(
    tmp_path,
):
    script = """
    const message = new Message(host, port);
    for (const found of [null, 5, "found", {}, [report]]) {
      report(await failing(() => message.post("hold", {}, { found })));
    }
    report(await failing(() => message.post("show", {}, { found: undefined })));
    report(message.state);
    """
    refused = "TypeError: the callback found is not a function"
    reported = await node.run(tmp_path, script, Gateway(Service()))
    assert reported == [*([refused] * 5), "None", "closed"]


async def test_a_timeout_must_be_a_number(tmp_path):
    script = """
    const message = new Message(host, port);
    for (const timeoutMs of [null, "5", 5n, true, [], new Date(), {}, Symbol("a"), Object.create(null)]) {
      report(await failing(() => message.post("show", {}, {}, { timeoutMs })));
    }
    """
    reported = await node.run(tmp_path, script)
    assert len(reported) == 9
    for error in reported:
        assert error.startswith("TypeError: timeoutMs must be a number of milliseconds, not ")


async def test_the_parameters_of_a_query_must_be_texts_numbers_or_booleans(tmp_path):
    script = """
    globalThis.fetch = async (url) => { report(url.search); return new Response("null"); };
    const message = new Message(host, port);
    for (const a of [undefined, "ä &", 1.5, true, 10n]) await message.get("page", { a });
    for (const a of [null, {}, [1], () => 1, Symbol("a"), new Date(0)]) {
      report(await failing(() => message.get("page", { a })));
      report(await failing(() => message.delete("page", { a })));
    }
    """
    reported = await node.run(tmp_path, script)
    assert reported[:5] == ["", "?a=%C3%A4+%26", "?a=1.5", "?a=true", "?a=10"]
    assert reported[5:] == ["TypeError: the parameter a must be a text, a number or a boolean"] * 12


async def test_the_status_is_reported_even_if_the_server_closes_during_a_large_body(tmp_path):
    script = """
    let status = 413;
    globalThis.fetch = async () => ({
      ok: status < 400, status, statusText: "Content Too Large",
      text: async () => { throw new TypeError("terminated"); },
    });
    const message = new Message(host, port);
    for (status of [413, 503, 200]) {
      report(await message.post("show").catch((error) => [error.code, error.status]));
    }
    """
    reported = await node.run(tmp_path, script)
    assert reported == [["refused", 413], ["refused", 503], ["unreachable", 0]]


async def test_the_refusal_of_another_server_names_the_page_and_quotes_its_text(tmp_path):
    script = """
    const message = new Message(host, port, { path: "/elsewhere" });
    const base = `http://${host}:${port}`;
    for (const use of [() => message.post("show"), () => message.get("/page", { a: 1 })]) {
      const error = await use().catch((error) => error);
      report([error.code, error.status, error.message.replace(base, "")]);
    }
    globalThis.fetch = async () => new Response(`{\n"detail": "${"x".repeat(300)}"}`, { status: 422 });
    report((await message.get("page").catch((error) => error)).message.replace(base, "").slice(0, 40));
    globalThis.fetch = async () => new Response("", { status: 404 });
    report((await message.get("page").catch((error) => error)).message);
    """
    reported = await node.run(tmp_path, script, Gateway(Service()))
    assert reported == [
        ["refused", 404, "this gateway has no page '/elsewhere/api/show'"],
        ["refused", 404, "this gateway has no page '/elsewhere/page'"],
        ' was answered 422: { "detail": "xxxxxxxx',
        " was answered 404",
    ]


# ── timers and listeners ─────────────────────────────────────────────────────────────────────

WATCHED = """
const timers = new Set();
const [set, clear] = [setTimeout, clearTimeout];
globalThis.setTimeout = (run, ms) => {
  const isOurs = new Error().stack.includes("message.js"); // and not fetch's
  const timer = set(() => { timers.delete(timer); run(); }, ms);
  if (isOurs) timers.add(timer);
  return timer;
};
globalThis.clearTimeout = (timer) => { timers.delete(timer); clear(timer); };
const listeners = new Set();
const controller = new AbortController();
const { signal } = controller;
const [add, remove] = [signal.addEventListener, signal.removeEventListener];
signal.addEventListener = (type, run) => { listeners.add(run); add.call(signal, type, run); };
signal.removeEventListener = (type, run) => { listeners.delete(run); remove.call(signal, type, run); };
"""
SILENT = """
const sockets = [];
globalThis.WebSocket = class {
  static OPEN = 1;
  readyState = 1;
  constructor() { sockets.push(this); }
  send() {}
  close() {}
};
"""


@pytest.mark.parametrize("end", ["controller.abort()", "message.close()", ""])
async def test_a_call_abandoned_while_it_waits_for_a_connection_leaves_no_timer_or_listener(
    tmp_path, end
):
    script = f"""{WATCHED}{SILENT}
    const message = new Message(host, port);
    const kept = failing(() => message.connect());
    const timeoutMs = {"20" if not end else "1e6"};
    const call = failing(() => message.post("show", {{}}, {{}}, {{ signal, timeoutMs }}));
    {end};
    report((await call).split(":")[0]);
    report([listeners.size, timers.size]); // one timer belongs to the connection
    message.close();
    await kept;
    report([listeners.size, timers.size]);
    """
    left = 0 if "close" in end else 1
    name = {"": "TimeoutError", "message.close()": "MessageError"}.get(end, "AbortError")
    reported = await node.run(tmp_path, script)
    assert reported == [name, [0, left], [0, 0]]


async def test_a_gateway_without_a_keepalive_may_be_silent(tmp_path):
    script = f"""{WATCHED}{SILENT}
    const message = new Message(host, port);
    const kept = message.connect();
    sockets[0].onmessage({{ data: '{{"type": "uuid", "uuid": "a"}}' }});
    await kept;
    report([message.state, timers.size]);
    message.close();
    """
    assert await node.run(tmp_path, script) == [["open", 0]]


@pytest.mark.parametrize("callbacks", ["{}", "{ found: () => {} }"])
@pytest.mark.parametrize(
    "end", ["controller.abort()", "message.close()", "controller.abort(); message.close()"]
)
async def test_an_abandoned_call_leaves_no_timer_or_listener(tmp_path, end, callbacks):
    service = Service()
    script = f"""{WATCHED}
    const message = new Message(host, port);
    const options = {{ signal, timeoutMs: 1e6 }};
    const call = failing(() => message.post("hold", {{}}, {callbacks}, options));
    await new Promise((resolve) => set(resolve, 100));
    {end};
    await call;
    report([listeners.size, timers.size, message.state]);
    """
    assert await node.run(tmp_path, script, Gateway(service)) == [[0, 0, "closed"]]

"""A page that is unloaded ends its session at once: it cannot wait for functions, timers or room to send."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trio
from helpers import node
from helpers.node_session import FOLDER, run_node

import trio_rpc

pytestmark = [node.needs_node, pytest.mark.slow]

PAGE = """
setTimeout(() => process.exit(1), 20_000).unref();
const page = new EventTarget();
globalThis.addEventListener = page.addEventListener.bind(page);
globalThis.removeEventListener = page.removeEventListener.bind(page);
const hide = (persisted) => page.dispatchEvent(Object.assign(new Event("pagehide"), { persisted }));
/** Unloads the page: its timers do not run any more. */
const unload = () => { globalThis.setTimeout = () => 0; hide(false); };

let wasAsked;
const asked = new Promise((resolve) => { wasAsked = resolve; });
/** Ignores its signal. */
const never = () => { wasAsked(); return new Promise(() => {}); };
async function* nothing() { yield await never(); }
const stop = new AbortController();
"""
CONNECT = """
const session = await rpc.connect(url, { resume, services: { page: { never } } });
outcome(session.call("wait"));
"""


class Service:
    """Waits for the page, and keeps the errors of its questions."""

    def __init__(self):
        self.ended = trio.Event()
        self.answers = []
        self.errors = []

    def for_session(self, session):
        self.session = session
        return self

    @trio_rpc.method
    async def wait(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.ended.set()

    @trio_rpc.method
    async def ask(self, question: Callable[[], Awaitable[object]]) -> None:
        await self.note_error(question)

    @trio_rpc.method
    async def ask_page(self) -> None:
        await self.note_error(self.session.proxy("page").never)

    @trio_rpc.method
    async def pull(self, items: AsyncIterator[object]) -> None:
        await self.note_error(items.__anext__)

    @trio_rpc.method
    async def take(self, data: bytes) -> None:
        pass

    @trio_rpc.stream
    async def count(self) -> AsyncIterator[int]:
        for number in range(4):
            yield number
        await trio.sleep_forever()

    async def note_error(self, question):
        try:
            self.answers.append(await question())
        except trio_rpc.RpcError as exc:
            self.errors.append((type(exc).__name__, str(exc), exc.fate.value))


async def run(tmp_path, script, *, resumes=True, service=None):
    """Run a script until its handler ``wait`` has ended; return the report, and the errors."""
    service = service or Service()
    async with trio_rpc.open_server(
        service.for_session, "ws://127.0.0.1:0", resume=resumes
    ) as server:
        head = f"{PAGE} const resume = {str(resumes).lower()};"
        reported = await run_node(tmp_path, head + script, server.urls[0])
        with trio.fail_after(20):
            await service.ended.wait()
    return reported, service.errors


STOPPED = ("RemoteCancelled", "this session is ending", "stopped")
QUESTIONS = {
    "callback": '"ask", [never]',
    "stream": '"pull", [nothing()]',
    "service": '"ask_page", []',
}
CLOSING = {
    "open": "",
    "closing": "session.close();",
    "ending": "session.close({ graceMs: 0 });",
}


@pytest.mark.parametrize("resumes", [True, False], ids=["resuming", "plain"])
@pytest.mark.parametrize("question", QUESTIONS)
async def test_a_page_that_is_unloaded_does_not_wait_for_its_functions(tmp_path, question, resumes):
    script = f"""
    {CONNECT}
    const ending = outcome(session.call({QUESTIONS[question]}));
    await asked;
    unload();
    report((await ending)[0]);
    report((await session.closed).orderly);
    """
    reported, errors = await run(tmp_path, script, resumes=resumes)
    assert reported == ["SessionClosed", True]
    # A handler that pulls a stream may be cancelled before it takes the stream's error.
    assert errors == [STOPPED] or (question == "stream" and not errors)


@pytest.mark.parametrize("state", CLOSING)
async def test_a_page_may_be_unloaded_while_it_closes_its_session(tmp_path, state):
    script = f"""
    {CONNECT}
    outcome(session.call("ask", [never]));
    await asked;
    {CLOSING[state]}
    unload();
    hide(false);
    report((await session.closed).orderly);
    """
    reported, errors = await run(tmp_path, script)
    assert reported == [True]
    assert errors == [STOPPED]


@pytest.mark.parametrize("is_abandoned", [False, True], ids=["aborted", "abandoned"])
async def test_a_page_does_not_wait_for_functions_of_aborted_calls(tmp_path, is_abandoned):
    script = f"""
    {CONNECT}
    const options = {{ signal: stop.signal, abandonOnAbort: {str(is_abandoned).lower()} }};
    const ending = outcome(session.call("ask", [never], options));
    await asked;
    stop.abort();
    {"await ending;" if is_abandoned else ""}
    unload();
    report((await session.closed).orderly);
    """
    assert (await run(tmp_path, script))[0] == [True]


async def test_a_page_that_is_unloaded_does_not_wait_for_room_to_send(tmp_path):
    script = """
    const inner = await rpc.WebSocketChannel.open(url);
    let isFull = false;
    const channel = {
      send: (packet) => (inner.send(packet), isFull ? new Promise(() => {}) : undefined),
      receive: () => inner.receive(),
      close: () => inner.close(),
    };
    const session = await rpc.openSession(channel);
    outcome(session.call("wait"));
    const question = async () => {
      isFull = true;
      outcome(session.call("take", [new Uint8Array(300_000)]));
      await sleep(0);
      setTimeout(unload); // when the answer waits for room
      return "the only answer";
    };
    report((await outcome(session.call("ask", [question])))[0]);
    report((await session.closed).orderly);
    """
    service = Service()
    reported, errors = await run(tmp_path, script, service=service)
    assert reported == ["SessionClosed", True]
    assert (service.answers, errors) == (["the only answer"], [])
    with pytest.raises(trio_rpc.SessionBroken) as caught:
        await service.session.ping()
    assert caught.value.orderly


async def test_a_handler_that_goes_on_after_that_sends_nothing(tmp_path):
    script = f"""
    let call, goOn;
    const question = rpc.withCall(async (its) => {{
      call = its;
      wasAsked();
      await new Promise((resolve) => {{ goOn = resolve; }});
      return "late";
    }});
    {CONNECT}
    outcome(session.call("ask", [question]));
    await asked;
    const items = session.stream("count", [], {{ credit: [4, 1000] }});
    const got = [(await items.next()).value];
    await session.ping(); // all have arrived
    let sent = 0;
    const send = WebSocket.prototype.send;
    unload();
    WebSocket.prototype.send = function (data) {{ sent++; return send.call(this, data); }};
    goOn();
    report((await outcome(call.call("take", [new Uint8Array(1)])))[0]);
    for (const _ of "123") got.push((await items.next()).value); // this would give credit
    report(got);
    await new Promise((resolve) => setImmediate(resolve));
    report(sent);
    report((await session.closed).orderly);
    """
    reported, errors = await run(tmp_path, script)
    assert reported == ["SessionClosed", [0, 1, 2, 3], 0, True]
    assert errors == [STOPPED]


async def test_a_page_in_the_back_forward_cache_keeps_its_session(tmp_path):
    script = f"""
    {CONNECT}
    const ending = outcome(session.call("ask", [never]));
    await asked;
    hide(true);
    report((await session.ping()) >= 0);
    report(session.state);
    unload();
    report((await ending)[0]);
    """
    reported, errors = await run(tmp_path, script)
    assert reported == [True, "connected", "SessionClosed"]
    assert errors == [STOPPED]


async def test_a_worker_learns_at_once_that_its_page_is_unloaded(tmp_path):
    script = f"""
    {PAGE}
    const {{ Worker, MessageChannel }} = await import("node:worker_threads");
    const {{ port1, port2 }} = new MessageChannel();
    const source = `
      import {{ parentPort, workerData }} from "node:worker_threads";
      import * as rpc from "${{process.argv[2]}}";
      const wait = rpc.withCall((call) => new Promise((_, reject) =>
        call.signal.addEventListener("abort", () => reject(call.signal.reason))));
      const ask = async (question) => {{
        try {{ await question(); }} catch (error) {{ parentPort.postMessage(error.name); }}
      }};
      const session = await rpc.openSession(new rpc.PortChannel(workerData.port), {{ services: {{ worker: {{ ask, wait }} }} }});
      parentPort.postMessage((await session.closed).orderly);
      workerData.port.close();`;
    const place = new URL("data:text/javascript," + encodeURIComponent(source));
    const worker = new Worker(place, {{ workerData: {{ port: port2 }}, transferList: [port2] }});
    const left = new Promise((resolve) => worker.on("exit", resolve));
    worker.on("message", report);
    const session = await rpc.openSession(new rpc.PortChannel(port1));
    outcome(session.call("worker.wait"));
    outcome(session.call("worker.ask", [never]));
    await asked;
    unload();
    await left;
    port1.close();
    """
    reported = await run_node(tmp_path, script, (FOLDER / "session.js").as_uri())
    assert reported == ["RemoteCancelled", True]

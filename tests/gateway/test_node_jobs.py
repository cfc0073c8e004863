"""Jobs with message.js, in Node."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio
from helpers import node

import trio_rpc
from trio_rpc.gateway import Gateway, outlives

pytestmark = node.needs_node


class Reports:
    """A report that goes on when it is told to."""

    def __init__(self) -> None:
        self.runs = 0
        self.ended = 0
        self.go_on = trio.Event()

    @trio_rpc.method
    @outlives
    async def build(
        self,
        year: int,
        progress: Callable[[float], Awaitable[None]],
        at: Callable[[int, str], Awaitable[None]] | None = None,
    ) -> dict[str, int]:
        self.runs += 1
        try:
            await progress(0.5)
            if at is not None:
                await at(1, "page")
            await self.go_on.wait()
            await progress(1.0)
        finally:
            self.ended += 1
        return {"year": year}

    @trio_rpc.method
    @outlives
    async def fail(self) -> None:
        raise LookupError("no such year")

    @trio_rpc.method
    async def proceed(self) -> None:
        self.go_on.set()

    @trio_rpc.method
    async def how_many(self) -> list[int]:
        return [self.runs, self.ended]


async def run(tmp_path, script, reports=None):
    return await node.run(tmp_path, script, Gateway(reports or Reports()))


async def test_a_job_goes_on_and_is_found_again_by_its_id(tmp_path):
    script = """
    const { id } = await new Message(host, port).start("build", { year: 2024 });
    const message = new Message(host, port);
    const job = message.job(id);
    report(job.id === id);
    while (Object.keys(await job.progress()).length < 2) {}
    report(await job.progress());
    const shown = [];
    const progress = (share) => { shown.push(share); if (share < 1) message.post("proceed"); };
    const at = (...given) => shown.push(given);
    report(await job.result({ progress, at, other: undefined }));
    report(shown);
    report(await message.job(id).result());
    """
    assert await run(tmp_path, script) == [
        True,
        {"progress": 0.5, "at": [1, "page"]},
        {"year": 2024},
        [0.5, [1, "page"], 1],
        {"year": 2024},
    ]


async def test_cancelling_a_job_resolves_when_its_handler_has_ended(tmp_path):
    script = """
    const message = new Message(host, port);
    const job = await message.start("build", { year: 1 });
    const result = job.result().catch((error) => error.code);
    await job.cancel();
    report((await message.post("how_many"))[1]);
    report(await result);
    await job.cancel();
    """
    assert await run(tmp_path, script) == [1, "cancelled"]


async def test_aborting_a_wait_for_the_result_does_not_cancel_the_job(tmp_path):
    script = """
    const message = new Message(host, port);
    const job = await message.start("build", { year: 1 });
    const stop = new AbortController();
    const progress = () => stop.abort(new Error("enough"));
    report(await failing(() => job.result({ progress }, { signal: stop.signal })));
    report(await failing(() => job.result({}, { signal: AbortSignal.abort("before") }).catch(String)));
    await message.post("proceed");
    report(await job.result());
    """
    assert await run(tmp_path, script) == ["Error: enough", "before", {"year": 1}]


async def test_the_errors_of_jobs(tmp_path):
    script = """
    const message = new Message(host, port);
    const told = (error) => [error.name, error.code, error.status, error.errorType, error.message];
    const fails = async (run) => report(await run().then(() => "no error", told));
    await fails(async () => (await message.start("fail")).result());
    await fails(() => message.start("proceed"));
    await fails(() => message.start("nothing"));
    await fails(() => message.start("build", { year: "x" }));
    await fails(() => message.job(`${"0".repeat(36)}.${"a".repeat(16)}`).result());
    const { id } = await message.start("build", { year: 1 });
    await fails(() => message.job(id.replace(/[.].*/, `.${"a".repeat(16)}`)).cancel());
    const timed = await message.start("build", { year: 1 }, { timeoutMs: 10 });
    await fails(() => timed.result());
    for (const wrong of ["", "x", null, undefined, {}, 7]) {
      await fails(async () => message.job(wrong));
    }
    await fails(() => message.start("build", { year: NaN }));
    await fails(() => message.start("build", { year: 1 }, { timeoutMs: "1" }));
    """
    got = await run(tmp_path, script)
    assert got[:7] == [
        ["MessageError", "raised", 0, "builtins.LookupError", "no such year"],
        [
            "MessageError",
            "refused",
            422,
            "",
            "proceed is not marked with @outlives, so it cannot be a job",
        ],
        ["MessageError", "refused", 404, "", "there is no method 'nothing'"],
        ["MessageError", "refused", 422, "", got[3][4]],
        ["MessageError", "lost", 404, "", "job lost: the gateway does not hold it"],
        ["MessageError", "refused", 403, "", "this token does not belong to that job"],
        ["MessageError", "deadline", 0, "", "the deadline has passed"],
    ]
    assert all(each[0] == "TypeError" for each in got[7:])
    assert len(got) == 15


async def test_a_callback_that_throws_is_a_warning_and_the_others_go_on(tmp_path):
    script = """
    console.warn = (text) => report(text);
    const message = new Message(host, port);
    const job = await message.start("build", { year: 1 });
    const at = async (number) => { report(number); message.post("proceed"); };
    const result = await job.result({ progress: () => { throw new Error("broken"); }, at });
    report(result);
    """
    got = await run(tmp_path, script)
    assert got[0] == "trio_rpc: the callback progress failed"
    assert [each for each in got if not isinstance(each, str)] == [1, {"year": 1}]


async def test_many_jobs_of_a_page_leave_its_connections_to_its_other_calls(tmp_path):
    """A browser opens six connections to a server: only one request of a page waits for news."""
    script = """
    const real = fetch;
    let open = 0, most = 0;
    globalThis.fetch = async (url, init) => {
      const waits = /wait=[1-9]/.test(String(url));
      open += waits;
      most = Math.max(most, open);
      try { return await real(url, init); } finally { open -= waits; }
    };
    const message = new Message(host, port);
    const jobs = [];
    for (let year = 0; year < 8; year += 1) jobs.push(await message.start("build", { year }));
    const results = jobs.map((job) => job.result());
    await message.post("proceed");
    report((await Promise.all(results)).map(({ year }) => year));
    report(most);
    """
    assert await run(tmp_path, script) == [[*range(8)], 1]


async def test_a_start_whose_answer_was_lost_is_repeated_once_and_starts_one_job(tmp_path):
    script = """
    const real = fetch;
    let asked = 0;
    globalThis.fetch = async (url, init) => {
      const answer = await real(url, init);
      asked += 1;
      if (asked === 1) throw new TypeError("lost on purpose");
      return answer;
    };
    const message = new Message(host, port);
    const job = await message.start("build", { year: 1 });
    await message.post("proceed");
    report(await job.result());
    report((await message.post("how_many"))[0]);
    """
    assert await run(tmp_path, script) == [{"year": 1}, 1]


async def test_a_watcher_outlasts_requests_that_fail_once_the_gateway_was_reached(tmp_path):
    script = """
    const real = fetch;
    let failures = 3;
    const message = new Message(host, port);
    const job = await message.start("build", { year: 1 });
    await job.progress();
    globalThis.fetch = async (url, init) => {
      if (failures-- > 0) throw new TypeError("offline");
      return real(url, init);
    };
    message.post("proceed").catch(() => real(`http://${host}:${port}/api/proceed`, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: "{}" }));
    report(await job.result());
    failures = 3;
    report(await failing(() => message.job(job.id).result()));
    """
    got = await run(tmp_path, script)
    assert got[0] == {"year": 1}
    assert got[1].startswith("MessageError: no answer to a GET")

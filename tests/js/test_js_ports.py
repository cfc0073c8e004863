"""Two JavaScript programs share a session over a MessagePort: a page and its worker."""

from __future__ import annotations

import pytest
from helpers import node
from helpers.node_session import FOLDER, run_node

pytestmark = [node.needs_node, pytest.mark.slow]


async def test_a_session_over_a_message_port_between_threads(tmp_path):
    script = """
    const { Worker, MessageChannel } = await import("node:worker_threads");
    const { port1, port2 } = new MessageChannel();
    const source = `
      import { workerData } from "node:worker_threads";
      import * as rpc from "${process.argv[2]}";
      await rpc.openSession(new rpc.PortChannel(workerData.port), { services: { worker: {
        add: (a, b) => a + b,
        async *count(most) { for (let number = 0; number < most; number++) yield number; },
        twice: async (callback) => [await callback(1), await callback(2)],
        wait: rpc.withCall((call) => new Promise((_, reject) =>
          call.signal.addEventListener("abort", () => reject(call.signal.reason)))),
      } } });`;
    const place = new URL("data:text/javascript," + encodeURIComponent(source));
    const worker = new Worker(place, { workerData: { port: port2 }, transferList: [port2] });
    const session = await rpc.openSession(new rpc.PortChannel(port1));
    const remote = session.proxy("worker");
    report(await remote.add(1, 2));
    let sum = 0;
    for await (const number of remote.count(3000)) sum += number;
    report(sum);
    report(await remote.twice((number) => 10 * number));
    report((await outcome(session.call("worker.wait", [], { timeoutMs: 20 })))[0]);
    report((await session.ping()) < 1000);
    await session.close();
    report((await session.closed).orderly);
    await worker.terminate();
    port1.close();
    """
    reported = await run_node(tmp_path, script, (FOLDER / "session.js").as_uri())
    assert reported == [3, 4_498_500, [10, 20], "TimeoutError", True, True]

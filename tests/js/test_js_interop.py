"""gRPC's interoperability cases with JavaScript at one end or at both, in Node and in Chromium.

tests/session/test_interop.py runs the same table with Python at both ends.
"""

from __future__ import annotations

import shutil
import traceback
from pathlib import Path

import pytest
from helpers import node
from helpers.interop import CASES, InteropService
from helpers.session_js import ChromiumEnd, JavaScriptEnd, NodeEnd, run_both

import trio_rpc

pytestmark = [node.needs_node, pytest.mark.slow]

HERE = Path(__file__).parent
FILES = ("interop.mjs", "interop_worker.mjs")
NAMES = [case.__name__ for case in CASES]
IMPORT = """
const here = typeof location === "undefined" ? `file://${process.argv[1]}` : location.href;
const at = (name) => String(new URL(name, here));
const { interopService, runCases, CASES } = await import(at("interop.mjs"));
"""
OK = dict.fromkeys(NAMES, "ok")


@pytest.fixture(params=["node", "chromium"])
def end(request) -> JavaScriptEnd:
    if request.param == "node":
        return NodeEnd()
    return ChromiumEnd(request.getfixturevalue("chromium"))


@pytest.fixture
def folder(tmp_path):
    for name in FILES:
        shutil.copy(HERE / name, tmp_path)
    return tmp_path


@pytest.mark.parametrize("resume", [False, True])
async def test_javascript_calls_python_over_a_websocket(end, folder, resume):
    service = InteropService()
    script = f"""{IMPORT}
    report(await runCases(() => rpc.connect(url, {{ resume: {str(resume).lower()} }})));
    """
    [outcomes] = await run_both(end, folder, script, {"test": service}, resume=resume)
    assert outcomes == {**OK, "channel_soak": "ok"}
    assert service.running == 0


class Driver:
    """Runs Python's cases against the service of the other end."""

    def __init__(self, session: trio_rpc.Session) -> None:
        self.session = session

    @trio_rpc.method
    async def drive(self) -> dict[str, str]:
        outcomes = {}
        for case in CASES:
            try:
                await case(self.session)
                outcomes[case.__name__] = "ok"
            except Exception:  # noqa: BLE001 - it is reported
                outcomes[case.__name__] = traceback.format_exc()
        return outcomes

    @trio_rpc.method
    async def drive_one(self, name: str) -> None:
        [case] = [case for case in CASES if case.__name__ == name]
        await case(self.session)


@pytest.mark.parametrize("resume", [False, True])
async def test_python_calls_javascript_over_a_websocket(end, folder, resume):
    script = f"""{IMPORT}
    const open = () => rpc.connect(url, {{
      resume: {str(resume).lower()}, services: {{ test: interopService(rpc) }} }});
    const session = await open();
    report(await session.call("drive"));
    report(session.statistics);
    await session.close();
    for (let number = 0; number < 5; number += 1) {{ // channel_soak
      const other = await open();
      report(await other.call("drive_one", ["large_unary"]));
      await other.close();
    }}
    """
    outcomes, left, *soak = await run_both(end, folder, script, Driver, resume=resume)
    assert outcomes == OK
    assert left == {"callsOut": 0, "callsIn": 0}
    assert soak == [None] * 5


async def test_javascript_calls_javascript_over_message_ports(end, folder):
    """A page, or a program in Node, calls its worker."""
    script = f"""{IMPORT}
    const isPage = typeof location !== "undefined";
    const kind = isPage ? globalThis : await import("node:worker_threads");
    const worker = new kind.Worker(isPage ? at("interop_worker.mjs") : new URL(at("interop_worker.mjs")), {{
      type: "module",
    }});
    await new Promise((resolve) => {{
      if (isPage) worker.onmessage = resolve;
      else worker.once("message", resolve);
    }});
    const module = isPage ? at("/session.js") : MODULE;
    report(await runCases(() => {{
      const {{ port1, port2 }} = new kind.MessageChannel();
      worker.postMessage({{ module, port: port2 }}, [port2]);
      return rpc.openSession(new rpc.PortChannel(port1));
    }}));
    await worker.terminate();
    """
    where = (Path(trio_rpc.__file__).parent / "js/session.js").as_uri()
    script = script.replace("MODULE", repr(where))
    [outcomes] = await run_both(end, folder, script, {})
    assert outcomes == {**OK, "channel_soak": "ok"}

"""Run message.js in Node, for tests that need no browser."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import trio

import trio_rpc.gateway
from trio_rpc.gateway import Gateway, open_http_server

STATIC = Path(trio_rpc.gateway.__file__).parent / "static"
HEAD = """
import { Message, MessageError } from "./message.js";
const [host, port] = ["127.0.0.1", process.argv[2]];
const reported = [];
const report = (value) => reported.push(value);
async function failing(run) {
  try { return await run(); } catch (error) { return `${error.name}: ${error.message}`; }
}
"""
TAIL = "\nconsole.log(JSON.stringify(reported));\n"
NODE = shutil.which("node")

needs_node = pytest.mark.skipif(NODE is None, reason="Node is not installed")


async def run(folder: Path, script: str, gateway: Gateway | None = None, *flags: str) -> list[Any]:
    """Run a script beside message.js, and return the values that it reports.

    With a gateway, the script can connect to its ``port``.
    """
    if gateway is None:
        return await run_at(folder, script, "0", *flags)
    async with open_http_server(gateway, "http://127.0.0.1:0") as [url]:
        return await run_at(folder, script, url.rpartition(":")[2], *flags)


async def run_at(folder: Path, script: str, port: str, *flags: str) -> list[Any]:
    """Run a script beside message.js that can connect to a port."""
    shutil.copy(STATIC / "message.js", folder)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "page.js").write_text(HEAD + script + TAIL)
    return await _node(folder, port, *flags)


async def _node(folder: Path, port: str, *flags: str) -> list[Any]:
    command = [str(NODE), "--experimental-websocket", *flags, "page.js", port]
    with trio.fail_after(30):
        done = await trio.run_process(command, cwd=folder, capture_stdout=True)
    reported: list[Any] = json.loads(done.stdout)
    return reported

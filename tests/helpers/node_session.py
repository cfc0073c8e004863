"""Run programs in Node that open a session with session.js, against a server of this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

import trio_rpc
from helpers.node import NODE

FOLDER = Path(trio_rpc.__file__).parent / "js"
HEAD = """
import * as rpc from "%s";
const url = process.argv[2];
"""
TOOLS = """
const reported = [];
const report = (value) => reported.push(value);
/** Returns how a promise ends: its value, or its error's name, text and fate. */
async function outcome(promise) {
  try { return await promise; } catch (e) { return [e.name, e.message, e.fate ?? null]; }
}
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
"""
TAIL = """
const shown = (_, value) => (typeof value === "bigint" ? `${value}n` : value);
console.log("REPORT" + JSON.stringify(reported, shown));
"""


async def run_node(folder: Path, script: str, *arguments: str) -> list[Any]:
    """Run a script as a module, and return the values that it reports."""
    page = folder / "page.mjs"
    page.write_text(HEAD % (FOLDER / "session.js").as_uri() + TOOLS + script + TAIL)
    command = [str(NODE), "--experimental-websocket", str(page), *arguments]
    with trio.fail_after(60):
        done = await trio.run_process(command, capture_stdout=True)
    *_, last = [line for line in done.stdout.decode().splitlines() if line.startswith("REPORT")]
    reported: list[Any] = json.loads(last.removeprefix("REPORT"))
    return reported


async def run_session(
    folder: Path,
    script: str,
    services: object,
    *,
    watch: Callable[[trio_rpc.Server], None] | None = None,
    **options: Any,
) -> list[Any]:
    """Run a script that can connect to ``url``, where a server offers services.

    The server has ended with all of its handlers when this returns.
    """
    async with trio_rpc.open_server(services, "ws://127.0.0.1:0", **options) as server:
        reported = await run_node(folder, script, server.urls[0])
        if watch is not None:
            watch(server)
    return reported

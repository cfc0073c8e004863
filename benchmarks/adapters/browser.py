"""The gateway with a real browser as its client: Chromium, driven by playwright."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

import trio
from playwright.sync_api import sync_playwright

from benchmarks.adapter import Adapter
from benchmarks.adapters.gateway import Scanner, serve
from benchmarks.interface import Ready, Target, Turns
from benchmarks.parts import Load
from trio_rpc.gateway import Gateway

__all__ = ["ADAPTERS"]

CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    raise ImportError("there is no chromium")

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]

SCRIPT = """async (count) => {
    const { Message } = await import("/message.js");
    const message = window.message ??= await new Message().connect();
    const now = () => performance.timeOrigin + performance.now();
    const ways = [], calls = [];
    await message.post("stamp", { count }, { found: (sent) => ways.push(now() - sent) });
    for (let number = 0; number < count; number++) {
        const start = now();
        await message.post("scan", { count: 1 }, { found: () => {} });
        calls.push(now() - start);
    }
    const median = (samples) => samples.sort((a, b) => a - b)[samples.length >> 1];
    return { p50: median(ways), call: median(calls) };
}"""


def serve_app(hosts: Sequence[str], ready: Ready) -> None:
    trio.run(serve, lambda: Gateway(Scanner()), hosts, ready)


def drive(_part: str, target: Target, load: Load, turns: Turns) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page()
        page.goto(f"{target.urls[0]}/message.d.ts")
        while turns.wait():
            page.evaluate(SCRIPT, load.warm_up)
            turns.report(page.evaluate(SCRIPT, load.count))
        browser.close()


ADAPTERS = (
    Adapter(
        name="chromium",
        title="trio_rpc's gateway and message.js in Chromium",
        parts=frozenset(["web-browser"]),
        serve=serve_app,
        drive=drive,
    ),
)

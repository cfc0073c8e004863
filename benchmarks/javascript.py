"""Measure session.js in Node and in Chromium: ``python -m benchmarks.javascript``.

Each figure is a ratio to bare WebSocket frames, echoed by trio-websocket in the same process as the
session's server, and measured in the same round. The browser needs playwright and Chromium.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import trio
import trio_websocket

import trio_rpc
from trio_rpc.gateway import Gateway, open_http_server

JS = Path(trio_rpc.__file__).parent / "js"
IN_FLIGHT = 64
MEASURE = (Path(__file__).parent / "javascript.js").read_text("utf-8")
Measure = Callable[[str, str, float], Awaitable[dict[str, float]]]


class Service:
    """The methods that the clients call."""

    @trio_rpc.method
    async def echo(self, text: str) -> str:
        """Return the text."""
        return text

    @trio_rpc.stream
    async def count(self, most: int) -> AsyncIterator[int]:
        """Yield numbers."""
        for number in range(most):
            yield number


async def echo_frames(request: Any) -> None:
    """Echo each frame of a bare WebSocket."""
    websocket = await request.accept()
    try:
        while True:
            await websocket.send_message(await websocket.get_message())
    except trio_websocket.ConnectionClosed:
        pass


async def in_node(folder: Path, session: str, bare: str, seconds: float) -> dict[str, float]:
    """Measure in Node, in a process of its own."""
    page = folder / "measure.mjs"
    page.write_text(
        f'import * as rpc from "{(JS / "session.js").as_uri()}";\n{MEASURE}\n'
        "const [session, bare, seconds] = process.argv.slice(2);\n"
        "console.log(JSON.stringify(await measure(rpc, session, bare, Number(seconds))));\n"
    )
    command = [str(shutil.which("node")), "--experimental-websocket", str(page)]
    done = await trio.run_process([*command, session, bare, str(seconds)], capture_stdout=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


@asynccontextmanager
async def chromium(origin: str) -> AsyncIterator[Measure]:
    """Start a browser, and give a function that measures in a page of an origin."""
    from tests.helpers.chromium import Chromium  # noqa: PLC0415 - it is optional

    browser = await trio.to_thread.run_sync(Chromium)

    def evaluate(session: str, bare: str, seconds: float) -> dict[str, float]:
        page = browser.new_page(origin)
        script = 'async ([s, b, t]) => { const rpc = await import("/session.js");'
        found: dict[str, float] = page.evaluate(
            f"{script} {MEASURE}; return await measure(rpc, s, b, t); }}", [session, bare, seconds]
        )
        page.close()
        return found

    async def measure(session: str, bare: str, seconds: float) -> dict[str, float]:
        return await browser.run(evaluate, session, bare, seconds)

    try:
        yield measure
    finally:
        await trio.to_thread.run_sync(browser.stop)


def spread(values: Iterable[float]) -> str:
    """Return median, least and greatest."""
    found = sorted(values)
    return f"{statistics.median(found):,.2f} ({found[0]:,.2f} to {found[-1]:,.2f})"


def show(where: str, rounds: list[dict[str, float]]) -> None:
    """Print the figures of one client."""
    one = [each["one"] / each["bare_one"] for each in rounds]
    many = [each["many"] / each["bare_many"] for each in rounds]
    print(f"{where}, {len(rounds)} rounds: median (least to greatest)")
    print(f"  one call, p50 µs            {spread(1000 * each['one'] for each in rounds)}")
    print(f"  bare echo, p50 µs           {spread(1000 * each['bare_one'] for each in rounds)}")
    print(f"  ratio                       {spread(one)}")
    print(f"  {IN_FLIGHT} in flight, calls/s      {spread(each['many'] for each in rounds)}")
    print(f"  bare echo, frames/s         {spread(each['bare_many'] for each in rounds)}")
    print(f"  ratio                       {spread(many)}")
    print(f"  100,000 items, items/s      {spread(each['items'] for each in rounds)}")
    if "longest_task" in rounds[0]:
        print(f"  longest task of that, ms    {spread(each['longest_task'] for each in rounds)}")


async def main(rounds: int, seconds: float) -> None:
    """Measure and print."""
    async with trio.open_nursery() as nursery:
        serve = partial(
            trio_websocket.serve_websocket, echo_frames, "127.0.0.1", 0, ssl_context=None
        )
        echo = await nursery.start(serve)
        bare = f"ws://127.0.0.1:{echo.port}"
        with TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "index.html").write_text("<!doctype html><title>benchmark</title>")
            async with (
                open_http_server(Gateway({}, pages=folder), "http://127.0.0.1:0") as [origin],
                trio_rpc.open_server(
                    Service(), "ws://127.0.0.1:0", allowed_origins=[origin]
                ) as server,
            ):
                [session] = server.urls
                show("Node", [await in_node(folder, session, bare, seconds) for _ in range(rounds)])
                try:
                    async with chromium(origin) as measure:
                        show(
                            "Chromium",
                            [await measure(session, bare, seconds) for _ in range(rounds)],
                        )
                except ImportError:
                    print("Chromium: playwright is not installed", file=sys.stderr)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each part of a round")
    options = parser.parse_args()
    trio.run(main, options.rounds, options.seconds)

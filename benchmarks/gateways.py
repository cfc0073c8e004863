"""Measure the cost of a gateway of two instances for clients whose requests miss their home.

    python -m benchmarks.gateways [--rounds N]

Two processes serve, joined over TCP. In each round, in turns: calls at the home, with the POST at
the other instance, and with the WebSocket there as well. A call is a POST, one callback, and the
end. The difference is formed within each round.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import trio
import trio_websocket

from benchmarks.adapters.gateway import Scanner
from trio_rpc.gateway import Gateway, open_http_server, open_spread

CALLS = 100
"""Calls of a turn, one at a time."""
GOAL = 2.5
"""Milliseconds that a call elsewhere may take longer than one at home."""


async def serve(home: str, folder: Path) -> None:
    """Serve one instance, and write its URL into the folder."""
    gateway = Gateway(Scanner(), home=home)
    links = json.loads((folder / "links").read_text("utf-8"))
    async with (
        open_spread(gateway, links),
        open_http_server(gateway, "http://127.0.0.1:0") as [url],
    ):
        (folder / f"{home}.new").write_text(url, "utf-8")
        (folder / f"{home}.new").rename(folder / home)
        await trio.sleep_forever()


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def instances() -> AsyncIterator[list[str]]:
    """Start two instances, each in a process, and end them with the block."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        links = {home: f"tcp://127.0.0.1:{free_port()}" for home in "ab"}
        (folder / "links").write_text(json.dumps(links), "utf-8")
        async with trio.open_nursery() as nursery:
            for home in links:
                command = [sys.executable, "-m", "benchmarks.gateways", "--serve", home, name]
                nursery.start_soon(trio.run_process, command)
            with trio.fail_after(60):
                while not all((folder / home).exists() for home in links):  # noqa: ASYNC110
                    await trio.sleep(0.05)
            yield [(folder / home).read_text("utf-8") for home in links]
            nursery.cancel_scope.cancel()


class Client:
    """A client of the first instance."""

    def __init__(self, urls: list[str]) -> None:
        self._https = {
            url: httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) for url in urls
        }
        self._seen = 0
        self._hello: dict[str, Any] = {}

    async def close(self) -> None:
        """Close its connections for HTTP."""
        for http in self._https.values():
            await http.aclose()

    async def turn(self, at: str, websocket: str) -> float:
        """Make calls, and return the median of their times in milliseconds.

        Args:
            at: the URL of the instance that gets the POSTs.
            websocket: the URL of the instance that gets the WebSocket.
        """
        query = "resume=1" if self._hello else "resumable=1"
        address = f"ws{websocket.removeprefix('http')}/ws?{query}"
        async with trio_websocket.open_websocket_url(address) as ws:
            if self._hello:
                told = {"uuid": self._hello["uuid"], "token": self._hello["token"]}
                await ws.send_message(json.dumps({"type": "resume", "seq": self._seen, **told}))
                assert json.loads(await ws.get_message())["type"] == "resumed"
            else:
                self._hello = json.loads(await ws.get_message())
            return statistics.median([await self._call(ws, at) for _ in range(CALLS)]) * 1e3

    async def _call(self, ws: trio_websocket.WebSocketConnection, at: str) -> float:
        began = time.perf_counter()
        headers = {"Trio-Rpc-Token": self._hello["token"]}
        path = f"/api/scan/{self._hello['uuid']}"
        answer = await self._https[at].post(path, json={"count": 1}, headers=headers)
        assert answer.status_code == 200, answer.text
        kinds: list[str] = []
        while "finish" not in kinds:
            got = json.loads(await ws.get_message())
            messages = got if isinstance(got, list) else [got]
            kinds += [each["type"] for each in messages]
            self._seen = messages[-1]["seq"]
        assert kinds == ["callback", "finish"], kinds
        taken = time.perf_counter() - began
        await ws.send_message(json.dumps({"type": "ack", "seq": self._seen}))
        return taken


async def measure(rounds: int) -> None:
    """Measure, and print the medians with the least and the greatest."""
    taken: dict[str, list[float]] = {"home": [], "POST elsewhere": [], "all elsewhere": []}
    async with instances() as urls:
        home, other = urls
        client = Client(urls)
        try:
            await client.turn(home, home)
            await client.turn(other, other)
            for _ in range(rounds):
                taken["home"].append(await client.turn(home, home))
                taken["POST elsewhere"].append(await client.turn(other, home))
                taken["all elsewhere"].append(await client.turn(other, other))
        finally:
            await client.close()
    for what, values in taken.items():
        show(what, values, "")
    for what in ("POST elsewhere", "all elsewhere"):
        differences = [far - near for far, near in zip(taken[what], taken["home"], strict=True)]
        show(f"{what}, minus home", differences, f"; goal: at most {GOAL}")


def show(what: str, values: list[float], goal: str) -> None:
    """Print the median, the least and the greatest of the values."""
    middle = statistics.median(values)
    print(f"{what}: p50 {middle:.2f} ms ({min(values):.2f} to {max(values):.2f}){goal}")


def main() -> None:
    """Measure, or serve one of the instances."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--serve", nargs=2, metavar=("HOME", "FOLDER"))
    chosen = parser.parse_args()
    if chosen.serve:
        home, folder = chosen.serve
        trio.run(serve, home, Path(folder))
    else:
        trio.run(measure, chosen.rounds)


if __name__ == "__main__":
    main()

"""Measure how soon sessions reconnect: one that is cut, and thousands that lose their server.

    python -m benchmarks.storm                  # 2,000 clients
    python -m benchmarks.storm --clients 200 --downtime 2 --json figures.json

Clients and server are two processes. The server's process also runs a proxy in front of the server.
While the server is to appear down, the proxy has cut all connections and refuses new ones.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import trio

import trio_rpc
from trio_rpc.testing import ChaosProxy, open_chaos_proxy

CUTS = 50
SETTLED = 0.2
"""Seconds between two cuts."""

LONGEST = 15.0
"""Seconds after which the last client must be back. Otherwise the exit status is 1."""

MOST_WAITING = 1000
"""Connections that may wait to be accepted by one listener."""

CALM_AFTER = 20.0
"""Seconds after which the server's process may use less than a core."""

CALM = 3.0
"""Seconds for which its use is measured then."""

LISTENING = "0A"
"""The state of a listening socket in ``/proc/net/tcp``, where its second queue has connections."""

CONNECTING = 50
"""Clients that connect at the same time at the start."""


BOUNDS = {
    "back after, s: last": LONGEST,
    "waited to be accepted, at most": MOST_WAITING,
    "% of a core, 20 s later": 100,
}


class Control:
    """The proxy's controls, which the clients' process calls in the server's process."""

    def __init__(self, proxy: ChaosProxy, ports: set[int]) -> None:
        self._proxy = proxy
        self._ports = ports
        self._most_waiting = 0
        self._watching = trio.CancelScope()

    async def watch_queues(self) -> None:
        """Look at the queues of connections that wait to be accepted, twenty times a second."""
        with self._watching:
            while True:
                self._most_waiting = max([self._most_waiting, *_waiting(self._ports)])
                await trio.sleep(0.05)

    @trio_rpc.method
    async def most_waiting(self) -> int:
        """Return how many connections have waited at most at one listener since it was back.

        From then on nobody looks, since that would take half of a core.
        """
        self._watching.cancel()
        return self._most_waiting

    @trio_rpc.method
    async def cpu(self) -> float:
        """Return the seconds of processor time of this process."""
        return time.process_time()

    @trio_rpc.method
    async def url(self) -> str:
        """Return the proxy's URL."""
        return self._proxy.url

    @trio_rpc.method
    async def cut(self) -> None:
        """Cut all connections."""
        self._proxy.cut()

    @trio_rpc.method
    async def vanish(self, seconds: float) -> None:
        """Cut all connections, and refuse new ones for that many seconds."""
        self._proxy.is_refusing = True
        self._proxy.cut()
        await trio.sleep(seconds)
        self._proxy.is_refusing = False
        self._most_waiting = 0  # at a server that is down, no connection waits

    @trio_rpc.method
    async def accepted(self) -> int:
        """Return how many connections the proxy has accepted."""
        return self._proxy.accepted


class Echo:
    """The service that the clients call."""

    @trio_rpc.method
    async def echo(self, value: int) -> int:
        """Return the argument."""
        return value


async def serve() -> None:
    """Run the server's process."""
    _raise_descriptors()
    resume = trio_rpc.Resume(grace=120)
    async with (
        trio_rpc.open_server(Echo(), "tcp://127.0.0.1:0", resume=resume) as server,
        open_chaos_proxy(server.urls[0]) as proxy,
    ):
        ports = {urlsplit(url).port or 0 for url in (server.urls[0], proxy.url)}
        control = Control(proxy, ports)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(control.watch_queues)
            await trio_rpc.serve_parent(control)
            nursery.cancel_scope.cancel()


def _waiting(ports: set[int]) -> list[int]:
    """Return how many connections wait at each listener of these ports; nothing but on Linux."""
    table = Path("/proc/net/tcp")
    rows = [line.split() for line in table.read_text().splitlines()] if table.exists() else []
    return [
        int(row[4].partition(":")[2], 16)
        for row in rows
        if row[3] == LISTENING and int(row[1].partition(":")[2], 16) in ports
    ]


async def measure(clients: int, downtime: float) -> dict[str, dict[str, float]]:
    """Run the clients' process, and return the figures."""
    _raise_descriptors()
    command = [sys.executable, "-m", "benchmarks.storm", "--serve"]
    async with trio_rpc.open_process(command) as process:
        control = process.proxy("", Control)
        url = await control.url()
        cuts = await _cuts(url, control)
        return {"cut and resume, ms": cuts, "storm": await _storm(url, control, clients, downtime)}


async def _cuts(url: str, control: Control) -> dict[str, float]:
    """Cut one connection repeatedly, with almost no delay before the client reconnects."""
    resume = trio_rpc.Resume(first_delay=0.000_1, max_delay=0.001)
    times = []
    async with trio_rpc.connect(url, resume=resume) as session:
        echo = session.proxy("", Echo).echo
        for number in range(CUTS):
            states = session.connection_states()
            began = time.perf_counter()
            await control.cut()
            async for state in states:
                if state is trio_rpc.ConnectionState.RECONNECTING:
                    break
            await echo(number)
            times.append((time.perf_counter() - began) * 1e3)
            await trio.sleep(SETTLED)
    return {"median": statistics.median(times), "least": min(times), "most": max(times)}


async def _storm(url: str, control: Control, clients: int, downtime: float) -> dict[str, float]:
    back: list[float] = []
    async with trio.open_nursery() as nursery:
        sessions = await _connect_all(nursery, url, clients)
        print(f"{clients} clients are connected", file=sys.stderr)
        begun = await control.accepted()
        async with trio.open_nursery() as watching:
            for session in sessions:
                watching.start_soon(_watch, session, back)
            await control.vanish(downtime)
            returned = time.perf_counter()
            attempts = await control.accepted() - begun
        last = max(back) - returned
        peak = max(Counter(int(each * 10) for each in back).values())
        for number, session in enumerate(sessions):
            assert await session.call("echo", number) == number
        most_waiting = await control.most_waiting()
        await trio.sleep(max(0.0, returned + CALM_AFTER - time.perf_counter()))
        used = await control.cpu()
        await trio.sleep(CALM)
        used = await control.cpu() - used
        nursery.cancel_scope.cancel()
    return {
        "clients": clients,
        "seconds of downtime": downtime,
        "attempts meanwhile": attempts,
        "back after, s: median": statistics.median(back) - returned,
        "back after, s: last": last,
        "back in the busiest 100 ms": peak,
        "waited to be accepted, at most": most_waiting,
        "% of a core, 20 s later": used / CALM * 100,
    }


async def _connect_all(nursery: trio.Nursery, url: str, clients: int) -> list[trio_rpc.Session]:
    sessions: list[trio_rpc.Session] = []
    resume = trio_rpc.Resume(grace=120)

    async def connect_some(count: int) -> None:
        for _ in range(count):
            session = await trio_rpc.connect_in(nursery, url, resume=resume)
            sessions.append(session)

    async with trio.open_nursery() as connecting:
        for number in range(CONNECTING):
            count = clients // CONNECTING + (number < clients % CONNECTING)
            connecting.start_soon(connect_some, count)
    return sessions


async def _watch(session: trio_rpc.Session, back: list[float]) -> None:
    async for state in session.connection_states():
        if state is trio_rpc.ConnectionState.RESUMED:
            back.append(time.perf_counter())
            return


def _raise_descriptors() -> None:
    """Raise the limit on descriptors: a client needs one here and three in the server's process."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main() -> int:
    """Run the benchmark from the command line. Return 1 if a bound is exceeded."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.storm", description=__doc__)
    parser.add_argument("--clients", type=int, default=2000)
    parser.add_argument("--downtime", type=float, default=10.0, help="seconds, default 10")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        trio.run(serve)
        return 0
    figures = trio.run(measure, options.clients, options.downtime)
    for title, rows in figures.items():
        print(title)
        for name, value in rows.items():
            print(f"  {name:30} {value:12,.2f}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2), encoding="utf-8")
    missed = [
        f"MISSED: {name} is {value:.1f}, not at most {most:g}"
        for name, most in BOUNDS.items()
        if (value := figures["storm"][name]) > most
    ]
    print(*missed, sep="\n", end="\n" if missed else "")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

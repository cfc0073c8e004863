"""Drills: a pool of three instances under load, which are restarted, killed, frozen or all gone.

    python tests/drills/pools.py [restart] [kill] [freeze] [outage] [--rounds N] [--tcp] [--callers N]

The instances are processes on this machine. Each writes the key of every call that it begins into a
file, at once, so that even a killed one has logged its runs. The checks:

- ``restart``: SIGTERM to one after the other, which drains; then it is started again. No call may
  fail, and each has run once.
- ``kill``: SIGKILL to one. Only calls in flight there may fail, with an unknown fate. No call has
  run twice. Calls of an idempotent method do not fail.
- ``freeze``: SIGSTOP to one for 3 s. No call may fail.
- ``outage``: SIGKILL to all, and a second later they are started again. Only calls in flight may
  fail; the others wait.

The exit code is 1 if a check fails.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import trio

import trio_rpc

KINDS = ("restart", "kill", "freeze", "outage")
INSTANCES = 3
MOST_SECONDS = 60.0
"""Seconds that the beginning and end of a drill may take, and each of its rounds."""


class Work:
    """The service of each instance.

    Args:
        log: the file that gets the key of each call.
    """

    def __init__(self, log: Path) -> None:
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    @trio_rpc.method
    async def work(self, key: str) -> str:
        os.write(self._log, f"{key}\n".encode())
        await trio.sleep(0.001)
        return key

    @trio_rpc.method(idempotent=True)
    async def work_again(self, key: str) -> str:
        return await self.work(key)


async def serve(url: str, log: Path) -> None:
    """Serve until SIGTERM, then drain: the program of one instance."""
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio_rpc.open_server(Work(log), url) as server:
            await anext(signals)
            await server.drain(grace=30)


@dataclass
class Fleet:
    """The processes of the instances."""

    folder: Path
    nursery: trio.Nursery
    urls: list[str]
    running: dict[str, trio.Process] = field(default_factory=dict)

    def log_of(self, url: str) -> Path:
        """Return the file of one instance, for all of its processes."""
        return self.folder / f"log{self.urls.index(url)}"

    async def start(self, url: str) -> None:
        """Start the process of an instance."""
        command = [sys.executable, __file__, "--serve", url, "--log", str(self.log_of(url))]
        run = functools.partial(trio.run_process, command, check=False)
        self.running[url] = await self.nursery.start(run)

    async def stop(self, url: str, number: signal.Signals) -> int:
        """Send a signal to the process of an instance, and return its exit status."""
        process = self.running.pop(url)
        process.send_signal(number)
        return await process.wait()

    def runs(self) -> Counter[str]:
        """Return how often each call has run."""
        logs = [self.log_of(url) for url in self.urls if self.log_of(url).exists()]
        return Counter(line for log in logs for line in log.read_text().splitlines())


@dataclass
class Load:
    """Callers that call as fast as they can, and the outcomes."""

    pool: trio_rpc.Pool
    method: str
    done: list[str] = field(default_factory=list)
    failed: dict[str, Exception] = field(default_factory=dict)
    is_over: bool = False

    async def call(self, caller: int) -> None:
        """Call until the drill is over."""
        proxy = self.pool.proxy("", Work)
        number = 0
        while not self.is_over:
            number += 1
            key = f"{self.method}.{caller}.{number}"
            try:
                await getattr(proxy, self.method)(key)
            except trio_rpc.RpcError as exc:
                self.failed[key] = exc
            else:
                self.done.append(key)


@contextlib.asynccontextmanager
async def open_fleet(folder: Path, *, tcp: bool) -> AsyncIterator[Fleet]:
    """Start the instances, and kill the remaining ones at the end of the block."""
    if tcp:
        urls = [f"tcp://127.0.0.1:{port}" for port in await _free_ports()]
    else:
        urls = [f"unix://{folder}/{number}" for number in range(INSTANCES)]
    async with trio.open_nursery() as nursery:
        fleet = Fleet(folder, nursery, urls)
        try:
            for url in urls:
                await fleet.start(url)
            yield fleet
        finally:
            for process in fleet.running.values():
                process.kill()
        # run_process waits for them


async def _free_ports() -> list[int]:
    listeners = [(await trio.open_tcp_listeners(0, host="127.0.0.1"))[0] for _ in range(INSTANCES)]
    ports = [listener.socket.getsockname()[1] for listener in listeners]
    for listener in listeners:
        await listener.aclose()
    return ports


async def all_open(pool: trio_rpc.Pool) -> None:
    """Wait until the pool has a session with each instance."""
    async for statuses in pool.states():
        if all(each.state == "open" for each in statuses):
            return


async def restart(fleet: Fleet, pool: trio_rpc.Pool, _load: Load) -> None:
    """Restart one instance after the other."""
    for url in fleet.urls:
        status = await fleet.stop(url, signal.SIGTERM)
        assert status == 0, f"an instance ended with {status}"
        await fleet.start(url)
        await all_open(pool)


async def kill(fleet: Fleet, pool: trio_rpc.Pool, load: Load) -> None:
    """Kill one instance, and start it again."""
    url = fleet.urls[len(load.done) % INSTANCES]
    await fleet.stop(url, signal.SIGKILL)
    await trio.sleep(0.3)
    await fleet.start(url)
    await all_open(pool)


async def freeze(fleet: Fleet, pool: trio_rpc.Pool, _load: Load) -> None:
    """Stop one instance for 3 s."""
    process = fleet.running[fleet.urls[0]]
    process.send_signal(signal.SIGSTOP)
    await trio.sleep(3)
    process.send_signal(signal.SIGCONT)
    await all_open(pool)


async def outage(fleet: Fleet, pool: trio_rpc.Pool, _load: Load) -> None:
    """Kill all instances, and start them again."""
    for url in fleet.urls:
        await fleet.stop(url, signal.SIGKILL)
    await trio.sleep(1)
    for url in fleet.urls:
        await fleet.start(url)
    await all_open(pool)


STEPS = {"restart": restart, "kill": kill, "freeze": freeze, "outage": outage}


@dataclass(frozen=True)
class Outcome:
    """The outcome of one drill."""

    kind: str
    calls: int
    failed: int
    twice: int
    most_in_flight: int

    def __str__(self) -> str:
        return f"{self.kind}: {self.calls:,} calls, {self.failed} failed, {self.twice} run twice"


async def play(
    kind: str, *, rounds: int = 1, callers: int = 48, method: str = "work", tcp: bool = False
) -> Outcome:
    """Run one drill, and check its outcome."""
    with trio.fail_after(MOST_SECONDS * (1 + rounds)), tempfile.TemporaryDirectory() as name:
        async with open_fleet(Path(name), tcp=tcp) as fleet:
            async with trio_rpc.open_pool(*fleet.urls) as pool:
                await all_open(pool)
                load = Load(pool, method)
                async with trio.open_nursery() as nursery:
                    for caller in range(callers):
                        nursery.start_soon(load.call, caller)
                    await trio.sleep(0.3)
                    for _ in range(rounds):
                        await STEPS[kind](fleet, pool, load)
                        await trio.sleep(0.2)
                    load.is_over = True
            for url in list(fleet.running):
                await fleet.stop(url, signal.SIGTERM)
            return check(kind, load, fleet.runs(), rounds=rounds, callers=callers)


def check(kind: str, load: Load, runs: Counter[str], *, rounds: int, callers: int) -> Outcome:
    """Compare the outcomes of the calls with the log lines of the handlers."""
    twice = [key for key, count in runs.items() if count > 1]
    assert load.method == "work_again" or not twice, f"run twice: {twice[:5]}"
    lost = [key for key in load.done if key not in runs]
    assert not lost, f"never run, but they have returned: {lost[:5]}"
    may_fail = load.method == "work" and kind in {"kill", "outage"}
    assert may_fail or not load.failed, next(iter(load.failed.values()))
    for exc in load.failed.values():
        assert isinstance(exc, trio_rpc.SessionBroken), exc
        assert exc.fate is trio_rpc.Fate.UNKNOWN, exc
    # A call in flight at a kill fails, and its caller then makes another one, until the next kill.
    kills = rounds * (INSTANCES if kind == "outage" else 1)
    assert len(load.failed) <= callers * kills
    return Outcome(kind, len(load.done) + len(load.failed), len(load.failed), len(twice), callers)


def main() -> None:
    """Run the chosen drills, or serve as one of their instances."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kinds", nargs="*", default=KINDS, metavar="kind")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--callers", type=int, default=48)
    parser.add_argument("--tcp", action="store_true")
    parser.add_argument("--serve", metavar="URL")
    parser.add_argument("--log", type=Path)
    chosen = parser.parse_args()
    if chosen.serve:
        trio.run(serve, chosen.serve, chosen.log)
        return
    for kind in chosen.kinds:
        for method in ("work", "work_again") if kind in {"kill", "outage"} else ("work",):
            run = functools.partial(
                play,
                kind,
                rounds=chosen.rounds,
                callers=chosen.callers,
                method=method,
                tcp=chosen.tcp,
            )
            print(method, trio.run(run), flush=True)


if __name__ == "__main__":
    main()

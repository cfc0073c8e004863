"""Start two processes for each row of a part, and measure the rows in turns.

The speed of a machine varies from second to second. So rows take short turns in rotating order,
and the variations affect all of them. The median of a row's turns is its value in the round. Only
one row works at a time, while the processes of the others sleep. A turn in which other programs
used the cores is repeated. The attempt with the least disturbance counts, whatever its result.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from operator import itemgetter
from pathlib import Path
from time import perf_counter, sleep
from types import TracebackType
from typing import Any, Self

from benchmarks import machine
from benchmarks.adapter import Adapter
from benchmarks.interface import Measurement
from benchmarks.parts import GROUPS, Load, Part

__all__ = [
    "DISTURBED",
    "ROOT",
    "Loads",
    "Outcome",
    "Patience",
    "Row",
    "WorkerFailed",
    "run",
    "turns",
]

DISTURBED = 0.05
"""The share of a turn for which other programs may keep its processes from their cores."""

STARTING = 4
"""Rows whose processes are started at the same time, before the first turn."""

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the tables: an adapter, and the checkout that its processes run."""

    module: str
    adapter: Adapter
    root: Path = ROOT
    revision: str = ""
    """The suffix that distinguishes it from the same adapter in another checkout."""

    @property
    def name(self) -> str:
        """Return its name in outcomes."""
        return f"{self.adapter.name}@{self.revision}" if self.revision else self.adapter.name

    @property
    def is_peer(self) -> bool:
        """Whether it measures another library."""
        return self.module.startswith("peer_")


class WorkerFailed(Exception):
    """Raised if a process ended early, was too slow, or ended with an error."""


@dataclass(slots=True)
class Outcome:
    """The result of one part."""

    part: Part
    load: Load
    titles: dict[str, str]
    rounds: list[dict[str, Measurement]] = field(default_factory=list)
    """For each round: adapter -> the medians of its turns."""

    turns: list[dict[str, list[Measurement]]] = field(default_factory=list)
    """For each round: adapter -> the metrics of its turns."""

    failures: dict[str, str] = field(default_factory=dict)
    """Adapter -> the reason of its failure. It has no figures then."""

    lacking: dict[str, str] = field(default_factory=dict)
    """Peer -> the text for the table, as it cannot run this part."""


class Patience:
    """The total seconds to wait for other programs to be idle."""

    def __init__(self, seconds: float) -> None:
        self._left = seconds

    def wait_for_calm(self) -> None:
        """Wait until no other program runs, or until the total time is used up."""
        start = perf_counter()
        while perf_counter() - start < self._left and machine.is_busy():
            sleep(0.05)
        self._left -= perf_counter() - start


class _Worker:
    """A server's or a client's process, which ends with its block."""

    def __init__(self, role: str, row: Row, load: Load, options: dict[str, Any]) -> None:
        self._role = role
        self._limit = load.limit
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        text = json.dumps(options)
        self._process = subprocess.Popen(  # noqa: S603 - it is this program
            [sys.executable, "-m", "benchmarks.worker", role, row.module, row.adapter.name, text],
            cwd=row.root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        self.pid = self._process.pid

    def _failed(self, what: str) -> WorkerFailed:
        self._errors.seek(0)
        printed = self._errors.read().decode(errors="replace").splitlines()
        lines = [line.strip(" |+-") for line in printed]  # an exception group draws a frame
        told = (line for line in reversed(lines) if re.search("[a-z]", line) and line[0] != "[")
        last = next((line for line in told if "more exception" not in line), "")
        return WorkerFailed(f"{self._role} {what}" + (f": {last}" if last else ""))

    def seconds_waited(self) -> float:
        return machine.seconds_waited(self._process.pid)

    def give_turn(self) -> None:
        """Start a client's turn. Raises WorkerFailed."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()
        except OSError:
            raise self._failed("is gone") from None

    def hear(self) -> Any:
        """Return the next line that it prints. Raises WorkerFailed, also after the time limit."""
        assert self._process.stdout is not None
        watchdog = threading.Timer(self._limit, self._process.kill)
        watchdog.start()
        line = self._process.stdout.readline()
        in_time = watchdog.is_alive()
        watchdog.cancel()
        if line:
            return json.loads(line)
        self._process.wait()
        late = "" if in_time else f", stopped after {self._limit:g} s"
        raise self._failed(f"ended with status {self._process.returncode}{late}")

    def end(self) -> None:
        """Wait for its end. Raises WorkerFailed if it does not end, or ends with an error."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            status = self._process.wait(self._limit)
        except subprocess.TimeoutExpired:
            raise self._failed("did not end") from None
        if status:
            raise self._failed(f"ended with status {status}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        for file in (self._process.stdin, self._process.stdout, self._errors):
            assert file is not None
            file.close()


class _Round:
    """One round of one part: the processes of all rows are running, and one row works."""

    def __init__(
        self, outcome: Outcome, rows: Sequence[Row], patience: Patience, stack: ExitStack
    ) -> None:
        self._patience = patience
        self._outcome = outcome
        self._rows = rows
        self._stack = stack
        self._clients: dict[str, _Worker] = {}
        self._servers: dict[str, _Worker] = {}
        self._spare = {row.name: outcome.load.spare for row in rows}
        # Each process ends by itself after this time, even if this one has been killed.
        self._lifetime = (
            outcome.load.limit * (1 + outcome.load.turns + outcome.load.spare) * max(1, len(rows))
        )

    def _open_pair(self, row: Row) -> None:
        part, load = self._outcome.part, self._outcome.load
        name = row.name
        server_core, client_core = machine.pick_cores()
        options: dict[str, Any] = {
            "root": str(row.root),
            "core": server_core,
            "lifetime": self._lifetime,
            "hosts": part.hosts,
            "files": load.count if part.key in GROUPS["sessions"] else 0,
        }
        server = self._stack.enter_context(_Worker("serve", row, load, options))
        options = {
            "root": str(row.root),
            "core": client_core,
            "lifetime": self._lifetime,
            "part": part.key,
            "load": asdict(load),
            "urls": server.hear(),
            "pid": server.pid,
        }
        client = self._stack.enter_context(_Worker("drive", row, load, options))
        assert client.hear() == "ready"
        self._servers[name], self._clients[name] = server, client

    def _turn_once(self, name: str) -> Measurement:
        self._patience.wait_for_calm()
        client, server = self._clients[name], self._servers[name]
        before = client.seconds_waited() + server.seconds_waited()
        start = perf_counter()
        client.give_turn()
        measurement: Measurement = client.hear()
        waited = client.seconds_waited() + server.seconds_waited() - before
        return {**measurement, "waited": waited / (perf_counter() - start)}

    def _turn(self, name: str) -> Measurement:
        """Measure one turn, and repeat it if other programs used the cores and repeats are left."""
        tries = [self._turn_once(name)]
        while tries[-1]["waited"] > DISTURBED and self._spare[name]:
            self._spare[name] -= 1
            tries.append(self._turn_once(name))
        return min(tries, key=itemgetter("waited"))

    def _close_pair(self, name: str) -> None:
        self._clients[name].end()
        self._servers[name].end()

    def _attempt(self, name: str, do: Callable[..., Any], *arguments: object) -> Any:
        """Run a function, unless this adapter has failed before. Return None after a failure."""
        if name in self._outcome.failures:
            return None
        try:
            return do(*arguments)
        except WorkerFailed as error:
            self._outcome.failures[name] = str(error)
            return None

    def play(self, step: Callable[[str], None]) -> dict[str, list[Measurement]]:
        """Play the round, and return the metrics of each adapter's turns."""
        names = [row.name for row in self._rows]
        with ThreadPoolExecutor(STARTING) as pool:
            for row in self._rows:
                pool.submit(self._attempt, row.name, self._open_pair, row)
        results: dict[str, list[Measurement]] = {name: [] for name in names}
        for turn in range(self._outcome.load.turns):
            start = turn % len(names)
            for name in names[start:] + names[:start]:
                step(name)
                if measurement := self._attempt(name, self._turn, name):
                    results[name].append(measurement)
        for name in names:
            self._attempt(name, self._close_pair, name)
        return {name: result for name, result in results.items() if result}


def _medians(part: Part, turns: Sequence[Measurement]) -> Measurement:
    """Return the round's value of each metric. Some systems do not tell the CPU time."""
    return {
        metric.key: (max if metric.greatest else statistics.median)(
            turn[metric.key] for turn in turns
        )
        for metric in part.metrics
        if all(metric.key in turn for turn in turns)
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Loads:
    """The loads of the parts."""

    quick: bool = False
    turns: int | None = None
    """The turns of each row in a round, of which none is repeated. None: those of the part."""

    def of(self, part: Part) -> Load:
        """Return the load of a part."""
        load = part.quick if self.quick else part.load
        return load if self.turns is None else replace(load, turns=self.turns, spare=0)


def turns(parts: Sequence[Part], rows: Sequence[Row], loads: Loads) -> int:
    """Return the number of turns in a round."""
    return sum(
        loads.of(part).turns for part in parts for row in rows if part.key in row.adapter.parts
    )


def run(
    parts: Sequence[Part],
    rows: Sequence[Row],
    *,
    rounds: int,
    peer_rounds: int | None = None,
    loads: Loads,
    patience: Patience,
    step: Callable[[str], None],
) -> list[Outcome]:
    """Measure all parts. `step` is called with the next turn before each one.

    An adapter that fails is not tried again in that part, and has no figures there. Peers take part
    only in the first `peer_rounds`.
    """
    mine = {part.key: [row for row in rows if part.key in row.adapter.parts] for part in parts}
    outcomes = [
        Outcome(
            part,
            load=loads.of(part),
            titles={
                row.name: row.adapter.title
                for row in rows
                if part.key in row.adapter.parts or part.key in row.adapter.lacks
            },
            lacking={
                row.name: row.adapter.lacks[part.key]
                for row in rows
                if part.key in row.adapter.lacks
            },
        )
        for part in parts
        if mine[part.key]
    ]
    for number in range(rounds):
        for outcome in outcomes:
            part = outcome.part

            def show(name: str, place: str = f"round {number + 1} of {rounds}, {part.key}") -> None:
                step(f"{place}: {name}")

            taking_part = [
                row
                for row in mine[part.key]
                if peer_rounds is None or number < peer_rounds or not row.is_peer
            ]
            with ExitStack() as stack:
                results = _Round(outcome, taking_part, patience, stack).play(show)
            outcome.turns.append(results)
            outcome.rounds.append({name: _medians(part, found) for name, found in results.items()})
    return outcomes

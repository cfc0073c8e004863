"""Runs every measurement in two fresh processes, and the rows of a part by turns.

In each round each adapter is measured once, in an order that rotates from round to round, so that
a machine that is slower for a while is slower for all of them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from benchmarks import machine
from benchmarks.adapter import Adapter, Measurement
from benchmarks.parts import Load, Part

__all__ = ["MeasurementFailed", "Outcome", "run"]

ROOT = Path(__file__).resolve().parent.parent


class MeasurementFailed(Exception):
    """A process ended early, was too slow, or said something that is no result."""


@dataclass(slots=True)
class Outcome:
    """What the rounds of one part gave: for each adapter a measurement or a failure a round."""

    part: Part
    titles: dict[str, str] = field(default_factory=dict)
    rounds: list[dict[str, Measurement]] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)


def _start(role: str, module: str, name: str, options: object, errors: IO[bytes]) -> Any:
    command = [sys.executable, "-m", "benchmarks.worker", role, module, name, json.dumps(options)]
    return subprocess.Popen(  # noqa: S603 - it is this program
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
    )


@contextmanager
def _process(
    role: str, module: str, name: str, options: dict[str, Any]
) -> Iterator[tuple[Any, Callable[[], Any]]]:
    """Run a worker; give it and a function that reads its one line. It is gone afterwards."""
    with tempfile.TemporaryFile() as errors:
        process = _start(role, module, name, options, errors)
        watchdog = threading.Timer(options["limit"], process.kill)
        watchdog.start()

        def read_line() -> Any:
            line = process.stdout.readline()
            if line:
                return json.loads(line)
            status = process.wait()
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip().splitlines()
            last = said[-1] if said else "said nothing; killed at its time limit?"
            raise MeasurementFailed(f"{role} ended with status {status}: {last}")

        try:
            yield process, read_line
        finally:
            watchdog.cancel()
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()


def measure(module: str, adapter: Adapter, part: Part, load: Load) -> Measurement:
    """Measure once. Raises MeasurementFailed; leaves no process behind."""
    server_core, client_core = machine.pick_cores()
    options: dict[str, Any] = {
        "core": server_core,
        "limit": load.limit,
        "hosts": part.hosts,
        "files": load.count if part.key == "idle" else 0,
    }
    with _process("serve", module, adapter.name, options) as (server, read_urls):
        options = {
            "core": client_core,
            "limit": load.limit,
            "part": part.key,
            "load": asdict(load),
            "urls": read_urls()["urls"],
            "pid": server.pid,
        }
        with _process("drive", module, adapter.name, options) as (_, read_result):
            result: Measurement = read_result()
    return result


def run(
    parts: Sequence[Part],
    adapters: Sequence[tuple[str, Adapter]],
    *,
    rounds: int,
    quick: bool,
    step: Callable[[str], None],
) -> list[Outcome]:
    """Measure all; `step` is told what comes next, before each measurement.

    An adapter that fails in a round is not tried again in that part, and has no figures there.
    """
    outcomes = [Outcome(part) for part in parts]
    for number in range(rounds):
        for outcome in outcomes:
            part = outcome.part
            rows = [row for row in adapters if part.key in row[1].parts]
            outcome.titles = {adapter.name: adapter.title for _, adapter in rows}
            results: dict[str, Measurement] = {}
            turn = number % len(rows) if rows else 0
            for module, adapter in rows[turn:] + rows[:turn]:
                step(f"round {number + 1}: {part.title}, {adapter.name}")
                if adapter.name in outcome.failures:
                    continue
                try:
                    load = part.quick if quick else part.load
                    results[adapter.name] = measure(module, adapter, part, load)
                except MeasurementFailed as error:
                    outcome.failures[adapter.name] = str(error)
            outcome.rounds.append(results)
    return outcomes

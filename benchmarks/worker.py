"""One process of a measurement: `python -m benchmarks.worker ROLE MODULE NAME OPTIONS`.

A server writes one line of JSON, its URLs. A client writes one when it is ready, and then one with
its metrics for each line that it reads. Both end when their standard input closes, and at the
latest after a time limit, so that no process is ever left behind.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import adapters, machine
from benchmarks.adapter import Adapter
from benchmarks.interface import Measurement, Target
from benchmarks.loads import SPARE_FILES
from benchmarks.parts import Load

CLOSING = 10.0
"""Seconds that a client may take to close its sessions after its last turn."""


def _say(value: object) -> None:
    print(json.dumps(value), flush=True)


def _read_input(turns: queue.SimpleQueue[bool] | None) -> None:
    # Not sys.stdin: a thread that holds its lock would disturb the interpreter's exit.
    while received := os.read(0, 1024):
        for _ in range(received.count(b"\n")):
            if turns is not None:
                turns.put(True)
    if turns is not None:
        turns.put(False)
        time.sleep(CLOSING)
    os._exit(0)


class _Turns:
    """The turns of a client: the parent process starts each by writing a line."""

    def __init__(self) -> None:
        self.given: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._ready = False

    def wait(self) -> bool:
        if not self._ready:
            self._ready = True
            _say("ready")
        return self.given.get()

    def report(self, measurement: Measurement) -> None:
        _say(measurement)


def _watch_input(turns: queue.SimpleQueue[bool] | None) -> None:
    threading.Thread(target=_read_input, args=[turns], daemon=True).start()


def serve(adapter: Adapter, options: dict[str, Any]) -> None:
    """Serve until the parent process has finished."""

    def ready(urls: Sequence[str]) -> None:
        _say(list(urls))

    _watch_input(None)
    machine.raise_open_files(options["files"] + 2 * SPARE_FILES)
    adapter.serve(options["hosts"], ready)


def drive(adapter: Adapter, options: dict[str, Any]) -> None:
    """Measure in each turn."""
    turns = _Turns()
    _watch_input(turns.given)
    target = Target(urls=options["urls"], pid=options["pid"])
    adapter.drive(options["part"], target, Load(**options["load"]), turns)


def main() -> None:
    role, module, name, text = sys.argv[1:]
    options = json.loads(text)
    if hasattr(signal, "alarm"):
        signal.alarm(int(options["lifetime"]))
    machine.pin(options["core"])
    adapter = adapters.find(module, name)
    library = sys.modules.get("trio_rpc")
    if library is not None and Path(str(library.__file__)).parents[1] != Path(options["root"]):
        raise RuntimeError(f"{library.__file__} is not the trio_rpc of {options['root']}")
    {"serve": serve, "drive": drive}[role](adapter, options)


if __name__ == "__main__":
    main()

"""A process of a measurement: `python -m benchmarks.worker ROLE MODULE NAME OPTIONS`.

A server writes one line of JSON with its URLs, a client one with its metrics. Both end when their
standard input closes, and at the latest after their limit, so that none is ever left behind.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any

from benchmarks import adapters, machine
from benchmarks.adapter import Adapter, Target
from benchmarks.loads import SPARE_FILES
from benchmarks.parts import Load


def _end_with_parent() -> None:
    # Not sys.stdin: a thread that holds its lock would upset the interpreter's exit.
    while os.read(0, 1024):
        pass
    os._exit(0)


def _say(value: object) -> None:
    print(json.dumps(value), flush=True)


def serve(adapter: Adapter, options: dict[str, Any]) -> None:
    def ready(urls: Sequence[str]) -> None:
        _say({"urls": list(urls)})

    machine.raise_open_files(options["files"] + 2 * SPARE_FILES)
    adapter.serve(options["hosts"], ready)


def drive(adapter: Adapter, options: dict[str, Any]) -> None:
    target = Target(urls=options["urls"], pid=options["pid"])
    _say(adapter.drive(options["part"], target, Load(**options["load"])))


def main() -> None:
    role, module, name, text = sys.argv[1:]
    options = json.loads(text)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if hasattr(signal, "alarm"):
        signal.alarm(int(options["limit"]) + 5)
    machine.pin(options["core"])
    adapter = adapters.find(module, name)
    {"serve": serve, "drive": drive}[role](adapter, options)


if __name__ == "__main__":
    main()

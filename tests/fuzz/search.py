"""``python -m tests.fuzz.search TARGET FOLDER [options of libFuzzer]``: search in this process."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["trio_rpc"]):
    from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()

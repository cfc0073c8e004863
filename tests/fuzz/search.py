"""``python -m tests.fuzz.search TARGET FOLDER [options of libFuzzer]``: search in this process.

Input that makes the target fail is written to ``FOLDER/failed``. libFuzzer writes only some of it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["trio_rpc"]):
    from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    check, failed = TARGETS[sys.argv.pop(1)], Path(sys.argv[1]) / "failed"

    def target(data: bytes) -> None:
        """Check one input."""
        try:
            check(data)
        except BaseException:
            failed.write_bytes(data)
            raise

    atheris.Setup(sys.argv, target)
    atheris.Fuzz()

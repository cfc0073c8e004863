"""Fuzz the parsers: ``uv run --group fuzz python -m tests.fuzz [TARGET...] [--seconds N] [--keep]``.

Each target is run for some seconds by atheris, which changes valid input such that it reaches new
code. The input that made a target fail is printed, and the exit status is 1. Add it to
``tests/fuzz/corpus``: the tests run all input that is kept there.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .corpus import keep, load
from .targets import SEEDS, TARGETS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program. Return 0 if no target has failed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default: 60)")
    parser.add_argument("--keep", action="store_true", help="keep short new input in the corpus")
    options = parser.parse_args(arguments)
    if unknown := set(options.targets) - set(TARGETS):
        parser.error(f"there is no target {', '.join(sorted(unknown))}")
    if importlib.util.find_spec("atheris") is None:
        parser.error("atheris is not installed: uv run --group fuzz python -m tests.fuzz")
    failed = [
        name
        for name in options.targets or TARGETS
        if not _run(name, options.seconds, is_kept=options.keep)
    ]
    print(f"failed: {', '.join(failed)}" if failed else "no target has failed")
    return 1 if failed else 0


# The search is a process of its own: libFuzzer ends its process.
def _run(target: str, seconds: int, *, is_kept: bool) -> bool:
    print(f"{target}: {TARGETS[target].__doc__}", flush=True)
    with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
        before = {*SEEDS[target], *load(target)}
        for number, each in enumerate(before):
            (Path(folder) / f"seed{number}").write_bytes(each)
        program = [sys.executable, "-m", "tests.fuzz.search", target, folder]
        limits = [
            f"-max_total_time={seconds}",
            "-max_len=4096",
            "-timeout=10",
            "-rss_limit_mb=1024",
        ]
        artifact = Path(folder) / "failed-"
        done = subprocess.run(  # noqa: S603 - our own program
            [*program, *limits, f"-artifact_prefix={artifact}", "-verbosity=0"],
            capture_output=True,
            text=True,
            timeout=seconds + 300,
            check=False,
        )
        failures = list(Path(folder).glob("failed*"))
        if failures or done.returncode:
            print("".join(_interesting(done.stdout + done.stderr)))
            print(*(f"failed with {each.read_bytes().hex()}" for each in failures), sep="\n")
            return False
        if is_kept:
            found = {each.read_bytes() for each in Path(folder).iterdir()}
            print(f"{keep(target, found - before)} inputs are kept")
    return True


def _interesting(text: str) -> list[str]:
    lines = [line for line in text.splitlines(keepends=True) if not line.startswith("INFO:")]
    return lines[-60:]


if __name__ == "__main__":
    sys.exit(main())

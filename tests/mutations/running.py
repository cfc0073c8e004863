"""Apply faults in copies of the tree, and run the tests that must notice them."""

from __future__ import annotations

import compileall
import contextlib
import os
import py_compile
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from .fault import PACKAGE, ROOT, Fault

__all__ = ["Outcome", "TestsFailError", "run_all"]

TEST_SECONDS = 30
"""The time limit of one test. pytest-timeout names a test that exceeds it."""

OUT_OF_IT = shutil.ignore_patterns(
    ".git", ".venv*", "__pycache__", "*.pyc", ".*_cache", ".hypothesis", "node_modules", "dist"
)
PYTEST = ("-x", "-v", "-p", "no:cacheprovider", "--no-header", "--tb=short", "--timeout")

FAILURE = re.compile(
    r"^(?:(?:FAILED|ERROR) tests/(\S+)|tests/(.+?) (?:FAILED|ERROR)\b)", re.MULTILINE
)
"""The line of a test that failed, from the summary or from its own report: a test that hangs may
leave pytest unable to print the summary."""


class TestsFailError(Exception):
    """Raised if the tests fail without any fault, so that they prove nothing."""

    __test__ = False


@dataclass(frozen=True)
class Outcome:
    """The outcome of one fault.

    Attributes:
        fault: the fault.
        kind: "noticed", "survived", "hung" (the run was ended, and the table does not say that it
            may hang) or "broken" (pytest could not run the tests).
        by: the test that failed, if one did.
        seconds: the duration of the run.
        output: the last lines of pytest's output, unless the outcome is "noticed".
    """

    fault: Fault
    kind: str
    by: str
    seconds: float
    output: str = ""


async def run_all(
    faults: Sequence[Fault], *, workers: int, seconds: float, report: Callable[[Outcome], None]
) -> list[Outcome]:
    """Run the tests of each fault, several at a time, and return the outcomes.

    Args:
        faults: the faults to apply, one after the other.
        workers: the number of copies of the tree, and of parallel runs.
        seconds: the time limit of one run.
        report: a function that is called with each outcome as soon as it is known.

    Raises:
        TestsFailError: the tests fail without any fault.
    """
    outcomes: dict[Fault, Outcome] = {}
    waiting = iter(faults)

    async def work(tree: Path) -> None:
        for one in waiting:  # shared by all workers
            outcomes[one] = await _try(one, tree, seconds)
            report(outcomes[one])

    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        trees = [Path(folder) / str(number) for number in range(min(workers, len(faults)))]
        for tree in trees:
            await trio.to_thread.run_sync(_copy, tree)
        await _check_without_faults(trees[0], faults, seconds)
        async with trio.open_nursery() as nursery:
            for tree in trees:
                nursery.start_soon(work, tree)
    return [outcomes[one] for one in faults]


def _copy(tree: Path) -> None:
    shutil.copytree(ROOT, tree, ignore=OUT_OF_IT, symlinks=True)
    # Bytecode is checked by the hash of its source: a fault may leave the file's size unchanged.
    by_hash = py_compile.PycInvalidationMode.CHECKED_HASH
    compileall.compile_dir(tree / PACKAGE, quiet=2, invalidation_mode=by_hash)


async def _check_without_faults(tree: Path, faults: Iterable[Fault], seconds: float) -> None:
    """Check that the tests pass without a fault, and that they import the copy."""
    where = f"import {PACKAGE}; print({PACKAGE}.__file__)"
    code, output = await _run(tree, ["-c", where], seconds)
    if code or not Path(output.strip()).is_relative_to(tree):
        raise TestsFailError(f"the tests import another package than the copy: {output}")
    tests = dict.fromkeys(test for one in faults for test in one.tests)
    code, output = await _run(tree, _pytest(tests), seconds + 10 * len(tests))
    if code:
        raise TestsFailError(f"the tests fail without any fault:\n{_tail(output)}")


async def _try(one: Fault, tree: Path, seconds: float) -> Outcome:
    path = tree / PACKAGE / one.file
    source = path.read_text("utf-8")
    path.write_text(one.applied_to(source), "utf-8")
    started = trio.current_time()
    try:
        code, output = await _run(tree, _pytest(one.tests), seconds)
    finally:
        path.write_text(source, "utf-8")
    took = trio.current_time() - started
    if code == 0:
        return Outcome(one, "survived", "", took, _tail(output))
    if code is None:
        kind = "noticed" if one.hangs else "hung"
        return Outcome(one, kind, "the time limit" if one.hangs else "", took, _tail(output))
    found = FAILURE.search(output)
    if code == 1 and found:
        return Outcome(one, "noticed", found[1] or found[2], took)
    return Outcome(one, "broken", "", took, _tail(output))


def _pytest(tests: Iterable[str]) -> list[str]:
    options = (*PYTEST, str(TEST_SECONDS), "--transport", "memory")
    return ["-m", "pytest", *options, *(f"tests/{test}" for test in tests)]


def _tail(output: str) -> str:
    return "\n".join(output.splitlines()[-15:])


async def _run(tree: Path, args: list[str], seconds: float) -> tuple[int | None, str]:
    """Run Python in a copy of the tree. Return its exit code (None: too slow) and its output."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("PYTEST_ADDOPTS", None)
    with (tree / "output.txt").open("wb+") as output:  # a file: grandchildren may keep a pipe open
        process = await trio.lowlevel.open_process(
            [sys.executable, *args],
            cwd=tree,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        code = None
        async with _killed_with_its_children(process):
            with trio.move_on_after(seconds):
                code = await process.wait()
        output.seek(0)
        return code, output.read().decode(errors="replace")


@contextlib.asynccontextmanager
async def _killed_with_its_children(process: trio.Process) -> AsyncIterator[None]:
    try:
        yield
    finally:
        with trio.CancelScope(shield=True), contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

"""Run mypy --strict over the typing tests, and over a file of deliberate mistakes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy")

ROOT = Path(__file__).parents[2]
MISTAKES = Path(__file__).with_name("wrong_types.py")


def mypy(path: Path) -> list[str]:
    """Return the errors that mypy finds in ``path`` with the project's settings."""
    done = subprocess.run(  # noqa: S603 - our own interpreter and path
        [sys.executable, "-m", "mypy", "--no-pretty", "--no-error-summary", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return [line for line in done.stdout.splitlines() if " error: " in line]


def test_mypy_accepts_typed_and_untyped_uses():
    """A proxy has the type of its interface, and type checkers see it."""
    assert mypy(ROOT / "tests/typing") == []


def test_mypy_finds_each_deliberate_mistake():
    expected = {
        (number, code)
        for number, line in enumerate(MISTAKES.read_text().splitlines(), 1)
        for code in line.partition("# E: ")[2].split()
    }
    found = [re.search(r":(\d+): error: .*\[([\w-]+)\]$", line) for line in mypy(MISTAKES)]
    assert {(int(match[1]), match[2]) for match in found if match is not None} == expected
    assert None not in found
    assert len(expected) > 10

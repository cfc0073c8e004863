"""Input that a search has found, kept in the repository: one file for each target, a line each."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).parent / "corpus"
MOST = 100
"""Inputs that are kept for a target."""
LONGEST = 120
"""Bytes of the longest input that is kept."""


def load(target: str) -> list[bytes]:
    """Return the kept input of a target."""
    path = FOLDER / f"{target}.txt"
    return [bytes.fromhex(line) for line in path.read_text().split()] if path.exists() else []


def keep(target: str, found: Iterable[bytes]) -> int:
    """Add the shortest new input to that of a target; return the number of kept ones."""
    kept = load(target)
    new = sorted({each for each in found if each and len(each) <= LONGEST} - set(kept), key=len)
    kept += new[: max(0, MOST - len(kept))]
    FOLDER.mkdir(exist_ok=True)
    text = "".join(f"{each.hex()}\n" for each in sorted(kept, key=lambda each: (len(each), each)))
    (FOLDER / f"{target}.txt").write_text(text)
    return len(kept)

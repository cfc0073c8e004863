"""Reads the pages in docs/: their tables, their code blocks, and what they refer to."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def read(page):
    return (DOCS / page).read_text(encoding="utf-8")


def section(page, title):
    """Return what stands below the heading that contains ``title``, up to the next of its level."""
    text = read(page)
    start = re.search(rf"^(#+) [^\n]*{re.escape(title)}[^\n]*$", text, re.MULTILINE)
    assert start, f"{page} has no section {title!r}"
    level = len(start[1])
    end = re.compile(rf"^#{{1,{level}}} ", re.MULTILINE).search(text, start.end())
    return text[start.end() : end.start() if end else len(text)]


def table(text, first):
    """Return the rows of the table whose first heading is ``first``, as lists of cells."""
    lines = iter(text.splitlines())
    for line in lines:
        if cells(line)[:1] == [first]:
            next(lines)
            rows = []
            for row in lines:
                if not row.startswith("|"):
                    break
                rows.append(cells(row))
            return rows
    raise AssertionError(f"there is no table that begins with {first!r}")


def cells(line):
    return [cell.strip() for cell in line.strip().strip("|").split("|")] if "|" in line else []


def codes(text):
    """Return what stands between backticks."""
    return re.findall(r"`([^`\n]+)`", text)


def blocks(text):
    """Return (language, content) of each fenced block."""
    return re.findall(r"^```([\w-]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)

"""Read the pages in docs/: their tables, code blocks and prose."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *DOCS.rglob("*.md"), ROOT / "benchmarks" / "README.md")
)
"""All pages of documentation, as paths from the root of the repository."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int  # of the first line inside the fence, from 1
    language: str
    text: str
    note: str  # the HTML comment in the line above the fence, or ""

    @property
    def place(self):
        return f"{self.page}:{self.line}"

    def __str__(self):
        return self.place


def read(page):
    """Return the text of a page: a path from the root of the repository, or from docs/."""
    path = ROOT / page
    return (path if path.exists() else DOCS / page).read_text(encoding="utf-8")


def section(page, title):
    """Return the text from the heading that contains ``title`` to the next one of its level."""
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
    """Return the texts between backticks."""
    return re.findall(r"`([^`\n]+)`", text)


def blocks(text):
    """Return (language, content) of each fenced block."""
    return [(block.language, block.text) for block in _blocks("", text)]


def blocks_of(page):
    """Return the fenced blocks of a page as :class:`Block`."""
    return _blocks(page, read(page))


def _blocks(page, text):
    fence = r"^(?:<!-- ([^\n]*) -->\n)?```([^`\n]*)\n(.*?)^```$"
    return [
        Block(page, 1 + text.count("\n", 0, found.start(3)), found[2], found[3], found[1] or "")
        for found in re.finditer(fence, text, re.MULTILINE | re.DOTALL)
    ]


def prose(page):
    """Return a page with the contents of its fenced blocks blanked; lines keep their numbers."""
    return re.sub(
        r"^```.*?^```$",
        lambda found: "\n" * found[0].count("\n"),
        read(page),
        flags=re.MULTILINE | re.DOTALL,
    )


def found_in_prose(page, pattern):
    """Yield ("page:line", match) for each match of ``pattern`` outside of fenced blocks."""
    text = prose(page)
    for found in re.finditer(pattern, text, re.MULTILINE):
        yield f"{page}:{1 + text.count(chr(10), 0, found.start())}", found

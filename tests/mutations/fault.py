"""One small fault: a wrong change of the package, and the tests that must notice it."""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PACKAGE", "ROOT", "Fault", "complaint", "fault", "missing_tests"]

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "trio_rpc"


@dataclass(frozen=True)
class Fault:
    """A row of the table. Use :func:`fault` to make one."""

    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    hangs: bool
    where: str

    def applied_to(self, source: str) -> str:
        """Return the file's text with the fault in it."""
        return self.source_without(source).replace(self.old, self.new)

    def source_without(self, source: str) -> str:
        """Return the text unchanged. Raise ValueError unless it contains ``old`` exactly once."""
        count = source.count(self.old)
        if count != 1:
            lines = _lines_of(self.old, source)
            at = f" (lines {', '.join(map(str, lines))})" if lines else ""
            raise ValueError(
                f"{self.where}: {PACKAGE}/{self.file} has the text of this fault {count} times,"
                f" not once{at}: {self.old!r}"
            )
        return source

    def line(self, source: str) -> int:
        """Return the number of the line in which the fault begins."""
        return source[: source.index(self.old)].count("\n") + 1


def fault(what: str, file: str, old: str, new: str, *tests: str, hangs: bool = False) -> Fault:
    """Describe one fault.

    Args:
        what: the wrong behaviour; begins with "law 3: " if it breaks that law.
        file: path of the file within the package.
        old: text that is in the file exactly once.
        new: the text that replaces it.
        *tests: at least one of these must fail: a file in ``tests/``, or ``file::test``.
        hangs: whether a run that never ends counts as noticed.
    """
    caller = sys._getframe(1)
    table = Path(caller.f_code.co_filename)
    where = f"{table.relative_to(ROOT) if table.is_relative_to(ROOT) else table}:{caller.f_lineno}"
    return Fault(what, file, old, new, tests, hangs, where)


def complaint(one: Fault, root: Path = ROOT) -> str | None:
    """Say why a fault cannot be applied to the tree, or None."""
    path = root / PACKAGE / one.file
    if not path.is_file():
        return f"{one.where}: there is no file {PACKAGE}/{one.file}"
    try:
        made = one.applied_to(path.read_text("utf-8"))
    except ValueError as exc:
        return str(exc)
    if one.old == one.new:
        return f"{one.where}: nothing is replaced"
    try:
        if path.suffix == ".py":
            compile(made, str(path), "exec")
    except SyntaxError as exc:
        return f"{one.where}: {PACKAGE}/{one.file}:{exc.lineno} does not compile: {exc.msg}"
    return None


def missing_tests(one: Fault, root: Path = ROOT) -> list[str]:
    """Return its tests that do not exist."""
    return [test for test in one.tests if not _exists(root / "tests", test)]


def _exists(tests: Path, test: str) -> bool:
    file, _, name = test.partition("::")
    path = tests / file
    if not path.is_file():
        return False
    return not name or name.partition("[")[0] in _functions(path)


def _functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    functions = {node.name for node in ast.walk(tree) if isinstance(node, kinds)}
    # A stateful test of Hypothesis is a class in a variable.
    return functions | {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def _lines_of(text: str, source: str) -> list[int]:
    lines, at = [], source.find(text)
    while at >= 0:
        lines.append(source[:at].count("\n") + 1)
        at = source.find(text, at + 1)
    return lines

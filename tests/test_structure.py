"""The source stays readable: short files, functions and lines, and unique file names."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

import trio_rpc

PACKAGE = Path(trio_rpc.__file__).parent
TEXTS = {
    str(path.relative_to(PACKAGE)): path.read_text(encoding="utf-8")
    for path in sorted(PACKAGE.rglob("*.py"))
}

LONGEST_MODULE = 600
LONGEST_FUNCTION = 60
"""Lines without the docstring, so that nobody shortens a docstring to meet the limit."""
LONGEST_LINE = 100

IN_EACH_FOLDER = {"__init__.py", "channel.py", "client.py", "core.py", "driver.py", "server.py"}
"""File names that any folder may use: the folder tells them apart."""

SAME_NAMES = {
    "app.py": {"cli", "gateway/server"},
    "connecting.py": {"channels", "cli"},
    "connection.py": {"channels", "gateway/server"},
    "context.py": {"protocol", "session/calls"},
    "errors.py": {"", "channels"},
    "frames.py": {"channels/forwarding", "channels/websocket"},
    "introspection.py": {"", "services"},
    "limits.py": {"gateway", "wire"},
    "opening.py": {"channels", "session"},
    "process.py": {"", "channels"},
    "thread.py": {"", "channels"},
    "session.py": {"gateway/client", "session"},
    "stream.py": {"channels", "channels/websocket"},
    "streams.py": {"cli", "protocol"},
}
"""Other file names used twice: the files treat one subject in different layers."""


def test_the_modules_are_found():
    assert {"errors.py", "protocol/protocol.py"} <= set(TEXTS)


@pytest.mark.parametrize("path", sorted(TEXTS))
def test_modules_are_short(path):
    assert TEXTS[path].count("\n") <= LONGEST_MODULE


@pytest.mark.parametrize("path", TEXTS)
def test_functions_are_short(path):
    for node in ast.walk(ast.parse(TEXTS[path])):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        lines = node.end_lineno - node.lineno + 1
        if ast.get_docstring(node) is not None:
            lines -= node.body[0].end_lineno - node.body[0].lineno + 1
        assert lines <= LONGEST_FUNCTION, f"line {node.lineno}: {node.name} has {lines} lines"


@pytest.mark.parametrize("path", sorted(TEXTS))
def test_lines_are_short(path):
    long = [
        number
        for number, line in enumerate(TEXTS[path].splitlines(), start=1)
        if len(line) > LONGEST_LINE
    ]
    assert not long, f"lines {long}"


def test_file_names_are_unique():
    folders = defaultdict(set)
    for path in TEXTS:
        folder, _, name = path.rpartition("/")
        folders[name].add(folder)
    shared = {name: found for name, found in folders.items() if len(found) > 1}
    assert {name: shared[name] for name in shared.keys() - IN_EACH_FOLDER} == SAME_NAMES

"""Imports only go down, and nothing in the package can run what arrives."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import trio_rpc

PACKAGE = Path(trio_rpc.__file__).parent

LAYERS = (
    {"errors", "util"},
    {"wire"},
    {"protocol"},
    {"services", "channels"},
    {"session"},
    {"client", "server", "process"},
    {""},  # trio_rpc/__init__.py, which gathers the public names
    {"testing"},
    {"gateway"},
    {"cli"},
    {"__main__"},
)
"""From the lowest; the members of one layer do not import each other."""

RANK = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {
    module_name(path): ast.parse(path.read_text(encoding="utf-8"), str(path))
    for path in sorted(PACKAGE.rglob("*.py"))
}


def part_of(module: str) -> str:
    """The part of the package that a module belongs to."""
    return [*module.split("."), ""][1]


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Each module that is imported anywhere in ``tree``, and the line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield (whole if whole in SOURCES else str(node.module)), node.lineno


def without_type_checking(tree: ast.Module) -> ast.Module:
    """What of a module is there at run time."""
    body = [
        node
        for node in tree.body
        if not (isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"))
    ]
    return ast.Module(body, [])


def test_there_is_something_to_look_at():
    assert {"trio_rpc", "trio_rpc.errors", "trio_rpc.protocol.protocol"} <= set(SOURCES)


@pytest.mark.parametrize("module", SOURCES)
def test_imports_go_down_only(module):
    own = part_of(module)
    assert own in RANK, f"{own} belongs to no layer"
    for imported, line in imports(SOURCES[module]):
        if imported.split(".")[0] != "trio_rpc" or part_of(imported) == own:
            continue
        below = RANK[part_of(imported)] < RANK[own]
        assert below, f"{module}, line {line}: {imported} is not below"


IO = {"trio", "asyncio", "anyio", "socket", "ssl", "threading", "logging", "random"}
FORBIDDEN_IN = {
    "wire": IO,  # it measures the processor time that a peer's keys cost
    "protocol": IO | {"time", "datetime"},
    "trio_rpc.channels.forwarding.core": IO | {"time", "datetime"},
    "trio_rpc.channels.forwarding.frames": IO | {"time", "datetime"},
}


@pytest.mark.parametrize("module", SOURCES)
def test_the_core_without_io_knows_no_trio_and_no_clock(module):
    forbidden = FORBIDDEN_IN.get(part_of(module)) or FORBIDDEN_IN.get(module)
    if forbidden is None:
        return
    for imported, line in imports(SOURCES[module]):
        root = imported.split(".")[0]
        assert root not in forbidden, f"{module}, line {line}: {imported}"
    for node in ast.walk(SOURCES[module]):
        assert not isinstance(node, ast.AsyncFunctionDef | ast.Await)


def test_there_are_no_cycles():
    graph = {
        module: {
            imported
            for imported, _ in imports(without_type_checking(tree))
            if imported in SOURCES and imported != module
        }
        for module, tree in SOURCES.items()
    }
    TopologicalSorter(graph).prepare()  # raises CycleError


FORBIDDEN_MODULES = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "copyreg"}
FORBIDDEN_NAMES = {"eval", "exec", "__import__", "compile"}


@pytest.mark.parametrize("module", SOURCES)
def test_nothing_can_run_what_arrives(module):  # S2
    for imported, line in imports(SOURCES[module]):
        root = imported.split(".")[0]
        assert root not in FORBIDDEN_MODULES, f"{module}, line {line}: {imported}"
        # A command line names modules to serve; nothing that arrives does.
        assert root != "importlib" or part_of(module) == "cli", f"{module}, line {line}"
    for node in ast.walk(SOURCES[module]):
        if isinstance(node, ast.Name):
            assert node.id not in FORBIDDEN_NAMES, f"{module}, line {node.lineno}"
        if isinstance(node, ast.Attribute):
            assert node.attr != "__import__", f"{module}, line {node.lineno}"

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


def sources_in(folder: Path) -> dict[str, ast.Module]:
    return {
        module_name(path): ast.parse(path.read_text(encoding="utf-8"), str(path))
        for path in sorted(folder.rglob("*.py"))
    }


SOURCES = sources_in(PACKAGE)
BENCHMARKS = sources_in(PACKAGE.parent / "benchmarks")


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
                yield (
                    (whole if whole in SOURCES or whole in BENCHMARKS else str(node.module)),
                    node.lineno,
                )


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


def graph_of(sources: dict[str, ast.Module]) -> dict[str, set[str]]:
    """Each module and the modules that it imports, those that only type checkers see included."""
    return {
        module: {
            imported for imported, _ in imports(tree) if imported in sources and imported != module
        }
        for module, tree in sources.items()
    }


def test_there_are_no_cycles():
    TopologicalSorter(graph_of(SOURCES)).prepare()  # raises CycleError


def test_there_are_no_cycles_in_the_benchmarks():
    assert "benchmarks.loads" in BENCHMARKS
    TopologicalSorter(graph_of(BENCHMARKS)).prepare()


PACKAGES = sorted({module.rpartition(".")[0] for module in SOURCES} - {""})


@pytest.mark.parametrize("package", PACKAGES)
def test_there_are_no_cycles_between_folders(package):
    """A folder is one thing: what it imports of its neighbours does not import it."""

    def unit_of(module: str) -> str | None:
        return (
            module[len(package) + 1 :].split(".", maxsplit=1)[0]
            if module.startswith(f"{package}.")
            else None
        )

    graph: dict[str, set[str]] = {}
    for module, imported in graph_of(SOURCES).items():
        unit = unit_of(module)
        if unit is not None:
            units = {each for each in map(unit_of, imported) if each is not None}
            graph.setdefault(unit, set()).update(units - {unit})
    assert graph
    TopologicalSorter(graph).prepare()


SESSION = (
    {"io", "owner"},
    {"lifecycle"},
    {"calls"},
    {"streams", "shared"},
    {"inspection"},
    {"session"},
    {"options"},
    {"handler"},
    {"dispatch"},
    {"core"},
    {"reader"},
    {"driver"},
    {"opening"},
)
"""The rooms of a session, from the lowest; as in LAYERS."""

ROOM = {part: rank for rank, layer in enumerate(SESSION) for part in layer}


def room_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[2] if parts[:2] == ["trio_rpc", "session"] and len(parts) > 2 else None


@pytest.mark.parametrize("module", [each for each in SOURCES if room_of(each)])
def test_the_rooms_of_a_session_import_down_only(module):
    own = room_of(module)
    assert own in ROOM, f"{own} is no room of a session"
    for imported, line in imports(SOURCES[module]):
        other = room_of(imported)
        if other not in {None, own}:
            assert ROOM[other] < ROOM[own], f"{module}, line {line}: {imported} is not below"


FORBIDDEN_MODULES = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "copyreg"}
FORBIDDEN_NAMES = {"eval", "exec", "__import__", "compile"}


@pytest.mark.parametrize("module", SOURCES)
def test_nothing_can_run_what_arrives(module):
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

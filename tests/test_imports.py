"""Imports only go down the layers, and no module can execute received data."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from helpers.sources import Sources

import trio_rpc

PACKAGE = Path(trio_rpc.__file__).parent

LAYERS = (
    {"errors", "util"},
    {"wire", "tracing"},
    {"protocol"},
    {"services", "channels", "codecs"},
    {"nats"},
    {"session"},
    {"client", "server", "process", "thread", "one_to_one", "health", "introspection"},
    {"pool"},
    {""},  # trio_rpc/__init__.py, which gathers the public names
    {"testing", "otel"},
    {"gateway"},
    {"cli"},
    {"__main__"},
)
"""The layers, lowest first. Members of one layer do not import each other."""

RANK = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources_in(folder: Path) -> Sources:
    return Sources({module_name(path): path for path in sorted(folder.rglob("*.py"))})


SOURCES = sources_in(PACKAGE)
BENCHMARKS = sources_in(PACKAGE.parent / "benchmarks")


def part_of(module: str) -> str:
    """Return the part of the package that a module belongs to."""
    return [*module.split("."), ""][1]


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield each module that ``tree`` imports anywhere, and the line."""
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


def test_the_modules_are_found():
    assert {"trio_rpc", "trio_rpc.errors", "trio_rpc.protocol.protocol"} <= set(SOURCES)


@pytest.mark.parametrize("module", SOURCES)
def test_imports_only_go_down(module):
    own = part_of(module)
    assert own in RANK, f"{own} belongs to no layer"
    for imported, line in imports(SOURCES[module]):
        if imported.split(".")[0] != "trio_rpc" or part_of(imported) == own:
            continue
        below = RANK[part_of(imported)] < RANK[own]
        assert below, f"{module}, line {line}: {imported} is not below"


IO = {"trio", "asyncio", "anyio", "socket", "ssl", "threading", "logging", "random"}
FORBIDDEN_IN = {
    "wire": IO,  # it may measure processor time
    "protocol": IO | {"time", "datetime"},
    "trio_rpc.channels.forwarding.core": IO | {"time", "datetime"},
    "trio_rpc.channels.forwarding.frames": IO | {"time", "datetime"},
    "trio_rpc.nats.core": IO | {"time", "datetime"},
    "trio_rpc.nats.parser": IO | {"time", "datetime"},
}


@pytest.mark.parametrize("module", SOURCES)
def test_the_sans_io_core_imports_neither_trio_nor_a_clock(module):
    forbidden = FORBIDDEN_IN.get(part_of(module)) or FORBIDDEN_IN.get(module)
    if forbidden is None:
        return
    for imported, line in imports(SOURCES[module]):
        root = imported.split(".")[0]
        assert root not in forbidden, f"{module}, line {line}: {imported}"
    for node in ast.walk(SOURCES[module]):
        assert not isinstance(node, ast.AsyncFunctionDef | ast.Await)


def graph_of(sources: Sources) -> dict[str, set[str]]:
    """Map each module to its imports, including those for type checkers only."""
    return {
        module: {
            imported for imported, _ in imports(tree) if imported in sources and imported != module
        }
        for module, tree in sources.items()
    }


@functools.cache
def graph_of_package() -> dict[str, set[str]]:
    return graph_of(SOURCES)


def test_imports_have_no_cycles():
    TopologicalSorter(graph_of_package()).prepare()  # raises CycleError


def test_imports_of_the_benchmarks_have_no_cycles():
    assert "benchmarks.loads" in BENCHMARKS
    TopologicalSorter(graph_of(BENCHMARKS)).prepare()


PACKAGES = sorted({module.rpartition(".")[0] for module in SOURCES} - {""})


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_between_folders_have_no_cycles(package):
    """Treat each folder as one unit: no unit that it imports may import it."""

    def unit_of(module: str) -> str | None:
        return (
            module[len(package) + 1 :].split(".", maxsplit=1)[0]
            if module.startswith(f"{package}.")
            else None
        )

    graph: dict[str, set[str]] = {}
    for module, imported in graph_of_package().items():
        unit = unit_of(module)
        if unit is not None:
            units = {each for each in map(unit_of, imported) if each is not None}
            graph.setdefault(unit, set()).update(units - {unit})
    assert graph
    TopologicalSorter(graph).prepare()


SESSION = (
    {"owner"},
    {"io", "end", "peer", "http_request", "held_services", "load", "session_places"},
    {"lifecycle"},
    {"calls"},
    {"streams", "shared", "answers", "draining"},
    {"inspection"},
    {"core_view"},
    {"session"},
    {"options", "session_events", "current"},
    {"handler", "fallback_calls"},
    {"dispatch"},
    {"traced"},
    {"variants"},
    {"live_services"},
    {"core"},
    {"reader"},
    {"watch"},
    {"driver"},
    {"opening"},
)
"""The layers within the session package, lowest first."""

SESSION_RANK = {part: rank for rank, layer in enumerate(SESSION) for part in layer}


def session_part(module: str) -> str | None:
    parts = module.split(".")
    return parts[2] if parts[:2] == ["trio_rpc", "session"] and len(parts) > 2 else None


@pytest.mark.parametrize("module", [each for each in SOURCES if session_part(each)])
def test_parts_of_the_session_only_import_down(module):
    own = session_part(module)
    assert own in SESSION_RANK, f"{own} is not a known part of the session"
    for imported, line in imports(SOURCES[module]):
        other = session_part(imported)
        if other not in {None, own}:
            assert SESSION_RANK[other] < SESSION_RANK[own], (
                f"{module}, line {line}: {imported} is not below"
            )


FORBIDDEN_MODULES = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "copyreg"}
FORBIDDEN_NAMES = {"eval", "exec", "__import__", "compile"}


@pytest.mark.parametrize("module", SOURCES)
def test_no_module_can_execute_received_data(module):
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

"""Each module's __all__ is complete and in order, and each public name has a docstring."""

from __future__ import annotations

import ast
import importlib.metadata
import inspect
from pathlib import Path

import pytest
from helpers.sources import Sources

import trio_rpc

PACKAGE = Path(trio_rpc.__file__).parent
SOURCES = Sources({str(path.relative_to(PACKAGE)): path for path in sorted(PACKAGE.rglob("*.py"))})
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def exported(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return None


def top_level(tree: ast.Module) -> list[ast.stmt]:
    """Return the statements of a module, including those under an ``if`` or ``try``."""
    found, rest = [], list(tree.body)
    while rest:
        node = rest.pop(0)
        found.append(node)
        if isinstance(node, ast.If | ast.Try):
            rest += node.body + node.orelse
    return found


def definitions(tree: ast.Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Return the public functions and classes of a module, without overloads."""
    return [
        node
        for node in top_level(tree)
        if isinstance(node, DEFINITIONS)
        and not node.name.startswith("_")
        and not any(ast.unparse(each).endswith("overload") for each in node.decorator_list)
    ]


def top_level_names(tree: ast.Module) -> set[str]:
    names = {node.name for node in definitions(tree)}
    for node in top_level(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found = [each for target in targets for each in ast.walk(target)]
            names |= {each.id for each in found if isinstance(each, ast.Name)}
    return names


def in_order(names: list[str]) -> list[str]:
    """Sort names as ruff's RUF022 does: constants, classes, the rest."""
    return sorted(names, key=lambda name: (not name.isupper(), not name[:1].isupper(), name))


@pytest.mark.parametrize("path", SOURCES)
def test_all_lists_existing_names_in_order(path):
    tree = SOURCES[path]
    names = exported(tree)
    if names is None:
        assert not definitions(tree), "there is no __all__"
        return
    assert len(set(names)) == len(names)
    assert set(names) <= top_level_names(tree)
    assert names == in_order(names)
    assert not [name for name in names if name.startswith("_") and name != "__version__"]


@pytest.mark.parametrize("path", SOURCES)
def test_each_public_name_has_a_docstring(path):
    tree = SOURCES[path]
    assert ast.get_docstring(tree), "the module has no docstring"
    for node in definitions(tree):
        assert ast.get_docstring(node), f"{node.name} has no docstring"


@pytest.mark.parametrize("path", SOURCES)
def test_modules_import_only_exported_names_of_each_other(path):
    for node in ast.walk(SOURCES[path]):
        if not isinstance(node, ast.ImportFrom) or not str(node.module).startswith("trio_rpc."):
            continue
        source = SOURCES.get(str(node.module).replace(".", "/").removeprefix("trio_rpc/") + ".py")
        if source is None:
            continue  # a package: its names are modules
        defined = {each.name for each in definitions(source)}
        for alias in node.names:
            if alias.name in defined:
                assert alias.name in (exported(source) or ()), (
                    f"line {node.lineno}: {node.module} has no {alias.name} in its __all__"
                )
            assert not alias.name.startswith("_"), f"line {node.lineno}: {alias.name} is private"


def test_the_package_exports_all_names_that_it_imports():
    tree = SOURCES["__init__.py"]
    imported = {name for name in top_level_names(tree) if not name.startswith("_")}
    assert imported - {"annotations"} == set(trio_rpc.__all__) - {"__version__"}


@pytest.mark.parametrize("name", trio_rpc.__all__)
def test_every_public_name_exists_and_has_a_docstring(name):
    value = getattr(trio_rpc, name)
    if not (inspect.isclass(value) or inspect.isroutine(value)):
        return
    doc = value.__doc__ or ""
    assert doc.strip()
    assert not doc.startswith(f"{name}("), "its docstring is only the one that dataclass wrote"
    if inspect.isclass(value):
        for attribute, member in vars(value).items():
            if not attribute.startswith("_") and (
                inspect.isroutine(member) or isinstance(member, property)
            ):
                assert member.__doc__, f"{name}.{attribute} has no docstring"


def test_the_version_matches_the_installed_package():
    assert trio_rpc.__version__ == importlib.metadata.version("trio-rpc")

"""The files, tests, names and numbers that the pages refer to exist."""

from __future__ import annotations

import dataclasses
import importlib.util
import re

import pytest
from helpers.pages import PAGES, ROOT, blocks, codes, prose, read, section, table
from helpers.programs import files_of

import trio_rpc.gateway
import trio_rpc.testing
from trio_rpc import errors
from trio_rpc.services import error_maps as faults

TESTS = {
    name: path
    for path in ROOT.glob("tests/**/test_*.py")
    for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)
}
LAWS = re.findall(
    r"^(\d+)\. \*\*(.+?)\*\*(.*?)(?=^\d+\. |\Z)",
    section("guarantees.md", "The laws"),
    re.MULTILINE | re.DOTALL,
)
"""Number, name and the rest of each law."""


def test_there_are_pages():
    assert {"README.md", "docs/design.md", "docs/how-to/index.md"} <= set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_files_named_on_a_page_exist(page):
    named = [code for code in codes(prose(page)) if re.fullmatch(r"[\w/.-]+/|[\w/-]+\.py", code)]
    made = (ROOT / ".gitignore").read_text("utf-8").split()  # by commands that the pages name
    named = [
        code for code in named if "NAME" not in code and code not in made
    ]  # NAME is a placeholder
    places = [ROOT, ROOT / "trio_rpc", (ROOT / page).parent]
    places += [(ROOT / path).parent for path in files_of(page)]
    assert [name for name in named if not any((place / name).exists() for place in places)] == []


@pytest.mark.parametrize("folder", ["how-to", "reference"])
def test_the_navigation_lists_a_folder_in_the_order_of_its_index(folder):
    text = read(f"docs/{folder}/index.md")
    linked = re.findall(r"\]\(([\w-]+)\.md\)", text)
    [listed] = [tree.split() for language, tree in blocks(text) if language == "{toctree}"]
    assert listed == [":hidden:", *linked]
    assert {f"docs/{folder}/{name}.md" for name in [*linked, "index"]} == {
        page for page in PAGES if page.startswith(f"docs/{folder}/")
    }


@pytest.mark.parametrize("page", PAGES)
def test_tests_named_on_a_page_exist(page):
    named = {code for code in codes(prose(page)) if re.fullmatch(r"test_\w+", code)}
    assert {name for name in named if name not in TESTS and name != "test_law_"} == set()


NAMES = {
    "access",
    "cancel_reason",
    "cancelled",
    "describe",
    "draining",
    "fate",
    "handlers",
    "scope",
}
"""Names of loggers, attributes of spans and built-in methods, which no module has."""


@pytest.mark.parametrize("page", PAGES)
def test_names_of_the_package_exist(page):
    for name in re.findall(r"`trio_rpc\.(\w+)", prose(page)):
        # A module that nothing has imported yet is not an attribute.
        is_module = importlib.util.find_spec(f"trio_rpc.{name}") is not None
        assert hasattr(trio_rpc, name) or is_module or name in NAMES, name


def test_the_laws_are_numbered_without_a_gap():
    assert [int(number) for number, *_ in LAWS] == list(range(1, 18))


@pytest.mark.parametrize(("number", "rest"), [(law[0], law[2]) for law in LAWS])
def test_each_law_links_to_existing_tests_with_its_number(number, rest):
    linked = re.findall(r"\[`(test_\w+)`\]\(\.\./([^)]+)\)", rest)
    assert linked
    for name, path in linked:
        assert name.startswith(f"test_law_{number}_")
        assert TESTS[name] == ROOT / path


def test_the_design_has_a_row_for_each_law():
    rows = table(section("design.md", "How the code holds the laws"), "law")
    assert [law for law, _, _ in rows] == [
        f"{number}. {name.rstrip('.')}" for number, name, _ in LAWS
    ]
    assert all(codes(where) for _, _, where in rows)


def names_in(module_path):
    """Return the source of a module, for finding names in it."""
    return (ROOT / "trio_rpc" / module_path).read_text("utf-8")


def test_functions_named_in_the_design_exist_in_the_named_files():
    text = prose("design.md")
    for name, path in re.findall(r"`([\w.]+)` in `(session/\w+\.py)`", text):
        assert re.search(rf"(?:def|class) {name.rpartition('.')[2]}\b", names_in(path)), name
    everything = "".join(path.read_text("utf-8") for path in ROOT.glob("trio_rpc/**/*.py"))
    for name in re.findall(r"`(_\w+)`", text):
        assert name in everything, name
    for owner, name in re.findall(r"`([A-Z]\w+)\.(\w+)`", text):
        if owner != "Abort":
            assert f"class {owner}" in everything
            assert re.search(rf"def {name}\b|self\.{name}\b|\b{name}:", everything), name


def test_every_limit_is_listed_with_its_default():
    rows = table(section("guarantees.md", "Backpressure and limits"), "field")
    listed = [(codes(name)[0], default) for name, default, _ in rows]
    limits = trio_rpc.DEFAULT_LIMITS
    assert listed == [
        (field.name, str(getattr(limits, field.name))) for field in dataclasses.fields(limits)
    ]


def fates():
    rows = table(section("guarantees.md", "Errors, and whether to repeat"), "exception")
    return [(codes(row[0]), row[2]) for row in rows]


def test_every_error_is_listed():
    listed = {name for names, _ in fates() for name in names}
    bases = {"CallError", "ProtocolError", "RpcError"}
    raised = set(errors.__all__) - bases - {"Fate", "RemoteTraceback"}
    assert listed >= raised


def test_the_listed_fates_match_the_classes():
    for names, fate in fates():
        for name in names:
            cls = getattr(errors, name, None)
            if cls is not None and fate in {"NOT_STARTED", "STOPPED"} and name != "DecodeError":
                assert cls.fate is trio_rpc.errors.Fate[fate], name


def test_the_built_in_exceptions_are_listed():
    text = section("guarantees.md", "Errors, and whether to repeat")
    [listed] = re.findall(r"need no declaration: (.*?)\. ", text, re.DOTALL)
    assert codes(listed) == [cls.__name__ for cls in faults.BUILTINS.values()]


@pytest.mark.parametrize("folder", ["docs/how-to", "docs/reference"])
def test_an_index_links_to_each_page_of_its_folder(folder):
    index = f"{folder}/index.md"
    linked = set(re.findall(r"\]\(([\w-]+\.md)\)", prose(index)))
    assert linked == {path.name for path in (ROOT / folder).glob("*.md")} - {"index.md"}

"""Each sentence about the original designs is the docstring of an existing test that shows it."""

from __future__ import annotations

import ast
from collections import defaultdict

import pytest
from helpers.pages import ROOT, codes, read, table

from trio_rpc.tracing.events import STEPS

PAGE = "docs/original-designs.md"


def docstrings():
    """Return the docstrings of all tests by name, without line breaks."""
    found = defaultdict(list)
    for path in ROOT.glob("tests/**/test_*.py"):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found[node.name].append(" ".join((ast.get_docstring(node) or "").split()))
    return found


DOCSTRINGS = docstrings()
PARTS = [part for part in read(PAGE).split("\n## ") if "| the original |" in part]
ROWS = [row for part in PARTS for row in table(part, "the original")]


def test_the_page_has_the_designs():
    assert len(ROWS) > 100
    assert "original-designs.md" in read("docs/design.md")


@pytest.mark.parametrize(("sentence", "tests"), [(row[0], row[2]) for row in ROWS])
def test_each_sentence_is_the_docstring_of_a_test(sentence, tests):
    named = codes(tests)
    assert named
    assert set(named) <= set(DOCSTRINGS)
    assert any(sentence in text for name in named for text in DOCSTRINGS[name])


def test_the_steps_of_a_call_have_the_names_of_the_trace():
    [part] = [part for part in PARTS if part.startswith("Layered RPC: the steps of a call")]
    steps = [row[1] for row in table(part, "the original")][: len(STEPS)]
    assert steps == [f"step {number}: *{name}*" for number, name in STEPS.items()]


def test_each_sentence_is_there_once():
    sentences = [row[0] for row in ROWS]
    assert sorted(set(sentences)) == sorted(sentences)

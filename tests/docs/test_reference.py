"""The reference has all public names, and their docstrings describe all arguments and errors."""

from __future__ import annotations

import ast
import doctest
import inspect
import itertools
import pydoc
import re
import textwrap
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing
from helpers.pages import DOCS, blocks_of

import trio_rpc
import trio_rpc.channels
import trio_rpc.codecs
import trio_rpc.gateway
import trio_rpc.health
import trio_rpc.introspection
import trio_rpc.nats
import trio_rpc.otel
import trio_rpc.testing
import trio_rpc.tracing

PACKAGES = (
    trio_rpc,
    trio_rpc.channels,
    trio_rpc.codecs,
    trio_rpc.gateway,
    trio_rpc.health,
    trio_rpc.introspection,
    trio_rpc.otel,
    trio_rpc.nats,
    trio_rpc.testing,
    trio_rpc.tracing,
)
DIRECTIVE = re.compile(r"\.\. (currentmodule|auto\w+|py:\w+):: ([\w.]+)(\(\))?")


def documented():
    """Return the documented names, each with its value and whether users call it."""
    found = {}
    for page in sorted((DOCS / "reference").glob("*.md")):
        package = None
        for block in blocks_of(page):
            for kind, name, hidden in DIRECTIVE.findall(block.text):
                if kind == "currentmodule":
                    package = next(each for each in PACKAGES if each.__name__ == name)
                else:
                    full = f"{package.__name__}.{name}"
                    assert name in package.__all__, f"{page.name}: {full} is not public"
                    assert full not in found, f"{page.name}: {full} is documented twice"
                    found[full] = getattr(package, name), not hidden
    return found


DOCUMENTED = documented()


def members():
    """Yield (name, function, docstring) of each public function, constructor and method."""
    for name, (value, is_called) in DOCUMENTED.items():
        if not inspect.isclass(value):
            if inspect.isroutine(value):
                yield name, value, inspect.getdoc(value)
            continue
        if is_called and "__init__" in vars(value):
            yield name, value, inspect.getdoc(value)
        for key, member in vars(value).items():
            function = inspect.unwrap(getattr(member, "__func__", member))
            doc = inspect.getdoc(function) or ""
            is_public = not key.startswith("_") and ":meta private:" not in doc
            if inspect.isfunction(function) and is_public:
                yield f"{name}.{key}", getattr(value, key), doc


MEMBERS = {name: (function, doc) for name, function, doc in members()}
CLASSES = {name: value for name, (value, _) in DOCUMENTED.items() if inspect.isclass(value)}


def entries(doc, title):
    """Return the entries of a docstring's section, by name: ``{"url": "tcp://…"}``."""
    section = re.search(rf"^{title}:\n((?:[ ]+.*\n|\n)*)", doc + "\n", re.MULTILINE)
    text = textwrap.dedent(section[1]) if section else ""
    parts = re.split(r"^(?=[*\w])", text, flags=re.MULTILINE)
    named = [part.partition(":") for part in parts if part.strip()]
    return {
        name.strip(" *"): " ".join(meaning.split())
        for names, _, meaning in named
        for name in names.split(",")
    }


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_every_public_name_is_documented(package):
    values = [value for value, _ in DOCUMENTED.values()]
    missing = [
        name
        for name in package.__all__
        if f"{package.__name__}.{name}" not in DOCUMENTED
        and not any(getattr(package, name) is value for value in values)
    ]
    assert missing == ([] if package is not trio_rpc else ["__version__"])


@pytest.mark.parametrize("name", MEMBERS)
def test_every_argument_is_described(name):
    function, doc = MEMBERS[name]
    described = descriptions(function) if inspect.isclass(function) else entries(doc, "Args")
    wanted = [each for each in inspect.signature(function).parameters if each != "self"]
    assert [each for each in wanted if each not in described] == []
    assert list(entries(doc, "Args")) == [each for each in wanted if each in entries(doc, "Args")]


@pytest.mark.parametrize("name", CLASSES)
def test_every_field_is_described(name):
    cls = CLASSES[name]
    described = descriptions(trio_rpc.Options if cls is trio_rpc.SessionOptions else cls)
    public = [each for each in fields(cls) if not each.startswith("_")]
    assert [each for each in public if each not in described] == []


def descriptions(cls):
    """Return the descriptions of attributes and arguments of a class and its bases, by name."""
    found = {}
    for each in reversed([each for each in cls.__mro__ if each.__module__.startswith("trio_rpc")]):
        doc = inspect.getdoc(each) or ""
        found |= entries(doc, "Args") | entries(doc, "Attributes") | described_in_body(each)
    return found


def body_of(cls):
    [tree] = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    return tree.body


def fields(cls):
    """Return the names that the body of a class assigns or annotates."""
    for node in body_of(cls):
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        yield from (target.id for target in targets if isinstance(target, ast.Name))


def described_in_body(cls):
    """Return the fields of a class that have a string below them."""
    body = body_of(cls)
    names = list(fields(cls))
    found = {}
    for node, following in itertools.pairwise(body):
        target = getattr(node, "target", None) or getattr(node, "targets", [None])[0]
        if isinstance(target, ast.Name) and isinstance(following, ast.Expr):
            found[target.id] = ast.literal_eval(following.value)
    return {name: found[name] for name in names if name in found}


@pytest.mark.parametrize("name", MEMBERS)
def test_docstrings_name_the_unit_of_numbers(name):
    function, doc = MEMBERS[name]
    described = entries(doc, "Args") | entries(doc, "Attributes")
    for parameter in inspect.signature(function).parameters.values():
        if re.search(r"\bfloat\b", str(parameter.annotation)):
            text = described.get(parameter.name, "") + doc
            assert re.search(r"\bseconds?\b|\bbytes\b", text), parameter.name


@pytest.mark.parametrize("name", MEMBERS)
def test_docstrings_name_the_raised_exceptions(name):
    """Check the errors that the function's own body raises, not those of functions it calls."""
    function, doc = MEMBERS[name]
    if inspect.isclass(function):
        function = vars(function).get("__post_init__", function.__init__)
        if not hasattr(function, "__code__") or function.__code__.co_filename == "<string>":
            return  # generated by dataclass
    tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            raised = ast.unparse(node.exc.func)
            is_class = raised.rpartition(".")[2][0].isupper() and not raised.startswith("self.")
            assert not is_class or raised in doc, raised


def with_examples():
    """Yield (name, docstring, value) of everything documented."""
    for name, (value, _) in DOCUMENTED.items():
        if inspect.isclass(value) or inspect.isroutine(value):
            yield name, inspect.getdoc(value) or "", value
    yield from ((name, doc, function) for name, (function, doc) in MEMBERS.items())


EXAMPLES = {name: (doc, value) for name, doc, value in with_examples() if ">>>" in doc}


GIVEN = {
    "Any": Any,
    "AsyncGenerator": AsyncGenerator,
    "Awaitable": Awaitable,
    "Callable": Callable,
    "trio": trio,
    "trio_rpc": trio_rpc,
}
"""Names that examples may use without an import."""


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_in_docstrings_run(name):
    doc, value = EXAMPLES[name]
    example = doctest.DocTestParser().get_doctest(
        doc, dict(GIVEN), name, inspect.getsourcefile(value), inspect.getsourcelines(value)[1]
    )
    failures = []
    doctest.DocTestRunner(verbose=False).run(example, out=failures.append)
    assert failures == []


def test_there_are_examples():
    assert len(EXAMPLES) > 15


INVENTORIES = sorted((DOCS / "inventories").glob("*.txt"))


@pytest.mark.parametrize("path", INVENTORIES, ids=lambda path: path.stem)
def test_an_inventory_lists_names_that_exist(path):
    lines = path.read_text("utf-8").splitlines()
    names = [line.split()[0] for line in lines if not line.startswith("#")]
    assert names == sorted(names)
    assert [name for name in names if pydoc.locate(name) is None] == []


def test_the_site_reads_all_inventories():
    assert {path.name for path in INVENTORIES} == {"python.txt", "trio.txt"}
    conf = (DOCS / "conf.py").read_text("utf-8")
    assert all(f'"inventories/{path.name}"' in conf for path in INVENTORIES)

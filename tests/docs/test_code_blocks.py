"""The code in the pages runs, and names only options that exist.

Each block of Python is a program, and is run, unless the line above its fence says otherwise:

    <!-- continues -->              run after the block above it, in the same program
    <!-- file: examples/chat.py --> lines of this file, which has a test of its own
    <!-- not run: a fragment -->    only compiled; says why

If the next block of the page is of ``text``, the block prints exactly that. A failure names the
page and the line.
"""

from __future__ import annotations

import ast
import collections
import inspect
import itertools
import re
import shlex
import sys
import textwrap
import types

import pytest
from helpers.pages import PAGES, ROOT, blocks_of, found_in_prose

import trio_rpc
from trio_rpc import channels, gateway, testing

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
PYTHON = [block for block in BLOCKS if block.language == "python"]
NOTES = r"continues|file: \S+|not run: .+|"
SHELL = ("|", "&", "&&", ";", ">", "2>", "<")
TREE = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


def compiled(block, flags=0):
    """Compile a block so that each line has the number that it has on the page."""
    source = "\n" * (block.line - 1) + textwrap.dedent(block.text)
    return compile(source, block.page, "exec", flags, dont_inherit=True)


def programs():
    """Return the blocks that are run, as programs of one block or of several."""
    found = []
    for block in PYTHON:
        if block.note == "continues":
            assert found, f"{block.place} continues nothing"
            assert found[-1][0].page == block.page, f"{block.place} continues nothing"
            found[-1].append(block)
        elif not block.note.startswith(("file: ", "not run: ")):
            found.append([block])
    return found


def output_of(block):
    """Return the text that a page shows below a block, if it does."""
    following = BLOCKS[BLOCKS.index(block) + 1 :][:1]
    shown = following and following[0].page == block.page and following[0].language == "text"
    return following[0].text if shown else None


def test_there_is_something_to_look_at():
    assert len(PYTHON) > 10
    assert any(output_of(block) for block in PYTHON)


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_is_a_program_or_says_why_not(block):
    assert re.fullmatch(NOTES, block.note), f"{block.place}: what is {block.note!r}?"
    try:
        compiled(block, TREE)
    except SyntaxError as exc:
        pytest.fail(f"{block.page}:{exc.lineno}: {exc.msg}")


@pytest.mark.parametrize("program", programs(), ids=lambda program: program[0].place)
def test_python_runs_and_prints_what_the_page_shows(program, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    module = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    for block in program:
        exec(compiled(block), vars(module))  # noqa: S102 - our own pages
        printed = capsys.readouterr()
        assert printed.err == "", block.place
        assert output_of(block) in (None, printed.out), block.place


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_that_is_part_of_a_file_is_in_that_file(block):
    kind, _, path = block.note.partition(": ")
    if kind == "file":
        source = (ROOT / path).read_text("utf-8")
        indented = [textwrap.indent(block.text, " " * width) for width in (0, 4, 8)]
        assert any(text in source for text in indented), f"{block.place} is not in {path}"


def callables():
    """Yield (name, function) for all public functions, classes and methods."""
    for module in (trio_rpc, channels, gateway, testing):
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value):
                for key, member in inspect.getmembers(value, inspect.isfunction):
                    if not key.startswith("_"):
                        yield key, member
            if inspect.isfunction(value) or inspect.isclass(value):
                yield name, value


def keywords(function):
    """Return the names of a function's arguments, and whether it takes any others."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # a TypedDict
        return set(function.__annotations__), False
    names, takes_any = {each.name for each in parameters}, False
    for each in parameters:
        if each.kind is each.VAR_KEYWORD:
            takes_any = "SessionOptions" not in str(each.annotation)
            names |= set() if takes_any else keywords(trio_rpc.SessionOptions)[0]
    return names, takes_any


ACCEPTED = collections.defaultdict(list)
for _name, _function in callables():
    ACCEPTED[_name].append(keywords(_function))
OWNERS = dict(item for item in callables() if inspect.isclass(item[1]))
OWNERS["limits"] = trio_rpc.Limits
OPTIONS = {name for found in ACCEPTED.values() for names, _ in found for name in names}
OPTIONS_OF_OTHERS = {
    "exclude": "pydantic",
    "fold": "datetime",
    "mode": "pydantic",
    "resumable": "the address of a gateway's WebSocket",
    "strict": "pydantic",
    "tzinfo": "datetime",
}


def has_option(function, name):
    """Tell whether a function of this name has the option; "" stands for any public function."""
    if not function:
        return name in OPTIONS or name in OPTIONS_OF_OTHERS
    accepted = ACCEPTED.get(function, [(set(), True)])  # not one of ours
    return any(name in names or takes_any for names, takes_any in accepted)


def has_attribute(cls, name):
    return hasattr(cls, name) or f"    {name}: " in (cls.__doc__ or "")


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_gives_functions_only_options_that_they_have(block):
    tree = compiled(block, TREE)
    own = {getattr(node, "name", None) for node in ast.walk(tree)}
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func).rpartition(".")[2]
        for keyword in call.keywords if name not in own else ():
            assert keyword.arg is None or has_option(name, keyword.arg), (
                f"{block.page}:{call.lineno}: {name} has no option {keyword.arg!r}"
            )


@pytest.mark.parametrize("page", PAGES)
def test_options_that_the_text_names_exist(page):
    """``serve(resume=True)`` or ``resume=`` is an option, ``Limits.max_calls`` is a field."""
    for place, code in found_in_prose(page, r"`([^`\n]+)`"):
        function = re.match(r"([\w.]+)\(", code[1])
        called = function[1].rpartition(".")[2] if function else ""
        for name in re.findall(r"(?<![-\w.$?&])(\w+)=(?!=)", code[1]):
            assert has_option(called, name), f"{place}: no function has the option {name!r}"
        for owner, name in re.findall(r"\b([A-Z]\w+|limits)\.(?!py\b)(\w+)", code[1]):
            cls = OWNERS.get(owner)
            assert cls is None or has_attribute(cls, name), f"{place}: {owner} has no {name!r}"


def commands(page):
    """Yield ("page:line", words) of each command of ours in the page's blocks."""
    for block in blocks_of(page):
        if block.language not in ("bash", "console", "sh"):
            continue
        for number, line in enumerate(block.text.splitlines(), start=block.line):
            if block.language == "console" and not line.startswith("$ "):
                continue  # what a command prints
            words = shlex.split(line, comments=True)
            for index, word in enumerate(words):
                if word.rpartition("/")[2] == "trio-rpc":
                    rest = itertools.takewhile(lambda each: each not in SHELL, words[index + 1 :])
                    yield f"{page}:{number}", list(rest)


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_blocks_are_accepted_by_the_command_line(page):
    for place, words in commands(page):
        try:
            app().parse_args(words, exit_on_error=False, print_error=False)
        except Exception as exc:  # noqa: BLE001 - cyclopts has several
            pytest.fail(f"{place}: {exc}")


@pytest.mark.parametrize("page", PAGES)
def test_commands_that_the_text_names_exist(page):
    for place, code in found_in_prose(page, r"`trio-rpc (\w+)([^`]*)`"):
        command = app()[code[1]]
        names = {name for each in command.assemble_argument_collection() for name in each.names}
        for option in re.findall(r"(?<!\S)--[\w-]+", code[2]):
            assert option in names, f"{place}: trio-rpc {code[1]} has no {option}"


def app():
    return pytest.importorskip("trio_rpc.cli.app", reason="the extra cli is not installed").app

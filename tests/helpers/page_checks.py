"""Checks of a page. Each check yields one line for each fault: ``page:line: text``.

Blocks of Python are run as programs. A comment in the line above the fence changes that:

    <!-- continues -->              run after the block above it, in the same program
    <!-- file: examples/chat.py --> lines of this file, which another test runs
    <!-- not run: a fragment -->    only compiled, for the reason that is given
"""

from __future__ import annotations

import ast
import collections
import inspect
import itertools
import re
import shlex
import textwrap

import trio_rpc
from helpers.pages import ROOT, blocks_of, found_in_prose, prose
from trio_rpc import channels, gateway, nats, testing

NOTES = r"continues|file: \S+|not run: .+|"
SHELL = ("|", "&", "&&", ";", ">", "2>", "<")
TREE = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


# ── blocks of Python ─────────────────────────────────────────────────────────────────────────────


def python_blocks(page):
    """Return the blocks of Python of a page."""
    return [block for block in blocks_of(page) if block.language == "python"]


def compiled(block, flags=0):
    """Compile a block so that each line has the number that it has on the page."""
    source = "\n" * (block.line - 1) + textwrap.dedent(block.text)
    return compile(source, block.page, "exec", flags, dont_inherit=True)


def programs(page):
    """Return the blocks of a page that are run, as programs of one block or of several."""
    found = []
    for block in python_blocks(page):
        if block.note == "continues" and found:
            found[-1].append(block)
        elif not block.note.startswith(("file: ", "not run: ")):
            found.append([block])
    return found


def output_of(block):
    """Return the text block that follows a block on its page, or None."""
    following = [each for each in blocks_of(block.page) if each.line > block.line][:1]
    return following[0].text if following and following[0].language == "text" else None


def bad_blocks(page):
    """Yield the faults of blocks of Python that can be found without running them."""
    first = True
    for block in python_blocks(page):
        kind, _, path = block.note.partition(": ")
        if not re.fullmatch(NOTES, block.note) or (kind == "continues" and first):
            yield f"{block.place}: {block.note!r} is not a known comment here"
        if kind == "file" and not _is_in(block.text, ROOT / path):
            yield f"{block.place}: this is not in {path}"
        try:
            compiled(block, TREE)
        except SyntaxError as exc:
            yield f"{block.page}:{exc.lineno}: {exc.msg}"
        first = False


def _is_in(text, path):
    if not path.exists():
        return False
    source = path.read_text("utf-8")
    return any(textwrap.indent(text, " " * width) in source for width in (0, 4, 8))


# ── options ──────────────────────────────────────────────────────────────────────────────────────


def _callables():
    """Yield (name, function) for all public functions, classes and methods."""
    for module in (trio_rpc, channels, gateway, nats, testing):
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value):
                for key, member in inspect.getmembers(value, inspect.isfunction):
                    if not key.startswith("_"):
                        yield key, member
            if inspect.isfunction(value) or inspect.isclass(value):
                yield name, value


def _keywords(function):
    """Return the names of a function's arguments, and whether it takes any others."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # a TypedDict
        return set(function.__annotations__), False
    names, takes_any = {each.name for each in parameters}, False
    for each in parameters:
        if each.kind is each.VAR_KEYWORD:
            takes_any = "SessionOptions" not in str(each.annotation)
            names |= set() if takes_any else _keywords(trio_rpc.SessionOptions)[0]
    return names, takes_any


ACCEPTED = collections.defaultdict(list)
for _name, _function in _callables():
    ACCEPTED[_name].append(_keywords(_function))
OWNERS = dict(item for item in _callables() if inspect.isclass(item[1]))
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


def _has_option(function, name):
    """Tell whether a function of this name has the option. "" stands for any public function."""
    if not function:
        return name in OPTIONS or name in OPTIONS_OF_OTHERS
    accepted = ACCEPTED.get(function, [(set(), True)])  # a function of another library
    return any(name in names or takes_any for names, takes_any in accepted)


def _has_attribute(cls, name):
    return hasattr(cls, name) or f"    {name}: " in (cls.__doc__ or "")


def unknown_options(page):
    """Yield the options and fields that a page names and that do not exist.

    In prose, ``serve(resume=True)`` and ``resume=`` name an option, ``Limits.max_calls`` a field.
    """
    for block in python_blocks(page):
        yield from _unknown_keywords(block)
    for place, code in found_in_prose(page, r"`([^`\n]+)`"):
        function = re.match(r"([\w.]+)\(", code[1])
        called = function[1].rpartition(".")[2] if function else ""
        for name in re.findall(r"(?<![-\w.$?&])(\w+)=(?!=)", code[1]):
            is_environment_variable = name.isupper()
            if not is_environment_variable and not _has_option(called, name):
                yield f"{place}: no function has the option {name!r}"
        for owner, name in re.findall(r"\b([A-Z]\w+|limits)\.(?!py\b)(\w+)", code[1]):
            if owner in OWNERS and not _has_attribute(OWNERS[owner], name):
                yield f"{place}: {owner} has no {name!r}"


def _unknown_keywords(block):
    try:
        tree = compiled(block, TREE)
    except SyntaxError:  # bad_blocks reports it
        return
    own = {getattr(node, "name", None) for node in ast.walk(tree)}
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func).rpartition(".")[2]
        for keyword in call.keywords if name not in own else ():
            if keyword.arg is not None and not _has_option(name, keyword.arg):
                yield f"{block.page}:{call.lineno}: {name} has no option {keyword.arg!r}"


# ── commands ─────────────────────────────────────────────────────────────────────────────────────


def bad_commands(page, app):
    """Yield the `trio-rpc` commands that the command line does not accept.

    Args:
        page: the page.
        app: the command line.
    """
    for place, words in _typed(page):
        try:
            app.parse_args(words, exit_on_error=False, print_error=False)
        except Exception as exc:  # noqa: BLE001 - cyclopts has several
            yield f"{place}: {exc}"
    for place, code in found_in_prose(page, r"`trio-rpc (\w+)([^`]*)`"):
        if code[1] not in list(app):
            yield f"{place}: there is no command {code[1]!r}"
            continue
        arguments = app[code[1]].assemble_argument_collection()
        names = {name for each in arguments for name in each.names}
        for option in re.findall(r"(?<!\S)--[\w-]+", code[2]):
            if option not in names:
                yield f"{place}: trio-rpc {code[1]} has no option {option}"


def _typed(page):
    """Yield ("page:line", words) for each `trio-rpc` command in the page's blocks."""
    for block in blocks_of(page):
        if block.language not in ("bash", "console", "sh"):
            continue
        for number, line in enumerate(block.text.splitlines(), start=block.line):
            if block.language == "console" and not line.startswith("$ "):
                continue  # output of a command
            words = shlex.split(line, comments=True)
            for index, word in enumerate(words):
                if word.rpartition("/")[2] == "trio-rpc":
                    rest = itertools.takewhile(lambda each: each not in SHELL, words[index + 1 :])
                    yield f"{page}:{number}", list(rest)


# ── links ────────────────────────────────────────────────────────────────────────────────────────


def dead_links(page):
    """Yield the links of a page whose file or heading does not exist."""
    for place, found in found_in_prose(page, r"""(?:\]\(|(?:href|src|srcset)=")([^)\s"]+)"""):
        path, _, anchor = found[1].partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        is_name = anchor.startswith("trio_rpc.")  # in the reference: Sphinx checks it
        there = target.exists() and (not anchor or is_name or anchor in _anchors(target))
        if "://" not in path and not there:
            yield f"{place}: the target of {found[1]} does not exist"


def _anchors(path):
    """Return the anchors of a page's headings, as GitHub and Sphinx make them."""
    found = re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in found}

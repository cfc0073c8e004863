"""The code in the pages runs, and the pages name only options, commands and links that exist.

tests/helpers/page_checks.py has the checks, and the comments that keep a block from being run. A
block of Python must print exactly the block of ``text`` that follows it, if there is one.
"""

from __future__ import annotations

import sys
import traceback
import types

import pytest
from helpers import page_checks
from helpers.pages import PAGES, ROOT

PROGRAMS = [program for page in PAGES for program in page_checks.programs(page)]


def run(program, monkeypatch, capsys):
    """Run the blocks of a program, and check that each prints the text on the page."""
    monkeypatch.chdir(ROOT)
    module = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    for block in program:
        exec(page_checks.compiled(block), vars(module))  # noqa: S102 - our own pages
        printed = capsys.readouterr()
        assert printed.err == "", block.place
        assert page_checks.output_of(block) in (None, printed.out), block.place


@pytest.fixture
def app():
    return pytest.importorskip("trio_rpc.cli.app", reason="the extra cli is not installed").app


def test_the_code_blocks_are_found():
    assert PROGRAMS


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program[0].place)
def test_python_runs_and_prints_the_output_on_the_page(program, monkeypatch, capsys):
    run(program, monkeypatch, capsys)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("check", ["bad_blocks", "unknown_options", "dead_links"])
def test_pages_pass_each_check(page, check):
    assert list(getattr(page_checks, check)(page)) == []


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_accepted_by_the_command_line(page, app):
    assert list(page_checks.bad_commands(page, app)) == []


BAD = """\
# Bad

`connect(resumee=True)`, `resumee=`, `Limits.max_foo`, [x](nowhere.md), [y](#nowhere),
`trio-rpc serve --lissten x` and `trio-rpc frob`

<!-- not run: a fragment -->
```python
async with trio_rpc.connect("x", resumee=True):
    pass
```

```python
def broken(:
```

<!-- sometimes -->
```python
```

<!-- file: examples/chat.py -->
```python
print("this is not there")
```

```console
$ trio-rpc ping tcp://x --nope 1
```

```python
print("hello")
```

```text
goodbye
```

```python
raise ValueError
```
"""


@pytest.fixture
def bad_page(tmp_path):
    path = tmp_path / "bad.md"
    path.write_text(BAD)
    return str(path)


@pytest.mark.parametrize(
    ("check", "faults"),
    [
        (
            "bad_blocks",
            [
                "13: invalid syntax",
                "18: 'sometimes' is not a known comment here",
                "22: this is not in examples/chat.py",
            ],
        ),
        (
            "unknown_options",
            [
                "8: connect has no option 'resumee'",
                "3: no function has the option 'resumee'",
                "3: no function has the option 'resumee'",
                "3: Limits has no 'max_foo'",
            ],
        ),
        (
            "dead_links",
            [
                "3: the target of nowhere.md does not exist",
                "3: the target of #nowhere does not exist",
            ],
        ),
    ],
)
def test_a_fault_is_reported_with_page_and_line(bad_page, check, faults):
    found = list(getattr(page_checks, check)(bad_page))
    assert found == [f"{bad_page}:{fault}" for fault in faults]


def test_a_bad_command_is_reported_with_page_and_line(bad_page, app):
    found = list(page_checks.bad_commands(bad_page, app))
    assert [fault.removeprefix(bad_page) for fault in found] == [
        ":26: Unknown option: --nope.",
        ":4: trio-rpc serve has no option --lissten",
        ":4: there is no command 'frob'",
    ]


def test_a_block_that_fails_or_prints_something_else_is_reported(bad_page, monkeypatch, capsys):
    programs = {program[0].line: program for program in page_checks.programs(bad_page)}
    with pytest.raises(AssertionError, match=rf"^{bad_page}:30"):
        run(programs[30], monkeypatch, capsys)
    with pytest.raises(ValueError) as caught:
        run(programs[38], monkeypatch, capsys)
    last = traceback.extract_tb(caught.tb)[-1]
    assert (last.filename, last.lineno) == (bad_page, 38)

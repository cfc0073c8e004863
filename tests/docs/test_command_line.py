"""The help of each command has two valid examples, and the page matches the help texts."""

from __future__ import annotations

import shlex

import make_command_line
import pytest

from trio_rpc.cli import main
from trio_rpc.cli.app import app
from trio_rpc.cli.examples import EXAMPLES

COMMANDS = {name for name in app if not name.startswith("-")}
TYPED = [typed for examples in EXAMPLES.values() for _, typed in examples]


def test_every_command_has_two_examples():
    assert EXAMPLES.keys() == COMMANDS | {""}
    for name, examples in EXAMPLES.items():
        assert len(examples) == 2
        if name:
            assert all(
                typed.startswith(f"trio-rpc {name} ") or name == "demo" for _, typed in examples
            )


@pytest.mark.parametrize("typed", TYPED)
def test_an_example_is_accepted(typed):
    program, *words = shlex.split(typed)
    assert program == "trio-rpc"
    app.parse_args(words, exit_on_error=False, print_error=False)


@pytest.mark.parametrize("name", EXAMPLES)
def test_help_shows_the_examples_in_80_columns(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*name.split(), "--help"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    for what, typed in EXAMPLES[name]:
        assert f"# {what}" in lines
        assert f"$ {typed}" in lines


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_argument_has_a_description(name):
    for argument in make_command_line.arguments_of(app[name]):
        assert argument.parameter.help, argument.name


def test_the_page_matches_the_help_texts():
    page = make_command_line.PAGE.read_text("utf-8")
    assert page == make_command_line.document(), "run tests/docs/make_command_line.py"

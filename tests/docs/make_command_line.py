"""Write docs/reference/command-line.md. Run it when the help of a command has changed:

``uv run python tests/docs/make_command_line.py``
"""

from __future__ import annotations

import inspect
from pathlib import Path

from trio_rpc.cli.app import app
from trio_rpc.cli.examples import EXAMPLES
from trio_rpc.cli.exits import Exit

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "command-line.md"

INTRODUCTION = """\
# Command line

<!-- Written by tests/docs/make_command_line.py from the help texts of the program. -->

In a clone, `pip install '.[cli]'` adds the command `trio-rpc`. `python -m trio_rpc` is the same.
Errors are one line on standard error. Control characters in texts from the peer are escaped.
"""

NO_DEFAULTS = (None, False, inspect.Parameter.empty)

MEANINGS = {
    Exit.OK: "done",
    Exit.FAILED: "the call failed: the handler raised, there is no such method, it took too long",
    Exit.USAGE: "bad usage: arguments, a URL, JSON, `module:object`",
    Exit.UNREACHABLE: "no session: no server, refused, lost, or the address is in use",
    Exit.INTERRUPTED: "interrupted; `serve` ends with 128 and the number of a second signal",
}


def document():
    """Return the text of the page."""
    commands = [section(name) for name in EXAMPLES if name]
    codes = [f"| {code.value} | {MEANINGS[code]} |" for code in Exit]
    exits = ["## Exit codes", "", "| code | meaning |", "|---|---|", *codes, ""]
    return "\n".join([INTRODUCTION, *commands, *exits])


def section(name):
    """Return the section of one command."""
    command = app[name]
    about = inspect.getdoc(command.default_command).partition("\nArgs:")[0].strip()
    rows = [row(argument) for argument in arguments_of(command)]
    examples = [line for what, typed in EXAMPLES[name] for line in (f"# {what}", f"$ {typed}")]
    return "\n".join(
        [
            f"## trio-rpc {name}",
            "",
            about,
            "",
            "| argument | meaning |",
            "|---|---|",
            *rows,
            "",
            "```console",
            *examples,
            "```",
            "",
        ]
    )


def arguments_of(command):
    """Return the arguments and options of a command, without the groups of options."""
    found = command.assemble_argument_collection(parse_docstring=True)
    return [argument for argument in found if not argument.children]


def row(argument):
    """Return the row of one argument or option."""
    parameter, info = argument.parameter, argument.field_info
    meaning = " ".join(parameter.help.split())
    choices = getattr(argument.hint, "__args__", ()) if "Literal" in str(argument.hint) else ()
    if choices:
        meaning += f" One of {', '.join(choices)}."
    if parameter.env_var:
        meaning += f" Also from the environment variable {parameter.env_var[0]}."
    if info.required:
        meaning += " Required."
    elif parameter.show_default is not False and info.default not in NO_DEFAULTS:
        meaning += f" Default: {info.default}."
    return f"| `{argument.name}` | {meaning} |"


if __name__ == "__main__":
    PAGE.write_text(document(), encoding="utf-8")

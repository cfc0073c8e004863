"""The output of a command: results on standard output, errors on standard error."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

from trio_rpc.cli.exits import CommandError
from trio_rpc.cli.streams import complaining, writing
from trio_rpc.cli.terminal import script_json

__all__ = ["Output", "complain"]


class _Console(Console):
    """A console whose caller handles a closed pipe."""

    def on_broken_pipe(self) -> None:
        """Raise the exception again, instead of ending the process."""
        raise  # noqa: PLE0704 - it is called where the exception is handled


class Output:
    """Writes the output of a command.

    Args:
        as_json: write JSON only, one object a line, for scripts.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.console = _Console(highlight=False, markup=False, emoji=False)

    @property
    def is_terminal(self) -> bool:
        """Whether standard output is a terminal and JSON was not requested."""
        return self.console.is_terminal and not self.as_json

    def line(self, text: str | Text = "", style: str = "") -> None:
        """Write one line for people, without wrapping it."""
        whole = text if isinstance(text, Text) else Text(text, style=style)
        with writing():
            self.console.print(whole, soft_wrap=True)

    def show(self, view: RenderableType) -> None:
        """Write a renderable of several lines for people, and nothing for scripts."""
        if self.as_json:
            return
        with writing():
            if self.console.is_terminal:
                self.console.print(view)
                return
            with self.console.capture() as captured:
                self.console.print(view)
        for line in captured.get().splitlines():
            self.line(line.rstrip())

    def json(self, value: Any) -> None:
        """Write a value as one line of JSON, and flush it."""
        self.text(script_json(value))

    def text(self, text: str) -> None:
        """Write a text as it is, such as one line of JSON, and flush it."""
        with writing():
            sys.stdout.write(text + "\n")
            sys.stdout.flush()


def complain(error: CommandError, *, as_json: bool) -> None:
    """Write why the command failed, as one line on standard error; nothing without a text."""
    if not str(error):
        return
    with complaining():
        if as_json:
            report = {"error": {"text": str(error), "exit": int(error.code), **error.details}}
            sys.stderr.write(script_json(report) + "\n")
        else:
            _Console(stderr=True, highlight=False, soft_wrap=True).print(
                Text.assemble(("trio-rpc: ", "bold red"), str(error))
            )

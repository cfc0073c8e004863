"""The arguments of a call: JSON from the command line, a file or standard input; and callbacks."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import trio
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from trio_rpc.cli.connecting import parse_json
from trio_rpc.cli.exits import OutputFailed, Usage
from trio_rpc.cli.output import Output
from trio_rpc.cli.terminal import safe, script_json

__all__ = ["Callbacks", "parse_arguments"]

FILE = "@"
STANDARD_INPUT = "@-"
"""The app's word for a lone ``-``, which would look like an option."""


def parse_arguments(text: str) -> tuple[list[Any], dict[str, Any]]:
    """Read the arguments of a call. Raises Usage.

    Args:
        text: JSON, a list of positional arguments or an object of named ones; or ``@file``, or
            ``-`` for standard input, which contain such JSON.
    """
    what = "the arguments"
    if text == STANDARD_INPUT:
        text, what = _standard_input(), "standard input"
    elif text.startswith(FILE):
        text, what = _file(text.removeprefix(FILE)), safe(text.removeprefix(FILE), 100)
    if not text.strip():
        raise Usage(f"{what} must be JSON, a list or an object, not empty")
    try:
        arguments = parse_json(text, what)
    except Usage as exc:
        if text[0] in '[{"' or text.lstrip() != text:
            raise
        raise Usage(f"{exc}: did you mean '[{safe(json.dumps(text), 60)}]'?") from exc
    if isinstance(arguments, list):
        return arguments, {}
    if isinstance(arguments, dict):
        return [], arguments
    raise Usage(
        f"{what} must be a JSON list (by position) or object (by name),"
        f" not {safe(text, 60)}: did you mean '[{safe(text, 60)}]'?"
    )


def _standard_input() -> str:
    try:
        return sys.stdin.read()
    except (OSError, UnicodeDecodeError) as exc:
        raise Usage(f"standard input cannot be read: {safe(exc)}") from exc


def _file(name: str) -> str:
    if not name:
        raise Usage("@ requires the name of a file with the arguments, such as @arguments.json")
    try:
        return Path(name).read_text("utf-8")
    except OSError as exc:
        raise Usage(f"@{safe(name, 100)}: {safe(exc.strerror or exc)}") from exc
    except UnicodeDecodeError as exc:
        raise Usage(f"@{safe(name, 100)} is not UTF-8 text") from exc


class Callbacks:
    """Functions that are passed as arguments, and print their own arguments.

    A number from 0 to 1 moves a progress bar, if standard output is a terminal.

    Args:
        names: the parameters that get a function each.
        output: prints.
    """

    def __init__(self, names: Sequence[str], output: Output) -> None:
        self._names = names
        self._output = output
        self._bars: dict[str, TaskID] = {}
        self._scope = trio.CancelScope()
        self._failure: OutputFailed | None = None
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            console=output.console,
            disable=not output.is_terminal,
        )

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Show the bars in this block. If output fails, cancel it, and raise OutputFailed."""
        with self._scope, self._progress:
            yield
        if self._failure is not None:
            raise self._failure

    def added_to(self, named: dict[str, Any]) -> dict[str, Any]:
        """Return the named arguments of a call with the functions. Raises Usage."""
        for name in self._names:
            if name in named:
                raise Usage(f"--callback {safe(name, 60)} is already among the arguments")
        return {**named, **{name: self._function(name) for name in self._names}}

    def _function(self, name: str) -> Any:
        async def print_arguments(*args: Any, **kwargs: Any) -> None:
            try:
                self._print(name, args, kwargs)
            except OutputFailed as exc:  # an error of this command, not one for the handler
                self._failure = exc
                self._scope.cancel(reason="standard output cannot be written")

        return print_arguments

    def _print(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._output.as_json:
            self._output.json({"callback": name, "args": args, "kwargs": kwargs})
        elif self._output.is_terminal and not kwargs and _is_share(args):
            self._advance(name, args[0])
        else:
            shown = [_short(value) for value in args]
            shown += [f"{safe(key, 60)}={_short(value)}" for key, value in kwargs.items()]
            self._output.line(f"{safe(name, 60)}({', '.join(shown)})", "cyan")

    def _advance(self, name: str, share: float) -> None:
        if name not in self._bars:
            self._bars[name] = self._progress.add_task(safe(name, 60), total=1.0)
        self._progress.update(self._bars[name], completed=share)


def _is_share(args: tuple[Any, ...]) -> bool:
    if len(args) != 1 or isinstance(args[0], bool) or not isinstance(args[0], int | float):
        return False
    return 0 <= args[0] <= 1


def _short(value: Any) -> str:
    try:
        return safe(script_json(value), 200)
    except ValueError:
        return safe(value, 200)

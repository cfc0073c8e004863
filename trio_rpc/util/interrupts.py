"""Ctrl-C while the command line is loaded: exit code 130, and no traceback.

Loading takes most of the time of a short command, and ``trio_rpc/__init__.py`` runs before the
command line can guard anything. So that module calls :func:`exit_on_interrupt` first. Programs that
import the package are left alone.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import PurePath
from types import FrameType

__all__ = ["INTERRUPTED", "exit_on_interrupt", "interrupts_raised"]

INTERRUPTED = 130
"""The exit code after Ctrl-C, by the convention of shells."""

SCRIPT = "trio-rpc"
"""The name of the console script."""

MODULE_OPTION = re.compile("-[bBdEiIOPqRsSuv]*m(.*)")
"""-m, with other options before it in the same argument, and perhaps the module after it."""


def exit_on_interrupt() -> None:
    """Make Ctrl-C end this process at once, if it is the command line.

    Nothing changes if Ctrl-C does not raise KeyboardInterrupt.
    """
    # A process that ignores Ctrl-C, under nohup for instance, goes on ignoring it.
    if (
        _is_command_line()
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ):
        signal.signal(signal.SIGINT, _exit)


@contextlib.contextmanager
def interrupts_raised() -> Iterator[None]:
    """Make Ctrl-C raise KeyboardInterrupt in this block; undo :func:`exit_on_interrupt`."""
    is_changed = signal.getsignal(signal.SIGINT) is _exit
    if is_changed:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        if is_changed:
            signal.signal(signal.SIGINT, _exit)


def _exit(_number: int, _frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)


def _is_command_line() -> bool:
    program = sys.argv[0] if sys.argv else ""
    # Python sets it to the module's path only after the package has been loaded.
    return _module_to_run() == "trio_rpc" if program == "-m" else PurePath(program).stem == SCRIPT


def _module_to_run() -> str:
    """Return the argument of -m on the command line of Python itself."""
    rest = iter(sys.orig_argv[1:])
    for argument in rest:
        if found := MODULE_OPTION.fullmatch(argument):
            return found[1] or next(rest, "")
    return ""

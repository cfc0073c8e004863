"""Standard streams that are missing, full, or read by nobody any more."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator

from trio_rpc.cli.exits import OutputFailed

__all__ = ["complaining", "open_missing", "writing"]


def open_missing() -> None:
    """Open what is missing of standard input, output and error, on nothing.

    The descriptors first: otherwise the next socket would be standard output.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            nothing = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            os.set_inheritable(nothing, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Write to standard output. Raises OutputFailed if that cannot be done; nothing is tried again at exit."""
    try:
        yield
    except OSError as exc:
        _give_up(1)
        if exc.errno == errno.EPIPE:
            raise OutputFailed("") from exc
        text = f"cannot write to standard output: {exc.strerror or exc}"
        raise OutputFailed(text) from exc


@contextlib.contextmanager
def complaining() -> Iterator[None]:
    """Write to standard error; if that cannot be done, nobody can be told."""
    try:
        yield
        sys.stderr.flush()
    except OSError:
        _give_up(2)


def _give_up(number: int) -> None:
    """Send what is still buffered for a stream nowhere: it would fail again, with a traceback, at exit."""
    with contextlib.suppress(OSError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, number)
        os.close(nothing)

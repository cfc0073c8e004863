"""Standard streams that are missing, full, or closed by their reader."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
from collections.abc import Iterator

from trio_rpc.cli.exits import OutputFailed

__all__ = ["complaining", "open_missing", "without_log", "writing"]


def open_missing() -> None:
    """Open missing standard streams on the null device.

    The descriptors come first: otherwise the next socket would become standard output.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            nothing = os.open(os.devnull, os.O_RDWR)  # it gets the lowest free number: this one
            os.set_inheritable(nothing, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Write to standard output. Raises OutputFailed on failure; nothing is retried at exit."""
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
    """Write to standard error. A failure is ignored, since it cannot be reported."""
    try:
        yield
        sys.stderr.flush()
    except OSError:
        _give_up(2)


@contextlib.contextmanager
def without_log() -> Iterator[None]:
    """Keep the library's log off standard error in this block, unless ``serve`` writes it there.

    Without any handler, Python writes warnings there, beside the one line for the same failure.
    """
    handler = logging.NullHandler()
    log = logging.getLogger("trio_rpc")
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


def _give_up(number: int) -> None:
    """Discard a stream's buffered output, which would fail again at exit, with a traceback."""
    with contextlib.suppress(OSError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, number)
        os.close(nothing)

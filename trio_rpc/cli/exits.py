"""Exit codes, and the one line (or one JSON object) that says why a command failed."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from trio_rpc.cli.terminal import safe
from trio_rpc.errors import RemoteTraceback, RpcError
from trio_rpc.util.extras import needs_extra
from trio_rpc.util.interrupts import INTERRUPTED

__all__ = [
    "GRACE",
    "CallFailed",
    "CommandError",
    "Exit",
    "OutputFailed",
    "Unreachable",
    "Usage",
    "describe_error",
    "error_line",
    "importing",
    "naming_url",
]

SHOWN_LEAVES = 5

GRACE = 2.0
"""Seconds that a cancelled call waits for the end of its handler."""


class Exit(enum.IntEnum):
    """The exit codes of every command."""

    OK = 0
    FAILED = 1
    """The call failed: the handler raised, the method does not exist, the call timed out …"""
    USAGE = 2
    """The command line is invalid: arguments, a URL, JSON, ``module:object``."""
    UNREACHABLE = 3
    """No session: unreachable, refused or lost; or it is impossible to listen at an address."""
    INTERRUPTED = INTERRUPTED
    """Ctrl-C."""


class CommandError(Exception):
    """Ends the command with one line of text.

    Attributes:
        code: the exit code.
        details: the entries that ``--json`` prints in addition to the text.
    """

    code = Exit.FAILED

    def __init__(self, text: str, details: Mapping[str, Any] = MappingProxyType({})) -> None:
        super().__init__(text)
        self.details = details


class CallFailed(CommandError):
    """The call reached the server and failed."""


class Usage(CommandError):
    """The command line is invalid."""

    code = Exit.USAGE


class Unreachable(CommandError):
    """The session was not opened, or was lost."""

    code = Exit.UNREACHABLE


class OutputFailed(CommandError):
    """Standard output cannot be written. The text is empty if its reader has closed the pipe."""


@contextlib.contextmanager
def importing(what: str, extra: str) -> Iterator[None]:
    """Raise Usage that says how to install an extra, if the block imports a part that is missing.

    Args:
        what: the part of the command line that needs it.
        extra: the name of the extra.
    """
    try:
        yield
    except ModuleNotFoundError as exc:
        text = needs_extra(what, extra, exc)
        if text is None:
            raise
        raise Usage(text) from exc


def naming_url(url: str, exc: Exception) -> str:
    """Return the text of an error in connecting, after the URL unless the text names it."""
    text = safe(exc)
    return text if url in text else f"{safe(url)}: {text}"


def describe_error(exc: BaseException) -> dict[str, Any]:
    """Describe an exception of a call: type, message and fate (law 15)."""
    name = getattr(exc, "type_name", None) or type(exc).__name__
    described: dict[str, Any] = {
        "type": name,
        "message": getattr(exc, "message", None) or str(exc),
    }
    if isinstance(exc, RpcError):
        described["fate"] = exc.fate.value
    notes = getattr(exc, "__notes__", ()) or getattr(exc, "notes", ())
    if notes:
        described["notes"] = list(notes)
    if isinstance(exc.__cause__, RemoteTraceback):
        described["traceback"] = exc.__cause__.text
    if isinstance(exc, BaseExceptionGroup):
        described["errors"] = [describe_error(each) for each in exc.exceptions]
    return described


def error_line(exc: BaseException) -> str:
    """Describe an exception of a call in one line."""
    if isinstance(exc, BaseExceptionGroup):
        leaves = list(_leaves(exc))
        shown = "; ".join(_named(leaf) for leaf in leaves[:SHOWN_LEAVES])
        more = f"; and {len(leaves) - SHOWN_LEAVES} more" if len(leaves) > SHOWN_LEAVES else ""
        return f"{safe(exc.message)} ({shown}{more})"
    return _named(exc)


def _named(exc: BaseException) -> str:
    described = describe_error(exc)
    message = safe(described["message"])
    return f"{safe(described['type'], 100)}: {message}" if message else safe(described["type"], 100)


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for exc in group.exceptions:
        if isinstance(exc, BaseExceptionGroup):
            yield from _leaves(exc)
        else:
            yield exc

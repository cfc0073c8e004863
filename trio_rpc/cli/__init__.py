"""The command line: ``trio-rpc``, or ``python -m trio_rpc``.

It needs the extra ``cli``. Exit codes are the same for all commands; see
:class:`trio_rpc.cli.exits.Exit`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from trio_rpc.cli.exits import Exit
from trio_rpc.cli.streams import complaining, open_missing
from trio_rpc.util.extras import needs_extra
from trio_rpc.util.interrupts import interrupts_raised

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, and return the exit code of the process.

    Args:
        arguments: the words after the program's name; by default those of this process.
    """
    open_missing()
    try:
        from trio_rpc.cli.app import run  # noqa: PLC0415 - needs the extra
    except ModuleNotFoundError as exc:
        text = needs_extra("the command line", "cli", exc)
        if text is None:
            raise
        with complaining():
            sys.stderr.write(f"trio-rpc: {text}\n")
        return 2
    except KeyboardInterrupt:  # loading takes most of the time of a short command
        return Exit.INTERRUPTED
    try:
        with interrupts_raised():
            return run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:  # between two steps of the guard
        return Exit.INTERRUPTED

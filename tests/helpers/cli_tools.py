"""Commands as child processes, bounded in time and never left behind."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import trio

COMMAND = (sys.executable, "-W", "error", "-m", "trio_rpc")
ROOT = Path(__file__).parents[2]
PATIENCE = 120


async def run_cli(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[bytes]:
    """Run one command to its end, without standard input."""
    with trio.fail_after(PATIENCE):
        return await trio.run_process(
            [*COMMAND, *arguments],
            cwd=cwd,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )


class Running:
    """A running command, and its output that has not been read yet."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._printed = b""

    async def line(self) -> str:
        """Return the next line of its standard output, or "" at the end."""
        assert self.process.stdout is not None
        while b"\n" not in self._printed:
            more = await self.process.stdout.receive_some()
            if not more:
                break
            self._printed += more
        line, _, self._printed = self._printed.partition(b"\n")
        return line.decode()

    async def event(self) -> dict[str, Any]:
        """Return the next line, decoded as JSON."""
        return json.loads(await self.line())


@contextlib.asynccontextmanager
async def running_cli(*arguments: str, cwd: Path = ROOT) -> AsyncIterator[Running]:
    """Run one command during the block, with standard input open."""
    process = await trio.lowlevel.open_process(
        [*COMMAND, *arguments], cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        with trio.fail_after(PATIENCE):
            yield Running(process)
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                await pipe.aclose()

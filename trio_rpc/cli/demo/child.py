"""The server of the demo: ``trio-rpc serve`` in its own process.

It stops when its standard input ends, so it never outlives the demo.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

import trio

from trio_rpc.cli.exits import Unreachable

__all__ = ["Child", "running_child"]

COMMAND = (
    *("-m", "trio_rpc", "serve", "trio_rpc.cli.demo.services:services"),
    *("--listen", "tcp://127.0.0.1:0", "--until-stdin-closes", "--json"),
)
SECONDS_TO_START = 30.0
SECONDS_TO_STOP = 10.0


@dataclass(slots=True)
class Child:
    """The server's process.

    Attributes:
        url: the URL it listens at.
        pid: its process id.
        exit_code: its exit code, once it has ended.
    """

    url: str
    pid: int
    exit_code: int | None = None


@contextlib.asynccontextmanager
async def running_child() -> AsyncIterator[Child]:
    """Start the server. Leaving the block ends the process.

    Raises Unreachable if it does not start.
    """
    process = await trio.lowlevel.open_process(
        [sys.executable, *COMMAND],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for this process, which ends the other in good order
    )
    try:
        child = Child(await _address(process), process.pid)
        yield child
        child.exit_code = await _stop(process)
    finally:
        with trio.CancelScope(shield=True):
            await _stop(process)


async def _address(process: trio.Process) -> str:
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    line = b""
    with trio.move_on_after(SECONDS_TO_START):
        while not line.endswith(b"\n"):
            more = await process.stdout.receive_some(4096)
            if not more:
                break
            line += more
    try:
        url: str = json.loads(line)["urls"][0]
    except (ValueError, KeyError, IndexError) as exc:
        raise Unreachable("the server of the demo did not start") from exc
    return url


async def _stop(process: trio.Process) -> int:
    """Close the server's standard input and wait; kill the server if it does not end."""
    assert process.stdin is not None  # noqa: S101 - it is a pipe
    await trio.aclose_forcefully(process.stdin)
    with trio.move_on_after(SECONDS_TO_STOP):
        return await process.wait()
    process.kill()
    return await process.wait()

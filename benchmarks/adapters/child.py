"""trio_rpc between a parent and its child: the client starts the server that it measures.

The harness's server process only passes its core on to the child.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import trio

from benchmarks.adapter import trio_adapter
from benchmarks.adapters.library import Bench
from benchmarks.interface import Calls, Ready
from trio_rpc import open_process, serve_parent

__all__ = ["ADAPTERS"]


async def _lend_cores(_hosts: Sequence[str], ready: Ready) -> None:
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    ready([" ".join(map(str, cores))])
    await trio.sleep_forever()


@asynccontextmanager
async def _open_client(cores: str) -> AsyncGenerator[Calls]:
    command = [sys.executable, "-m", "benchmarks.adapters.child", *cores.split()]
    async with open_process(command) as session:
        bench = session.proxy("bench", Bench)
        yield Calls(echo=bench.echo, large=bench.large, server_pid=session.peer.pid)


ADAPTERS = (
    trio_adapter(
        "trio_rpc-process",
        "trio_rpc, parent to child process",
        "transports",
        serve=_lend_cores,
        open_client=_open_client,
    ),
)

if __name__ == "__main__":
    if sys.argv[1:]:
        os.sched_setaffinity(0, set(map(int, sys.argv[1:])))
    trio.run(serve_parent, {"bench": Bench()})

"""The server's process: a service at TCP and at a WebSocket, and its usage for the measuring one."""

from __future__ import annotations

import argparse
import logging
import resource
import time
from collections.abc import AsyncGenerator
from dataclasses import asdict

import trio

import trio_rpc
from benchmarks.machine import raise_open_files

FILES = 12_000
TO_START = trio_rpc.Limits(handshake_timeout=60)
"""A program in Python may need long to start on a busy machine."""


class Work:
    """The service that good and bad clients call."""

    def __init__(self) -> None:
        self.running = 0
        self.most = 0

    @trio_rpc.method
    def echo(self, value: int) -> int:
        """Return the argument."""
        return value

    @trio_rpc.method
    async def wait(self) -> None:
        """Wait until cancelled."""
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await trio.sleep_forever()
        finally:
            self.running -= 1

    @trio_rpc.method
    async def give(self) -> bytes:
        """Return half a megabyte, in memory of its own."""
        await trio.lowlevel.checkpoint()
        return b"x" * 500_000

    @trio_rpc.stream
    async def flow(self, count: int) -> AsyncGenerator[bytes, None]:
        """Yield half a megabyte so many times."""
        for _ in range(count):
            yield b"x" * 500_000

    @trio_rpc.notification
    def note(self, number: int) -> None:
        """Accept a number."""

    @trio_rpc.notification
    def fail(self) -> None:
        """Fail, as a handler with a bug does."""
        raise RuntimeError("this notification always fails")


class _Lines(logging.Handler):
    """Counts the lines of the log."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.number = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.number += 1


class Control:
    """The view of the server for the measuring process."""

    def __init__(self, server: trio_rpc.Server, work: Work, lines: _Lines) -> None:
        self._server = server
        self._work = work
        self._lines = lines

    @trio_rpc.method
    def urls(self) -> list[str]:
        """Return the URLs of the TCP server and of the WebSocket."""
        return self._server.urls

    @trio_rpc.method
    def usage(self) -> dict[str, float]:
        """Return the resources that the process has used and holds, and its log lines."""
        held = {
            name: value
            for name, value in asdict(self._server.statistics()).items()
            if name in {"sessions", "opening", "handlers", "calls_queued", "handshakes_given_up"}
        }
        return held | {
            "cpu": time.process_time(),
            "at": time.monotonic(),
            "lines": self._lines.number,
            "running": self._work.running,
            "most_running": self._work.most,
            "tasks": trio.lowlevel.current_statistics().tasks_living,
        }


async def serve(descriptors: int | None) -> None:
    """Serve until the measuring process ends the session with it."""
    if descriptors is None:
        raise_open_files(FILES)
    lines = _Lines()
    logging.getLogger("trio_rpc").addHandler(lines)
    logging.getLogger("trio_rpc").setLevel(logging.INFO)
    logging.getLogger("trio_rpc").propagate = False
    work = Work()
    async with trio_rpc.open_server(
        work, "tcp://127.0.0.1:0", "ws://127.0.0.1:0", resume=False
    ) as server:
        if descriptors is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
        await trio_rpc.serve_parent(Control(server, work, lines), limits=TO_START)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--descriptors", type=int)
    trio.run(serve, parser.parse_args().descriptors)

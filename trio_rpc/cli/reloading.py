"""``serve --reload``: serve in a child process, which is replaced when a source file changes.

1. A task watches the working folder, and passes on which files have changed.
2. The server runs in a fresh process, with the same words on its command line except ``--reload``.
3. After a change, that process gets SIGTERM, drains and ends. Only then does the next one start, so
   that the address is free.
4. If it ends by itself, for instance because its module cannot be imported, it has said why. The
   next change starts another one.
5. A signal to this process is passed on. It ends with the exit code of its server.

The server's standard input is a pipe from this process, and its end stops the server: so no server
is left, however this process ends. The server is in a process group of its own, because Ctrl-C
would otherwise reach it twice, and the second one ends it at once.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import trio

from trio_rpc.cli.exits import Exit, OutputFailed, Unreachable, importing
from trio_rpc.cli.output import Output
from trio_rpc.cli.terminal import safe

__all__ = ["serve_again_after_changes", "words_of_server"]

RELOAD = "--reload"

TICK = 200
"""Milliseconds after which the thread that watches looks whether it is still wanted."""

SHOWN = 3
"""Files that are named after a change."""

NO_BYTECODE = {"PYTHONDONTWRITEBYTECODE": "1"}
"""Bytecode of a file that was saved twice in a second, with the same size, counts as up to date."""
PATIENCE = 2.0
"""Seconds, after its grace, in which a server must have ended before it is killed."""


def words_of_server(words: Sequence[str]) -> list[str]:
    """Return the words of the command that serves once, without ``--reload``."""
    kept = [word for word in words if word != RELOAD and not word.startswith(f"{RELOAD}=")]
    return [*kept, "--until-stdin-closes"]


async def serve_again_after_changes(words: Sequence[str], output: Output, *, grace: float) -> int:
    """Serve in a fresh process, and in another one after each change, until a signal arrives.

    Returns the exit code of the last server.

    Args:
        words: the words of the command, as typed.
        output: tells of changes.
        grace: seconds that a server may take to drain.

    Raises:
        Usage: the extra "reload" is not installed.
        Unreachable: the folder cannot be watched.
    """
    folder = Path.cwd()
    watch = _watcher(folder)
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            server = _Server([sys.executable, "-m", "trio_rpc", *words_of_server(words)], grace)
            nursery.start_soon(server.watch_signals, signals)
            nursery.start_soon(_pass_on, watch, server)
            await trio.lowlevel.checkpoint()  # the watching begins before the server is loaded
            while True:
                await server.run()
                if not server.news.is_set():
                    _tell(output, "ended", code=server.code)
                changed = await server.next_change()
                if changed is None:
                    break
                _tell(output, "changed", files=sorted(_relative(each, folder) for each in changed))
            nursery.cancel_scope.cancel()
    return server.code


class _Server:
    """The server: one process at a time.

    Args:
        command: starts it.
        grace: seconds that it may take to drain.

    Attributes:
        code: the exit code of the last process.
        news: set after a change or a signal: the process must end.
    """

    def __init__(self, command: Sequence[str], grace: float) -> None:
        self.code = int(Exit.OK)
        self.news = trio.Event()
        self._changed: set[str] = set()
        self._is_stopping = False
        self._command = command
        self._grace = grace
        self._process: trio.Process | None = None

    async def watch_signals(self, received: AsyncIterator[int]) -> None:
        """Pass on each signal to the process, and start no other one."""
        async for number in received:
            self._is_stopping = True
            self.news.set()
            if self._process is not None:
                self._process.send_signal(number)

    def files_changed(self, files: set[str]) -> None:
        """Record a change, after which the process is replaced."""
        self._changed |= files
        self.news.set()

    async def next_change(self) -> set[str] | None:
        """Wait until files have changed, and return them; None after a signal."""
        await self.news.wait()
        if self._is_stopping:
            return None
        found, self._changed, self.news = self._changed, set(), trio.Event()
        return found

    async def run(self) -> None:
        """Run a process until it has ended: by itself, or after a change or a signal."""
        self._process = process = await trio.lowlevel.open_process(
            self._command, stdin=subprocess.PIPE, process_group=0, env={**os.environ, **NO_BYTECODE}
        )
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._end_after_news, process)
                returned = await process.wait()
                nursery.cancel_scope.cancel()
        finally:
            process.kill()  # it has ended, unless this task was cancelled
            self._process = None
            assert process.stdin is not None  # noqa: S101 - it is a pipe
            with trio.CancelScope(shield=True):
                await process.stdin.aclose()
                await process.wait()
        self.code = returned if returned >= 0 else 128 - returned

    async def _end_after_news(self, process: trio.Process) -> None:
        await self.news.wait()
        if not self._is_stopping:
            process.send_signal(signal.SIGTERM)
        with trio.move_on_after(self._grace + PATIENCE):
            await process.wait()
        process.kill()


def _watcher(folder: Path) -> Callable[[], AsyncIterator[set[Any]]]:
    with importing(RELOAD, "reload"):
        from watchfiles import PythonFilter, awatch  # noqa: PLC0415 - needs the extra
    return functools.partial(
        awatch, folder, watch_filter=PythonFilter(), rust_timeout=TICK, recursive=True
    )


async def _pass_on(watch: Callable[[], AsyncIterator[set[Any]]], server: _Server) -> None:
    try:
        async for changes in watch():
            server.files_changed({path for _, path in changes})
    except OSError as exc:  # for instance, there are more folders than the system can watch
        raise Unreachable(f"{RELOAD} cannot watch this folder: {safe(exc)}") from exc


def _relative(path: str, folder: Path) -> str:
    try:
        return str(Path(path).relative_to(folder))
    except ValueError:
        return path


def _tell(output: Output, event: str, **facts: object) -> None:
    with contextlib.suppress(OutputFailed):  # nobody reads it, and the server goes on
        if output.as_json:
            output.json({"event": event, **facts})
        elif event == "changed":
            files = facts["files"]
            assert isinstance(files, list)  # noqa: S101 - see take_changes
            more = f" and {len(files) - SHOWN} more" if len(files) > SHOWN else ""
            shown = ", ".join(safe(name, 100) for name in files[:SHOWN])
            output.line(f"changed: {shown}{more}; serving again", "yellow")
        else:
            text = f"the server has ended with code {facts['code']}: waiting for a change"
            output.line(text, "yellow")

"""Find the programs and transcripts that pages show, and run them."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import trio

from helpers.cli_tools import PATIENCE, Running
from helpers.pages import ROOT, blocks_of

PYTHON = (sys.executable, "-X", "dev", "-W", "error")
PORTS = ("5000", "5001", "5002", "5003", "5004", "8000", "8001")
"""Ports that pages name; a test replaces them with free ones."""
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
"""A reader's environment: without the pytest options that this run may have."""


@dataclass(frozen=True)
class Transcript:
    """A command that a page shows, and its output."""

    place: str  # "page:line"
    command: str
    output: str


def transcripts(page: str) -> Iterator[Transcript]:
    """Yield the commands of a page's console blocks, each with the lines below it."""
    for block in blocks_of(page):
        if block.language != "console":
            continue
        for found in re.finditer(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block.text, re.MULTILINE):
            line = block.line + block.text.count("\n", 0, found.start())
            yield Transcript(f"{page}:{line}", found[1], found[2])


def output_of(page: str, command: str, which: int = 0) -> list[str]:
    """Return the output that a page shows for the ``which``-th occurrence of a command."""
    found = [each.output for each in transcripts(page) if each.command == command]
    return found[which].splitlines()


def files_of(page: str) -> dict[str, list[str]]:
    """Return the files that a page shows, each as its non-blank lines."""
    files: dict[str, list[str]] = {}
    for block in blocks_of(page):
        kind, _, path = block.note.partition(": ")
        if kind == "file":
            files.setdefault(path, []).extend(filled(block.text))
    return files


def filled(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Copy:
    """A copy of a folder of programs, with the page's ports replaced by free ones."""

    def __init__(self, folder: str, place: Path) -> None:
        self.folder = shutil.copytree(ROOT / folder, place / "copy")
        self.ports = {port: str(free_port()) for port in PORTS}
        for path in self.folder.rglob("*.*"):
            if path.suffix in {".py", ".conf", ".cfg", ".html"}:
                path.write_text(self.here(path.read_text("utf-8")), "utf-8")

    def here(self, text: str) -> str:
        """Return a text of a page with its ports replaced by those of this copy."""
        return re.sub(r"\b(50\d\d|80\d\d)\b", lambda port: self.ports.get(port[1], port[1]), text)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(  # noqa: S603 - programs from our pages
            [*command],
            cwd=self.folder,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
            stdin=subprocess.DEVNULL,
        )

    @contextlib.asynccontextmanager
    async def running(self, *command: str) -> AsyncIterator[Running]:
        """Run a command during the block. Standard error goes to standard output."""
        process = await trio.lowlevel.open_process(
            [*command],
            cwd=self.folder,
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            with trio.fail_after(PATIENCE):
                yield Running(process)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with trio.CancelScope(shield=True):
                await process.wait()
                for pipe in (process.stdin, process.stdout):
                    await trio.aclose_forcefully(pipe)

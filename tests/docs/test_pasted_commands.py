"""The commands of docs/how-to/command-line.md work when they are pasted into a shell."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.pages import ROOT, section, table
from helpers.programs import ENVIRONMENT, free_port, transcripts

PAGE = "docs/how-to/command-line.md"
COMMANDS = [each.command for each in transcripts(PAGE)]


@contextlib.contextmanager
def typed(command: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command in a shell with an active virtual environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with subprocess.Popen(  # noqa: S602 - a command of our page
        f"exec {command}",
        shell=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env={**ENVIRONMENT, "PATH": path},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_the_pasted_commands_work():
    pytest.importorskip("cyclopts", reason="the extra cli is not installed")
    pytest.importorskip("hypercorn", reason="the extra gateway is not installed")
    first, *others = COMMANDS
    for port in ("5000", "8000"):
        here = str(free_port())
        first = first.replace(f":{port}", f":{here}")
        others = [command.replace(f":{port}", f":{here}") for command in others]
    with typed(first) as server:
        assert server.stdout.readline().startswith("listening at tcp://")
        for command in others:
            with typed(command) as run:
                if " serve " in command:
                    assert run.stdout.readline().startswith("listening at ")
                    continue
                printed = run.communicate(timeout=100)[0]
                # Calls of the page with a timeout end with it.
                assert run.returncode == (1 if "--timeout" in command else 0), (command, printed)
                assert printed or " notify " in command
                assert "Traceback" not in printed


ON_OTHER_PAGES: dict[str, str] = {}


def test_each_command_is_on_the_page():
    """Except commands that need no server, and the command for probes."""
    cli = pytest.importorskip("trio_rpc.cli.app", reason="the extra cli is not installed")
    used = {command.split()[1] for command in COMMANDS}
    elsewhere = {"demo", "health", *ON_OTHER_PAGES}
    assert used == {name for name in cli.app if not name.startswith("-")} - elsewhere


def test_the_reference_lists_all_exit_codes():
    exits = pytest.importorskip("trio_rpc.cli.exits", reason="the extra cli is not installed")
    rows = table(section("docs/reference/command-line.md", "Exit codes"), "code")
    assert [int(row[0]) for row in rows] == [int(code) for code in exits.Exit]

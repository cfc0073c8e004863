"""What the README says is so: its commands run, and are those of .ci/run, and its figures are measured."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    return [text for kind, text in BLOCKS if kind == language]


def commands() -> list[str]:
    return re.findall(r"^\$ (.*?)(?:\s+#.*)?$", "\n".join(blocks("console")), re.MULTILINE)


def test_ci_runs_the_very_commands_of_the_readme():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert commands()[:2] == ["uv run trio-rpc demo", "uv run pytest"]
    for command in commands()[:2]:
        assert re.search(rf"^step .*\s{re.escape(command)}( --quick)?$", script, re.MULTILINE)


def test_commands_of_the_readme_exist():
    cli = pytest.importorskip("trio_rpc.cli.app", reason="the extra cli is not installed")
    used = {command.split()[1] for command in commands() if command.startswith("trio-rpc ")}
    assert used == {"serve", "describe", "call", "stream", "ping"}
    for command in used:
        assert cli.app[command]


def test_exit_codes_of_the_readme_are_those_of_the_program():
    exits = pytest.importorskip("trio_rpc.cli.exits", reason="the extra cli is not installed")
    documented = [int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)]
    assert documented == [int(code) for code in exits.Exit]


def test_the_figures_of_the_readme_are_those_of_the_report():
    report = (ROOT / "docs" / "benchmarks.txt").read_text(encoding="utf-8")
    rows = README.partition("## How fast")[2].partition("![")[0].strip().splitlines()[2:]
    cells = "\n".join(row.split("|", 2)[2] for row in rows)
    figures = re.findall(r"(?<= )[\d,.]*\d(?=,? |\))", cells)
    assert len(figures) > 40
    assert [figure for figure in figures if f" {figure} [" not in report] == []


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def _typed(command: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command as somebody pastes it into a shell, in a virtual environment that is active."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with subprocess.Popen(  # noqa: S602 - what the README says
        f"exec {command}",
        shell=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PATH": path},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_commands_of_the_readme_do_what_they_say_as_they_are_pasted():
    pytest.importorskip("trio_rpc.cli.app", reason="the extra cli is not installed")
    pytest.importorskip("hypercorn", reason="the extra gateway is not installed")
    ports = {"5000": str(_free_port()), "8000": str(_free_port())}
    ours = [command for command in commands() if command.startswith("trio-rpc ")]
    typed = [re.sub(r":(5000|8000)\b", lambda found: f":{ports[found[1]]}", each) for each in ours]
    assert typed[0].startswith("trio-rpc serve ")
    with _typed(typed[0]) as server:
        assert server.stdout is not None
        assert server.stdout.readline().startswith("listening at tcp://")
        for command in typed[1:]:
            with _typed(command) as run:
                assert run.stdout is not None
                if " serve " in command:
                    assert run.stdout.readline().startswith("listening at ")
                    continue
                told = run.communicate(timeout=60)[0]
                # The README shows how one call is cut short.
                assert run.returncode == (1 if "--timeout" in command else 0), (command, told)
                assert told
                assert "Traceback" not in told

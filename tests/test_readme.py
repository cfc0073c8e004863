"""The README is true: its programs and commands run, and its figures are in the report."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import trio
from helpers.pages import ROOT, blocks_of, read, section
from helpers.programs import PYTHON, Copy, filled, output_of, transcripts

PAGE = "README.md"
COMMANDS = [re.sub(r"\s+#.*$", "", each.command) for each in transcripts(PAGE)]


def program(name: str) -> list[str]:
    """Return the non-blank lines of a program of the README."""
    [text] = [each.text for each in blocks_of(PAGE) if each.note == f"file: examples/oven/{name}"]
    return filled(text)


def test_the_readme_and_its_programs_are_short():
    assert read(PAGE).count("\n") <= 150
    assert len(program("server.py")) <= 12
    assert len(program("client.py")) <= 8


def test_the_features_of_the_readme_are_short_and_have_links():
    bullets = re.findall(r"^- (.*)$", section(PAGE, "Features"), re.MULTILINE)
    assert 1 < len(bullets) <= 8
    for bullet in bullets:
        assert re.search(r"\[[^\]]+\]\(docs/", bullet)
        assert len(re.sub(r"\]\([^)]*\)", "", bullet).split()) <= 12, bullet


async def test_server_and_client_print_the_output_in_the_readme(tmp_path: Path):
    copy = Copy("examples/oven", tmp_path)
    async with copy.running(*PYTHON, "server.py") as server:
        while True:
            client = await trio.to_thread.run_sync(copy.run, *PYTHON, "client.py")
            if "ConnectionRefusedError" not in client.stderr:  # else the server is not up yet
                break
        assert client.stderr == ""
        assert client.stdout.splitlines() == output_of(PAGE, "python client.py")
        for line in output_of(PAGE, "python server.py"):
            assert await server.line() == line


def test_ci_runs_the_very_commands_of_the_readme():
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    assert COMMANDS[:2] == ["uv run trio-rpc demo", "uv run pytest"]
    for command in COMMANDS[:2]:
        assert re.search(rf"^step .*\s{re.escape(command)}( --quick)?$", script, re.MULTILINE)


def test_ci_installs_with_pip_as_the_readme_does():
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    [install] = [command for command in COMMANDS if command.startswith("pip install ")]
    packages = install.removeprefix("pip install ")
    assert re.search(rf"-m pip install [^&]*{re.escape(packages)} &&", script)
    demo = [command for command in COMMANDS if command.startswith("trio-rpc ")]
    assert demo == ["trio-rpc demo"]
    assert re.search(r"/bin/trio-rpc\" demo ", script)


def test_the_figures_of_the_readme_are_in_the_report():
    report = read("docs/benchmarks.txt")
    figures = re.findall(r"([\d,.]+\d) (?:µs|calls/s)", read(PAGE))
    assert len(figures) == 2
    assert [figure for figure in figures if f" {figure} [" not in report] == []


@pytest.mark.parametrize("picture", ["demo.svg", "benchmarks.svg"])
def test_pictures_have_an_alternative_text(picture):
    assert re.search(rf"!\[[^\]]+\]\(docs/{picture}\)", read(PAGE))

"""Each step of docs/tutorial.md works with the code that its reader has written so far."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass

import pytest
import trio
from helpers.pages import blocks_of, read
from helpers.programs import PYTHON, Copy, output_of

PAGE = "docs/tutorial.md"
FOLDER = "examples/tutorial"

SERVER_SAYS = {
    "progress.py": "render has ended",
    "patience.py": "render has ended",
    "watch.py": "frames has ended",
}
"""The line that the server prints when the client ends."""


@dataclass(frozen=True)
class Step:
    """A client of the tutorial, and the contents of jobs.py at that step."""

    client: str
    jobs: str

    def __str__(self):
        return self.client


def steps():
    """Return the steps of the page."""
    found, jobs = [], ""
    for block in blocks_of(PAGE):
        if block.note == f"file: {FOLDER}/jobs.py":
            jobs += block.text + "\n"
        if block.language == "console":
            clients = re.findall(r"^\$ python (\w+\.py)$", block.text, re.MULTILINE)
            found += [Step(client, jobs) for client in clients if client != "server.py"]
    return found


def test_the_page_has_all_steps():
    clients = [step.client for step in steps()]
    assert clients == ["first_call.py", "progress.py", "patience.py", "watch.py", "mistakes.py"]
    assert [line for line in SERVER_SAYS.values() if line not in read(PAGE)] == []


@pytest.mark.parametrize("step", steps(), ids=str)
async def test_each_step_prints_the_output_on_the_page(step, tmp_path):
    copy = Copy(FOLDER, tmp_path)
    (copy.folder / "jobs.py").write_text(step.jobs)
    async with copy.running(*PYTHON, "server.py") as server:
        assert [await server.line()] == list(map(copy.here, output_of(PAGE, "python server.py")))
        run = await trio.to_thread.run_sync(copy.run, *PYTHON, step.client)
        assert run.stdout.splitlines() == output_of(PAGE, f"python {step.client}"), run.stderr
        assert run.stderr == ""
        if step.client in SERVER_SAYS:
            assert await server.line() == SERVER_SAYS[step.client]


def test_the_test_of_the_tutorial_passes(tmp_path):
    command = "pytest -q -o trio_mode=true test_jobs.py"
    dots, passed = output_of(PAGE, command)
    copy = Copy(FOLDER, tmp_path)
    run = copy.run(sys.executable, "-m", *command.split(), "-p", "no:cacheprovider")
    assert run.stdout.splitlines()[0] == dots, run.stdout
    assert run.stdout.splitlines()[1].startswith(passed.partition(" in ")[0])
    assert run.returncode == 0

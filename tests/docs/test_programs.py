"""The pages show complete programs, and the programs print the output on the pages."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from helpers.cli_tools import PATIENCE
from helpers.pages import PAGES, ROOT, read
from helpers.programs import PYTHON, files_of, filled, transcripts

HOW_TO = [page for page in PAGES if page.startswith("docs/how-to/")]
WITH_FILES = [*HOW_TO, "docs/tutorial.md", "README.md"]
SHOWN = [(page, path) for page in WITH_FILES for path in files_of(page)]
ALONE = [
    (page, path, each)
    for page in HOW_TO
    for each in transcripts(page)
    for path in files_of(page)
    if each.command == f"python {Path(path).name}"
]
"""Programs that run without another program."""

WITH_OTHERS = {
    "drain_at_sigterm.py": "test_a_server_that_gets_sigterm_finishes_its_call",
    "rooms.py": "test_the_chat_works_in_three_terminals",
    "nats_topic.py": "test_nats_topic_py_prints_the_output_on_the_page",
    "many_gateways.py": "test_a_job_started_at_one_gateway_is_awaited_at_the_other",
    "either_gateway.py": "test_a_job_started_at_one_gateway_is_awaited_at_the_other",
    "call_page.py": "test_the_fastapi_page_is_served_and_called",
    "build.py": "test_a_job_of_the_page_of_reports_goes_on_while_the_page_is_left",
    "app.py": "test_the_page_that_is_an_end_of_a_session_works_in_a_browser",
}
"""Programs that need others, and the tests that run them."""

COMMANDS = {
    "for n": "test_a_cluster_of_three_starts_with_the_pages_commands_and_serves",
    "pip install": "test_a_cluster_of_three_starts_with_the_pages_commands_and_serves",
    "trio-rpc call": "test_a_cluster_of_three_starts_with_the_pages_commands_and_serves",
    "trio-rpc instances": "test_a_cluster_of_three_starts_with_the_pages_commands_and_serves",
    "docker build": "test_the_files_and_the_command_of_the_image_work",
    "docker run": "test_the_files_and_the_command_of_the_image_work",
    "haproxy -f": "test_clients_behind_haproxy_move_from_a_draining_server",
    "pytest -q": "test_the_tests_on_the_testing_page_pass",
    "python -m examples.workers": "test_the_workers_finish_all_jobs_although_one_is_killed",
    "python -m": "test_commands_of_two_processes_call_each_other_through_a_crash_and_a_restart",
    "python rooms_client.py": "test_the_chat_works_in_three_terminals",
    "systemd-analyze verify": "test_the_systemd_unit_is_valid_and_its_command_serves",
    "trio-rpc describe": "test_describe_shows_the_methods_of_a_plugin",
    "trio-rpc openapi": "test_the_pasted_commands_work",
    "trio-rpc typescript": "test_the_pasted_commands_work",
    "uvicorn app:app": "test_the_fastapi_page_is_served_and_called",
    "trio-rpc serve": "test_clients_behind_haproxy_move_from_a_draining_server",
}
"""The first words of other commands, and the tests that run them."""

PASTED = "docs/how-to/command-line.md"
"""Its commands are all run by test_pasted_commands.py."""

TESTS = "".join(path.read_text("utf-8") for path in Path(__file__).parent.glob("test_*.py"))


def test_the_programs_are_found():
    assert len(SHOWN) > 20
    assert len(ALONE) > 10


@pytest.mark.parametrize(("page", "path"), SHOWN)
def test_a_page_shows_complete_files(page, path):
    assert files_of(page)[path] == filled((ROOT / path).read_text("utf-8"))


@pytest.mark.parametrize(("page", "path"), SHOWN)
def test_a_page_names_and_links_each_file_that_it_shows(page, path):
    assert re.search(rf"\[{Path(path).name}\]\((\.\./)*{path}\)", read(page))


def test_each_file_is_on_a_page():
    folders = ("deploy", "how_to", "oven", "plugins", "tutorial", "workers")
    paths = [path for each in folders for path in (ROOT / "examples" / each).rglob("*")]
    files = {path.relative_to(ROOT) for path in paths if path.is_file()}
    files = {
        str(path) for path in files if not re.search(r"/(\.|__pycache__)", str(path))
    }  # caches
    assert files == {path for _, path in SHOWN}


def test_each_command_is_run_by_a_test():
    alone = {each.place for _, path, each in ALONE if Path(path).name not in WITH_OTHERS}
    for page in HOW_TO:
        for each in transcripts(page) if page != PASTED else ():
            words = each.command.split()
            test = WITH_OTHERS.get(words[1]) or COMMANDS.get(" ".join(words[:2]))
            assert each.place in alone or f"def {test}(" in TESTS, f"{each.place}: {each.command}"


@pytest.mark.parametrize(
    ("page", "path", "shown"),
    [each for each in ALONE if Path(each[1]).name not in WITH_OTHERS],
    ids=lambda value: Path(value).name if isinstance(value, str) else "",
)
def test_a_program_prints_the_output_on_its_page(page, path, shown):
    run = subprocess.run(  # noqa: S603 - programs from our pages
        [*PYTHON, Path(path).name],
        cwd=(ROOT / path).parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert without_numbers(run.stdout) == without_numbers(shown.output), run.stderr
    for line in run.stderr.splitlines():
        assert f"`{without_numbers(line)}`" in without_numbers(" ".join(read(page).split())), (
            run.stderr
        )
    assert run.returncode == 0


def test_commands_of_two_processes_call_each_other_through_a_crash_and_a_restart():
    """Each process has a command registry, and calls the other one's within calls."""
    [shown] = [each for each in transcripts("docs/how-to/plugins.md") if "registry" in each.command]
    run = subprocess.run(  # noqa: S603 - our own program
        [*PYTHON, "-m", "examples.registry"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert (run.stdout, run.stderr, run.returncode) == (shown.output, "", 0)


def without_numbers(text):
    """Return a text without process ids."""
    return re.sub(r"process \d+", "process N", text)

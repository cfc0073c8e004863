"""examples/workbench: a page, the main process that it is a peer of, and plugins in child processes."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from helpers.chromium import screenshot, why_not

import trio_rpc
from examples.workbench import host
from examples.workbench.__main__ import open_workbench

pytestmark = pytest.mark.slow
if why_not() and not os.environ.get("CI"):
    pytest.skip(f"no browser: {why_not()}", allow_module_level=True)

ROOT = Path(__file__).parents[2]

PATIENT = '''
import sys
from pathlib import Path
import trio
import trio_rpc
from examples.workbench.interface import Command, Outcome, Plugin, Window


class Patient(Plugin):
    """Asks, and then goes on without an end; it notes in a file how each command has ended."""

    async def commands(self):
        return [Command("wait", "Wait", "Waits.", "Text")]

    async def run(self, command: str, argument: str, window: Window) -> Outcome:
        try:
            await window.progress(0.25, argument)
            if not await window.confirm(f"proceed with {argument}?"):
                return Outcome("it was stopped", [argument])
            for step in range(10**9):
                await window.progress(0.5, f"step {step}")
                await trio.sleep(0.02)
        except trio.Cancelled:
            with Path(sys.argv[1]).open("a") as file:
                file.write(f"{argument} was cancelled\\n")
            raise


trio.run(trio_rpc.serve_parent, Patient())
'''


class Bench:
    """A workbench whose only plugin waits, and tabs of it."""

    def __init__(self, chromium: Any, url: str, notes: Path) -> None:
        self.url = url
        self.notes = notes
        self.do = chromium.run
        self.new_tab = functools.partial(chromium.new_page, url)

    async def noted(self) -> str:
        """Wait until the plugin has noted the end of a command."""
        with trio.fail_after(20):
            while not self.notes.exists():  # noqa: ASYNC110 - another process writes it
                await trio.sleep(0.01)
        return self.notes.read_text("utf-8")


@pytest.fixture
async def bench(chromium, tmp_path, monkeypatch):
    # However slowly a busy machine starts processes, the fourth end is one too many.
    monkeypatch.setattr(host, "RESTART", trio_rpc.Restart(times=3, within=3600))
    plugin, notes = tmp_path / "patient.py", tmp_path / "notes"
    plugin.write_text(PATIENT, "utf-8")
    command = [sys.executable, str(plugin), str(notes)]
    os.environ["PYTHONPATH"], before = str(ROOT), os.environ.get("PYTHONPATH")
    try:
        async with open_workbench(0, {"patient": command}) as url:
            yield Bench(chromium, url, notes)
    finally:
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before


def start(tab, plugin, command, argument=None):
    form = tab.locator(f"[data-plugin={plugin}] [data-command={command}]")
    if argument is not None:
        form.locator("input").fill(argument)
    form.locator("button").click()


def run_in(tab, state, plugin="patient"):
    """Wait for a card of a command in that state."""
    card = tab.locator(f".run[data-plugin={plugin}][data-state={state}]").first
    card.wait_for()
    return card


def pid_of(tab, plugin="patient", restarts=0):
    """Return the id of the process that the page shows, once there have been that many restarts."""
    words = ["", "1 restart", "2 restarts", "3 restarts"][restarts]
    card = tab.locator(f".plugin[data-plugin={plugin}][data-state=running]", has_text=words)
    return int(card.locator(".facts").inner_text().split()[1])


def step_of(tab):
    return int(tab.locator(".line").inner_text().split()[1])


def goes_on(tab, steps):
    """Wait until the one command of a tab has made that many steps more; return the first one."""
    before = step_of(tab)
    text = "document.querySelector('.line').textContent"
    tab.wait_for_function(f"Number({text}.split(' ')[1]) >= {before + steps}")
    return before


def proceed(tab):
    tab.locator(".question .primary").click()


# ── every step ───────────────────────────────────────────────────────────────────────────────


async def test_a_command_of_the_page_runs_in_a_plugin_that_asks_the_page(bench):
    def use():
        tab = bench.new_tab()
        start(tab, "patient", "wait", "<b>tea</b>")
        card = run_in(tab, "asking")
        assert card.locator(".question p").inner_text() == "proceed with <b>tea</b>?"
        assert card.locator("progress").evaluate("(bar) => bar.value") == 0.25
        assert tab.locator("#running").inner_text() == "1 waiting for you"
        card.locator(".question button", has_text="Stop").click()
        card = run_in(tab, "done")
        assert card.locator(".outcome").inner_text().split("\n\n") == [
            "it was stopped",
            "<b>tea</b>",
        ]
        assert not tab.locator("#running").is_visible()
        start(tab, "patient", "wait", "rice")
        proceed(tab)
        card = run_in(tab, "running")
        card.locator(".line", has_text="step 3").wait_for()
        assert card.locator(".share").inner_text() == "50 %"
        assert tab.errors == []
        tab.close()

    await bench.do(use)


@pytest.mark.parametrize("moment", ["asking", "running"])
async def test_the_page_cancels_a_command_through_both_hops(bench, moment):
    def use():
        tab = bench.new_tab()
        start(tab, "patient", "wait", "tea")
        if moment == "running":
            proceed(tab)
        card = run_in(tab, moment)
        card.locator("button", has_text="Cancel").click()
        card = run_in(tab, "cancelled")
        # The promise has settled, so the handler in the plugin has ended.
        assert bench.notes.read_text("utf-8") == "tea was cancelled\n"
        assert card.locator(".outcome").inner_text() == "Cancelled"
        assert not card.locator(".question").is_visible()
        tab.locator(".facts").filter(has_not_text="running").wait_for()
        assert tab.errors == []
        tab.close()

    await bench.do(use)


async def test_the_page_is_told_of_a_plugin_that_was_killed_and_started_again(bench, caplog):
    def use():
        tab = bench.new_tab()
        start(tab, "patient", "wait", "tea")
        card = run_in(tab, "asking")
        first = pid_of(tab)
        os.kill(first, signal.SIGKILL)
        card = run_in(tab, "failed")
        lost = f"the child process {first} (patient) was killed by SIGKILL"
        assert lost in card.inner_text()
        assert not card.locator(".question").is_visible()
        second = pid_of(tab, restarts=1)
        assert second != first
        events = tab.locator("#events li span").all_inner_texts()
        assert events == [
            f"patient: ready again, as process {second}",
            f"patient: {lost}. It is started again.",
        ]
        start(tab, "patient", "wait", "tea")
        run_in(tab, "asking")
        assert tab.errors == []
        tab.close()

    await bench.do(use)
    assert "does not declare" not in caplog.text


async def test_a_plugin_that_ends_too_often_is_started_again_from_the_page(bench):
    def use():
        tab = bench.new_tab()
        for restarts in range(4):
            pid_of(tab, restarts=restarts)
            tab.locator(".plugin button", has_text="Kill").click()
        tab.locator(".plugin[data-state=failed]").wait_for()
        assert "3 restarts within 3600 s are allowed" in tab.locator(".end").inner_text()
        start(tab, "patient", "wait", "tea")
        assert "is not running: start it first" in run_in(tab, "failed").inner_text()
        tab.locator("button", has_text="Start again").click()
        pid_of(tab)
        start(tab, "patient", "wait", "tea")
        run_in(tab, "asking")
        assert tab.errors == []
        tab.close()

    await bench.do(use)


# ── pages that are reloaded, opened twice, frozen; a server that restarts ────────────────────


async def test_a_reload_in_the_middle_of_a_question_cancels_the_command(bench, caplog):
    def use():
        tab = bench.new_tab()
        start(tab, "patient", "wait", "tea")
        run_in(tab, "asking")
        tab.reload()
        tab.locator("#connection", has_text="connected").wait_for()
        tab.locator(".facts").filter(has_not_text="running").wait_for()
        tab.close()

    await bench.do(use)
    assert "does not declare" not in caplog.text


async def test_closing_one_of_two_tabs_cancels_its_command_only(bench):
    def begin():
        tabs = [bench.new_tab() for _ in range(2)]
        for tab, argument in zip(tabs, ("tea", "rice"), strict=True):
            start(tab, "patient", "wait", argument)
            proceed(tab)
            run_in(tab, "running").locator(".line", has_text="step").wait_for()
        tabs[1].locator(".facts", has_text="2 running").wait_for()
        tabs[0].close()
        return tabs[1]

    tab = await bench.do(begin)
    assert await bench.noted() == "tea was cancelled\n"

    def end():
        tab.locator(".facts", has_text="1 running").wait_for()
        goes_on(tab, 3)
        assert tab.errors == []
        tab.close()

    await bench.do(end)


async def test_a_frozen_tab_holds_up_its_own_command_only_and_goes_on_later(bench):
    def begin():
        tabs = [bench.new_tab() for _ in range(2)]
        for tab in tabs:
            start(tab, "patient", "wait", "tea")
            proceed(tab)
            run_in(tab, "running").locator(".line", has_text="step").wait_for()
        return tabs

    def use():
        frozen, other = begin()
        devtools = frozen.context.new_cdp_session(frozen)
        devtools.send("Debugger.enable")
        devtools.send("Debugger.pause")  # the page runs nothing; the browser still receives
        before = goes_on(other, 100)
        devtools.send("Debugger.resume")
        assert step_of(frozen) < before + 100
        goes_on(frozen, 3)
        for tab in (frozen, other):
            assert tab.errors == []
            tab.close()

    await bench.do(use)


# ── the program ──────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def program(port):
    """Run the example as its page says, and yield its process and the URL that it prints."""
    run = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-X", "dev", "-W", "error", "-m", "examples.workbench", str(port)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        with run.stdout:
            yield run, run.stdout.readline().removeprefix("look at ").strip()
    finally:
        run.kill()
        run.wait()


def free_pair():
    """Return a port that is free, as is the next one."""
    while True:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            with contextlib.suppress(OSError):
                other.bind(("127.0.0.1", port + 1))
                return port


async def test_one_command_starts_it_and_every_plugin_works(chromium):
    def use():
        with program(0) as (run, url):
            assert "<h1>" in httpx.get(url).text
            tab = chromium.new_page(url)
            tab.set_viewport_size({"width": 1200, "height": 900})
            start(tab, "fragile", "crash")
            start(tab, "primes", "count", "20000")
            assert "2262 primes below 20000" in run_in(tab, "done", "primes").inner_text()
            start(tab, "files", "copies", "examples")
            proceed(tab)
            assert "copies among" in run_in(tab, "done", "files").inner_text()
            start(tab, "files", "copies", "../..")
            assert "there is no folder '../..' here" in run_in(tab, "failed", "files").inner_text()
            assert "ended with exit code 3" in run_in(tab, "failed", "fragile").inner_text()
            pid_of(tab, "fragile", restarts=1)
            start(tab, "primes", "count", "9000000")
            run_in(tab, "running", "primes")
            start(tab, "files", "copies", "examples")
            run_in(tab, "asking", "files")
            take_pictures(tab)
            assert tab.errors == []
            run.send_signal(signal.SIGINT)
            assert run.wait(20) == 0
            tab.close()

    await chromium.run(use)


def take_pictures(tab):
    """Save screenshots for people, and check that nothing is wider than the screen."""
    for scheme in ("light", "dark"):
        tab.emulate_media(color_scheme=scheme)
        for name, width in (("", 1200), ("-phone", 360)):
            tab.set_viewport_size({"width": width, "height": 800})
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            screenshot(tab, f"workbench-{scheme}{name}")


async def test_a_restarted_server_loses_commands_with_a_word_and_gets_the_page_back(chromium):
    def use():
        port = free_pair()
        with program(port) as (_, url):
            tab = chromium.new_page(url)
            start(tab, "files", "copies", "examples")
            run_in(tab, "asking", "files")
        tab.locator("#connection", has_text="reconnecting").wait_for()
        with program(port):
            card = run_in(tab, "failed", "files")
            assert "whether the command has run to its end is unknown" in card.inner_text()
            assert not card.locator(".question").is_visible()
            tab.locator("#connection", has_text="connected").wait_for()
            start(tab, "files", "copies", "examples")
            run_in(tab, "asking", "files")
            assert tab.errors == []
            tab.close()

    await chromium.run(use)

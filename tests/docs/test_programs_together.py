"""Programs of the how-to pages that need other programs, as in several terminals."""

from __future__ import annotations

import contextlib
import re
import signal
import sys

import httpx
import pytest
import trio
from helpers.cli_tools import COMMAND
from helpers.programs import PYTHON, Copy, output_of, transcripts

import trio_rpc

FOLDER = "examples/how_to"


async def lines_until_end(running):
    lines = []
    while line := await running.line():
        lines.append(line)
    return lines


async def type_line(running, line):
    await running.process.stdin.send_all(f"{line}\n".encode())


async def test_the_chat_works_in_three_terminals(tmp_path):
    copy = Copy(FOLDER, tmp_path)
    client = [*PYTHON, "rooms_client.py", "lobby"]
    ann_sees, bob_sees = [], []
    async with (
        copy.running(*PYTHON, "rooms.py") as server,
        contextlib.AsyncExitStack() as stack,
    ):
        assert [await server.line()] == [copy.here(line) for line in shown("rooms.py")]
        ann = await stack.enter_async_context(copy.running(*client, "ann"))
        ann_sees.append(await ann.line())
        bob = await stack.enter_async_context(copy.running(*client, "bob"))
        bob_sees.append(await bob.line())
        ann_sees.append(await ann.line())
        await type_line(ann, "hello")
        bob_sees.append(await bob.line())
        await type_line(bob, "hi ann")
        ann_sees.append(await ann.line())
        second = await trio.to_thread.run_sync(copy.run, *client, "bob")
        assert second.stderr.splitlines() == shown("rooms_client.py lobby bob", -1)
        await bob.process.stdin.aclose()
        ann_sees.append(await ann.line())
        assert await bob.line() == ""
        assert await bob.process.wait() == 0
    assert ann_sees == [each for each in shown("rooms_client.py lobby ann") if each != "hello"]
    assert bob_sees == [each for each in shown("rooms_client.py lobby bob") if each != "hi ann"]


def shown(command, which=0):
    return output_of("docs/how-to/rooms.md", f"python {command}", which)


async def test_a_server_that_gets_sigterm_finishes_its_call(tmp_path):
    copy = Copy(FOLDER, tmp_path)
    shown = output_of("docs/how-to/drain.md", "python drain_at_sigterm.py")
    async with copy.running(*PYTHON, "drain_at_sigterm.py") as server:
        assert await server.line() == copy.here(shown[0])
        async with trio_rpc.connect(copy.here("tcp://127.0.0.1:5004"), on_end="keep") as session:
            results = []

            async def work():
                results.append(await session.call("slow.work"))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(work)
                await session.ping()  # the call has arrived by then
                server.process.send_signal(signal.SIGTERM)
            assert results == ["done"]
        assert await lines_until_end(server) == shown[1:]
        assert await server.process.wait() == 0


def test_describe_shows_the_methods_of_a_plugin(tmp_path):
    copy = Copy("examples/plugins", tmp_path)
    run = copy.run(*COMMAND, "describe", f"exec:{sys.executable} shout.py")
    assert run.stderr == ""
    assert "render(" in run.stdout
    assert run.returncode == 0


def test_the_tests_on_the_testing_page_pass(tmp_path):
    copy = Copy(f"{FOLDER}/testing", tmp_path)
    (copy.folder / "pytest.ini").write_text("[pytest]\ntrio_mode = true\n")
    run = copy.run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_shop.py")
    expected = output_of("docs/how-to/testing.md", "pytest -q test_shop.py")
    assert without_seconds(run.stdout) == without_seconds("\n".join(expected) + "\n"), run.stdout
    assert run.returncode == 0


def without_seconds(text):
    return re.sub(r"in [\d.]+s", "in N s", text)


class Page:
    """The how-to page over FastAPI, served by its own command."""

    def __init__(self, copy):
        self.copy = copy
        self.url = copy.here("http://127.0.0.1:8000")

    @contextlib.asynccontextmanager
    async def served(self):
        words = next(
            each.command.split()
            for each in transcripts("docs/how-to/fastapi.md")
            if each.command.startswith("uvicorn ")
        )
        words = [self.copy.here(word) for word in words]
        async with self.copy.running(sys.executable, "-m", *words) as server:
            while "running on http://127.0.0.1" not in await server.line():
                pass
            yield server

    async def running_jobs(self):
        async with httpx.AsyncClient() as http:
            return (await http.get(f"{self.url}/running")).json()


async def test_the_fastapi_page_is_served_and_called(tmp_path):
    pytest.importorskip("fastapi", reason="fastapi is not installed")
    page = Page(Copy(f"{FOLDER}/fastapi_page", tmp_path))
    async with page.served():
        async with httpx.AsyncClient() as http:
            assert '<button id="start">' in (await http.get(page.url)).text
            assert "export class Message" in (await http.get(f"{page.url}/rpc/message.js")).text
        run = await trio.to_thread.run_sync(page.copy.run, *PYTHON, "call_page.py")
        assert run.stdout.splitlines() == output_of("docs/how-to/fastapi.md", "python call_page.py")
        assert await page.running_jobs() == 0


async def test_the_fastapi_page_works_in_a_browser(tmp_path, chromium):
    pytest.importorskip("fastapi", reason="fastapi is not installed")
    page = Page(Copy(f"{FOLDER}/fastapi_page", tmp_path))

    def use(url):
        tab = chromium.new_page(url)
        outcome = tab.locator("#outcome")
        tab.wait_for_function("document.getElementById('start').onclick !== null")
        tab.click("#start")
        outcome.filter(has_text="rendered 20 frames").wait_for()
        assert tab.evaluate("document.getElementById('bar').value") == 1
        tab.click("#start")
        outcome.filter(has_text="rendering").wait_for()
        tab.click("#cancel")
        outcome.filter(has_text="cancelled").wait_for()
        assert tab.errors == []
        tab.close()

    async with page.served():
        await chromium.run(use, page.url)
        assert await page.running_jobs() == 0


async def test_the_page_that_is_an_end_of_a_session_works_in_a_browser(tmp_path, chromium):
    copy = Copy(f"{FOLDER}/peer_page", tmp_path)

    def use(url):
        tab = chromium.new_page(url)
        answers = []

        def answer(dialog):
            answers.append(dialog.message)
            if len(answers) == 2:
                dialog.dismiss()
            else:
                dialog.accept()

        tab.on("dialog", answer)
        outcome = tab.locator("#outcome")
        tab.locator("#state").filter(has_text="connected").wait_for()
        tab.locator("#temperature").filter(has_text="220").wait_for()
        tab.click("#bake")
        outcome.filter(has_text="10 loaves").wait_for()
        assert tab.evaluate("document.getElementById('bar').value") == 1
        tab.click("#bake")
        outcome.filter(has_text="nothing was baked").wait_for()
        tab.click("#bake")
        tab.wait_for_function("document.getElementById('bar').value < 1")
        tab.click("#cancel")
        outcome.filter(has_text="cancelled").wait_for()
        assert answers == ["Bake 10 loaves?"] * 3
        assert tab.errors == []
        tab.close()

    async with copy.running(*PYTHON, "app.py") as server:
        [line] = output_of("docs/how-to/peer-page.md", "python app.py")
        assert await server.line() == copy.here(line)
        await chromium.run(use, copy.here("http://127.0.0.1:8000/"))


async def test_a_job_of_the_page_of_reports_goes_on_while_the_page_is_left(tmp_path, chromium):
    copy = Copy(f"{FOLDER}/jobs_page", tmp_path)
    value = "document.getElementById('bar').value"

    def use(url):
        tab = chromium.new_page(url)
        outcome = tab.locator("#outcome")
        tab.click("#build")
        tab.wait_for_function(f"{value} > 0")
        reached = tab.evaluate(value)
        tab.goto("about:blank")
        tab.goto(url)
        outcome.filter(has_text="building").wait_for()
        tab.wait_for_function(f"{value} > {reached}")
        tab.reload()
        outcome.filter(has_text="the report of 2024").wait_for()
        assert tab.evaluate(value) == 1
        tab.click("#build")
        tab.wait_for_function("localStorage.getItem('job') !== null")
        tab.reload()
        outcome.filter(has_text="building").wait_for()
        tab.click("#cancel")
        outcome.filter(has_text="cancelled by the client").wait_for()
        tab.wait_for_function("localStorage.getItem('job') === null")
        assert tab.errors == []
        tab.close()

    async with copy.running(*PYTHON, "build.py") as server:
        [line] = output_of("docs/how-to/jobs.md", "python build.py")
        assert await server.line() == copy.here(line)
        await chromium.run(use, copy.here("http://127.0.0.1:8000/"))


async def test_a_job_started_at_one_gateway_is_awaited_at_the_other(tmp_path):
    page = "docs/how-to/gateways.md"
    copy = Copy(FOLDER, tmp_path)
    async with (
        copy.running(*PYTHON, "many_gateways.py", "a") as a,
        copy.running(*PYTHON, "many_gateways.py", "b") as b,
    ):
        for name, each in (("a", a), ("b", b)):
            [shown] = output_of(page, f"python many_gateways.py {name}")
            assert await each.line() == copy.here(shown)
        run = await trio.to_thread.run_sync(copy.run, *PYTHON, "either_gateway.py")
        shown = output_of(page, "python either_gateway.py")
        assert run.stdout.splitlines()[-1:] == shown[-1:], run.stderr
        assert set(run.stdout.splitlines()) <= set(shown)  # a job skips callbacks, if it is late

"""serve --reload, as its own process; and serve --access-log."""

from __future__ import annotations

import logging
import os
import signal
import sys

import pytest
import trio
from helpers.cli_tools import run_cli, running_cli

import trio_rpc
from trio_rpc.cli import main
from trio_rpc.cli.exits import Exit, Usage
from trio_rpc.cli.listening import ServeOptions, listening
from trio_rpc.cli.output import Output
from trio_rpc.cli.reloading import serve_again_after_changes, words_of_server
from trio_rpc.cli.serving import logging_to_stderr

MODULE = """
import trio
import trio_rpc

class Versioned:
    @trio_rpc.method
    async def version(self) -> int:
        return {version}

    @trio_rpc.method
    async def hold(self) -> str:
        print("holding", flush=True)
        await trio.sleep(0.5)
        return "held"

services = Versioned()
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "versioned.py").write_text(MODULE.format(version=1))
    return tmp_path


def serving(folder):
    pytest.importorskip("watchfiles", reason="the extra reload is not installed")
    words = ("serve", "versioned:services", "--listen", f"unix://{folder}/s", "--reload", "--json")
    return running_cli(*words, cwd=folder)


async def version_at(folder):
    async with trio_rpc.connect(f"unix://{folder}/s") as session:
        return await session.call("version")


async def until(command, event):
    """Return the events up to the next one with this name."""
    found = []
    while not found or found[-1]["event"] != event:
        found.append(await command.event())
    return found


@pytest.mark.slow
async def test_a_changed_file_is_served_by_a_fresh_process_after_a_drain(folder):
    async with serving(folder) as command, trio.open_nursery() as nursery:
        await until(command, "listening")
        assert await version_at(folder) == 1
        held = []

        async def hold():
            async with trio_rpc.connect(f"unix://{folder}/s") as session:
                held.append(await session.call("hold"))

        nursery.start_soon(hold)
        assert await command.line() == "holding"
        source = folder / "versioned.py"
        saved = source.stat().st_mtime
        source.write_text(MODULE.format(version=2))
        os.utime(source, (saved, saved))  # two changes in a second: old bytecode would fit as well
        events = await until(command, "listening")
        assert [each["event"] for each in events] == [
            "draining",
            "stopped",
            "changed",
            "listening",
        ]
        assert events[2]["files"] == ["versioned.py"]
        assert held == ["held"]
        assert await version_at(folder) == 2
        command.process.send_signal(signal.SIGINT)
        assert (await command.event())["event"] == "draining"
        assert await command.process.wait() == Exit.OK


@pytest.mark.slow
async def test_a_file_that_cannot_be_imported_is_reported_and_the_next_change_waited_for(folder):
    (folder / "versioned.py").write_text("def broken(:\n")
    async with serving(folder) as command:
        assert await command.event() == {"event": "ended", "code": Exit.USAGE}
        (folder / "notes.txt").write_text("no source")
        (folder / "versioned.py").write_text(MODULE.format(version=3))
        events = await until(command, "listening")
        assert events[0] == {"event": "changed", "files": ["versioned.py"]}
        assert await version_at(folder) == 3


@pytest.mark.slow
async def test_a_signal_while_a_change_is_waited_for_ends_the_command(folder):
    (folder / "versioned.py").write_text("1 / 0")
    async with serving(folder) as command:
        await until(command, "ended")
        command.process.send_signal(signal.SIGTERM)
        assert await command.process.wait() == Exit.USAGE


@pytest.mark.slow
async def test_no_server_is_left_if_the_command_is_killed(folder):
    async with serving(folder) as command:
        await until(command, "listening")
        command.process.kill()
        await command.process.wait()
        while (folder / "s").exists():  # noqa: ASYNC110 - the server removes it when it has drained
            await trio.sleep(0.05)


def test_the_server_gets_the_same_words_without_the_option():
    words = ["serve", "m:x", "--listen", "tcp://h:1", "--reload", "--reload=true", "--json"]
    assert words_of_server(words) == [
        *["serve", "m:x", "--listen", "tcp://h:1", "--json"],
        "--until-stdin-closes",
    ]


def test_standard_input_cannot_be_watched_as_well(capsys):
    words = ["serve", "m:x", "--listen", "tcp://h:1", "--reload", "--until-stdin-closes"]
    assert main(words) == Exit.USAGE
    assert "standard input" in capsys.readouterr().err


async def test_without_the_extra_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(Usage, match=r"\[reload\]"):
        await serve_again_after_changes(["serve"], Output(as_json=False), grace=1)


# ── the access log ───────────────────────────────────────────────────────────────────────────


class Echo:
    @trio_rpc.method
    async def echo(self, text: str) -> str:
        return text


@pytest.mark.parametrize("trace", [False, True])
async def test_each_call_is_a_line_of_the_access_log(trace, capsys):
    options = ServeOptions(urls=["tcp://127.0.0.1:0"], access_log=True, trace=trace)
    with logging_to_stderr(verbose=False, access=True):
        async with listening(Echo(), options) as on, trio_rpc.connect(on.urls[0]) as session:
            await session.call("echo", "s3cr3t")
            with pytest.raises(trio_rpc.MethodNotFound):
                await session.call("\x1b[2J")
    shown = capsys.readouterr().err
    assert "echo: result, stopped, " in shown
    assert "method_not_found" in shown
    assert "s3cr3t" not in shown
    assert "\x1b" not in shown
    assert (" in " in shown.replace(" bytes in", "")) == trace


async def test_without_the_option_there_is_no_access_log(capsys):
    access = logging.getLogger("trio_rpc.access")
    level = access.level
    with logging_to_stderr(verbose=True):
        options = ServeOptions(urls=["tcp://127.0.0.1:0"])
        async with listening(Echo(), options) as on, trio_rpc.connect(on.urls[0]) as session:
            await session.call("echo", "hello")
    assert "result, stopped" not in capsys.readouterr().err
    assert access.level == level


async def test_the_option_is_taken_by_the_command(folder):
    done = await run_cli("serve", "versioned:none", "--listen", "tcp://127.0.0.1:0", "--access-log")
    assert done.returncode == Exit.USAGE
    assert b"versioned" in done.stderr

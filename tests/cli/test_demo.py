"""The demo: its claims hold, on every kind of output, and it leaves no process behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess

import pytest
import trio
from helpers.cli_tools import COMMAND, PATIENCE, run_cli, running_cli

from trio_rpc import ScopeNode
from trio_rpc.cli.demo.tree import join_trees
from trio_rpc.cli.exits import Exit
from trio_rpc.cli.statistics import Latencies
from trio_rpc.cli.terminal import plural

SERVER = re.compile(r"server process (\d+) at (tcp://\S+)")


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_the_demo_prints_one_json_object_for_scripts():
    done = await run_cli("demo", "--quick", "--json")
    assert (done.returncode, done.stderr) == (0, b"")
    report = json.loads(done.stdout)
    assert report["ok"] is True
    assert report["concurrent"]["took"] < report["concurrent"]["calls"] * 0.05
    for direction in ("cancel_from_here", "cancel_from_there"):  # law 2
        result = report[direction]
        assert result["margin"] >= 0
        assert result["left"] == 0
        assert "has cleaned up" in [moment["text"] for moment in result["moments"]]
    assert report["jobs"]["callbacks"] == 125
    methods = [call["method"] for call in report["jobs"]["tree"]]
    assert methods.count("lab.run_job") == 3
    assert {"callback 0 of lab.run_job", "lab.look"} < set(methods)
    assert [use["ok"] for use in report["what_lives"]] == [True, True]
    assert report["figures"]["one_at_a_time"]["count"] == 300
    assert report["server"]["exit_code"] == 0
    assert not is_alive(report["server"]["pid"])


async def test_the_demo_prints_plain_text_into_a_pipe():
    done = await run_cli("demo", "--quick")
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode()
    assert "\x1b" not in text
    assert "\r" not in text
    assert not re.search(r" +$", text, re.MULTILINE)
    assert "✗" not in text
    assert text.count("✓") == 3
    assert re.search(r"└── callback 0 of lab.run_job #\d+  server waiting → client running", text)
    assert "exit code 0" in text
    server = SERVER.search(text)
    assert not is_alive(int(server[1]))


async def test_the_demo_prints_only_ascii_where_the_encoding_is_ascii():
    with trio.fail_after(PATIENCE):
        done = await trio.run_process(
            [*COMMAND, "demo", "--quick"],
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.isascii()


async def test_the_demo_draws_bars_in_a_terminal():
    ours, theirs = os.openpty()
    process = await trio.lowlevel.open_process(
        [*COMMAND, "demo", "--quick"],
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "90"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    try:
        async with trio.lowlevel.FdStream(ours) as terminal:
            with trio.fail_after(PATIENCE):
                try:
                    while part := await terminal.receive_some():
                        shown += part
                except trio.BrokenResourceError:  # on Linux: the other end is closed
                    pass
                assert await process.wait() == 0
    finally:
        process.kill()
        await process.wait()
    text = shown.decode()
    assert "━━━" in text
    assert "40/40" in text
    assert "\x1b[?25h" in text  # the cursor is back
    assert "✗" not in text


async def test_an_interrupted_demo_stops_its_server():
    async with running_cli("demo") as demo:
        server = await _server_of(demo)
        demo.process.send_signal(signal.SIGINT)
        assert await demo.process.wait() == Exit.INTERRUPTED
    assert not is_alive(server)


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="requires a pidfd")
async def test_the_server_of_a_killed_demo_stops():
    async with running_cli("demo") as demo:
        server = os.pidfd_open(await _server_of(demo))
        try:
            demo.process.kill()
            with trio.fail_after(PATIENCE):
                await trio.lowlevel.wait_readable(server)
        finally:
            os.close(server)


async def _server_of(demo) -> int:
    while not (found := SERVER.search(await demo.line())):
        pass
    return int(found[1])


async def test_a_closed_output_pipe_prints_no_traceback():
    process = await trio.lowlevel.open_process(
        [*COMMAND, "demo", "--quick"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    await process.stdout.receive_some(1)
    await process.stdout.aclose()
    with trio.fail_after(PATIENCE):
        err = b"".join([part async for part in process.stderr])
        assert (await process.wait(), err) == (1, b"")
    await process.stderr.aclose()


# ── parts of it ────────────────────────────────────────────────────────────────────────────────


def node(direction, number, method, *, parent=None, age=1.0, state="running"):
    return ScopeNode(
        direction=direction, id=number, method=method, age=age, state=state, parent=parent
    )


def test_join_trees_makes_one_node_of_both_ends_of_a_call():
    client = [
        node("out", 7, "job", state="waiting", age=2.0),
        node("in", 1, "progress", parent=("out", 7)),
    ]
    server = [
        node("in", 7, "job"),
        node("out", 1, "progress", parent=("in", 7), state="waiting", age=1.5),
        node("in", 8, "look", parent=("out", 1), age=0.1),
    ]
    job, progress, look = join_trees(client, server)
    assert (job.key, job.parent, job.age) == (("client", 7), None, 2.0)
    assert (job.at_caller, job.at_callee) == ("waiting", "running")
    assert (progress.key, progress.parent) == (("server", 1), ("client", 7))
    assert (progress.at_caller, progress.at_callee) == ("waiting", "running")
    assert (look.key, look.parent) == (("client", 8), ("server", 1))
    assert (look.at_caller, look.at_callee) == ("", "running")


def test_latencies_report_count_and_percentiles():
    latencies = Latencies()
    assert len(latencies) == 0
    for number in range(1, 101):
        latencies.add(number / 1000)
    expected = {"count": 100, "min_ms": 1.0, "p50_ms": 50.0, "p99_ms": 99.0, "max_ms": 100.0}
    assert latencies.as_dict() == expected


def test_plural_has_thousands_separators():
    assert [plural(count, "call") for count in (0, 1, 1000)] == ["0 calls", "1 call", "1,000 calls"]

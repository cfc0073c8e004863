"""Standard streams that are missing, full, or read by nobody: the right exit code, one line at most, no traceback."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from helpers.cli_tools import COMMAND, PATIENCE, ROOT, running_cli

import trio_rpc
from trio_rpc.cli.exits import Exit

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")


class Service:
    @trio_rpc.method
    async def echo(self, size: int = 1) -> str:
        return "x" * size

    @trio_rpc.stream
    async def ticks(self, count: int = 3):
        for number in range(count):
            yield number

    @trio_rpc.method
    async def hold(self) -> None:
        await trio.sleep_forever()


@asynccontextmanager
async def serving() -> AsyncIterator[str]:
    async with trio.open_nursery() as nursery:
        [url] = await nursery.start(trio_rpc.serve, Service(), "tcp://127.0.0.1:0")
        yield url
        nursery.cancel_scope.cancel()


async def shell(arguments: list[str], redirected: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command as somebody has typed it, with what follows it; its exit code is the command's own."""
    text = f"{shlex.join([*COMMAND, *arguments])} {redirected}"
    if "|" in redirected:
        text = f"set -o pipefail; {text}"
    with trio.fail_after(PATIENCE):
        return await trio.run_process(
            ["bash", "-c", text],
            cwd=ROOT,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )


ENDLESS = ("--count", "1000000", "--interval", "0.01")
COMMANDS = {
    "call": ["call", "URL", "echo"],
    "a large result": ["call", "URL", "echo", "[300000]"],
    "a call as JSON": ["call", "URL", "echo", "--json"],
    "stream": ["stream", "URL", "ticks", "[5]"],
    "a long stream as JSON": ["stream", "URL", "ticks", "[20000]", "--json"],
    "describe": ["describe", "URL"],
    "ping": ["ping", "URL", "--count", "2", "--interval", "0"],
    "ping as JSON": ["ping", "URL", "--count", "1", "--json"],
    "help": ["--help"],
    "help of a command": ["serve", "--help"],
    "version": ["--version"],
}
FAILING = {
    "a call that fails": (["call", "URL", "nothing"], Exit.FAILED),
    "nobody there": (["ping", "tcp://127.0.0.1:1"], Exit.UNREACHABLE),
    "nobody there, as JSON": (["describe", "tcp://127.0.0.1:1", "--json"], Exit.UNREACHABLE),
    "no such command": (["nothing"], Exit.USAGE),
    "nothing to serve": (["serve", "nothing:nothing", "--listen", "tcp://127.0.0.1:0"], Exit.USAGE),
}


def check_quiet(done: subprocess.CompletedProcess[bytes], lines: int) -> None:
    told = done.stderr.decode()
    assert "Traceback" not in told
    assert "Exception ignored" not in told
    assert len(told.splitlines()) <= lines, told


@pytest.mark.parametrize(
    ("name", "redirected"),
    [
        *((name, ">&-") for name in COMMANDS),
        *(("call", redirected) for redirected in ("2>&-", "<&-", ">&- 2>&- <&-", "2>/dev/full")),
    ],
)
async def test_a_stream_that_is_missing_changes_no_exit_code(name, redirected):
    async with serving() as url:
        done = await shell([url if one == "URL" else one for one in COMMANDS[name]], redirected)
    check_quiet(done, 0)
    assert done.returncode == 0
    assert bool(done.stdout) == (">&-" not in redirected or redirected == "2>&-")


@pytest.mark.parametrize(
    ("name", "redirected"),
    [
        *((name, "2>/dev/full") for name in FAILING),
        *(
            ("nobody there", redirected)
            for redirected in (">&-", "2>&-", ">&- 2>&- <&-", ">/dev/full")
        ),
    ],
)
async def test_a_command_that_fails_has_its_exit_code_also_without_streams(name, redirected):
    arguments, code = FAILING[name]
    async with serving() as url:
        done = await shell([url if one == "URL" else one for one in arguments], redirected)
    check_quiet(done, 1)
    assert done.returncode == code


@pytest.mark.parametrize("name", COMMANDS)
async def test_a_full_disk_is_one_line(name):
    async with serving() as url:
        done = await shell([url if one == "URL" else one for one in COMMANDS[name]], ">/dev/full")
    check_quiet(done, 1)
    assert done.returncode == Exit.FAILED
    assert "cannot write to standard output: No space left on device" in done.stderr.decode()


@pytest.mark.parametrize(
    ("name", "reader"),
    [
        *((name, "| true") for name in COMMANDS),
        ("a large result", "| head -c 10"),
        ("a long stream as JSON", "| head -n 1"),
    ],
)
async def test_a_reader_that_leaves_is_silence(name, reader):
    async with serving() as url:
        done = await shell([url if one == "URL" else one for one in COMMANDS[name]], reader)
    check_quiet(done, 0)
    assert done.returncode in {Exit.OK, Exit.FAILED}  # it may have been done before


async def test_a_reader_that_has_left_ends_a_stream_that_has_no_end():
    async with serving() as url:
        done = await shell(["stream", url, "ticks", "[1000000000]", "--json"], "| head -n 1")
    check_quiet(done, 0)
    assert (done.stdout, done.returncode) == (b"0\n", Exit.FAILED)


@pytest.mark.parametrize(
    ("redirected", "codes"),
    [(">&- 2>&- <&-", {0}), (">/dev/full", {1}), ("| head -n 1", {0, 1})],
)
async def test_the_demo(redirected, codes):
    done = await shell(["demo", "--quick"], redirected)
    check_quiet(done, 1)
    assert done.returncode in codes


async def test_a_server_goes_on_when_nobody_reads_what_it_says():
    """It says where it listens; whoever wanted to know has read that and left."""
    reads, writes = os.pipe()
    process = await trio.lowlevel.open_process(
        [*COMMAND, "serve", "examples.market:services", "--listen", "tcp://127.0.0.1:0", "--json"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=writes,
        stderr=subprocess.PIPE,
    )
    os.close(writes)
    try:
        with trio.fail_after(PATIENCE):
            line = await trio.to_thread.run_sync(os.read, reads, 4096)
            os.close(reads)
            [url] = json.loads(line)["urls"]
            async with trio_rpc.connect(url) as session:
                await session.ping()
                process.send_signal(signal.SIGTERM)
                await session.wait_closed()
            assert await process.wait() == 0
            assert process.stderr is not None
            assert await process.stderr.receive_some() == b""
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stderr.aclose()


@pytest.mark.parametrize("redirected", [">&-", ">&- 2>&- <&-"])
async def test_a_server_without_streams_serves(redirected, tmp_path):
    """Its sockets must not take the place of a stream: what is printed would go to a client."""
    place = tmp_path / "s"
    command = [*COMMAND, "serve", "examples.market:services", "--listen", f"unix://{place}"]
    process = await trio.lowlevel.open_process(
        ["sh", "-c", f"exec {shlex.join(command)} {redirected}"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        with trio.fail_after(PATIENCE):
            while not place.exists():  # noqa: ASYNC110 - it has no other way to tell
                await trio.sleep(0.02)
            async with trio_rpc.connect(f"unix://{place}") as session:
                assert await session.call("market.price", "BTC")
                process.send_signal(signal.SIGTERM)
                await session.wait_closed()
            assert await process.wait() == 0
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def test_ping_sums_up_when_it_is_interrupted():
    told = []
    async with serving() as url, running_cli("ping", url, *ENDLESS) as command:
        for _ in range(3):
            told.append(await command.line())
        command.process.send_signal(signal.SIGINT)
        while line := await command.line():
            told.append(line)
        assert await command.process.wait() == Exit.INTERRUPTED
    shown = [line for line in told if "/1000000" in line]
    assert told[-1].startswith(f"{len(shown)} answers: min ")


async def test_ping_sums_up_for_scripts_when_it_is_interrupted():
    came = trio.Event()

    def services(_: trio_rpc.Session) -> Service:
        came.set()
        return Service()

    async with trio.open_nursery() as nursery:
        [url] = await nursery.start(trio_rpc.serve, services, "tcp://127.0.0.1:0")
        async with running_cli("ping", url, *ENDLESS, "--json") as command:
            await came.wait()
            command.process.send_signal(signal.SIGINT)
            summed = await command.event()
            assert (summed["url"], summed["count"] >= 0) == (url, True)
            assert await command.process.wait() == Exit.INTERRUPTED
        nursery.cancel_scope.cancel()


async def test_ping_sums_up_also_when_there_was_no_answer():
    async def mute(stream: trio.SocketStream) -> None:
        taken.set()
        await trio.sleep_forever()

    taken = trio.Event()
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, mute, listeners)
        async with running_cli("ping", f"tcp://127.0.0.1:{port}", "--json") as command:
            await taken.wait()
            command.process.send_signal(signal.SIGINT)
            summed = await command.event()
            assert (summed["count"], summed["p50_ms"]) == (0, None)
            assert await command.process.wait() == Exit.INTERRUPTED
        nursery.cancel_scope.cancel()

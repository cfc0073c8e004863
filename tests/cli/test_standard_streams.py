"""Standard streams that are closed, full or unread: the exit code is right, without a traceback."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

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
    """Run a command with redirections in a shell, and return its own exit code and output."""
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
    "no server": (["ping", "tcp://127.0.0.1:1"], Exit.UNREACHABLE),
    "no server, as JSON": (["describe", "tcp://127.0.0.1:1", "--json"], Exit.UNREACHABLE),
    "no such command": (["nothing"], Exit.USAGE),
    "nothing to serve": (["serve", "nothing:nothing", "--listen", "tcp://127.0.0.1:0"], Exit.USAGE),
}


def check_quiet(done: subprocess.CompletedProcess[bytes], lines: int) -> None:
    text = done.stderr.decode()
    assert "Traceback" not in text
    assert "Exception ignored" not in text
    assert len(text.splitlines()) <= lines, text


@pytest.mark.parametrize(
    ("name", "redirected"),
    [
        *((name, ">&-") for name in COMMANDS),
        *(("call", redirected) for redirected in ("2>&-", "<&-", ">&- 2>&- <&-", "2>/dev/full")),
    ],
)
async def test_a_missing_standard_stream_does_not_change_the_exit_code(name, redirected):
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
            ("no server", redirected)
            for redirected in (">&-", "2>&-", ">&- 2>&- <&-", ">/dev/full")
        ),
    ],
)
async def test_a_failed_command_keeps_its_exit_code_without_standard_streams(name, redirected):
    arguments, code = FAILING[name]
    async with serving() as url:
        done = await shell([url if one == "URL" else one for one in arguments], redirected)
    check_quiet(done, 1)
    assert done.returncode == code


@pytest.mark.parametrize("name", COMMANDS)
async def test_a_full_disk_is_reported_in_one_line(name):
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
async def test_a_closed_output_pipe_is_not_reported(name, reader):
    async with serving() as url:
        done = await shell([url if one == "URL" else one for one in COMMANDS[name]], reader)
    check_quiet(done, 0)
    assert done.returncode in {Exit.OK, Exit.FAILED}  # OK if it finished before the pipe closed


async def test_a_closed_output_pipe_ends_an_endless_stream():
    async with serving() as url:
        done = await shell(["stream", url, "ticks", "[1000000000]", "--json"], "| head -n 1")
    check_quiet(done, 0)
    assert (done.stdout, done.returncode) == (b"0\n", Exit.FAILED)


@pytest.mark.parametrize(
    ("redirected", "codes"),
    [(">&- 2>&- <&-", {0}), (">/dev/full", {1}), ("| head -n 1", {0, 1})],
)
async def test_the_demo_runs_with_redirected_streams(redirected, codes):
    done = await shell(["demo", "--quick"], redirected)
    check_quiet(done, 1)
    assert done.returncode in codes


async def test_a_server_keeps_serving_after_its_output_pipe_is_closed():
    """The reader of its output reads the URLs and closes the pipe."""
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


async def until_listening(place: Path) -> None:
    """Wait for a server that can print nothing.

    Its file appears when it binds the socket, a moment before it listens, so only a connection
    that was accepted shows that it listens.
    """
    while True:
        try:
            stream = await trio.open_unix_socket(place)
        except (FileNotFoundError, ConnectionRefusedError):
            await trio.sleep(0.02)
        else:
            await stream.aclose()
            return


@pytest.mark.parametrize("redirected", [">&-", ">&- 2>&- <&-"])
async def test_a_server_without_standard_streams_serves(redirected, tmp_path):
    """Its sockets must not get a standard stream's descriptor: prints would go to a client."""
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
            await until_listening(place)
            async with trio_rpc.connect(f"unix://{place}") as session:
                assert await session.call("market.price", "BTC")
                process.send_signal(signal.SIGTERM)
                await session.wait_closed()
            assert await process.wait() == 0
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def test_an_interrupted_ping_prints_its_summary():
    printed = []
    async with serving() as url, running_cli("ping", url, *ENDLESS) as command:
        for _ in range(3):
            printed.append(await command.line())
        command.process.send_signal(signal.SIGINT)
        while line := await command.line():
            printed.append(line)
        assert await command.process.wait() == Exit.INTERRUPTED
    shown = [line for line in printed if "/1000000" in line]
    assert printed[-1].startswith(f"{len(shown)} answers: min ")


async def test_an_interrupted_ping_prints_its_summary_as_json():
    connected = trio.Event()

    def services(_: trio_rpc.Session) -> Service:
        connected.set()
        return Service()

    async with trio.open_nursery() as nursery:
        [url] = await nursery.start(trio_rpc.serve, services, "tcp://127.0.0.1:0")
        async with running_cli("ping", url, *ENDLESS, "--json") as command:
            await connected.wait()
            command.process.send_signal(signal.SIGINT)
            summed = await command.event()
            assert (summed["url"], summed["count"] >= 0) == (url, True)
            assert await command.process.wait() == Exit.INTERRUPTED
        nursery.cancel_scope.cancel()


async def test_an_interrupted_ping_without_answers_prints_a_summary():
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

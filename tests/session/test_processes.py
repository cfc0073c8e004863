"""Sessions with real child processes: calls in both directions, and the ends of the processes.

The tests run in real time, because the processes do, but none relies on speed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from helpers import children
from helpers.children import Plugin
from helpers.handlers import Echo
from helpers.processes import descriptors, exists

import trio_rpc
from trio_rpc import DEFAULT_LIMITS, Limits, SessionBroken, open_process, serve_parent
from trio_rpc.channels import ChannelBroken, ProcessExit

TIME_LIMIT = 60.0
"""Seconds that each of these tests may take, on any machine."""


def command(program="serve"):
    return [sys.executable, "-W", "error", children.__file__, program]


def opened(program="serve", *, limits=DEFAULT_LIMITS, **options):
    """Open a session whose child may take the test's whole time to start, on a busy machine."""
    patient = replace(limits, handshake_timeout=TIME_LIMIT)
    return open_process(command(program), limits=patient, **options)


@pytest.fixture(autouse=True)
async def bounded():
    with trio.fail_after(TIME_LIMIT):
        yield


@pytest.fixture(autouse=True)
def check_leaks():
    """Check that each test has reaped its processes and closed its descriptors."""
    before = descriptors()
    yield
    assert descriptors() == before


async def fails(session, *call):
    with pytest.raises(SessionBroken) as caught:
        await session.call(*call)
    return caught.value


# ── values between the processes ─────────────────────────────────────────────────────────────


async def test_a_child_serves_and_is_reaped():
    async with opened() as session:
        pid = await session.call("pid")
        assert pid != os.getpid()
        assert session.name.startswith(f"child process {pid} (")
        assert exists(pid)
    assert not exists(pid)


async def test_both_ends_can_serve():
    async with opened(services={"parent": Echo()}) as session:
        assert await session.call("ask_parent", {"deep": [1, 2]}) == {"deep": [1, 2]}


async def test_callbacks_streams_and_large_messages_work():
    async def double(number):
        return 2 * number

    async with opened(limits=Limits(max_message=2**25)) as session:
        plugin = session.proxy("", Plugin)
        assert await plugin.count(10, double) == 90
        async with plugin.numbers(5_000) as stream:
            assert [number async for number in stream] == list(range(5_000))
        large = bytes(range(256)) * 40_000
        assert await plugin.echo(large) == large
        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(plugin.echo, number)


async def test_the_session_does_not_use_the_childs_standard_output(capfd):
    async with opened() as session:
        await session.call("say", "hello")
    assert capfd.readouterr().out == "hello\n"


async def test_a_child_gets_its_environment_and_directory(tmp_path):
    env = {**os.environ, "COLOUR": "green"}
    async with opened(env=env, cwd=tmp_path) as session:
        assert await session.call("surroundings") == (str(tmp_path), "green")
    assert "TRIO_RPC_CHANNEL_FD" not in os.environ


async def test_processes_started_by_a_child_do_not_inherit_the_channel():
    look = "import os; print('TRIO_RPC_CHANNEL_FD' in os.environ, len(os.listdir('/dev/fd')))"
    async with opened() as session:
        # The standard descriptors, and the one that lists them.
        assert await session.call("run", sys.executable, "-c", look) == "False 4\n"


async def test_several_children_can_run_at_once():
    async def use(number):
        async with opened(name=f"number {number}") as session:
            assert await session.call("echo", number) == number

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(use, number)


# ── a child that dies ────────────────────────────────────────────────────────────────────────


async def test_calls_in_flight_raise_an_error_with_the_exit_code():
    async with opened(name="plugin") as session, trio.open_nursery() as nursery:
        pid = await nursery.start(broken_call, session, "hang")
        error = await fails(session, "exit", 3)
        text = f"the child process {pid} (plugin) ended with exit code 3"
        assert str(error) == f"the session is over: {text}"
        assert isinstance(error.__cause__, trio.BrokenResourceError)
        assert str(error.__cause__) == text
    assert not exists(pid)


@pytest.mark.parametrize(
    ("call", "returncode"), [(("exit", 3), 3), (("die", signal.SIGKILL), -signal.SIGKILL)]
)
async def test_the_record_of_the_end_and_the_peer_have_the_exit_code(call, returncode):
    async with opened(name="plugin", on_end="keep") as session:
        assert session.peer.pid == await session.call("pid")
        assert session.peer.name == session.name
        assert session.peer.returncode is None
        await fails(session, *call)
        end = await session.wait_closed()
        assert (end.by, end.detail) == ("network", ProcessExit(returncode))
        assert isinstance(end.cause, ChannelBroken)
        assert session.peer.returncode == returncode


@pytest.mark.parametrize("program", ["serve", "lingering"])
async def test_a_child_that_ends_after_its_block_has_its_exit_code_in_the_peer(program):
    async with opened(program, goodbye_time=0.1 if program == "lingering" else 5) as session:
        await session.call("pid")
    assert session.peer.returncode == (0 if program == "serve" else -signal.SIGTERM)
    assert (await session.wait_closed()).by == "us"


async def broken_call(session, method, *, task_status=trio.TASK_STATUS_IGNORED):
    with pytest.raises(SessionBroken, match=r"\) ended with exit code 3$"):
        await session.call(method, task_status=task_status)


async def test_exit_code_0_without_a_goodbye_is_a_broken_session():
    async with opened() as session:
        error = await fails(session, "exit", 0)
        assert str(error).endswith(") ended with exit code 0")


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1])
async def test_the_end_of_a_killed_child_is_noticed_within_a_second(signal_number):
    async with opened() as session:
        await session.call("pid")
        with trio.fail_after(1):
            error = await fails(session, "die", signal_number)
        assert str(error).endswith(f") was killed by {signal.Signals(signal_number).name}")


async def test_a_child_that_is_killed_during_a_write_is_noticed():
    """Whether the reader or the writer notices first, the error says how the child has ended."""
    async with opened() as session, trio.open_nursery() as nursery:
        pid = await session.call("pid")

        async def flood():
            with pytest.raises(SessionBroken, match="was killed by SIGKILL"):
                while True:
                    await session.call("echo", bytes(100_000))

        for _ in range(20):
            nursery.start_soon(flood)
        await session.call("echo", "they are under way")
        os.kill(pid, signal.SIGKILL)


async def test_a_frozen_child_is_killed_after_its_keepalive_time():
    limits = Limits(keepalive_interval=0.1, keepalive_pings=2)
    async with open_process(
        command(), limits=limits, goodbye_time=0.1, terminate_time=0.1, on_end="keep"
    ) as session:
        pid = await session.call("pid")
        error = await fails(session, "die", signal.SIGSTOP)
        assert "silent for 0.3 s" in str(error)
        # The process is ended without waiting for the end of the block.
        while exists(pid):  # noqa: ASYNC110 - no event tells
            await trio.sleep(0.01)


async def test_a_child_may_leave_with_a_goodbye():
    async with opened("leaving", on_end="keep") as session:
        await session.call("leave")
        await session.wait_closed()
        with pytest.raises(SessionBroken, match="the other end has left"):
            await session.call("echo", 1)


async def test_the_end_of_a_child_is_noticed_even_if_another_process_holds_its_socket(caplog):
    """The session does not wait for the end of standard error once the child has ended."""
    script = 'sleep 60 & echo $! >&2; exec "$0" "$@"'
    async with open_process(
        ["/bin/sh", "-c", script, *command()], limits=Limits(handshake_timeout=TIME_LIMIT)
    ) as session:
        await session.call("pid")
        with trio.fail_after(5):
            error = await fails(session, "die", signal.SIGKILL)
        assert str(error).endswith("was killed by SIGKILL")
        sleeping = int(caplog.messages[0].rpartition(" ")[2])
        assert exists(sleeping)
    os.kill(sleeping, signal.SIGKILL)


# ── a child that does not become a session ───────────────────────────────────────────────────


async def does_not_open(arguments, **options):
    async with open_process(arguments, **options):
        raise AssertionError("it must not open")


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (["no-such-program", "x"], FileNotFoundError, "cannot start no-such-program x: No such"),
        (["/"], PermissionError, "cannot start /: Permission denied"),
        (["bad\nname"], FileNotFoundError, r"cannot start 'bad\nname': No such"),
        ([], ValueError, "the command is empty"),
        ("true", TypeError, "a command is a list"),
    ],
)
async def test_a_command_that_cannot_be_started_is_an_error_of_one_line(arguments, error, text):
    with pytest.raises(error) as caught:
        await does_not_open(arguments)
    assert str(caught.value).startswith(text)
    assert "\n" not in str(caught.value)


async def test_a_missing_directory_is_named_in_the_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cannot start .* \(the directory .*/nowhere\)$"):
        await does_not_open(command(), cwd=tmp_path / "nowhere")


@pytest.mark.parametrize("option", [{"goodbye_time": -1}, {"terminate_time": float("nan")}])
async def test_a_negative_or_nan_time_is_refused(option):
    with pytest.raises(ValueError, match=f"{next(iter(option))} must not be negative"):
        await does_not_open(command(), **option)


async def test_a_child_that_ends_before_the_handshake_is_an_error_with_its_exit_code(caplog):
    with pytest.raises(SessionBroken, match=r"ended with exit code 1$"):
        await does_not_open([sys.executable, "-c", "raise ImportError('no such plugin')"])
    assert caplog.messages[-1].endswith("): ImportError: no such plugin")


async def test_a_program_that_does_not_serve_its_parent_is_a_handshake_timeout():
    limits = Limits(handshake_timeout=0.1, shutdown_timeout=0.1)
    with pytest.raises(SessionBroken, match=r"no handshake within 0\.1 s"):
        await does_not_open(["sleep", "60"], limits=limits)


async def test_opening_can_be_cancelled_before_the_process_starts():
    with trio.CancelScope() as scope:
        scope.cancel()
        await does_not_open(["sleep", "60"])
    assert scope.cancelled_caught


async def test_a_process_that_starts_while_opening_is_cancelled_is_terminated(monkeypatch):
    """A race: the system starts the process, but no caller will receive its channel."""
    start = trio.lowlevel.open_process
    started = []

    async def cancel_meanwhile(*args, **options):
        started.append(await start(*args, **options))
        scope.cancel()
        return started[0]

    monkeypatch.setattr(trio.lowlevel, "open_process", cancel_meanwhile)
    with trio.CancelScope() as scope:
        await does_not_open(["sleep", "60"], goodbye_time=TIME_LIMIT)
    assert scope.cancelled_caught
    assert started[0].returncode == -signal.SIGTERM


async def test_opening_can_be_cancelled_during_the_handshake():
    with trio.move_on_after(0.1) as scope:
        await does_not_open(["sleep", "60"], limits=Limits(shutdown_timeout=0.1))
    assert scope.cancelled_caught


# ── leaving the block ────────────────────────────────────────────────────────────────────────


async def test_a_child_that_does_not_end_gets_sigterm(caplog):
    async with opened("lingering", goodbye_time=0.2, terminate_time=30) as session:
        pid = await session.call("pid")
        left = trio.current_time()
    assert 0.2 <= trio.current_time() - left < 30
    assert not exists(pid)
    assert caplog.messages == []


async def test_a_child_that_ignores_sigterm_is_killed_after_terminate_time(caplog):
    async with opened("stubborn", goodbye_time=0.2, terminate_time=0.3) as session:
        pid = await session.call("pid")
        left = trio.current_time()
    assert 0.5 <= trio.current_time() - left < 5
    assert not exists(pid)
    [line] = caplog.messages
    assert line.endswith("did not end within 0.3 s of SIGTERM")


async def test_cancelling_the_block_lets_handlers_clean_up(caplog):
    with trio.CancelScope() as scope:
        async with opened(goodbye_time=30) as session:
            async with trio.open_nursery() as nursery:
                pid = await nursery.start(session.call, "hang")
                scope.cancel()
    assert not exists(pid)
    assert [line.rpartition(" (")[2].partition("): ")[2] for line in caplog.messages] == [
        "cleaned up"
    ]


async def test_a_cancelled_block_waits_only_briefly_for_its_child():
    """It waits for ``shutdown_timeout``, not for ``goodbye_time``."""
    with trio.CancelScope() as scope:
        async with opened(
            "stubborn",
            goodbye_time=TIME_LIMIT,
            terminate_time=0.1,
            limits=Limits(shutdown_timeout=0.1),
        ) as session:
            pid = await session.call("pid")
            scope.cancel()
    assert not exists(pid)


async def test_the_block_raises_the_exception_of_its_body():
    error = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught:
        async with opened() as session:
            pid = await session.call("pid")
            raise error
    assert caught.value is error
    assert not exists(pid)


async def test_a_child_ends_when_its_parent_dies():
    read, write = os.pipe()
    async with trio.lowlevel.FdStream(read) as output:
        try:
            parent = await trio.lowlevel.open_process(command("parent"), stdout=write)
        finally:
            os.close(write)
        try:
            assert (await output.receive_some()).strip().isdigit()  # the child serves
        finally:
            parent.kill()
            await parent.wait()
        # The child has inherited this pipe as its standard output, so it ends with the child.
        assert await output.receive_some() == b""


# ── standard error ───────────────────────────────────────────────────────────────────────────


async def logged_lines(caplog, *texts):
    async with opened(name="x") as session:
        for text in texts:
            await session.call("write_stderr", text)
    assert {record.name for record in caplog.records} == {"trio_rpc.process"}
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    return [line.partition(" (x): ")[2] for line in caplog.messages]


async def test_standard_error_goes_to_logging(caplog):
    lines = await logged_lines(caplog, b"one\ntwo\n", b"thr", b"ee\n\n", b"no end")
    assert lines == ["one", "two", "three", "", "no end"]


async def test_logged_lines_are_escaped_and_bounded(caplog):
    lines = await logged_lines(caplog, b"\x1b[31mred\r\n", b"\xff\xc3\xa4\n", b"a" * 10_000 + b"\n")
    assert lines == [r"\x1b[31mred\r", r"\xffä", "a" * 4096, "a" * 4096, "a" * 1808]


async def test_a_flood_on_standard_error_does_not_block_calls(caplog):
    logging.getLogger("trio_rpc.process").disabled = True
    try:
        async with opened() as session:
            await session.call("write_stderr", b"x\n" * 100_000)
            assert await session.call("echo", 1) == 1
    finally:
        logging.getLogger("trio_rpc.process").disabled = False


# ── the child's end ──────────────────────────────────────────────────────────────────────────


async def test_serving_a_parent_fails_without_a_parent(monkeypatch):
    monkeypatch.delenv("TRIO_RPC_CHANNEL_FD", raising=False)
    with pytest.raises(RuntimeError, match=r"not started by trio_rpc\.open_process"):
        await serve_parent(Echo())


@contextlib.contextmanager
def foreign(kind):
    """Yield the number of a descriptor other than the channel's."""
    if kind == "closed":
        yield 987
    elif kind == "file":
        with Path(__file__).open() as file:
            yield file.fileno()
    else:
        with socket.socket(socket.AF_INET) as other:
            yield other.fileno()


@pytest.mark.parametrize("kind", ["closed", "file", "socket"])
async def test_a_descriptor_other_than_the_channel_is_refused(monkeypatch, kind):
    with foreign(kind) as number:
        monkeypatch.setenv("TRIO_RPC_CHANNEL_FD", str(number))
        with pytest.raises(RuntimeError, match=f"is '{number}', which is "):
            await serve_parent(Echo())


async def test_a_variable_that_is_not_a_number_is_refused(monkeypatch):
    monkeypatch.setenv("TRIO_RPC_CHANNEL_FD", "stdin")
    with pytest.raises(RuntimeError, match="is 'stdin', which is not an open socket"):
        await serve_parent(Echo())


async def test_the_parent_can_be_served_only_once(monkeypatch):
    ours, theirs = socket.socketpair()
    ours.close()
    monkeypatch.setenv("TRIO_RPC_CHANNEL_FD", str(theirs.detach()))
    with pytest.raises(SessionBroken, match="the session is over"):
        await serve_parent(Echo())
    with pytest.raises(RuntimeError, match="is not set"):
        await serve_parent(Echo())


async def test_a_whole_parent_program_runs_without_warnings():
    """Run a whole parent program, from its start to its end."""
    program = (
        "import sys, trio, trio_rpc\n"
        "async def main():\n"
        f"    async with trio_rpc.open_process({command()!r}) as session:\n"
        "        print(await session.call('echo', 'hello'))\n"
        "trio.run(main)\n"
    )
    done = await trio.run_process(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program],
        capture_stdout=True,
        stderr=subprocess.STDOUT,
    )
    assert done.stdout == b"hello\n"
    assert trio_rpc.open_process is open_process

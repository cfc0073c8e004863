"""A child process at the other end of a socket, from its start until it has been reaped.

The socket is one end of a pair that no other program has. The child inherits the other end, and an
environment variable has its descriptor number, so standard input and output stay free.

How the end of a child is detected
----------------------------------
The child's socket may close before its exit status is known. We then wait up to ``EXIT_TIME`` for
the status, because the user wants to know it. The exit status may also be known while another
process, started by the child, still holds the child's end of the socket. We then shut the socket
down ``EXIT_TIME`` later.
"""

from __future__ import annotations

import errno
import functools
import logging
import math
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

import trio

from trio_rpc.channels.connecting import naming
from trio_rpc.channels.connection import close_forcefully, owned, owned_with_task
from trio_rpc.channels.errors import ChannelBroken, ChannelEnded, ProcessExit
from trio_rpc.channels.stream import StreamChannel
from trio_rpc.channels.supervised import EXIT_TIME, Ends, Patience, SupervisedChannel
from trio_rpc.util.text import one_line
from trio_rpc.wire.limits import DEFAULT_LIMITS, Limits

__all__ = [
    "VARIABLE",
    "ProcessChannel",
    "check_command",
    "describe_status",
    "inherited_stream",
    "open_parent_channel",
    "open_process_channel",
]

VARIABLE = "TRIO_RPC_CHANNEL_FD"
"""The environment variable with the descriptor number of the child's end of the socket."""

KILL_TIME = 5.0
"""Seconds that the system may take to end a process after SIGKILL."""

DRAIN_TIME = 1.0
"""Seconds for reading the rest of standard error after a process has ended.

Usually the pipe ends at once. It does not end while another process, started by the child, has it.
"""

NAME_MOST = 100
"""Characters of the command that a process's name in logs has at most."""

LINE_MOST = 4096
"""Bytes of a line on standard error that are buffered; a longer line is split."""

logger = logging.getLogger("trio_rpc.process")


class Child(Protocol):
    """The parts of a :class:`trio.Process` that a channel to it needs."""

    pid: int

    @property
    def returncode(self) -> int | None:
        """The status, as :mod:`subprocess` has it; None while the process runs."""

    async def wait(self) -> int:
        """Wait until the process has ended, and return its status."""


class ProcessChannel(SupervisedChannel):
    """A channel to a child process, whose errors say how the process ended.

    Args:
        stream: this end of the socket.
        process: the process.
        limits: max_packet and packet_timeout apply to the channel.
        name: the name of the process.

    Attributes:
        name: the name of the process.
        closed: set when this end of the channel is closed.
    """

    def __init__(
        self,
        stream: trio.SocketStream,
        process: Child,
        limits: Limits = DEFAULT_LIMITS,
        *,
        name: str,
    ) -> None:
        explain = functools.partial(_explain, process, name)
        super().__init__(stream, limits, name=name, explain=explain)
        self._process = process

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code of the process; minus the number of the signal, if one has killed it.

        None while the process runs.
        """
        return self._process.returncode


async def _explain(process: Child, name: str, exc: Exception) -> Exception:
    """Make an error that names the process, and says how it ended if it has ended."""
    status = None
    with trio.move_on_after(EXIT_TIME):
        status = await process.wait()
    orderly = isinstance(exc, trio.EndOfChannel) and not status
    if status is not None:
        text = f"the {name} {describe_status(status)}"
        return (ChannelEnded if orderly else ChannelBroken)(text, ProcessExit(status))
    if orderly:
        return trio.EndOfChannel(f"the {name} closed its end of the channel")
    return trio.BrokenResourceError(f"{name}: {exc}")


def describe_status(status: int) -> str:
    """Describe an exit status as :mod:`subprocess` returns it."""
    if status >= 0:
        return f"ended with exit code {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:  # not every real-time signal has a name
        return f"was killed by signal {-status}"


@asynccontextmanager
async def open_process_channel(
    command: Sequence[str | os.PathLike[str]],
    *,
    name: str = "",
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    limits: Limits = DEFAULT_LIMITS,
    goodbye_time: float = 5.0,
    terminate_time: float = 5.0,
) -> AsyncIterator[ProcessChannel]:
    """Start a program that calls :func:`open_parent_channel`, and own it and the channel to it.

    :func:`trio_rpc.open_process` opens a session over such a channel. By itself it serves as a
    carrier of :func:`open_forwarding`, or as one side of a :func:`relay`.

    Closing the channel starts ending the process, as the end of the session does there. When the
    block is over, the process has ended and been reaped, or (if it hangs inside the kernel) an
    error has been logged. Lines that it writes on standard error go to the logger
    ``trio_rpc.process`` as warnings.

    Args:
        command: the program and its arguments, which are not passed through a shell.
        name: the name of the process in logs and errors, beside its process id; its command by
            default.
        env: its environment variables, to which we add one; those of this process by default.
        cwd: the working directory of the process (default: the one of this process).
        limits: max_packet and packet_timeout of the channel. If the block raises or is cancelled,
            ``shutdown_timeout`` replaces a longer ``goodbye_time``.
        goodbye_time: seconds from the close of the channel to SIGTERM.
        terminate_time: seconds from SIGTERM to SIGKILL.

    Raises:
        OSError: the process cannot be started. The text is one line.
        TypeError: ``command`` is a str.
        ValueError: ``command`` is empty, or a time is negative.
    """
    words = check_command(command)
    name = one_line(name or shlex.join(words), NAME_MOST)
    ends = Ends(Patience(goodbye=goodbye_time, terminate=terminate_time))

    async def run(*, task_status: trio.TaskStatus[ProcessChannel]) -> None:
        with naming(f"cannot start {name}"):
            process, stream = await _start(words, env, cwd)
        title = f"child process {process.pid} ({name})"
        channel = ProcessChannel(stream, process, limits, name=title)
        if trio.current_effective_deadline() == -math.inf:
            # Cancelled in the meantime: the caller never gets this channel, so we close it.
            ends.hurry(0)
            await close_forcefully(channel)
        with trio.CancelScope(shield=True):
            await _run(process, channel, ends, task_status)

    async with owned_with_task(run) as channel:
        try:
            yield channel
        except BaseException:
            ends.hurry(limits.shutdown_timeout)
            raise


@asynccontextmanager
async def open_parent_channel(*, limits: Limits = DEFAULT_LIMITS) -> AsyncIterator[StreamChannel]:
    """Open the channel to the process that started this one with :func:`open_process_channel`.

    Can be called only once. Processes started by this one do not inherit the channel. When the
    parent dies, the channel ends.

    Args:
        limits: max_packet and packet_timeout of the channel.

    Raises:
        RuntimeError: this process was not started by :func:`open_process_channel` or
            :func:`trio_rpc.open_process`, or has opened this channel before.
    """
    stream = inherited_stream()
    channel = StreamChannel(stream, limits.max_packet, packet_timeout=limits.packet_timeout)
    async with owned(channel):
        yield channel


def check_command(command: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Return the words of a command.

    Raises:
        TypeError: ``command`` is a str.
        ValueError: ``command`` is empty.
    """
    if isinstance(command, str | bytes):
        raise TypeError("a command is a list: the program, then each of its arguments")
    words = [os.fspath(word) for word in command]
    if not words:
        raise ValueError("the command is empty: a program has to be named")
    return words


async def _start(
    command: Sequence[str], env: Mapping[str, str] | None, cwd: str | os.PathLike[str] | None
) -> tuple[trio.Process, trio.SocketStream]:
    if sys.platform == "win32":
        raise OSError(errno.ENOSYS, "child processes cannot inherit a socket on this system")
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            process = await trio.lowlevel.open_process(
                command,
                stderr=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                env={**(os.environ if env is None else env), VARIABLE: str(theirs.fileno())},
                cwd=cwd,
            )
    except BaseException as exc:
        ours.close()
        if isinstance(exc, OSError) and cwd is not None and exc.filename == cwd:
            raise type(exc)(exc.errno, f"{exc.strerror} (the directory {cwd})") from exc
        raise
    return process, trio.SocketStream(trio.socket.from_stdlib_socket(ours))


async def _run(
    process: trio.Process,
    channel: ProcessChannel,
    ends: Ends,
    task_status: trio.TaskStatus[ProcessChannel],
) -> None:
    """Supervise a process until it has been reaped. The caller shields this from cancellation."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_read_errors, process, channel.name)
        nursery.start_soon(_notice_end, process, channel)
        try:
            task_status.started(channel)
            await channel.closed.wait()
        finally:
            with trio.CancelScope(shield=True):
                await _end(process, channel.name, ends)
        nursery.cancel_scope.deadline = trio.current_time() + DRAIN_TIME


async def _notice_end(process: trio.Process, channel: ProcessChannel) -> None:
    await process.wait()
    with trio.move_on_after(EXIT_TIME):
        await channel.closed.wait()
        return
    channel.shut()


async def _end(process: trio.Process, name: str, ends: Ends) -> None:
    """Wait for a process to end, then send SIGTERM, then SIGKILL, and reap it."""
    await ends.wait(process.wait)
    if process.returncode is not None:
        return
    process.terminate()
    with trio.move_on_after(ends.patience.terminate):
        await process.wait()
        return
    logger.warning("%s did not end within %g s of SIGTERM", name, ends.patience.terminate)
    process.kill()
    with trio.move_on_after(KILL_TIME):
        await process.wait()
        return
    logger.error("%s has not ended within %g s of SIGKILL", name, KILL_TIME)


async def _read_errors(process: trio.Process, name: str) -> None:
    """Log the standard error of a process, line by line, until its end."""
    assert process.stderr is not None  # noqa: S101 - it was started with a pipe
    held = bytearray()
    async with process.stderr:
        while data := await process.stderr.receive_some(LINE_MOST):
            held += data
            while (line := _take_line(held)) is not None:
                _log_line(name, line)
                # Yield after each line, so that a process that always writes delays no other task.
                await trio.lowlevel.checkpoint()
        if held:
            _log_line(name, bytes(held))


def _log_line(name: str, line: bytes) -> None:
    # A byte that is not UTF-8 becomes an escape of four characters, so nothing is truncated here.
    text = line.decode("utf-8", "backslashreplace")
    logger.warning("%s: %s", name, one_line(text, 4 * len(line)))


def _take_line(held: bytearray) -> bytes | None:
    """Remove the first line, if it is complete or too long, and return it without its line end."""
    end = held.find(b"\n", 0, LINE_MOST + 1)
    if end < 0 and len(held) <= LINE_MOST:
        return None
    line = bytes(held[: end if end >= 0 else LINE_MOST])
    del held[: len(line) + (end >= 0)]
    return line


def inherited_stream() -> trio.SocketStream:
    """Return this process's end of the socket that its parent made at its start.

    Can be called only once. Processes that are started later do not inherit the socket.

    Raises:
        RuntimeError: this process has no such socket.
    """
    number = os.environ.pop(VARIABLE, None)
    if number is None:
        raise RuntimeError(
            f"this process was not started by trio_rpc.open_process: {VARIABLE} is not set"
        )
    try:
        inherited = socket.socket(fileno=int(number))
    except (ValueError, OSError) as exc:
        raise RuntimeError(f"{VARIABLE} is {number!r}, which is not an open socket") from exc
    if inherited.type != socket.SOCK_STREAM or inherited.family != socket.AF_UNIX:
        inherited.detach()  # another part of the program owns the descriptor
        raise RuntimeError(f"{VARIABLE} is {number!r}, which is not the socket of open_process")
    inherited.set_inheritable(False)
    return trio.SocketStream(trio.socket.from_stdlib_socket(inherited))

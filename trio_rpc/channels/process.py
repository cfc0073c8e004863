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
import logging
import math
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import NoReturn, Protocol

import trio

from trio_rpc.channels.connecting import naming
from trio_rpc.channels.connection import close_forcefully, owned_with_task
from trio_rpc.channels.errors import ChannelBroken, ChannelEnded, ProcessExit
from trio_rpc.channels.stream import StreamChannel
from trio_rpc.wire.limits import DEFAULT_LIMITS, Limits
from trio_rpc.wire.parts import BufferList

__all__ = [
    "EXIT_TIME",
    "VARIABLE",
    "Patience",
    "ProcessChannel",
    "describe_status",
    "inherited_stream",
    "open_child",
]

VARIABLE = "TRIO_RPC_CHANNEL_FD"
"""The environment variable with the descriptor number of the child's end of the socket."""

EXIT_TIME = 1.0
"""Seconds to wait for the child's exit after its socket has closed, and the other way round."""

KILL_TIME = 5.0
"""Seconds that the system may take to end a process after SIGKILL."""

DRAIN_TIME = 1.0
"""Seconds for reading the rest of standard error after a process has ended.

Usually the pipe ends at once. It does not end while another process, started by the child, has it.
"""

LINE_MOST = 4096
"""Bytes of a line on standard error that are buffered; a longer line is split."""

logger = logging.getLogger("trio_rpc.process")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """The seconds that a process gets to end, once its channel is closed."""

    goodbye: float
    """Seconds to end by itself, before SIGTERM."""

    terminate: float
    """Seconds to end after SIGTERM, before SIGKILL."""

    def __post_init__(self) -> None:
        for name, seconds in (
            ("goodbye_time", self.goodbye),
            ("terminate_time", self.terminate),
        ):
            if not seconds >= 0:
                raise ValueError(f"{name} must not be negative: {seconds!r}")


class Child(Protocol):
    """The parts of a :class:`trio.Process` that a channel to it needs."""

    pid: int

    @property
    def returncode(self) -> int | None:
        """The status, as :mod:`subprocess` has it; None while the process runs."""

    async def wait(self) -> int:
        """Wait until the process has ended, and return its status."""


class ProcessChannel(StreamChannel):
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
        super().__init__(stream, limits.max_packet, packet_timeout=limits.packet_timeout)
        self.name = name
        self.closed = trio.Event()
        self._socket = stream.socket
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

    async def receive(self) -> bytes:
        """Return the next packet: see :meth:`StreamChannel.receive`.

        Raises:
            trio.EndOfChannel: the process closed its end after a whole packet. If the process has
                ended, this is a :class:`ChannelEnded`, and the exit code was 0.
            trio.BrokenResourceError: the channel broke. If the process has ended, this is a
                :class:`ChannelBroken`, whose ``detail`` is a :class:`ProcessExit`.
        """
        try:
            return await super().receive()
        except (trio.EndOfChannel, trio.BrokenResourceError) as exc:
            await self._raise_named(exc)

    async def send(self, value: bytes | BufferList) -> None:
        """Send one packet: see :meth:`StreamChannel.send`.

        Args:
            value: the packet; at least one byte.
        """
        try:
            await super().send(value)
        except trio.BrokenResourceError as exc:
            await self._raise_named(exc)

    async def flush(self) -> None:
        """Send the rest of a packet: see :meth:`StreamChannel.flush`."""
        try:
            await super().flush()
        except trio.BrokenResourceError as exc:
            await self._raise_named(exc)

    async def aclose(self) -> None:
        """Close this end. Packets for which ``send`` has returned are still delivered."""
        self.closed.set()
        await super().aclose()

    def shut(self) -> None:
        """End the channel, even if another process still holds the other end of the socket."""
        with suppress(OSError):  # the connection has already ended
            self._socket.shutdown(socket.SHUT_RDWR)

    async def _raise_named(self, exc: Exception) -> NoReturn:
        """Raise an error that names the process, and says how it ended if it has ended."""
        status = None
        with trio.move_on_after(EXIT_TIME):
            status = await self._process.wait()
        orderly = isinstance(exc, trio.EndOfChannel) and not status
        if status is not None:
            text = f"the {self.name} {describe_status(status)}"
            raise (ChannelEnded if orderly else ChannelBroken)(text, ProcessExit(status)) from exc
        if orderly:
            raise trio.EndOfChannel(f"the {self.name} closed its end of the channel") from exc
        raise trio.BrokenResourceError(f"{self.name}: {exc}") from exc


def describe_status(status: int) -> str:
    """Describe an exit status as :mod:`subprocess` returns it."""
    if status >= 0:
        return f"ended with exit code {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:  # not every real-time signal has a name
        return f"was killed by signal {-status}"


@asynccontextmanager
async def open_child(
    command: Sequence[str],
    *,
    name: str,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    limits: Limits = DEFAULT_LIMITS,
    patience: Patience,
    on_line: Callable[[str, bytes], None],
) -> AsyncIterator[ProcessChannel]:
    """Start a process, and own it and the channel to it for a block.

    Closing the channel starts ending the process. When the block is over, the process has ended
    and been reaped, or (if it hangs inside the kernel) an error has been logged.

    Args:
        command: the program and its arguments.
        name: the name of the process in logs and errors, beside its process id.
        env: the environment of the process (default: the environment of this process).
        cwd: the working directory of the process (default: the one of this process).
        limits: the limits of the channel. If the block raises, ``shutdown_timeout`` replaces a
            longer ``patience.goodbye``.
        patience: how long to wait for the process to end.
        on_line: called with the channel's name and each line that the process writes on standard
            error. A line has at most ``LINE_MOST`` bytes, without its line end.

    Raises:
        OSError: the process cannot be started. The text is one line.
    """
    ends = _Ends(patience)

    async def run(*, task_status: trio.TaskStatus[ProcessChannel]) -> None:
        with naming(f"cannot start {name}"):
            process, stream = await _start(command, env, cwd)
        title = f"child process {process.pid} ({name})"
        channel = ProcessChannel(stream, process, limits, name=title)
        if trio.current_effective_deadline() == -math.inf:
            # Cancelled in the meantime: the caller never gets this channel, so we close it.
            ends.hurry(0)
            await close_forcefully(channel)
        with trio.CancelScope(shield=True):
            await _run(process, channel, ends, on_line, task_status)

    async with owned_with_task(run) as channel:
        try:
            yield channel
        except BaseException:
            ends.hurry(limits.shutdown_timeout)
            raise


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


class _Ends:
    """The time limit for a process to end by itself."""

    def __init__(self, patience: Patience) -> None:
        self.patience = patience
        self._scope = trio.CancelScope()

    def hurry(self, seconds: float) -> None:
        """Shorten the limit to this many seconds from now."""
        self._scope.deadline = min(self._scope.deadline, trio.current_time() + seconds)

    async def wait(self, process: trio.Process) -> None:
        self.hurry(self.patience.goodbye)
        with self._scope:
            await process.wait()


async def _run(
    process: trio.Process,
    channel: ProcessChannel,
    ends: _Ends,
    on_line: Callable[[str, bytes], None],
    task_status: trio.TaskStatus[ProcessChannel],
) -> None:
    """Supervise a process until it has been reaped. The caller shields this from cancellation."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_read_errors, process, channel.name, on_line)
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


async def _end(process: trio.Process, name: str, ends: _Ends) -> None:
    """Wait for a process to end, then send SIGTERM, then SIGKILL, and reap it."""
    await ends.wait(process)
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


async def _read_errors(
    process: trio.Process, name: str, on_line: Callable[[str, bytes], None]
) -> None:
    """Pass the standard error of a process to ``on_line``, line by line, until its end."""
    assert process.stderr is not None  # noqa: S101 - it was started with a pipe
    held = bytearray()
    async with process.stderr:
        while data := await process.stderr.receive_some(LINE_MOST):
            held += data
            while (line := _take_line(held)) is not None:
                on_line(name, line)
                # Yield after each line, so that a process that always writes delays no other task.
                await trio.lowlevel.checkpoint()
        if held:
            on_line(name, bytes(held))


def _take_line(held: bytearray) -> bytes | None:
    """Remove the first line, if it is complete or too long, and return it without its line end."""
    end = held.find(b"\n", 0, LINE_MOST + 1)
    if end < 0 and len(held) <= LINE_MOST:
        return None
    line = bytes(held[: end if end >= 0 else LINE_MOST])
    del held[: len(line) + (end >= 0)]
    return line


def inherited_stream() -> trio.SocketStream:
    """Return this process's end of the socket that its parent made with :func:`open_child`.

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

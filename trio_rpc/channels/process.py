"""A child process at the other end of a socket, from its start until it has been reaped.

The socket is one of a pair that nobody else has. The child inherits its end, whose number stands in
an environment variable, so its standard input and output stay free.

How the end of a child is told
------------------------------
Its socket may be closed before its exit status is there: then the status is waited for, for
``EXIT_TIME``, since it is what its user wants to know. Its status may be there while another
process, which it has started, holds its end of the socket: then the socket is shut as much later.
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
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import trio

from trio_rpc.channels.connecting import naming
from trio_rpc.channels.connection import close_forcefully, owned_with_task
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
"""The environment variable that has the number of the child's end of the socket."""

EXIT_TIME = 1.0
"""Seconds that the one end of a child, of its socket or of itself, is waited for after the other."""

KILL_TIME = 5.0
"""Seconds that a process may take to be gone once it is killed: that is up to the system."""

LAST_WORDS_TIME = 1.0
"""Seconds for reading what a process that has ended wrote on standard error.

Most find the end of it at once. There is none while another process, started by it, has the pipe.
"""

LINE_MOST = 4096
"""Bytes of a line on standard error that are held; what is longer makes several lines."""

logger = logging.getLogger("trio_rpc.process")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How many seconds an ending process is given, once its channel is closed."""

    goodbye: float
    """To end by itself; then comes SIGTERM."""

    terminate: float
    """To end after that; then comes SIGKILL."""

    def __post_init__(self) -> None:
        for name, seconds in (
            ("goodbye_time", self.goodbye),
            ("terminate_time", self.terminate),
        ):
            if not seconds >= 0:
                raise ValueError(f"{name} must not be negative: {seconds!r}")


class ProcessChannel(StreamChannel):
    """A channel to a child process, whose errors say how the process has ended.

    Args:
        stream: this end of the socket.
        limits: max_packet and packet_timeout are the channel's.
        name: what the process is called.
        wait: returns the exit status of the process, as :mod:`subprocess` has it, once it has ended.

    Attributes:
        name: likewise.
        closed: set when this end of the channel is closed.
    """

    def __init__(
        self,
        stream: trio.SocketStream,
        limits: Limits = DEFAULT_LIMITS,
        *,
        name: str,
        wait: Callable[[], Awaitable[int]],
    ) -> None:
        super().__init__(stream, limits.max_packet, packet_timeout=limits.packet_timeout)
        self.name = name
        self.closed = trio.Event()
        self._socket = stream.socket
        self._wait = wait

    async def receive(self) -> bytes:
        """Return the next packet: see :meth:`StreamChannel.receive`.

        Raises:
            trio.EndOfChannel: the process closed its end after a whole packet; and if it has ended,
                it was with exit code 0.
            trio.BrokenResourceError: the process ended otherwise, or whatever else broke the channel.
        """
        try:
            return await super().receive()
        except (trio.EndOfChannel, trio.BrokenResourceError) as exc:
            await self._tell_exit(exc)
            raise

    async def send(self, value: bytes | BufferList) -> None:
        """Send one packet: see :meth:`StreamChannel.send`."""
        try:
            await super().send(value)
        except trio.BrokenResourceError as exc:
            await self._tell_exit(exc)
            raise

    async def flush(self) -> None:
        """Send what is left of packets that were taken over: see :meth:`StreamChannel.flush`."""
        try:
            await super().flush()
        except trio.BrokenResourceError as exc:
            await self._tell_exit(exc)
            raise

    async def aclose(self) -> None:
        """Close this end; what ``send`` has returned for is still delivered."""
        self.closed.set()
        await super().aclose()

    def shut(self) -> None:
        """Let it be the end of the channel, though somebody still holds the other end of the socket."""
        with suppress(OSError):  # it has ended by itself
            self._socket.shutdown(socket.SHUT_RDWR)

    async def _tell_exit(self, exc: Exception) -> None:
        """Raise what says how the process has ended, if it has: that is why the channel is at its end."""
        status = None
        with trio.move_on_after(EXIT_TIME):
            status = await self._wait()
        orderly = isinstance(exc, trio.EndOfChannel)
        if status is not None:
            text = f"the {self.name} {describe_status(status)}"
            kind = trio.EndOfChannel if orderly and status == 0 else trio.BrokenResourceError
            raise kind(text) from exc
        if orderly:
            raise trio.EndOfChannel(f"the {self.name} closed its end of the channel") from exc


def describe_status(status: int) -> str:
    """Say how a process has ended whose exit status :mod:`subprocess` gives as this number."""
    if status >= 0:
        return f"ended with exit code {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal has no name of its own
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

    Closing the channel begins the end of the process. When the block is over it has ended and been
    reaped, or (it happens to a process that hangs inside the system) an error has been logged.

    Args:
        command: the program and its arguments.
        name: what it is called, beside its number.
        env: its environment; that of this process by default.
        cwd: its working directory; that of this process by default.
        limits: of the channel. If the block raises, ``shutdown_timeout`` takes the place of a longer
            ``patience.goodbye``.
        patience: how long it is waited for.
        on_line: called with the channel's name and each line that the process writes on standard
            error; at most ``LINE_MOST`` bytes, without the line's end.

    Raises:
        OSError: the process cannot be started, in one line.
    """
    ends = _Ends(patience)

    async def run(*, task_status: trio.TaskStatus[ProcessChannel]) -> None:
        with naming(f"cannot start {name}"):
            process, stream = await _start(command, env, cwd)
        title = f"child process {process.pid} ({name})"
        channel = ProcessChannel(stream, limits, name=title, wait=process.wait)
        if trio.current_effective_deadline() == -math.inf:
            # Cancelled in the meantime: nobody will ever get this channel, to close it.
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
        raise OSError(errno.ENOSYS, "this system lets no child process inherit a socket")
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
    """The time in which a process may end by itself."""

    def __init__(self, patience: Patience) -> None:
        self.patience = patience
        self._scope = trio.CancelScope()

    def hurry(self, seconds: float) -> None:
        """Let it not be longer than so many seconds from now."""
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
    """Look after a process until it has been reaped; nobody may cancel this."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_read_errors, process, channel.name, on_line)
        nursery.start_soon(_notice_end, process, channel)
        try:
            task_status.started(channel)
            await channel.closed.wait()
        finally:
            with trio.CancelScope(shield=True):
                await _end(process, channel.name, ends)
        nursery.cancel_scope.deadline = trio.current_time() + LAST_WORDS_TIME


async def _notice_end(process: trio.Process, channel: ProcessChannel) -> None:
    await process.wait()
    with trio.move_on_after(EXIT_TIME):
        await channel.closed.wait()
        return
    channel.shut()


async def _end(process: trio.Process, name: str, ends: _Ends) -> None:
    """Ask a process to end, more urgently each time, and reap it."""
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
    """Hand on what a process writes on standard error, line by line, until its end."""
    assert process.stderr is not None  # noqa: S101 - it was started with a pipe
    held = bytearray()
    async with process.stderr:
        while data := await process.stderr.receive_some(LINE_MOST):
            held += data
            while (line := _take_line(held)) is not None:
                on_line(name, line)
                # A turn for each line: a process that floods us holds up nobody for longer.
                await trio.lowlevel.checkpoint()
        if held:
            on_line(name, bytes(held))


def _take_line(held: bytearray) -> bytes | None:
    """Remove the first line, if it is whole or too long, and return it without its end."""
    end = held.find(b"\n", 0, LINE_MOST + 1)
    if end < 0 and len(held) <= LINE_MOST:
        return None
    line = bytes(held[: end if end >= 0 else LINE_MOST])
    del held[: len(line) + (end >= 0)]
    return line


def inherited_stream() -> trio.SocketStream:
    """Take this process's end of the socket that its parent has made by :func:`open_child`.

    It can be taken once; processes that are started later do not inherit it.

    Raises:
        RuntimeError: there is none.
    """
    number = os.environ.pop(VARIABLE, None)
    if number is None:
        raise RuntimeError(
            f"this process was not started by trio_rpc.open_process: {VARIABLE} is not set"
        )
    try:
        inherited = socket.socket(fileno=int(number))
    except (ValueError, OSError) as exc:
        raise RuntimeError(f"{VARIABLE} is {number!r}, which is no open socket") from exc
    if inherited.type != socket.SOCK_STREAM or inherited.family != socket.AF_UNIX:
        inherited.detach()  # it is somebody else's
        raise RuntimeError(f"{VARIABLE} is {number!r}, which is not the socket of open_process")
    inherited.set_inheritable(False)
    return trio.SocketStream(trio.socket.from_stdlib_socket(inherited))

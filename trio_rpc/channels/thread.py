"""A Trio run in another thread at the other end of a socket, from its start until it has ended.

The socket is one end of a pair, as for a child process. So the channel between the two runs needs
no code that wakes one run from the other, and has all bounds of a byte stream.

How a thread ends
-----------------
1. The channel is closed, so that the function in the thread can return by itself.
2. When its time is over, its Trio run is cancelled. That is the only message that does not
   travel over the channel.
3. A thread cannot be killed. If the function blocks, its thread is given up: an error is logged
   that says where it blocks. The thread goes on until the function returns, or the program ends.
"""

from __future__ import annotations

import contextvars
import functools
import logging
import math
import socket
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeAlias

import trio

from trio_rpc.channels.connection import close_forcefully, owned, owned_with_task
from trio_rpc.channels.stream import StreamChannel
from trio_rpc.channels.supervised import EXIT_TIME, Ends, Patience, SupervisedChannel
from trio_rpc.util.raised import described
from trio_rpc.util.text import one_line
from trio_rpc.wire.limits import DEFAULT_LIMITS, Limits

__all__ = ["ThreadChannel", "ThreadMain", "open_thread_channel"]

NAME_MOST = 100
"""Characters of a thread's name in logs and errors."""

logger = logging.getLogger("trio_rpc.thread")

ThreadMain: TypeAlias = Callable[[trio.abc.Channel[bytes]], Awaitable[object]]
"""An async function that uses a channel; it runs in a Trio run of its own in another thread."""


class ThreadChannel(SupervisedChannel):
    """A channel to another thread, whose errors say how the function in the thread ended.

    Args:
        stream: this end of the socket.
        thread: the thread.
        limits: max_packet and packet_timeout apply to the channel.

    Attributes:
        name: the name of the thread.
        closed: set when this end of the channel is closed.
    """

    def __init__(self, stream: trio.SocketStream, thread: Thread, limits: Limits) -> None:
        explain = functools.partial(_explain, thread)
        super().__init__(stream, limits, name=thread.name, explain=explain)


class Thread:
    """A function in a Trio run of its own in another thread.

    Args:
        main: the function.
        end: its end of the socket.
        limits: max_packet and packet_timeout of its channel.
        name: the name of the thread.

    Attributes:
        name: the name of the thread.
        has_begun: whether the function has begun.
        begun: set when the function begins, or cannot begin.
        ended: set when the Trio run in the thread has ended.
        error: the exception that has ended it.
        is_given_up: whether nothing waits for its end any more.
    """

    def __init__(self, main: ThreadMain, end: socket.socket, limits: Limits, name: str) -> None:
        self.name = name
        self.has_begun = False
        self.begun = trio.Event()
        self.ended = trio.Event()
        self.error: BaseException | None = None
        self.is_given_up = False
        self._main = main
        self._end = end
        self._limits = limits
        self._parent = trio.lowlevel.current_trio_token()
        run = functools.partial(contextvars.copy_context().run, self._run)
        # A daemon, so that a thread that is given up does not keep the program from ending.
        self._thread = threading.Thread(target=run, name=name, daemon=True)
        # Of the run in the thread. Its first step sets both, before ``has_begun``.
        self._token: trio.lowlevel.TrioToken
        self._scope: trio.CancelScope

    def start(self) -> None:
        """Start the thread; raises RuntimeError if the system has none."""
        try:
            self._thread.start()
        except RuntimeError:
            self._end.close()
            raise

    def cancel(self, reason: str) -> None:
        """Cancel the function, whose run may be blocked or over."""
        _post(self._token, functools.partial(self._scope.cancel, reason=reason))

    def place(self) -> str:
        """Describe where the thread is now."""
        frame = sys._current_frames().get(self._thread.ident or 0)  # noqa: SLF001
        if frame is None:
            return "an unknown place"
        code = frame.f_code
        return f"{code.co_qualname} ({code.co_filename}:{frame.f_lineno})"

    # ── in the thread ────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        try:
            with self._end:
                trio.run(self._use_channel)
        except BaseException as exc:
            self.error = exc
            if self.is_given_up:
                logger.exception("%s had been given up, and has failed", self.name)
        _post(self._parent, self._has_ended)

    async def _use_channel(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._scope = trio.CancelScope()
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(self._end))
        limits = self._limits
        channel = StreamChannel(stream, limits.max_packet, packet_timeout=limits.packet_timeout)
        self.has_begun = True
        _post(self._parent, self.begun.set)
        async with owned(channel):
            with self._scope:
                await self._main(channel)

    def _has_ended(self) -> None:  # called in the other run
        self.begun.set()
        self.ended.set()


def _post(token: trio.lowlevel.TrioToken, function: Callable[[], object]) -> None:
    """Call a function in another Trio run, unless that is over."""
    with suppress(trio.RunFinishedError):
        token.run_sync_soon(function)


async def _explain(thread: Thread, exc: Exception) -> Exception:
    """Make an error that names the thread, and says how its function ended if it has ended."""
    with trio.move_on_after(EXIT_TIME):
        await thread.ended.wait()
    if thread.error is not None:
        raised = one_line(described(thread.error))
        error = trio.BrokenResourceError(f"the {thread.name} has ended with {raised}")
        error.__cause__ = thread.error
        return error
    if isinstance(exc, trio.EndOfChannel):
        what = "has ended" if thread.ended.is_set() else "closed its end of the channel"
        return trio.EndOfChannel(f"the {thread.name} {what}")
    return trio.BrokenResourceError(f"{thread.name}: {exc}")


@asynccontextmanager
async def open_thread_channel(
    main: ThreadMain,
    *,
    name: str = "",
    limits: Limits = DEFAULT_LIMITS,
    goodbye_time: float = 5.0,
    cancel_time: float = 5.0,
) -> AsyncIterator[ThreadChannel]:
    """Start a thread with a Trio run of its own, and own it and the channel to it for a block.

    ``main`` is called there with the other end of the channel, which is closed when it returns.
    :func:`trio_rpc.open_thread` opens a session over such a channel. By itself it serves as a
    carrier of :func:`open_forwarding`, or as one side of a :func:`relay`.

    Closing the channel starts ending the thread. When the block is over, the thread's run has
    ended. There is one exception: Python cannot stop a thread that blocks, in a long computation
    or a system call. After both times such a thread is given up, and the logger
    ``trio_rpc.thread`` gets an error that says where it blocks. It goes on until the blocking
    function returns, and does not keep the program from ending.

    Args:
        main: an async function of a ``trio.abc.Channel[bytes]``. Objects that it shares with this
            run are shared between threads. It gets a copy of the context variables.
        name: the name of the thread in logs and errors; by default that of the function.
        limits: max_packet and packet_timeout of the channel. If the block raises or is cancelled,
            ``shutdown_timeout`` replaces a longer ``goodbye_time``.
        goodbye_time: seconds from the close of the channel until ``main`` is cancelled.
        cancel_time: seconds from that until a thread that blocks is given up.

    Raises:
        OSError: the system has no descriptors for another Trio run.
        RuntimeError: the system cannot start another thread.
        ValueError: a time is negative.
        Exception: the exception of ``main``, when the block is over.
    """
    times = Patience(
        goodbye=goodbye_time, terminate=cancel_time, names=("goodbye_time", "cancel_time")
    )
    ends, body = Ends(times), _Body()
    text = one_line(name or getattr(main, "__name__", "") or type(main).__name__, NAME_MOST)

    async def run(*, task_status: trio.TaskStatus[ThreadChannel]) -> None:
        await trio.lowlevel.checkpoint()
        ours, theirs = socket.socketpair()
        thread = Thread(main, theirs, limits, f"thread {text}")
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        channel = ThreadChannel(stream, thread, limits)
        async with owned(channel):
            thread.start()
            with trio.CancelScope(shield=True):
                await thread.begun.wait()
            if thread.has_begun and trio.current_effective_deadline() == -math.inf:
                # Cancelled in the meantime: the caller never gets this channel, so we close it.
                ends.hurry(0)
                body.left.set()
                await close_forcefully(channel)
            with trio.CancelScope(shield=True):
                await _supervise(thread, channel, ends, body, task_status)

    async with owned_with_task(run) as channel:
        try:
            yield channel
        except BaseException as exc:
            body.error = exc
            ends.hurry(limits.shutdown_timeout)
            raise
        finally:
            body.left.set()


class _Body:
    """The body of a block: whether it is over, and its exception."""

    def __init__(self) -> None:
        self.left = trio.Event()
        self.error: BaseException | None = None

    def set_cause(self, error: BaseException) -> None:
        """Make the error of a thread the cause of an error that only says that the thread has left.

        The block then raises the thread's error.
        """
        if isinstance(self.error, trio.BrokenResourceError) and self.error.__cause__ is None:
            self.error.__cause__ = error


async def _supervise(
    thread: Thread,
    channel: ThreadChannel,
    ends: Ends,
    body: _Body,
    task_status: trio.TaskStatus[ThreadChannel],
) -> None:
    """Wait until a thread has ended or is given up. The caller shields this from cancellation.

    The error of its function is raised when the block is over, so that the body first sees the end
    of the channel.
    """
    if thread.has_begun:
        task_status.started(channel)
        await channel.closed.wait()
        await _end(thread, ends)
        await body.left.wait()
    error, thread.error = thread.error, None
    try:
        if error is not None:
            body.set_cause(error)
            raise error
    finally:
        body.error = None
        del error  # its traceback holds this frame


async def _end(thread: Thread, ends: Ends) -> None:
    """Wait for a thread to end, then cancel its run, and give it up if it blocks."""
    await ends.wait(thread.ended.wait)
    if thread.ended.is_set():
        return
    thread.cancel("the block that owns the thread is over")
    with trio.move_on_after(ends.patience.terminate):
        await thread.ended.wait()
        return
    thread.is_given_up = True
    text = "%s cannot be stopped and is given up: %g s after its cancellation it still blocks in %s"
    logger.error(text, thread.name, ends.patience.terminate, thread.place())

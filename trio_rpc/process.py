"""The front doors of a parent process and of its child: a command becomes a session."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Unpack

import trio

from trio_rpc.channels import StreamChannel
from trio_rpc.channels.connection import owned
from trio_rpc.channels.process import Patience, inherited_stream, open_child
from trio_rpc.session.core import Core
from trio_rpc.session.opening import OnEnd, check_on_end, make_tables, run_session
from trio_rpc.session.options import Options, SessionOptions
from trio_rpc.session.session import Session
from trio_rpc.util.text import one_line

__all__ = ["open_parent", "open_process", "serve_parent"]

logger = logging.getLogger("trio_rpc.process")

NAME_MOST = 100
"""Characters of a command's words in a name."""


@contextlib.asynccontextmanager
async def open_process(
    command: Sequence[str | os.PathLike[str]],
    services: object = None,
    *,
    name: str = "",
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    goodbye_time: float = 5.0,
    terminate_time: float = 5.0,
    on_end: OnEnd = "cancel",
    **options: Unpack[SessionOptions],
) -> AsyncIterator[Session]:
    """Start a program that calls :func:`serve_parent`, and own it and the session until the block is left.

    When the block is over the process has ended, and been reaped. It is asked to end as soon as the
    session is over: by the end of the session, which lets :func:`serve_parent` return; after
    ``goodbye_time`` by SIGTERM; after another ``terminate_time`` by SIGKILL. If the block raises or is
    cancelled, ``limits.shutdown_timeout`` takes the place of a longer ``goodbye_time``.

    When the process ends, or leaves, before the block does, the body is cancelled, and the block raises
    SessionBroken (law 17), whose ``__cause__`` has the exit code or signal.

    The process inherits standard input and output. Lines that it writes on standard error go to the
    logger ``trio_rpc.process``, as warnings.

    Args:
        command: the program, and its arguments; no shell reads them.
        services: what the process may call, as :func:`open_session` takes it.
        name: what the process is called in logs and errors, beside its number; its command by default.
        env: its environment variables, beside one that is ours; those of this process by default.
        cwd: its working directory; that of this process by default.
        goodbye_time: seconds.
        terminate_time: seconds.
        on_end: as :func:`open_session` takes it.
        **options: as :func:`open_session` takes them. ``limits.handshake_timeout`` has to allow for the
            program's start.

    Raises:
        OSError: the program cannot be started; one line that says why, of the class that fits.
        SessionBroken: it ended before the session was open, or while the body was running, or does not serve its
            parent; the text has its exit code or signal.
        Refused: the process would not open the session; likewise all of :func:`open_session`.
        TypeError: an option is not one.
        ValueError: likewise.
    """
    if isinstance(command, str | bytes):
        raise TypeError("a command is a list: the program, then each of its arguments")
    check_on_end(on_end)
    words = [os.fspath(word) for word in command]
    if not words:
        raise ValueError("the command is empty: a program has to be named")
    chosen = Options(**options)
    tables = make_tables(services)
    patience = Patience(goodbye=goodbye_time, terminate=terminate_time)
    async with (
        open_child(
            words,
            name=one_line(name or shlex.join(words), NAME_MOST),
            env=env,
            cwd=cwd,
            limits=chosen.limits,
            patience=patience,
            on_line=_log_line,
        ) as channel,
        run_session(Core(channel, tables, chosen, channel.name), on_end=on_end) as session,
    ):
        yield session


@contextlib.asynccontextmanager
async def open_parent(
    services: object = None, *, on_end: OnEnd = "cancel", **options: Unpack[SessionOptions]
) -> AsyncIterator[Session]:
    """Open the session with the process that has started this one by :func:`open_process`.

    It can be had once; processes that this one starts do not inherit it. When the parent dies or
    leaves, the session is over: the body is cancelled, and the block raises SessionBroken (law 17).

    Args:
        services: what the parent may call, as :func:`open_session` takes it.
        on_end: likewise.
        **options: likewise.

    Raises:
        RuntimeError: this process was not started by :func:`open_process`, or the session was had
            before.
        SessionBroken: the parent has gone; likewise all of :func:`open_session`.
    """
    check_on_end(on_end)
    chosen = Options(**options)
    tables = make_tables(services)
    limits = chosen.limits
    channel = StreamChannel(
        inherited_stream(), limits.max_packet, packet_timeout=limits.packet_timeout
    )
    async with (
        owned(channel),
        run_session(Core(channel, tables, chosen, "the parent process"), on_end=on_end) as session,
    ):
        yield session


async def serve_parent(
    services: object = None,
    *,
    task_status: trio.TaskStatus[Session] = trio.TASK_STATUS_IGNORED,
    **options: Unpack[SessionOptions],
) -> None:
    """Serve the process that has started this one by :func:`open_process`, until it leaves or dies.

    ``trio.run(trio_rpc.serve_parent, Plugin())`` is a whole program. Arguments and errors are
    :func:`open_parent`'s; ``task_status`` gets the session.
    """
    async with open_parent(services, on_end="keep", **options) as session:
        task_status.started(session)
        await session.wait_closed()


def _log_line(name: str, line: bytes) -> None:
    # A byte that is no UTF-8 becomes an escape of four characters, so nothing is cut here.
    text = line.decode("utf-8", "backslashreplace")
    logger.warning("%s: %s", name, one_line(text, 4 * len(line)))

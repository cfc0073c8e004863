"""The entry points of a parent process and of its child: sessions with child processes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Unpack

import trio

from trio_rpc.channels.process import open_parent_channel, open_process_channel
from trio_rpc.session.core import Core
from trio_rpc.session.opening import OnEnd, check_on_end, make_tables, run_session
from trio_rpc.session.options import SessionOptions, check_options, make_options
from trio_rpc.session.session import Session

__all__ = ["open_parent", "open_process", "serve_parent"]


@contextlib.asynccontextmanager
@trio.lowlevel.enable_ki_protection
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
    """Start a program that calls :func:`serve_parent`, and own it and the session for a block.

    When the block is over, the process has ended and been reaped. As soon as the session is over,
    the process is asked to end. The end of the session lets :func:`serve_parent` return. SIGTERM
    follows after ``goodbye_time``, and SIGKILL after another ``terminate_time``. If the block
    raises or is cancelled, ``limits.shutdown_timeout`` replaces a longer ``goodbye_time``.

    If the process ends, or closes the session, before the block is over, the body is cancelled.
    The block then raises SessionBroken (law 17), whose ``__cause__`` has the exit code or signal.

    The process inherits standard input and output. Lines that it writes on standard error go to
    the logger ``trio_rpc.process`` as warnings.

    Args:
        command: the program and its arguments, which are not passed through a shell.
        services: the services that the process may call, as in :func:`open_session`.
        name: the name of the process in logs and errors, beside its process id; its command by
            default.
        env: its environment variables, to which we add one; those of this process by default.
        cwd: the working directory of the process (default: the one of this process).
        goodbye_time: seconds from the end of the session to SIGTERM.
        terminate_time: seconds from SIGTERM to SIGKILL.
        on_end: as in :func:`open_session`.
        **options: as in :func:`open_session`. ``limits.handshake_timeout`` must also cover the
            start of the program.

    Raises:
        OSError: the program cannot be started. The text is one line that says why, and the class
            matches the reason.
        SessionBroken: the process ended before the session was open or while the body was running,
            or it does not serve its parent. The text has its exit code or signal.
        Refused: the process refused the session. All other errors of :func:`open_session` are
            also possible.
        TypeError: an option does not exist, or has the wrong type.
        ValueError: an option has a value that is not allowed.
    """
    chosen = make_options(open_process, options)
    check_on_end(on_end)
    tables = make_tables(services, chosen.registry)
    async with (
        open_process_channel(
            command,
            name=name,
            env=env,
            cwd=cwd,
            limits=chosen.limits,
            goodbye_time=goodbye_time,
            terminate_time=terminate_time,
        ) as channel,
        run_session(Core(channel, tables, chosen, channel.name), on_end=on_end) as session,
    ):
        yield session


@contextlib.asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def open_parent(
    services: object = None, *, on_end: OnEnd = "cancel", **options: Unpack[SessionOptions]
) -> AsyncIterator[Session]:
    """Open the session with the process that started this one with :func:`open_process`.

    Can be called only once. Processes started by this one do not inherit the session. When the
    parent dies or closes the session, the body is cancelled, and the block raises SessionBroken
    (law 17).

    Args:
        services: the services that the parent may call, as in :func:`open_session`.
        on_end: as in :func:`open_session`.
        **options: as in :func:`open_session`.

    Raises:
        RuntimeError: this process was not started by :func:`open_process`, or has opened this
            session before.
        SessionBroken: the parent has ended or left. All other errors of :func:`open_session` are
            also possible.
    """
    chosen = make_options(open_parent, options)
    check_on_end(on_end)
    tables = make_tables(services, chosen.registry)
    async with (
        open_parent_channel(limits=chosen.limits) as channel,
        run_session(Core(channel, tables, chosen, "the parent process"), on_end=on_end) as session,
    ):
        yield session


async def serve_parent(
    services: object = None,
    *,
    task_status: trio.TaskStatus[Session] = trio.TASK_STATUS_IGNORED,
    **options: Unpack[SessionOptions],
) -> None:
    """Serve the process that started this one with :func:`open_process` until it leaves or dies.

    ``trio.run(trio_rpc.serve_parent, Plugin())`` is a complete program.

    Args:
        services: the services that the parent may call, as in :func:`open_session`.
        task_status: gets the session once it is open.
        **options: as in :func:`open_session`.

    Raises:
        Exception: the same errors as :func:`open_parent`, except for the end of the session.
    """
    check_options(serve_parent, options)
    async with open_parent(services, on_end="keep", **options) as session:
        task_status.started(session)
        await session.wait_closed()

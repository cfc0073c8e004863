"""The entry point of a program that runs a service in another thread."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator
from typing import Unpack

import trio

from trio_rpc.channels.thread import open_thread_channel
from trio_rpc.errors import RpcError
from trio_rpc.session.core import Core
from trio_rpc.session.live_services import MakeServices
from trio_rpc.session.opening import OnEnd, check_on_end, make_tables, run_session
from trio_rpc.session.options import Options, SessionOptions, make_options
from trio_rpc.session.session import Session

__all__ = ["open_thread"]

SHARED = ("limits", "registry", "codec", "error_detail")
"""Options that the thread's end has from this end, unless it has its own."""


@contextlib.asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def open_thread(
    target: object,
    services: object = None,
    *,
    name: str = "",
    goodbye_time: float = 5.0,
    cancel_time: float = 5.0,
    thread_options: SessionOptions | None = None,
    on_end: OnEnd = "cancel",
    **options: Unpack[SessionOptions],
) -> AsyncIterator[Session]:
    """Serve ``target`` in another thread, and own the thread and the session with it for a block.

    The thread has a Trio run of its own, so a handler that blocks it blocks nothing else. Arguments
    and results are copied, as over any other channel, and all laws hold. The session ends as that
    of :func:`open_process` does.

    When the block is over, the thread's run has ended. As soon as the session is over, the thread
    has ``goodbye_time`` to end by itself. Then its run is cancelled. A thread that blocks cannot be
    stopped, since Python has no means for that. After another ``cancel_time`` it is given up, and
    the logger ``trio_rpc.thread`` gets an error that says where it blocks. It does not keep the
    program from ending.

    Args:
        target: the services of the thread, as those of :func:`open_session`. They are used in the
            thread only, and a function of the session is called there. Objects that they share
            with this run are shared between threads.
        services: the services that the thread may call, as in :func:`open_session`.
        name: the name of the thread in logs and errors; by default that of the target's class.
        goodbye_time: seconds from the end of the session until the thread's run is cancelled. If
            the block raises or is cancelled, ``limits.shutdown_timeout`` replaces a longer time.
        cancel_time: seconds from that until a thread that blocks is given up.
        thread_options: options of the thread's end, as those of :func:`open_session`. By default,
            its ``limits``, ``registry``, ``codec`` and ``error_detail`` are those of this end.
        on_end: as in :func:`open_session`.
        **options: as in :func:`open_session`.

    Raises:
        OSError: the system has no descriptors for another Trio run.
        RuntimeError: the system cannot start another thread.
        Refused: one of the ends refused the session. All other errors of :func:`open_session` are
            also possible.
        TypeError: an option does not exist, or it or a service has the wrong type.
        ValueError: an option or a service has an invalid value.
        BaseException: the exception that ended the thread's run, for example a SystemExit of a
            handler, or an exception of a function that makes services.

    Example:
        >>> class Words:
        ...     @trio_rpc.method
        ...     async def count(self, text: str) -> int:
        ...         return len(text.split())  # may take long, and block its thread
        >>> async def main() -> None:
        ...     async with trio_rpc.open_thread(Words()) as session:
        ...         print(await session.proxy("", Words).count("to be or not to be"))
        >>> trio.run(main)
        6
    """
    chosen = make_options(open_thread, options)
    check_on_end(on_end)
    shared = {each: getattr(chosen, each) for each in SHARED}
    theirs = make_options(open_thread, {**shared, **(thread_options or {})})
    tables = make_tables(services, chosen.registry)
    main = functools.partial(_serve, make_tables(target, theirs.registry), theirs)
    async with (
        open_thread_channel(
            main,
            name=name or getattr(target, "__name__", "") or type(target).__name__,
            limits=chosen.limits,
            goodbye_time=goodbye_time,
            cancel_time=cancel_time,
        ) as channel,
        run_session(Core(channel, tables, chosen, channel.name), on_end=on_end) as session,
    ):
        yield session


async def _serve(tables: MakeServices, options: Options, channel: trio.abc.Channel[bytes]) -> None:
    """Serve the other run until the session ends. The other end of the session reports errors."""
    with contextlib.suppress(RpcError):
        core = Core(channel, tables, options, "the other thread")
        async with run_session(core, on_end="keep") as session:
            await session.wait_closed()

"""The entry points of a client, which open a session with the server at a URL."""

from __future__ import annotations

import contextlib
import functools
import itertools
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Final, Unpack

import trio

from trio_rpc.channels import Resume
from trio_rpc.channels.carriers import open_carrier, resume_settings
from trio_rpc.errors import Refused, SessionBroken
from trio_rpc.nats.any_url import ChannelOpener
from trio_rpc.nats.nats_options import NatsOptions
from trio_rpc.session.core import Core
from trio_rpc.session.opening import OnEnd, check_on_end, make_tables, run_session
from trio_rpc.session.options import SessionOptions, check_options, make_options
from trio_rpc.session.session import Session
from trio_rpc.util.numbers import check_not_negative
from trio_rpc.util.reconnect import full_jitter

__all__ = ["connect", "connect_in"]

FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 5.0
"""The bounds of the random pauses while there is no server, in seconds."""


@contextlib.asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def connect(
    url: str,
    services: object = None,
    *,
    ssl_context: ssl.SSLContext | None = None,
    resume: bool | Resume = False,
    nats: NatsOptions | None = None,
    wait: float = 0.0,
    on_end: OnEnd = "cancel",
    **options: Unpack[SessionOptions],
) -> AsyncIterator[Session]:
    """Connect to a server, and own the session for the duration of a block.

    If the session ends without being closed at this end, the body is cancelled, and the block
    raises SessionBroken (law 17), as :func:`open_session` does.

    Args:
        url: ``tcp://host:port``, ``tls://host:port``, ``unix:///path``, ``ws://host:port/path``,
            ``wss://host:port/path`` or ``nats://host,host/service``.
        services: the services that the server may call, as in :func:`open_session`.
        ssl_context: for ``tls``, ``wss`` and ``nats``, where it replaces that of the settings.
            The default context verifies the server with the system's CAs.
        resume: connect again when the connection is lost, and continue with all running calls.
            True means the defaults of :class:`Resume`. The server must also allow this. Without
            it, the session ends with its connection.
        nats: settings for ``nats``: credentials, and when the other end counts as gone.
        wait: seconds in which to try again, after random pauses, while there is no server, or it
            refuses more sessions for now. For a client that comes back later, see
            :func:`open_pool`.
        on_end: as in :func:`open_session`.
        **options: as in :func:`open_session`. ``limits.handshake_timeout`` bounds the time to make
            the connection, and separately the time to open the session.

    Raises:
        ValueError: the URL is not one of these, ``on_end`` is neither ``"cancel"`` nor ``"keep"``,
            or ``wait`` is negative.
        OSError: the connection could not be made. The text is one line that names the attempts.
        Refused: the server refused the session. All other errors of :func:`open_session` are also
            possible.

    Example:
        >>> async def main() -> None:
        ...     async with trio_rpc.connect("tcp://localhost:5000") as session:
        ...         print(await session.call("market.price", "BTC"))
    """
    chosen = make_options(connect, options)
    check_on_end(on_end)
    check_not_negative("wait", wait)
    if wait:
        again = functools.partial(
            connect,
            url,
            services,
            ssl_context=ssl_context,
            resume=resume,
            nats=nats,
            on_end=on_end,
            **options,
        )
        async with _first_that_opens(again, wait) as session:
            yield session
        return
    tables = make_tables(services, chosen.registry)
    async with (
        open_carrier(
            ChannelOpener(url, nats),
            ssl_context=ssl_context,
            limits=chosen.limits,
            resume=resume_settings(resume),
        ) as channel,
        run_session(Core(channel, tables, chosen, url), on_end=on_end) as session,
    ):
        yield session


async def connect_in(
    nursery: trio.Nursery,
    url: str,
    services: object = None,
    *,
    ssl_context: ssl.SSLContext | None = None,
    resume: bool | Resume = False,
    nats: NatsOptions | None = None,
    wait: float = 0.0,
    **options: Unpack[SessionOptions],
) -> Session:
    """Connect to a server, and return a session that ends with ``nursery`` at the latest.

    Use this for sessions that are kept in objects and pools, and end the session with
    :meth:`Session.aclose`. There is no body for the end of the session to cancel, so ``on_end`` is
    not an option. The end is also not an error in the nursery: calls raise, and
    :meth:`Session.wait_closed` returns.

    Args:
        nursery: the nursery whose cancellation ends the session.
        url: as in :func:`connect`.
        services: as in :func:`connect`.
        ssl_context: as in :func:`connect`.
        resume: as in :func:`connect`.
        nats: as in :func:`connect`.
        wait: seconds, as in :func:`connect`.
        **options: as in :func:`connect`.

    Raises:
        Exception: the same errors as :func:`connect`.
    """
    check_options(connect_in, options)

    async def own(*, task_status: trio.TaskStatus[Session]) -> None:
        async with connect(
            url,
            services,
            ssl_context=ssl_context,
            resume=resume,
            nats=nats,
            wait=wait,
            on_end="keep",
            **options,
        ) as session:
            task_status.started(session)
            await session.wait_closed()

    return await nursery.start(own)  # type: ignore[no-any-return]


@contextlib.asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def _first_that_opens(
    opening: Callable[[], contextlib.AbstractAsyncContextManager[Session]], wait: float
) -> AsyncIterator[Session]:
    """Open a session, and try again after a failure, as long as that takes at most ``wait``."""
    until = trio.current_time() + wait
    async with contextlib.AsyncExitStack() as stack:
        for failures in itertools.count():
            pause = full_jitter(failures, FIRST_PAUSE, LONGEST_PAUSE)
            try:
                session = await stack.enter_async_context(opening())
                break
            except (OSError, SessionBroken, Refused) as exc:
                if isinstance(exc, Refused):
                    if exc.retry_after is None:
                        raise
                    pause += exc.retry_after
                if trio.current_time() + pause > until:
                    raise
            await trio.sleep(pause)
        yield session

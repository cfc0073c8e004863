"""The front door of a client: a URL becomes a session."""

from __future__ import annotations

import contextlib
import functools
import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Unpack

import trio

from trio_rpc.channels import Resume, carrier_limits, open_channel, open_resumable
from trio_rpc.session.core import Core
from trio_rpc.session.opening import OnEnd, check_on_end, make_tables, run_session
from trio_rpc.session.options import Options, SessionOptions
from trio_rpc.session.session import Session
from trio_rpc.wire.limits import Limits

__all__ = ["connect", "connect_in"]


@contextlib.asynccontextmanager
async def connect(
    url: str,
    services: object = None,
    *,
    ssl_context: ssl.SSLContext | None = None,
    resume: bool | Resume = False,
    on_end: OnEnd = "cancel",
    **options: Unpack[SessionOptions],
) -> AsyncIterator[Session]:
    """Connect to a server, and own the session until the block is left.

    When the session ends and this end has not closed it, the block's body is cancelled, and the block raises
    SessionBroken (law 17), as :func:`open_session` does.

    Args:
        url: ``tcp://host:port``, ``tls://host:port``, ``unix:///path``, ``ws://host:port/path`` or
            ``wss://host:port/path``.
        services: what the server may call, as :func:`open_session` takes it.
        ssl_context: for ``tls`` and ``wss``; one that verifies the server against the system's authorities by
            default.
        resume: connect again when the connection is lost, and go on with what was under way; True for the
            defaults of :class:`Resume`. The server has to offer it. Without it, the session is over with its connection.
        on_end: as :func:`open_session` takes it.
        **options: as :func:`open_session` takes them. ``limits.handshake_timeout`` bounds the
            time until the session is open, and again the time until the connection is.

    Raises:
        ValueError: the URL is not one of these, or ``on_end`` is neither ``"cancel"`` nor ``"keep"``.
        OSError: the connection could not be made; one line that says what was tried.
        Refused: the server would not open the session; likewise all of :func:`open_session`.
    """
    check_on_end(on_end)
    chosen = Options(**options)
    tables = make_tables(services)
    resumption = (Resume() if resume is True else resume) or None
    async with (
        _open(url, ssl_context, chosen.limits, resumption) as channel,
        run_session(Core(channel, tables, chosen, url), on_end=on_end) as session,
    ):
        yield session


def _open(
    url: str, ssl_context: ssl.SSLContext | None, limits: Limits, resume: Resume | None
) -> AbstractAsyncContextManager[trio.abc.Channel[bytes]]:
    if resume is None:
        return open_channel(url, ssl_context=ssl_context, limits=limits)
    again = functools.partial(
        open_channel, url, ssl_context=ssl_context, limits=carrier_limits(limits)
    )
    return open_resumable(again, resume, handshake_timeout=limits.handshake_timeout)


async def connect_in(
    nursery: trio.Nursery, url: str, services: object = None, **options: Unpack[SessionOptions]
) -> Session:
    """Connect to a server; the session belongs to ``nursery`` and ends with it, or before.

    For sessions that are kept in objects and pools. End it with :meth:`Session.aclose`. There is no body that the end
    of the session could cancel (``on_end`` is not an option), and it is not an error in the nursery: calls raise, and
    :meth:`Session.wait_closed` returns.

    Args:
        nursery: what cancels it.
        url: as :func:`connect` takes it.
        services: likewise.
        **options: likewise.

    Raises:
        Exception: all that :func:`connect` does.
    """

    async def own(*, task_status: trio.TaskStatus[Session]) -> None:
        async with connect(url, services, on_end="keep", **options) as session:
            task_status.started(session)
            await session.wait_closed()

    return await nursery.start(own)  # type: ignore[no-any-return]

"""Listeners, which keep accepting clients when a single connection fails."""

from __future__ import annotations

import errno
import logging
import os
import socket as stdlib_socket
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias

import trio

from trio_rpc.channels.connecting import check_unix
from trio_rpc.channels.connection import Connection
from trio_rpc.util.rate_limited_log import RateLimitedLog

__all__ = ["ChannelListener", "bound_to", "listen_tcp", "listen_unix"]

logger = logging.getLogger("trio_rpc")

BACKLOG = 1024
"""Connections that may wait for ``accept``, for when many clients reconnect at once."""

ACCEPT_PAUSE = 0.1
"""Seconds until the next try after the system ran out of descriptors or memory."""

PORT_TRIES = 10
"""Free ports to try when a port must be free at several addresses."""

_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

_ABSENT = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
"""A name may resolve to addresses that this machine lacks: "localhost" without IPv6."""


MakeConnection: TypeAlias = Callable[[trio.SocketStream, str], Connection]
"""Makes a connection from a stream that was accepted at a URL."""


class ChannelListener(trio.abc.Listener[Connection]):
    """Accepts the connections that clients make to one address; each becomes a channel.

    Args:
        listener: accepts byte streams.
        url: see below.
        connection: makes a connection from such a stream.
        socket_file: the file to remove when this listener is closed.

    Attributes:
        url: the URL where it listens, with the port that the system has chosen.
    """

    def __init__(
        self,
        listener: trio.abc.Listener[trio.SocketStream],
        *,
        url: str,
        connection: MakeConnection,
        socket_file: SocketFile | None = None,
    ) -> None:
        self.url = url
        self._listener = listener
        self._connection = connection
        self._socket_file = socket_file
        self._starving = False
        self._complaints = RateLimitedLog(logger)

    def __repr__(self) -> str:
        return f"<ChannelListener {self.url}>"

    async def accept(self) -> Connection:
        """Wait for a client. No handshake has been done yet, so a slow client delays no other.

        While the system has no free descriptors, this waits and tries again, so the clients in
        the queue are accepted when others have left.

        Raises trio.ClosedResourceError if this listener is closed, or is closed while waiting.
        """
        while True:
            try:
                stream = await self._listener.accept()
            except OSError as exc:
                if exc.errno not in _EXHAUSTED:
                    raise
                await self._wait_out(exc)
            else:
                self._starving = False
                return self._connection(stream, self.url)

    async def aclose(self) -> None:
        """Stop listening, and remove a Unix socket's file. Accepted connections stay open."""
        if self._socket_file is not None:
            self._socket_file.remove()
        await self._listener.aclose()

    async def _wait_out(self, exc: OSError) -> None:
        if not self._starving:  # log once for each shortage, not for each try
            self._starving = True
            text = "%s: cannot accept connections for now: %s"
            self._complaints.log(logging.WARNING, text, self.url, exc.strerror)
        await trio.sleep(ACCEPT_PAUSE)


def bound_to(listener: trio.SocketListener) -> tuple[str, int]:
    """Return the host and port of a listening TCP socket."""
    host, port = listener.socket.getsockname()[:2]
    return host, port


async def listen_tcp(host: str, port: int) -> list[trio.SocketListener]:
    """Listen at every local address of a host, with one port for all of them.

    With port 0 each address would get a different port, and a client that knows one of the ports
    would reach one address only. So the port of the first address is used for the others.
    """
    for last_try in range(PORT_TRIES - 1, -1, -1):
        try:
            return await _listen_at_one_port(host, port)
        except OSError as exc:
            if port or exc.errno != errno.EADDRINUSE or not last_try:
                raise
    raise AssertionError("the last try returns or raises")


async def _listen_at_one_port(host: str, port: int) -> list[trio.SocketListener]:
    found = await trio.socket.getaddrinfo(
        host, port, type=trio.socket.SOCK_STREAM, flags=trio.socket.AI_PASSIVE
    )
    listeners: list[trio.SocketListener] = []
    absent: OSError | None = None
    try:
        for address in dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found):
            try:
                opened = await trio.open_tcp_listeners(port, host=address, backlog=BACKLOG)
            except OSError as exc:
                if exc.errno not in _ABSENT:
                    raise
                absent = exc
                continue
            listeners += opened
            port = port or bound_to(opened[0])[1]
    except BaseException:
        for listener in listeners:
            listener.socket.close()
        raise
    if absent is not None and not listeners:
        raise absent
    return listeners


class SocketFile:
    """The file of a Unix socket that we have bound. We remove it if it is still the same file."""

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)  # noqa: PTH100 - the program may change its directory
        self._identity = _identity(self._path)

    def remove(self) -> None:
        """Remove the file, unless another program has replaced it."""
        if self._identity is not None and _identity(self._path) == self._identity:
            # A file that cannot be removed is stale, and the next server there handles that.
            with suppress(OSError):
                os.unlink(self._path)  # noqa: PTH108 - a string is all we have
        self._identity = None


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - a string is all we have
    except OSError:
        return None
    return status.st_dev, status.st_ino


async def listen_unix(path: str, url: str, connection: MakeConnection) -> ChannelListener:
    """Listen at a Unix socket, after removing the socket file of a dead server.

    The directory's permissions and the process's umask control who may connect.

    Raises an OSError: another program listens there, the file is not a socket, the path is too
    long …
    """
    check_unix(path)
    sock = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    try:
        try:
            await sock.bind(path)
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE:
                raise
            _remove_stale(path)
            await sock.bind(path)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    listener = trio.SocketListener(sock)
    return ChannelListener(listener, url=url, connection=connection, socket_file=SocketFile(path))


def _remove_stale(path: str) -> None:
    """Remove a socket file at which no program listens; raise OSError for any other file."""
    if not stat.S_ISSOCK(os.stat(path).st_mode):  # noqa: PTH116 - a string is all we have
        raise FileExistsError(errno.EEXIST, "there is a file that is not a socket")
    with stdlib_socket.socket(stdlib_socket.AF_UNIX) as probe:
        # A Unix socket answers at once or not at all, so this cannot block.
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)  # noqa: PTH108 - a string is all we have
            return
        except BlockingIOError:
            pass  # a program listens, and its queue is full
    raise OSError(errno.EADDRINUSE, "another program listens there")

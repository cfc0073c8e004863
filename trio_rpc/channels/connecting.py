"""Opening a connection, and saying in one line why it could not be opened."""

from __future__ import annotations

import errno
import os
import socket as stdlib_socket
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from trio_rpc.util.places import keep_places

__all__ = ["check_unix", "connect_tcp", "connect_unix", "naming"]

UNIX_PATH_MOST = 107 if sys.platform.startswith("linux") else 103
"""Bytes that fit into the system's address of a Unix socket, but for the zero at its end."""


async def connect_tcp(host: str, port: int) -> trio.SocketStream:
    """Connect to the first address of a host that answers.

    Raises an OSError of the kind that fits: ConnectionRefusedError, socket.gaierror, …
    """
    family = _family_of(host)
    if family is not None:
        return await _connect_to_address(family, host, port)
    try:
        return await trio.open_tcp_stream(host, port)
    except OSError as exc:
        # Trio reports failed attempts as a group in the cause; the first one stands for all.
        attempt: BaseException | None = exc.__cause__
        while isinstance(attempt, BaseExceptionGroup):
            attempt = attempt.exceptions[0]
        if not isinstance(attempt, OSError) or not attempt.errno:
            raise
        raise OSError(attempt.errno, os.strerror(attempt.errno)) from exc


def _family_of(host: str) -> stdlib_socket.AddressFamily | None:
    """Return the family of an address; None for a name, and for an address with a zone."""
    family = stdlib_socket.AF_INET6 if ":" in host else stdlib_socket.AF_INET
    try:
        stdlib_socket.inet_pton(family, host)
    except OSError:
        return None
    return family


async def _connect_to_address(
    family: stdlib_socket.AddressFamily, host: str, port: int
) -> trio.SocketStream:
    """Connect to the one address there is: no race of several, so no tasks for it."""
    sock = trio.socket.socket(family, stdlib_socket.SOCK_STREAM)
    try:
        await sock.connect((host, port))
        return trio.SocketStream(sock)
    except OSError as exc:
        sock.close()
        if not exc.errno:
            raise
        raise OSError(exc.errno, os.strerror(exc.errno)) from exc  # Trio names the address, too
    except BaseException:
        sock.close()
        raise


async def connect_unix(path: str) -> trio.SocketStream:
    """Connect to a Unix socket; raises an OSError of the kind that fits."""
    check_unix(path)
    return await trio.open_unix_socket(path)


def check_unix(path: str) -> None:
    """Raise OSError if this system cannot have a Unix socket at a path."""
    if not hasattr(trio.socket, "AF_UNIX"):
        raise OSError(errno.EAFNOSUPPORT, "this system has no Unix sockets")
    size = len(os.fsencode(path))
    if size > UNIX_PATH_MOST:
        raise OSError(
            errno.ENAMETOOLONG,
            f"the path has {size} bytes and a Unix socket's at most {UNIX_PATH_MOST}",
        )


@contextmanager
def naming(action: str) -> Iterator[None]:
    """Let an OSError say what was tried: of the same class, with one line of text."""
    try:
        yield
    except OSError as exc:
        keep_places(exc)
        raise _in_one_line(action, exc) from exc


def _in_one_line(action: str, exc: OSError) -> OSError:
    text = (exc.strerror or str(exc)).strip().splitlines()
    error = type(exc)(f"{action}: {text[0] if text else type(exc).__name__}")
    error.errno = exc.errno
    if isinstance(exc, ssl.SSLError):
        error.strerror = error.args[0]  # the only text that its str() shows
    return error

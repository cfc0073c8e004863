"""Open a connection, or say in one line why that failed."""

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
"""Bytes of a path that the system's address structure of a Unix socket holds, plus a zero byte."""


async def connect_tcp(host: str, port: int) -> trio.SocketStream:
    """Connect to the first address of a host that answers.

    Raises an OSError of the matching class: ConnectionRefusedError, socket.gaierror, …
    """
    family = _family_of(host)
    if family is not None:
        return await _connect_to_address(family, host, port)
    try:
        return await trio.open_tcp_stream(host, port)
    except OSError as exc:
        # Trio reports failed attempts as a group in the cause. We report only the first one.
        attempt: BaseException | None = exc.__cause__
        while isinstance(attempt, BaseExceptionGroup):
            attempt = attempt.exceptions[0]
        if not isinstance(attempt, OSError) or not attempt.errno:
            raise
        raise OSError(attempt.errno, os.strerror(attempt.errno)) from exc


def _family_of(host: str) -> stdlib_socket.AddressFamily | None:
    """Return the family of an address, or None for a host name or an address with a zone."""
    family = stdlib_socket.AF_INET6 if ":" in host else stdlib_socket.AF_INET
    try:
        stdlib_socket.inet_pton(family, host)
    except OSError:
        return None
    return family


async def _connect_to_address(
    family: stdlib_socket.AddressFamily, host: str, port: int
) -> trio.SocketStream:
    """Connect to a single address. No addresses race each other, so no tasks are needed."""
    sock = trio.socket.socket(family, stdlib_socket.SOCK_STREAM)
    try:
        await sock.connect((host, port))
        return trio.SocketStream(sock)
    except OSError as exc:
        sock.close()
        if not exc.errno:
            raise
        # Trio's text also has the address, which our caller names.
        raise OSError(exc.errno, os.strerror(exc.errno)) from exc
    except BaseException:
        sock.close()
        raise


async def connect_unix(path: str) -> trio.SocketStream:
    """Connect to a Unix socket. Raises an OSError of the matching class."""
    check_unix(path)
    return await trio.open_unix_socket(path)


def check_unix(path: str) -> None:
    """Raise OSError if a Unix socket cannot exist at this path on this system."""
    if not hasattr(trio.socket, "AF_UNIX"):
        raise OSError(errno.EAFNOSUPPORT, "this system has no Unix sockets")
    size = len(os.fsencode(path))
    if size > UNIX_PATH_MOST:
        raise OSError(
            errno.ENAMETOOLONG,
            f"the path has {size} bytes; the path of a Unix socket has at most {UNIX_PATH_MOST}",
        )


@contextmanager
def naming(action: str) -> Iterator[None]:
    """Replace an OSError by one of the same class whose one line of text begins with ``action``."""
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
        error.strerror = error.args[0]  # str() of an SSLError shows nothing else
    return error

"""The amount of written data that the other end has taken, as far as the system can tell.

A stream that waits in ``send_all`` does not report how much it has written. A socket does not
either: a Unix socket of Linux has room again only when three quarters of its buffer have been read,
and a TCP socket when a third has. So a peer that reads slowly looks like one that reads nothing,
unless the system is asked how many bytes still wait in its buffer.
"""

from __future__ import annotations

import struct
import sys

import trio

__all__ = ["waiting_in_system"]

if sys.platform == "linux":
    import fcntl
    import termios

    _INT = struct.Struct("i")

    def _waiting_at(fileno: int) -> int | None:
        """Return the bytes that the peer's system has not acknowledged, or None for no socket.

        The name of this request is SIOCOUTQ for sockets, and has the same number.
        """
        try:
            answer = fcntl.ioctl(fileno, termios.TIOCOUTQ, bytes(_INT.size))
        except OSError:  # it is closed, or not a socket
            return None
        return int(_INT.unpack(answer)[0])

else:

    def _waiting_at(fileno: int) -> int | None:  # noqa: ARG001 - there is no portable request
        return None


def waiting_in_system(stream: trio.abc.Stream) -> int | None:
    """Return a number that changes when the other end takes bytes that the system holds for it.

    Args:
        stream: a socket, or TLS over a socket.

    Returns None if it cannot be known: for other streams, and on systems other than Linux.
    """
    while isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    return _waiting_at(stream.socket.fileno()) if isinstance(stream, trio.SocketStream) else None

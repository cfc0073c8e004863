"""Transports of a stream channel, which read bytes and write frames: sockets and other streams.

A transport moves bytes. :class:`~trio_rpc.channels.StreamChannel` handles incomplete packets,
time-outs, and tasks that use the channel at the same time.

Why sockets have their own transport
------------------------------------
All methods of ``trio.SocketStream`` are coroutines that always yield. The descriptor of a Trio
socket is non-blocking, though, so plain ``os.read`` and ``os.write`` on it either move bytes at
once or report that they would block. This has three advantages:

* A write that cannot block needs no task switch (``write_nowait``).
* We know to the byte how much a write has left unsent. We keep the rest, so a cancelled ``write``
  leaves no gap: the next one sends the rest first.
* After a read that emptied the socket, the next read waits before it reads. This saves a read that
  would have failed, and the wait is the checkpoint that is due anyway.
"""

# ruff: noqa: D102 - Transport describes the methods once

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import Protocol

import trio

from trio_rpc.channels.errors import closed_error
from trio_rpc.channels.tls import explain_broken, is_shaking_hands
from trio_rpc.util.places import untangled
from trio_rpc.wire.framing import frame, prefix
from trio_rpc.wire.parts import BufferList

__all__ = ["SocketTransport", "StreamTransport", "Transport", "choose_transport"]

JOIN_BELOW = 32 * 1024
"""Below this size, copying a packet behind its header is cheaper than writing two buffers."""

DROPPED_AT_ONCE = 64 * 1024
"""Bytes to read and drop at a time when a socket is about to be closed."""

MANY_BUFFERS = 512
"""Buffers for one system call. Systems accept at most 1,024."""


class Transport(Protocol):
    """The operations that a stream channel needs from the stream below it."""

    async def read(self, at_most: int) -> bytes:
        """Return some bytes, or ``b""`` at the end. A cancelled read has taken nothing."""

    def stop_reading(self) -> None:
        """Make a waiting ``read`` raise ``trio.ClosedResourceError``.

        A later ``read`` that would have to wait also raises it.
        """

    async def read_into(self, space: memoryview) -> int:
        """Read into ``space``, as ``read`` does; return the number of bytes, 0 at the end."""

    def read_nowait(self, space: memoryview) -> int | None:
        """Read into ``space`` as ``read_into`` does, or return None if that would wait."""

    async def write(self, packet: bytes | BufferList) -> None:
        """Send one packet as one frame."""

    def write_nowait(self, packet: bytes | BufferList) -> bool:
        """Accept the packet without waiting and return True, or do nothing and return False."""

    async def flush(self) -> None:
        """Send the rest of the packets that were taken."""

    async def linger(self, at_most: int) -> None:
        """Send the end of the stream, and drop incoming data until the peer's end.

        Stop when more than ``at_most`` bytes were dropped.
        """

    def cut(self) -> None:
        """Make the peer see an end inside a packet, if that is possible without waiting."""

    @property
    def unsent(self) -> int:
        """Bytes that were taken and not yet passed to the system."""


async def linger(socket: trio.socket.SocketType, at_most: int) -> None:
    """Shut down the sending side of a socket, and drop incoming data until the peer's end.

    Stop when more than ``at_most`` bytes were dropped.
    """
    with contextlib.suppress(OSError, trio.ClosedResourceError):
        socket.shutdown(trio.socket.SHUT_WR)
        while at_most >= 0:
            count = len(await socket.recv(DROPPED_AT_ONCE))
            if not count:
                return
            at_most -= count
    await trio.lowlevel.cancel_shielded_checkpoint()


def choose_transport(stream: trio.abc.Stream) -> Transport:
    """Return the best transport for a stream."""
    if sys.platform != "win32" and isinstance(stream, trio.SocketStream):
        return SocketTransport(stream)
    return StreamTransport(stream)


class StreamTransport:
    """A transport over any stream, TLS included, that uses ``receive_some`` and ``send_all``."""

    __slots__ = ("_cut", "_heard", "_reading", "_stopped", "_stream")

    unsent = 0

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._reading: trio.CancelScope | None = None
        self._stopped = False
        self._cut = False
        self._heard = False

    async def read(self, at_most: int) -> bytes:
        data = None
        try:
            with untangled(), trio.CancelScope() as self._reading:
                if self._stopped:
                    self._reading.cancel()
                data = await self._stream.receive_some(at_most)
        except trio.BrokenResourceError as exc:
            raise self._explained(exc) from (exc.__cause__ or exc)
        if data is None:
            raise trio.ClosedResourceError("receiving was stopped")
        self._heard = True
        return bytes(data)

    def stop_reading(self) -> None:
        self._stopped = True
        if self._reading is not None:
            self._reading.cancel()

    async def read_into(self, space: memoryview) -> int:
        data = await self.read(len(space))
        space[: len(data)] = data
        return len(data)

    def read_nowait(self, space: memoryview) -> int | None:
        return None

    async def write(self, packet: bytes | BufferList) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._cut:
            await trio.lowlevel.cancel_shielded_checkpoint()
            raise trio.BrokenResourceError("an earlier send was cut off inside its packet")
        # If send_all raises, we do not know how much it has sent. The peer would read any later
        # bytes as the rest of this packet, so later writes are refused.
        self._cut = True
        try:
            with untangled():
                await self._stream.send_all(frame(bytes(packet)))
        except trio.BrokenResourceError as exc:
            raise self._explained(exc) from (exc.__cause__ or exc)
        self._cut = False

    def write_nowait(self, packet: bytes | BufferList) -> bool:
        return False

    async def linger(self, at_most: int) -> None:
        await trio.lowlevel.checkpoint()
        stream = self._stream
        if self._cut or not isinstance(stream, trio.SSLStream) or is_shaking_hands(stream):
            return
        below = stream.transport_stream
        try:
            # This fails if data has arrived that was not read. Then the peer gets no close_notify.
            with (
                contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError),
                untangled(),
            ):
                await stream.unwrap()
            if isinstance(below, trio.SocketStream):
                await linger(below.socket, at_most)
        finally:
            await trio.aclose_forcefully(below)  # an unwrapped TLS stream no longer closes it

    def cut(self) -> None:
        pass

    async def flush(self) -> None:
        await trio.lowlevel.checkpoint()

    def _explained(self, exc: trio.BrokenResourceError) -> trio.BrokenResourceError:
        return explain_broken(self._stream, exc, heard=self._heard)


if sys.platform != "win32":

    class SocketTransport:
        """A transport that reads and writes a connected socket directly."""

        __slots__ = ("_drained", "_rest", "_socket", "_stopped")

        def __init__(self, stream: trio.SocketStream) -> None:
            self._socket = stream.socket
            self._rest: BufferList | None = None
            """The unsent rest of a packet that is partly sent. Its buffers do not change."""
            self._drained = True
            self._stopped = False

        @property
        def unsent(self) -> int:
            return 0 if self._rest is None else len(self._rest)

        async def read(self, at_most: int) -> bytes:
            waited = False
            if not self._drained:
                await trio.lowlevel.checkpoint_if_cancelled()
            while True:
                if self._drained:
                    # As _wait_readable, whose coroutine every idle session would also keep.
                    if self._stopped or (fileno := self._socket.fileno()) < 0:
                        raise closed_error()
                    await trio.lowlevel.wait_readable(fileno)
                    waited = True
                try:
                    data = os.read(self._socket.fileno(), at_most)
                    break
                except BlockingIOError:
                    self._drained = True
                except OSError as exc:
                    raise _translated(exc) from exc
            if not waited:
                await trio.lowlevel.cancel_shielded_checkpoint()
            self._drained = len(data) < at_most
            return data

        def stop_reading(self) -> None:
            self._stopped = True
            if (fileno := self._socket.fileno()) >= 0:
                trio.lowlevel.notify_closing(fileno)

        async def read_into(self, space: memoryview) -> int:
            await self._wait_readable()
            while (count := self.read_nowait(space)) is None:
                await self._wait_readable()
            return count

        async def write(self, packet: bytes | BufferList) -> None:
            await trio.lowlevel.checkpoint_if_cancelled()
            await self._flush_rest()
            waited = False
            while not self.write_nowait(packet):
                # If cancelled here, none of the packet was sent. If cancelled below, its rest is
                # kept.
                await self._wait_writable()
                waited = True
            if self._rest is not None:
                await self._flush_rest()
            elif not waited:
                await trio.lowlevel.cancel_shielded_checkpoint()

        def write_nowait(self, packet: bytes | BufferList) -> bool:
            if self._rest is not None:
                return False
            if isinstance(packet, bytes) and len(packet) < JOIN_BELOW:
                return self._start(frame(packet))
            buffers = packet.buffers if isinstance(packet, BufferList) else [packet]
            return self._start(BufferList([prefix(packet), *buffers]))

        def _start(self, data: bytes | BufferList) -> bool:
            """Write as much as possible without waiting and keep the rest.

            Return False if nothing could be written.
            """
            fileno = self._socket.fileno()
            try:
                if isinstance(data, BufferList):
                    sent = os.writev(fileno, data.buffers[:MANY_BUFFERS])
                else:
                    sent = os.write(fileno, data)
            except BlockingIOError:
                return False
            except OSError as exc:
                raise _translated(exc) from exc
            if sent < len(data):
                whole = data if isinstance(data, BufferList) else BufferList([data])
                self._rest = BufferList(whole.cut(sent, len(whole)))
            else:
                self._rest = None
            return True

        async def linger(self, at_most: int) -> None:
            await trio.lowlevel.checkpoint_if_cancelled()
            # With an unsent rest the peer does not read, and would take the end for a break.
            if self._rest is None:
                await linger(self._socket, at_most)

        def cut(self) -> None:
            if self._rest is None:
                # This is the first byte of a length whose other bytes never come. If the socket
                # has no room for a byte, or the peer has left, the peer sees an ordinary end.
                with contextlib.suppress(OSError):
                    os.write(self._socket.fileno(), b"\0")

        async def flush(self) -> None:
            await trio.lowlevel.checkpoint_if_cancelled()
            if self._rest is not None:
                await self._flush_rest()
            else:
                await trio.lowlevel.cancel_shielded_checkpoint()

        async def _flush_rest(self) -> None:
            while self._rest is not None:
                await self._wait_writable()
                self._start(self._rest)

        def read_nowait(self, space: memoryview) -> int | None:
            try:
                count = os.readv(self._socket.fileno(), [space])
            except BlockingIOError:
                return None
            except OSError as exc:
                raise _translated(exc) from exc
            self._drained = count < len(space)
            return count

        # These ask for the descriptor each time: when a task runs again after a wait, its number
        # may belong to another file.
        async def _wait_readable(self) -> None:
            if self._stopped or (fileno := self._socket.fileno()) < 0:
                raise closed_error()
            await trio.lowlevel.wait_readable(fileno)

        async def _wait_writable(self) -> None:
            while (fileno := self._socket.fileno()) >= 0:
                # Trio also raises this when only reading was stopped, because it wakes both.
                with contextlib.suppress(trio.ClosedResourceError):
                    await trio.lowlevel.wait_writable(fileno)
                    return
            raise closed_error()


def _translated(exc: OSError) -> trio.ClosedResourceError | trio.BrokenResourceError:
    if exc.errno == errno.EBADF:
        return closed_error()
    return trio.BrokenResourceError(f"connection broken: {exc.strerror or exc}")

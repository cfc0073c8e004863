"""The stream between trio-websocket and the network, which fills gaps of the library.

If a peer leaves before the handshake is over, or answers with something else, the library's reading
task does not report it, and the caller of the handshake would wait forever. So this stream raises,
which ends the reading task and the wait. It also detects a frame that was cut off, a message whose
rest does not arrive, and too many bytes without a packet in them.
"""

from __future__ import annotations

import math
import sys
from http import HTTPStatus

import trio

from trio_rpc.channels.taken import waiting_in_system
from trio_rpc.channels.tls import explain_broken
from trio_rpc.channels.websocket.frames import FrameWatch
from trio_rpc.util.places import untangled
from trio_rpc.util.time_limits import PacketTimer

__all__ = ["WatchedStream"]

END_OF_HEAD = b"\r\n\r\n"


class WatchedStream(trio.abc.Stream):
    """A stream that ``trio_websocket`` reads and writes.

    Args:
        stream: the connection. If it uses TLS, that handshake is done.
        is_client: whether this end expects an HTTP response (True) or a request (False).
        max_unread: bytes that may arrive before the channel must have received a packet.
        packet_timeout: seconds from the first to the last byte of one message, or of a frame
            between two messages.

    Attributes:
        head: the first bytes received, at least up to the end of the HTTP head, until the
            handshake is over.
        unread: bytes that have arrived since the channel received a packet, which resets it.
        failure: the reason why the stream has ended, if the end was not orderly.
        is_closed: whether a call of ``aclose`` has ended.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        *,
        is_client: bool,
        max_unread: int,
        packet_timeout: float = math.inf,
    ) -> None:
        self.head = b""
        self.unread = 0
        self.failure: Exception | None = None
        self.is_closed = False
        self._stream = stream
        self._is_client = is_client
        self._is_opening = True
        self._max_unread = max_unread
        self._head_is_whole = False
        self._heard = False
        self._cut = False
        self._frames = FrameWatch()
        self._timer = PacketTimer(packet_timeout)

    @property
    def heard(self) -> int:
        """Bytes of messages that have arrived: a sign of life, even inside a packet."""
        return self._frames.content

    @property
    def taken(self) -> object:
        """A value that changes when the other end reads a part of the unsent data."""
        return waiting_in_system(self._stream)

    def opened(self) -> None:
        """Record that the handshake is over."""
        self._is_opening = False
        self.head = b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes, unless an earlier send was cut off: the peer would take them for its rest."""
        if self._cut:
            await trio.lowlevel.checkpoint()
            raise trio.BrokenResourceError("an earlier send was cut off inside its frame")
        self._cut = True
        try:
            with untangled():
                await self._stream.send_all(data)
        except trio.BrokenResourceError as exc:
            self._fail(explain_broken(self._stream, exc, heard=self._heard))
            raise
        self._cut = False

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the stream may have room."""
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return some bytes, or ``b""`` at the end.

        Raises:
            ConnectionError: the handshake has failed.
            trio.BrokenResourceError: the connection is broken, a message takes too long, or too
                many bytes came without a packet in them: empty fragments, or endless Pings.
        """
        try:
            with untangled():
                data = await self._receive_in_time(max_bytes)
        except trio.BrokenResourceError as exc:
            self._fail(explain_broken(self._stream, exc, heard=self._heard))
            raise
        self._heard = True
        self._follow(data if self._head_is_whole else self._take_head(data))
        self.unread += len(data)
        if self.unread > self._max_unread:
            self._fail(
                trio.BrokenResourceError(f"{self.unread} bytes arrived without a packet in them")
            )
            raise trio.BrokenResourceError("too many bytes arrived without a packet in them")
        return data

    async def _receive_in_time(self, max_bytes: int | None) -> bytes:
        if not self._frames.is_midway:
            return bytes(await self._stream.receive_some(max_bytes))
        data = None
        while data is None:
            data = await self._timer.wait(self._stream.receive_some, max_bytes)
        return bytes(data)

    def _follow(self, frames: bytes) -> None:
        if self._frames.feed(frames):
            self._timer.renew()

    async def aclose(self) -> None:
        """Close the connection. Before the handshake is done, also raise ConnectionError."""
        try:
            with untangled():
                await self._stream.aclose()
        except trio.BrokenResourceError:
            await trio.lowlevel.cancel_shielded_checkpoint()  # already lost; it is closed now
        finally:
            self.is_closed = True
        if self._is_opening:
            # The exception that trio-websocket is handling.
            reason = f": {exc}" if (exc := sys.exception()) else ""
            raise ConnectionError(f"{self._other} did not do the WebSocket handshake{reason}")

    @property
    def _other(self) -> str:
        return "the server" if self._is_client else "the client"

    def _fail(self, reason: Exception) -> None:
        self.failure = self.failure or reason
        if not self._head_is_whole:
            raise ConnectionError(f"the WebSocket handshake failed: {reason}") from None

    def _take_head(self, data: bytes) -> bytes:
        """Return the bytes after the head.

        Raises ConnectionError if the head does not open a WebSocket.
        """
        self.head += data
        if self._is_client:
            self._check_answer()
        else:
            self._check_request()
        if not data:
            raise ConnectionError(f"{self._other} left during the WebSocket handshake")
        _, end, rest = self.head.partition(END_OF_HEAD)  # h11 bounds its size
        self._head_is_whole = bool(end)
        if rest and not self._is_client:
            # wsproto would lose these bytes, and parse the following ones from a wrong offset.
            raise ConnectionError("the client did not wait for the answer to its request")
        return rest

    def _check_request(self) -> None:
        if self.head.startswith(b"\x16\x03"):
            raise ConnectionError("the client begins a TLS handshake: this is not a TLS port")
        if self.head and not self.head[:1].isalpha():
            raise ConnectionError("the client does not speak HTTP")

    def _check_answer(self) -> None:
        start = b"HTTP/1."
        if self.head[: len(start)] != start[: len(self.head)]:
            raise ConnectionError("the server does not speak HTTP")
        line, end, _ = self.head.partition(b"\r\n")
        if end and line.split()[1:2] != [b"101"]:
            # A body that explains it may follow or never arrive. The status is enough.
            raise ConnectionRefusedError(f"the server answered {_status(line)}")


def _status(line: bytes) -> str:
    code = line.split()[1:2]
    if not code or not code[0].isdigit():
        return "with a line that is not HTTP"
    try:
        return f"{int(code[0])} {HTTPStatus(int(code[0])).phrase}"
    except ValueError:
        return f"with status {code[0][:9].decode('ascii')}"

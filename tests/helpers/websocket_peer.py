"""A peer that writes WebSocket frames by hand, including invalid ones."""

from __future__ import annotations

import base64
import contextlib
import hashlib

import trio

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
KEY = base64.b64encode(bytes(16)).decode()
ACCEPT = base64.b64encode(
    hashlib.sha1(f"{KEY}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()  # noqa: S324 - RFC 6455
).decode()
HEADERS = {
    "Host": "example.org:8000",
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Protocol": "trio-rpc.v1",
}


def request(path="/", method="GET", **changes) -> bytes:
    """Make the request of a handshake; a header that is None is left out."""
    headers = HEADERS | {name.replace("_", "-"): value for name, value in changes.items()}
    lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode("latin-1")


def answer(key: str, **changes) -> bytes:
    """Make the response that accepts a client's handshake."""
    digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()  # noqa: S324 - RFC 6455
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Accept": base64.b64encode(digest).decode(),
        "Sec-WebSocket-Protocol": "trio-rpc.v1",
    } | {name.replace("_", "-"): value for name, value in changes.items()}
    lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
    return "\r\n".join(["HTTP/1.1 101 Switching Protocols", *lines, "", ""]).encode()


def frame(opcode: int, payload: bytes = b"", *, fin=True, masked=True, rsv=0) -> bytes:
    """Make one frame; a mask of zeros leaves the payload as it is."""
    size = len(payload)
    if size < 126:
        length = bytes([size])
    else:
        length = b"\x7e" + size.to_bytes(2) if size < 2**16 else b"\x7f" + size.to_bytes(8)
    mask = bytes(4) if masked else b""
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    return bytes([first, length[0] | (0x80 if masked else 0)]) + length[1:] + mask + payload


class RawPeer:
    """A stream with a buffer, from which HTTP heads and WebSocket frames are read."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.buffer = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def read_head(self) -> bytes:
        while b"\r\n\r\n" not in self.buffer:
            await self._more()
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        return head

    async def read_frame(self) -> tuple[int, bytes]:
        """Return opcode and payload of a frame, which may be masked."""
        first, second = await self._take(2)
        size = second & 0x7F
        if size > 125:
            size = int.from_bytes(await self._take(2 if size == 126 else 8))
        mask = await self._take(4) if second & 0x80 else bytes(4)
        payload = await self._take(size)
        return first & 0x0F, bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))

    async def read_to_end(self) -> bytes:
        with contextlib.suppress(trio.BrokenResourceError, EOFError):
            while True:
                await self._more()
        return self.buffer

    async def _take(self, size: int) -> bytes:
        while len(self.buffer) < size:
            await self._more()
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    async def _more(self) -> None:
        data = await self.stream.receive_some(65536)
        if not data:
            raise EOFError
        self.buffer += data


def key_of(head: bytes) -> str:
    """Return the Sec-WebSocket-Key of a client's request."""
    lines = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    return lines["Sec-WebSocket-Key"]

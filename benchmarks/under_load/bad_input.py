"""Clients that keep to no rules: raw connections, and the bytes that they send."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from array import array

import trio

from trio_rpc import DEFAULT_LIMITS
from trio_rpc.wire import messages as m
from trio_rpc.wire.codec import Codec
from trio_rpc.wire.framing import FrameReader, frame

LONGEST = 60.0
"""Seconds after which a connection that should have been closed counts as never closed."""
MOST_PAIRS = 500
"""Requests that are sent together, each with its Cancel: fewer than the calls that are allowed."""
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER that resets a connection, so that no port has to wait for its reuse."""

_codec = Codec(None, DEFAULT_LIMITS)


def packet_of(*messages: m.Message) -> bytes:
    return frame(b"".join(_codec.encode(message) for message in messages))


GREETING = packet_of(
    m.Hello(
        m.PROTOCOL_VERSION,
        {
            "calls": 1000,
            "notifications": 1000,
            "max_message": 10**6,
            "max_packet": 200_000,
            "max_depth": 64,
            "max_nodes": 100_000,
        },
    ),
    m.Welcome(),
)


async def connected(port: int) -> trio.SocketStream:
    """Connect. If the server's queue is full, this waits as the system does."""
    stream = trio.SocketStream(trio.socket.socket())
    try:
        await stream.socket.connect(("127.0.0.1", port))
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


async def until_closed(stream: trio.SocketStream) -> None:
    with contextlib.suppress(trio.BrokenResourceError):
        while await stream.receive_some():
            pass


async def stay(port: int, stayed: array[float], *, drips: bool) -> None:
    """Connect and say nothing, or a byte of a Hello each second, until the server closes.

    Add the seconds from the server's first byte, its Hello, to the end. If the server's queue is
    full, the system drops a connection whose client believes that it is open, and never says so.
    Such a connection costs the server nothing, and is not counted.
    """
    async with await connected(port) as stream:
        accepted: float | None = None
        with trio.move_on_after(LONGEST):
            async with trio.open_nursery() as nursery:
                if drips:
                    nursery.start_soon(_drip, stream)
                with contextlib.suppress(trio.BrokenResourceError):
                    while await stream.receive_some():
                        accepted = accepted or trio.current_time()
                nursery.cancel_scope.cancel()
        if accepted is not None:
            stayed.append(trio.current_time() - accepted)


async def _drip(stream: trio.SocketStream) -> None:
    with contextlib.suppress(trio.BrokenResourceError):
        for byte in GREETING:
            await stream.send_all(bytes([byte]))
            await trio.sleep(1)


async def cancel_pairs(port: int, pairs: int) -> int:
    """Send Requests, each with its Cancel behind it in the same packet; count the answers."""
    answered = 0
    reader = FrameReader(DEFAULT_LIMITS.max_packet)
    async with await connected(port) as stream:
        await stream.send_all(GREETING)
        for first in range(1, pairs + 1, MOST_PAIRS):
            ids = range(first, min(first + MOST_PAIRS, pairs + 1))
            both = [each for n in ids for each in (m.Request(n, "wait", []), m.Cancel(n))]
            await stream.send_all(packet_of(*both))
            while answered < ids[-1]:
                data = await stream.receive_some()
                if not data:
                    return answered
                reader.feed(data)
                while (packet := reader.next_frame()) is not None:
                    for message in _codec.decode(packet):
                        answered += isinstance(message, m.Reply | m.ReplyErr)
    return answered


# ── Clients that read nothing ────────────────────────────────────────────────────────────────


async def push_unread(port: int, count: int) -> int:
    """Send so many Requests and read no answer; connect again when the server ends it.

    Return the number of connections.
    """
    connections = sent = 0
    while sent < count:
        connections += 1
        async with await connected(port) as stream:
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            with contextlib.suppress(trio.BrokenResourceError), trio.move_on_after(LONGEST):
                await stream.send_all(GREETING)
                for first in range(1, count - sent + 1, MOST_PAIRS):
                    ids = range(first, first + MOST_PAIRS)
                    packet = packet_of(*(m.Request(n, "echo", [n]) for n in ids))
                    await stream.send_all(packet)
                    sent += len(ids)
    return connections


async def ask_and_stop(port: int, megabytes: int, seconds: float) -> None:
    """Ask for results and for a stream of so many megabytes each, and read nothing of them.

    Each result and each item has half a megabyte: fewer bytes than the greeting allows.
    """
    async with await connected(port) as stream:
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        calls = [m.Request(n, "give", []) for n in range(1, 2 * megabytes + 1)]
        flow = len(calls) + 1
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(GREETING)
            for call in calls:
                await stream.send_all(packet_of(call))
            await stream.send_all(packet_of(m.Request(flow, "flow", [2 * megabytes])))
            await stream.send_all(packet_of(m.Credit(10**6, flow, megabytes * 10**6)))
        await trio.sleep(seconds)


# ── Input that must end its connection ───────────────────────────────────────────────────────

BAD_FRAMES = (
    bytes(4),
    b"\xff\xff\xff\xff",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # the begin of TLS
    b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n",
    frame(b"\xc1"),
    frame(b"\x91" * 1000),
    frame(b"\xdd\xff\xff\xff\xff"),
    GREETING + frame(b"\xc1"),
    GREETING + frame(b"\x92\x63\x01"),  # a message of an unknown kind
    GREETING + packet_of(m.Reply(77, None)),  # the answer to no call
    GREETING + frame(b"\x93\x03\x01\xa2\xff\xfe"),  # text that is not UTF-8
)
"""Bytes that end a session, in place of the handshake and after it."""


def _upgrade(path: str = "/", **changes: str | None) -> bytes:
    headers = {
        "Host": "127.0.0.1",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Protocol": "trio-rpc.v1",
    } | {name.replace("_", "-"): value for name, value in changes.items()}
    lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
    return "\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode()


BAD_UPGRADES = (
    _upgrade(Origin="https://evil.example"),
    _upgrade(Origin="null"),
    _upgrade(Sec_WebSocket_Protocol="chat"),
    _upgrade(Sec_WebSocket_Protocol=None),
    _upgrade(Sec_WebSocket_Key=None),
    _upgrade(Sec_WebSocket_Version="7"),
    _upgrade(Upgrade=None),
    _upgrade("/\x1b[2J"),
    b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n",
    b"\x00\x01\x02\r\n\r\n",
)
"""Requests that a WebSocket server must refuse."""


async def send_bad(kind: str, port: int, number: int) -> bool:
    """Connect, send something bad, and wait for the end; tell whether the server ended it."""
    if kind == "frames":
        # One of four is random. The others are from the table.
        random = frame(os.urandom(40))
        data = BAD_FRAMES[number % len(BAD_FRAMES)] if number % 4 else random
    else:
        data = BAD_UPGRADES[number % len(BAD_UPGRADES)]
    try:
        stream = await connected(port)
    except OSError:
        return False
    with trio.move_on_after(LONGEST) as patience:
        async with stream:
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            with contextlib.suppress(trio.BrokenResourceError):
                await stream.send_all(data)
                await until_closed(stream)
    return not patience.cancelled_caught

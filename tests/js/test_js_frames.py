"""Frames and packets that no peer should send, to session.js over a real WebSocket in Node.

docs/vectors.json has the malformed messages, which run in both languages. These are the cases that
need a connection: frames of other kinds, floods, silence, and cuts.
"""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
import trio
import trio_websocket
from helpers import node
from helpers.node_session import run_node
from trio_websocket import ConnectionClosed, WebSocketConnection

pytestmark = [node.needs_node, pytest.mark.slow]

VECTORS = json.loads((Path(__file__).parents[2] / "docs/vectors.json").read_text("utf-8"))
MAX_PACKET = 4096
MIB = 1 << 20
NOISE = random.Random(1).randbytes(MIB)  # noqa: S311 - not a secret
pack = msgspec.msgpack.encode


def ping(number: int) -> bytes:
    return pack([13, number])


def ping_of_size(size: int) -> bytes:
    """Return Pings of 3, and of 4, bytes that have this size together."""
    return ping(200) * (size % 3) + ping(1) * ((size - 4 * (size % 3)) // 3)


Send = Callable[[WebSocketConnection], Awaitable[None]]


def packets(*contents: bytes | str) -> Send:
    async def send(websocket: WebSocketConnection) -> None:
        for content in contents:
            await websocket.send_message(content)

    return send


async def _cut_in_a_frame(websocket: WebSocketConnection) -> None:
    """Send the head of a frame of 126 bytes and a few of its bytes, and hang up."""
    await websocket._stream.send_all(b"\x82\x7e\x00\x7e\x93\x01")
    await trio.aclose_forcefully(websocket._stream)


async def _reset(websocket: WebSocketConnection) -> None:
    await trio.aclose_forcefully(websocket._stream)


def raw(frame: bytes) -> Send:
    async def send(websocket: WebSocketConnection) -> None:
        await websocket._stream.send_all(frame)

    return send


BROKEN, PROTOCOL = "SessionBroken", "RemoteProtocolError"
ENDINGS: dict[str, tuple[Send, str]] = {
    "an empty packet": (packets(b""), PROTOCOL),
    "a text frame": (packets("hello"), PROTOCOL),
    "a text frame that is a legal packet": (packets(ping(1).decode("latin-1")), PROTOCOL),
    "1 MiB of random bytes": (packets(NOISE), PROTOCOL),
    "1 MiB of zeros": (packets(bytes(MIB)), PROTOCOL),
    "a TLS hello": (packets(bytes.fromhex("16030100c8010000c40303")), PROTOCOL),
    "an HTTP request": (packets(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"), PROTOCOL),
    "100,000 arrays in each other": (packets(b"\x91" * 100_000), PROTOCOL),
    "arrays in each other in a packet that is small enough": (packets(b"\x91" * 4000), PROTOCOL),
    "many empty maps as the argument of a call": (
        packets(b"\x94\x01\x01\xa1x\x91\xdc\x0f\x00" + b"\x80" * 0xF00),
        PROTOCOL,
    ),
    "a packet of one byte more than max_packet": (packets(ping_of_size(MAX_PACKET + 1)), PROTOCOL),
    "a byte after a message": (packets(ping(1) + b"\x00"), PROTOCOL),
    "a good packet and a bad one": (packets(ping(1), b"\xc1"), PROTOCOL),
    "a cut inside of a frame": (_cut_in_a_frame, BROKEN),
    "a connection that is reset": (_reset, BROKEN),
    "a frame with a reserved bit": (raw(b"\xc2\x01\x00"), BROKEN),
    "a frame of an unknown kind": (raw(b"\x83\x00"), BROKEN),
    "a masked frame from a server": (raw(b"\x82\x81\x00\x00\x00\x00\x00"), BROKEN),
    "a frame that claims 2**62 bytes": (raw(b"\x82\x7f\x40" + bytes(7)), BROKEN),
    "a Ping frame of 126 bytes": (raw(b"\x89\x7e\x00\x7e" + bytes(126)), BROKEN),
    "the close code 999": (raw(b"\x88\x02\x03\xe7"), BROKEN),
    "the close code 1009": (raw(b"\x88\x02\x03\xf1"), BROKEN),
    "the close code 4000": (raw(b"\x88\x02\x0f\xa0"), BROKEN),
}
"""The frames of the other end over an open session, and the error of the session."""

SCRIPT = """
const names = JSON.parse(process.argv[3]);
for (const [index, name] of names.entries()) {
  const limits = { maxPacket: 4096, maxMessage: 4096, maxNodes: 1000 };
  const session = await rpc.connect(`${url}/${index}`, { limits, services: { "": { x: () => 1 } } });
  const waiting = outcome(session.call("never"));
  const began = performance.now();
  const { error, orderly } = await session.closed;
  const kind = error.cause instanceof rpc.RemoteProtocolError ? error.cause.name : error.name;
  const [called, , fate] = await waiting;
  report([name, kind, orderly, called, fate, performance.now() - began < 5000]);
}
"""


async def serve(handle: Callable[..., Awaitable[None]], script: str, folder, *arguments: str):
    """Serve WebSockets, and run a script in Node that connects to ``url``."""
    async with trio.open_nursery() as nursery:
        server = await nursery.start(
            lambda task_status: trio_websocket.serve_websocket(
                handle, "127.0.0.1", 0, ssl_context=None, task_status=task_status
            )
        )
        reported = await run_node(folder, script, f"ws://127.0.0.1:{server.port}", *arguments)
        nursery.cancel_scope.cancel()
    return reported


async def accepted(request) -> WebSocketConnection:
    return await request.accept(subprotocol="trio-rpc.v1")


async def opened(request) -> WebSocketConnection:
    """Accept a WebSocket, and open the session as an orderly peer would."""
    websocket = await accepted(request)
    await websocket.send_message(pack([10, 1, VECTORS["hello"]]) + pack([11]))
    received = b""
    while b"never" not in received:
        received += await websocket.get_message()
    return websocket


async def test_an_illegal_frame_ends_the_session_with_a_reason(tmp_path):
    """The call in flight also fails with the fate UNKNOWN, within bounded time."""

    async def handle(request) -> None:
        try:
            websocket = await opened(request)
            send, _ = [*ENDINGS.values()][int(request.path.removeprefix("/"))]
            await send(websocket)
            while True:
                await websocket.get_message()
        except (ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    reported = await serve(handle, SCRIPT, tmp_path, json.dumps([*ENDINGS]))
    wanted = [
        [name, kind, False, "SessionBroken", "unknown", True] for name, (_, kind) in ENDINGS.items()
    ]
    assert reported == wanted


def pongs_in(packet: bytes) -> list[int]:
    """Return the numbers of the Pongs that a packet consists of."""
    sizes = {0xCC: 1, 0xCD: 2, 0xCE: 4}
    numbers, at = [], 0
    while at < len(packet):
        assert packet[at : at + 2] == b"\x92\x0e", packet[at:]
        size = sizes.get(packet[at + 2], 0)
        end = at + 3 + size
        numbers.append(int.from_bytes(packet[at + 3 : end]) if size else packet[at + 2])
        at = end
    return numbers


async def test_legal_extremes_are_accepted(tmp_path):
    """A packet of exactly max_packet, 10,000 frames in one segment, and frames of one byte."""
    exact = ping_of_size(MAX_PACKET)
    last = 70_000
    wanted = [*range(10_000), last]
    received: list[int] = []

    async def handle(request) -> None:
        websocket = await opened(request)
        await websocket.send_message(exact)
        each = [ping(number) for number in range(10_000)]
        await websocket._stream.send_all(b"".join(b"\x82%c%b" % (len(one), one) for one in each))
        slices = b"".join(b"\x00\x01%c" % byte for byte in ping(last))
        slices = b"\x02" + slices[1:]  # the first one begins a message, the others continue it
        await websocket._stream.send_all(slices + b"\x80\x00")
        while not received or received[-1] != last:
            received.extend(pongs_in(await websocket.get_message()))
        await websocket.aclose()

    script = """
    const session = await rpc.connect(url, { limits: { maxPacket: 4096, maxMessage: 4096 } });
    outcome(session.call("never"));
    report((await session.closed).error.name);
    """
    assert len(exact) == MAX_PACKET
    assert await serve(handle, script, tmp_path) == ["SessionBroken"]
    assert received[0] == 1, "the Pings of one packet are answered once, by the last of them"
    assert received[1:] == sorted(received[1:])
    assert set(received[1:]) <= set(wanted)


async def _nothing(websocket: WebSocketConnection) -> None:
    await trio.sleep_forever()


async def _only_hello(websocket: WebSocketConnection) -> None:
    await websocket.send_message(pack([10, 1, VECTORS["hello"]]))
    await trio.sleep_forever()


async def _drip(websocket: WebSocketConnection) -> None:
    """Send a byte of a Hello each 20 ms, and Pongs that nobody asked for."""
    await websocket._stream.send_all(b"\x02\x01\x93")
    while True:
        await websocket._stream.send_all(b"\x8a\x00\x00\x01\x01")
        await trio.sleep(0.02)


async def _version_2(websocket: WebSocketConnection) -> None:
    await websocket.send_message(pack([10, 2, VECTORS["hello"]]))
    await trio.sleep_forever()


HANDSHAKES = {
    "nothing": _nothing,
    "a Hello and no Welcome": _only_hello,
    "one byte after the other": _drip,
    "another version": _version_2,
}


async def test_a_handshake_that_does_not_end_is_given_up(tmp_path):
    async def handle(request) -> None:
        try:
            websocket = await accepted(request)
            async with trio.open_nursery() as nursery:
                nursery.start_soon([*HANDSHAKES.values()][int(request.path[1:])], websocket)
                while True:
                    await websocket.get_message()
        except* (ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    script = """
    for (const [index, name] of JSON.parse(process.argv[3]).entries()) {
      const began = performance.now();
      const end = await outcome(rpc.connect(`${url}/${index}`, { handshakeTimeoutMs: 300 }));
      report([name, ...end, performance.now() - began < 5000]);
    }
    """
    reported = await serve(handle, script, tmp_path, json.dumps([*HANDSHAKES]))
    assert [[name, kind, fate, soon] for name, kind, _, fate, soon in reported] == [
        [name, "Refused" if name == "another version" else reported[0][1], "not started", True]
        for name in HANDSHAKES
    ]
    assert reported[0][1] in {"SessionBroken", "Refused"}
    texts = {name: text for name, _, text, *_ in reported}
    assert texts["nothing"] == "the handshake took too long"
    assert "version" in texts["another version"]

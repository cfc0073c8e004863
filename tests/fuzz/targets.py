"""The targets of the fuzzer: each takes a peer's bytes, and may raise only the errors for them.

A target also checks the rules that hold for any input. So an AssertionError is a finding as well.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgpack

from trio_rpc.channels.forwarding import frames as forwarding
from trio_rpc.channels.forwarding.core import ForwardingCore
from trio_rpc.channels.resumable import replay
from trio_rpc.errors import DecodeError, EncodeError, RemoteProtocolError
from trio_rpc.gateway.client.session import ClientSession
from trio_rpc.gateway.json_messages import encode as to_json
from trio_rpc.gateway.json_messages import from_json_exactly
from trio_rpc.gateway.limits import GatewayLimits
from trio_rpc.gateway.server.browser import Client
from trio_rpc.gateway.server.connection import Connection
from trio_rpc.nats.parser import Parser
from trio_rpc.protocol.protocol import Protocol
from trio_rpc.wire import messages as m
from trio_rpc.wire.codec import Codec
from trio_rpc.wire.framing import FrameReader, frame
from trio_rpc.wire.limits import Limits

VECTORS = json.loads(
    (Path(__file__).parents[2] / "docs" / "vectors.json").read_text("utf-8"),
)
LIMITS = Limits(max_packet=16 * 1024, max_message=64 * 1024, max_nodes=5000, max_channels=3)
CODEC = Codec(None, LIMITS)


def parts_of(data: bytes) -> Iterator[bytes]:
    """Cut the input into parts: each is preceded by its length, one byte."""
    at = 0
    while at < len(data):
        size = data[at]
        yield data[at + 1 : at + 1 + size]
        at += 1 + size


def joined(*parts: bytes) -> bytes:
    """Join parts to input, for seeds: parts of more than 255 bytes are left out."""
    return b"".join(bytes([len(part)]) + part for part in parts if len(part) < 256)


# ── The session's messages ───────────────────────────────────────────────────────────────────


def decoder(data: bytes) -> None:
    """Decode a packet. A message that was decoded can be sent, and is sent on as the same bytes.

    Only extensions that are reserved for later are read, but not sent.
    """
    messages: list[m.Message] = []
    with contextlib.suppress(DecodeError):
        messages += CODEC.decode(data)
    for message in messages:
        if getattr(message, "problem", None) is not None:
            continue
        try:
            sent = CODEC.encode(message)
        except EncodeError as exc:
            if "extension " not in str(exc):
                raise
        else:
            [again] = CODEC.decode(sent)
            assert CODEC.encode(again) == sent


HELLO = m.Hello(
    m.PROTOCOL_VERSION,
    {
        "calls": 8,
        "notifications": 8,
        "max_message": 65536,
        "max_packet": 16384,
        "max_depth": 64,
        "max_nodes": 5000,
    },
)


def protocol(data: bytes) -> None:
    """Feed packets to an open session, and answer its calls."""
    rules = Protocol(Codec(None, LIMITS), LIMITS)
    rules.hello()
    rules.welcome()
    with contextlib.suppress(DecodeError, RemoteProtocolError):
        for packet in (CODEC.encode(HELLO) + CODEC.encode(m.Welcome()), *parts_of(data)):
            for message in rules.receive(packet):
                if isinstance(message, m.Request) and message.id in rules.incoming:
                    rules.reply(message.id, None)
            while rules.next_packet() is not None:
                pass
    assert len(rules.incoming) <= LIMITS.max_calls


def frame_reader(data: bytes) -> None:
    """Read packets from a stream: in one piece, and in pieces that the first byte chooses."""
    if not data:
        return
    step, stream = 1 + data[0] % 7, data[1:]
    whole, _ = _packets([stream])
    cut, _ = _packets([stream[at : at + step] for at in range(0, len(stream), step)])
    assert cut == whole
    read = b"".join(map(frame, whole))
    assert stream.startswith(read)


def _packets(pieces: list[bytes]) -> tuple[list[bytes], bool]:
    reader, packets = FrameReader(LIMITS.max_packet), []
    try:
        for piece in pieces:
            reader.feed(piece)
            while (packet := reader.next_frame()) is not None:
                packets.append(bytes(packet))
    except DecodeError:
        return packets, True
    return packets, False


# ── Other channels ───────────────────────────────────────────────────────────────────────────


def forwarded(data: bytes) -> None:
    """Receive frames of forwarded channels, accept each channel, and send on it."""
    core = ForwardingCore(LIMITS)
    list(core.receive(msgpack.packb([0, 1, LIMITS.max_packet, 3])))
    core.open("ours")
    with contextlib.suppress(DecodeError, RemoteProtocolError):
        for packet in parts_of(data):
            for channel, event in core.receive(packet):
                if isinstance(event, forwarding.Open):
                    core.accept(channel)
                    core.send(channel, b"x" * 300)
            while (taken := core.next_packet()) is not None:
                list(forwarding.decode_frames(taken[0]))
    assert len(core) <= 1 + LIMITS.max_channels


def resumable(data: bytes) -> None:
    """Decode a frame, and let a channel receive several. Packets are numbered without a gap."""
    with contextlib.suppress(DecodeError):
        assert replay.encode(replay.decode(data)) == data
    channel = replay.Resumption(100_000)
    for number in range(5):
        channel.keep(bytes([number + 1]))
    with contextlib.suppress(DecodeError):
        for each in parts_of(data):
            before = channel.received
            packet = channel.receive(each)
            assert channel.received - before == (each[0] != replay.Kind.ACK)
            assert packet is None or each.endswith(packet)
    assert channel.confirmed + channel.unconfirmed == 5


def nats(data: bytes) -> None:
    """Parse the bytes of a NATS server or client: whole, and in pieces of any size."""
    if not data:
        return
    step, stream = 1 + data[0] % 7, data[1:]
    whole = _events([stream])
    cut = _events([stream[at : at + step] for at in range(0, len(stream), step)])
    assert whole is None or repr(cut) == repr(whole)
    assert (cut is None) == (whole is None)


def _events(pieces: list[bytes]) -> list[Any] | None:
    parser = Parser(max_payload=1000)
    try:
        return [event for piece in pieces for event in parser.feed(piece)]
    except DecodeError:
        return None


# ── The gateway ──────────────────────────────────────────────────────────────────────────────


class _Work:
    """A running call of a browser. It checks the gateway's events for the browser's messages."""

    def handled(self, count: int) -> None:
        assert type(count) is int

    def cancel(self, reason: str) -> None:
        assert type(reason) is str

    def answered(self, number: int, _value: object, error: str | None) -> None:
        assert type(number) is int
        assert error is None or type(error) is str

    def callback_failed(self, name: str, error: str) -> None:
        assert type(name) is type(error) is str


class _Complaints:
    def log(self, _level: int, text: str, *args: object) -> None:
        assert "\n" not in text % args


def gateway(data: bytes) -> None:
    """Read the body of a POST, and a message of a browser and one of a gateway."""
    with contextlib.suppress(ValueError):
        value = from_json_exactly(data)
        assert repr(from_json_exactly(to_json(value))) == repr(value)
    text = data.decode(errors="replace")
    client = Client(GatewayLimits(), resumable=True, complaints=_Complaints())  # type: ignore[arg-type]
    client.works["w"] = _Work()  # type: ignore[assignment]
    Connection(client, {"type": "first"}, None, None)._hear(text)  # type: ignore[arg-type]
    session = ClientSession({"uuid": "u", "token": "t"}, lambda: None)
    session.posting()
    with contextlib.suppress(RemoteProtocolError):
        session.hear(data)


TARGETS = MappingProxyType(
    {
        each.__name__: each
        for each in (decoder, protocol, frame_reader, forwarded, resumable, nats, gateway)
    }
)
"""The targets by name."""


# ── Seeds ────────────────────────────────────────────────────────────────────────────────────


def _hex(group: str) -> list[bytes]:
    return [bytes.fromhex(each["hex"]) for each in VECTORS[group]]


def _token(kind: replay.Kind, number: int = 0, ack: int = 0, rest: bytes = b"") -> bytes:
    return replay.encode(replay.Frame(kind, number, ack, rest))


def _seeds() -> dict[str, list[bytes]]:
    kind = replay.Kind
    frames = [
        _token(kind.OPEN, rest=b"\x01"),
        _token(kind.REFUSE, rest=b"no"),
        _token(kind.DATA, 1, 2, b"packet"),
        _token(kind.ACK, 0, 3),
        _token(kind.END, 2, 5),
    ]
    channels = [
        forwarding.Open(1, "name", 1000),
        forwarding.Data(1, b"content"),
        forwarding.Part(1, b"part"),
        forwarding.Credit(1, 10),
        forwarding.Accept(-1, 100),
        forwarding.Close(1),
        forwarding.Abort(1, "why"),
        forwarding.Goodbye("why"),
    ]
    encoded = [forwarding.encode(each) for each in channels]
    lines = [
        b"INFO {}\r\n",
        b"MSG a 1 5\r\nhello\r\n",
        b"MSG a 1 b 0\r\n\r\n",
        b"HMSG a 1 b 12 14\r\nNATS/1.0\r\n\r\nhi\r\n",
        b"PING\r\nPONG\r\n+OK\r\n-ERR 'no'\r\n",
        b"SUB a q 1\r\nUNSUB 1 5\r\nPUB a r 2\r\nhi\r\n",
        b'CONNECT {"verbose":false}\r\n',
    ]
    texts = [
        b'{"type":"ack","seq":1}',
        b'{"type":"ping","id":1.5}',
        b'{"type":"bye"}',
        b'{"type":"handled","request_uuid":"w","count":3}',
        b'{"type":"cancel","request_uuid":"w","reason":"\\ud800"}',
        b'{"type":"callback_result","request_uuid":"w","answer":1,"value":[1e400]}',
        b'{"type":"callback_error","request_uuid":"w","name":"n","error":"e"}',
        b'[{"type":"callback","seq":1,"request_uuid":"w","f":1},{"type":"finish","seq":2}]',
        b'{"type":"piece","seq":1,"request_uuid":"w","text":"{","last":true}',
    ]
    return {
        "decoder": _hex("messages") + _hex("packets"),
        "protocol": [joined(*map(bytes.fromhex, each["send"])) for each in VECTORS["exchanges"]],
        "frame_reader": [bytes([step]) + each for step, each in enumerate(_hex("streams"))],
        "forwarded": [joined(*encoded[: number + 1]) for number in range(len(encoded))],
        "resumable": [*frames, joined(frames[2], frames[3], frames[4])],
        "nats": [b"\x02" + each for each in (*lines, b"".join(lines))],
        "gateway": texts,
    }


SEEDS = MappingProxyType(_seeds())
"""Valid input of each target, from which a search begins."""

"""The protocol between a NATS client and a NATS server, without I/O, in both directions.

A line ends with CR LF. Four of the operations are followed by a payload, whose size the line gives,
and by CR LF::

    to the client:  INFO json | MSG subject sid [reply] size | HMSG subject sid [reply] heads size
                    PING | PONG | +OK | -ERR 'text'
    to the server:  CONNECT json | SUB subject [queue] sid | UNSUB sid [most]
                    PUB subject [reply] size | HPUB subject [reply] heads size | PING | PONG

``heads`` is the number of bytes of headers at the beginning of the payload. The source is
https://docs.nats.io/reference/reference-protocols/nats-protocol.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeAlias

from trio_rpc.errors import DecodeError

__all__ = [
    "MAX_LINE",
    "MAX_PAYLOAD",
    "PING",
    "PONG",
    "Connect",
    "Err",
    "Event",
    "Info",
    "Msg",
    "Ok",
    "Parser",
    "Ping",
    "Pong",
    "Pub",
    "Sub",
    "Unsub",
    "encode_connect",
    "encode_info",
    "encode_msg",
    "encode_pub",
    "encode_sub",
    "encode_unsub",
    "format_headers",
]

MAX_LINE: Final = 4096
"""Bytes of a line, as servers have it by default. Our subjects are far shorter."""

MAX_JSON_LINE: Final = 32 * 1024
"""Bytes of an INFO or CONNECT line; an INFO names each server of the cluster."""

MAX_PAYLOAD: Final = 64 * 1024 * 1024
"""Bytes of a payload; servers cannot be configured to allow more."""

PING: Final = b"PING\r\n"
PONG: Final = b"PONG\r\n"

_STATUS: Final = b"NATS/1.0"


class Msg(NamedTuple):
    """A message for a subscription.

    Attributes:
        subject: the subject to which it was published.
        sid: the number of the subscription.
        reply: the subject for an answer, or ``""``.
        data: the payload without headers.
        headers: the headers as they were sent, or ``b""``.
    """

    subject: str
    sid: int
    reply: str
    data: bytes
    headers: bytes = b""

    @property
    def status(self) -> int:
        """The status that a server gives in the first line of the headers, or 0.

        503 means that there is no subscriber.
        """
        digits = self.headers[len(_STATUS) + 1 : len(_STATUS) + 4]
        return int(digits) if digits.isdigit() else 0

    def header(self, name: str) -> str | None:
        """Return the first value of a header, or None.

        Args:
            name: the name; upper and lower case differ in NATS.
        """
        for line in self.headers.split(b"\r\n")[1:]:
            key, colon, value = line.partition(b":")
            if colon and key.strip() == name.encode():
                return value.strip().decode(errors="replace")
        return None


class Pub(NamedTuple):
    """A message that a client publishes; the fields are those of :class:`Msg`."""

    subject: str
    reply: str
    data: bytes
    headers: bytes = b""


class Sub(NamedTuple):
    """A subscription of a client; ``queue`` is its queue group, or ``""``."""

    subject: str
    queue: str
    sid: int


class Unsub(NamedTuple):
    """The end of a subscription, after ``most`` messages in all; 0 means at once."""

    sid: int
    most: int


@dataclass(frozen=True, slots=True)
class Info:
    """The facts that a server tells about itself."""

    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Connect:
    """The options and credentials with which a client connects."""

    options: Mapping[str, Any]


class Ping(NamedTuple):
    """The other end wants a :class:`Pong`."""


class Pong(NamedTuple):
    """The answer to a :class:`Ping`."""


class Ok(NamedTuple):
    """A server has accepted an operation; only sent to verbose clients."""


class Err(NamedTuple):
    """A server's complaint."""

    text: str


Event: TypeAlias = Msg | Pub | Sub | Unsub | Info | Connect | Ping | Pong | Ok | Err


class Parser:
    """Turns received bytes into events.

    Its memory is bounded by one line and one payload.

    Args:
        max_payload: bytes of the largest payload that the other end may send.
    """

    def __init__(self, max_payload: int = MAX_PAYLOAD) -> None:
        self.max_payload = max_payload
        self._chunks: list[bytes] = []
        """The beginning of an event whose rest has not arrived."""
        self._have = 0
        self._need = 0
        """The bytes that must have arrived before it is worth parsing again."""

    def feed(self, data: bytes) -> list[Event]:
        """Add received bytes, and return the events that they complete.

        Raises:
            DecodeError: the other end does not follow the protocol. The parser cannot be used any
                more.
        """
        if self._chunks:
            self._chunks.append(data)
            self._have += len(data)
            if self._have < self._need:
                return []
            data = b"".join(self._chunks)
            self._chunks = []
        events: list[Event] = []
        at, end = 0, len(data)
        while at < end:
            line_end = data.find(b"\r\n", at)
            if line_end < 0:
                self._check_line(data, at, end)
                self._keep(data, at, end - at + 1)
                break
            if line_end - at > MAX_LINE:
                self._check_line(data, at, line_end)
            verb, _, rest = data[at:line_end].partition(b" ")
            parse = _WITH_PAYLOAD.get(verb)
            start = line_end + 2
            if parse is None:
                events.append(_parse_line(verb, rest))
                at = start
                continue
            size, make = parse(rest.split(), self.max_payload)
            stop = start + size
            if stop + 2 > end:
                self._keep(data, at, stop + 2 - at)
                break
            if data[stop : stop + 2] != b"\r\n":
                raise DecodeError("a NATS payload has another size than its line says")
            events.append(make(data[start:stop]))
            at = stop + 2
        return events

    def _keep(self, data: bytes, at: int, need: int) -> None:
        self._chunks = [data[at:]]
        self._have, self._need = len(data) - at, need

    @staticmethod
    def _check_line(data: bytes, at: int, end: int) -> None:
        most = MAX_JSON_LINE if data[at : at + 4].upper() in (b"INFO", b"CONN") else MAX_LINE
        if end - at > most:
            raise DecodeError(f"a line of the NATS protocol has more than {most} bytes")


_Make: TypeAlias = Callable[[bytes], Event]


def _number(field: bytes, most: int) -> int:
    if not field.isdigit() or len(field) > 18:
        raise DecodeError(f"not a number in a line of the NATS protocol: {field[:20]!r}")
    number = int(field)
    if number > most:
        raise DecodeError(f"a number in a line of the NATS protocol is {number}, above {most}")
    return number


def _text(field: bytes) -> str:
    return field.decode(errors="replace")


def _fields(fields: list[bytes], least: int, what: str) -> None:
    if not least <= len(fields) <= least + 1:
        raise DecodeError(f"a {what} line of the NATS protocol has {len(fields)} fields")


_MOST_SID: Final = 2**53 - 1


def _msg(fields: list[bytes], max_payload: int) -> tuple[int, _Make]:
    _fields(fields, 3, "MSG")
    size = _number(fields[-1], max_payload)
    reply = fields[2] if len(fields) == 4 else b""
    subject, sid = _text(fields[0]), _number(fields[1], _MOST_SID)
    return size, lambda data: Msg(subject, sid, _text(reply), data)


def _hmsg(fields: list[bytes], max_payload: int) -> tuple[int, _Make]:
    _fields(fields, 4, "HMSG")
    size = _number(fields[-1], max_payload)
    heads = _number(fields[-2], size)
    reply = fields[2] if len(fields) == 5 else b""
    subject, sid = _text(fields[0]), _number(fields[1], _MOST_SID)
    return size, lambda data: Msg(subject, sid, _text(reply), data[heads:], data[:heads])


def _pub(fields: list[bytes], max_payload: int) -> tuple[int, _Make]:
    _fields(fields, 2, "PUB")
    reply = fields[1] if len(fields) == 3 else b""
    size = _number(fields[-1], max_payload)
    return size, lambda data: Pub(_text(fields[0]), _text(reply), data)


def _hpub(fields: list[bytes], max_payload: int) -> tuple[int, _Make]:
    _fields(fields, 3, "HPUB")
    size = _number(fields[-1], max_payload)
    heads = _number(fields[-2], size)
    reply = fields[1] if len(fields) == 4 else b""
    return size, lambda data: Pub(_text(fields[0]), _text(reply), data[heads:], data[:heads])


_WITH_PAYLOAD: Final[Mapping[bytes, Callable[[list[bytes], int], tuple[int, _Make]]]] = (
    MappingProxyType({b"MSG": _msg, b"HMSG": _hmsg, b"PUB": _pub, b"HPUB": _hpub})
)


def _parse_line(verb: bytes, rest: bytes) -> Event:
    """Parse a line without a payload."""
    match verb:
        case b"PING":
            return Ping()
        case b"PONG":
            return Pong()
        case b"+OK":
            return Ok()
        case b"-ERR":
            return Err(_text(rest.strip().strip(b"'")))
        case b"INFO":
            return Info(_json(rest))
        case b"CONNECT":
            return Connect(_json(rest))
        case b"SUB":
            fields = rest.split()
            _fields(fields, 2, "SUB")
            queue = _text(fields[1]) if len(fields) == 3 else ""
            return Sub(_text(fields[0]), queue, _number(fields[-1], _MOST_SID))
        case b"UNSUB":
            fields = rest.split()
            _fields(fields, 1, "UNSUB")
            most = _number(fields[1], _MOST_SID) if len(fields) == 2 else 0
            return Unsub(_number(fields[0], _MOST_SID), most)
    raise DecodeError(f"not a line of the NATS protocol: {verb[:20]!r}")


def _json(text: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise DecodeError(f"bad JSON in a line of the NATS protocol: {exc}") from None
    if not isinstance(value, dict):
        raise DecodeError("the JSON in a line of the NATS protocol is not an object")
    return value


# ------------------------------------------------------------------------------------- encoding
#
# Callers have checked the subjects: see ``names.py``.


def encode_info(facts: Mapping[str, Any]) -> bytes:
    """Encode a server's INFO."""
    return b"INFO " + json.dumps(dict(facts)).encode() + b"\r\n"


def encode_connect(options: Mapping[str, Any]) -> bytes:
    """Encode a client's CONNECT."""
    return b"CONNECT " + json.dumps(dict(options)).encode() + b"\r\n"


def encode_pub(subject: str, data: bytes, reply: str = "", headers: bytes = b"") -> bytes:
    """Encode a message that a client publishes.

    Args:
        subject: the subject, already checked.
        data: the payload.
        reply: the subject for an answer, already checked.
        headers: made by :func:`format_headers`, or empty.
    """
    to = f"{subject} {reply}" if reply else subject
    if headers:
        line = f"HPUB {to} {len(headers)} {len(headers) + len(data)}\r\n"
        return b"".join((line.encode(), headers, data, b"\r\n"))
    return b"".join((f"PUB {to} {len(data)}\r\n".encode(), data, b"\r\n"))


def encode_msg(subject: str, sid: int, data: bytes, reply: str = "", headers: bytes = b"") -> bytes:
    """Encode a message that a server delivers; arguments as in :func:`encode_pub`."""
    to = f"{subject} {sid} {reply}" if reply else f"{subject} {sid}"
    if headers:
        line = f"HMSG {to} {len(headers)} {len(headers) + len(data)}\r\n"
        return b"".join((line.encode(), headers, data, b"\r\n"))
    return b"".join((f"MSG {to} {len(data)}\r\n".encode(), data, b"\r\n"))


def encode_sub(subject: str, sid: int, queue: str = "") -> bytes:
    """Encode a subscription."""
    return (
        f"SUB {subject} {queue} {sid}\r\n".encode()
        if queue
        else f"SUB {subject} {sid}\r\n".encode()
    )


def encode_unsub(sid: int, most: int = 0) -> bytes:
    """Encode the end of a subscription."""
    return f"UNSUB {sid} {most}\r\n".encode() if most else f"UNSUB {sid}\r\n".encode()


def format_headers(headers: Mapping[str, str]) -> bytes:
    """Encode headers.

    Raises:
        ValueError: a name or a value has a line end, or a name has a colon or is empty.
    """
    lines = [_STATUS]
    for name, value in headers.items():
        if not name or ":" in name or any(end in name + value for end in "\r\n"):
            raise ValueError(f"not a header of a NATS message: {name!r}: {value!r}")
        lines.append(f"{name}: {value}".encode())
    return b"\r\n".join(lines) + b"\r\n\r\n"

"""The content of a Hello: limits, credentials, a part of the session's id, codec, registered types.

A Hello with ``retry_after`` announces that its sender has no room for a session now.

A Hello that states no codec means MessagePack. One that states no types means no registered types.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Any

from trio_rpc.errors import DecodeError, EncodeError, Refused
from trio_rpc.util.numbers import read_delay
from trio_rpc.util.text import one_line
from trio_rpc.wire.codec import Forms
from trio_rpc.wire.limits import MIN_PACKET, Limits
from trio_rpc.wire.messages import MAX_NUMBER, PROTOCOL_VERSION, Hello
from trio_rpc.wire.scan import hello_version

__all__ = [
    "Peer",
    "accept_hello",
    "check_hello",
    "make_info",
    "read_info",
    "refusal_of",
    "session_id",
]


_DEFAULT_FORMS = Forms()

RETRY_AFTER = 1.0
"""Seconds until another try, for a peer that was refused as overloaded and not told how long."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The peer's limits, credentials and part of the session's id, as its Hello stated them."""

    max_calls: int = 0
    max_notifications: int = 0
    max_message: int = MIN_PACKET
    max_packet: int = MIN_PACKET
    max_depth: int = 64
    max_nodes: int = 250_000
    credentials: Any = None
    session: str = ""
    forms: Forms = _DEFAULT_FORMS
    retry_after: float = RETRY_AFTER
    """Seconds after which another session may be opened, if this one is refused as overloaded."""


# name on the wire -> (field of Peer and of Limits, least value that makes sense)
_NUMBERS = {
    "calls": ("max_calls", 1),
    "notifications": ("max_notifications", 1),
    "max_message": ("max_message", MIN_PACKET),
    "max_packet": ("max_packet", MIN_PACKET),
    "max_depth": ("max_depth", 8),
    "max_nodes": ("max_nodes", 1024),
}


_PART = re.compile(r"[0-9A-Za-z_-]{1,32}")
"""One end's part of the session's id, printable in any log. Other texts count as absent."""


def make_info(
    limits: Limits,
    credentials: object,
    session: str = "",
    forms: Forms = _DEFAULT_FORMS,
    retry_after: float | None = None,
) -> dict[str, Any]:
    """Make the map that goes into Hello. An empty ``session`` and the usual forms are left out."""
    info = {name: getattr(limits, field) for name, (field, _) in _NUMBERS.items()}
    if credentials is not None:
        info["credentials"] = credentials
    if session:
        info["session"] = session
    if forms[:2] != _DEFAULT_FORMS[:2]:
        info["codec"] = [forms.codec, forms.version]
    if forms.tags:
        info["tags"] = list(forms.tags)
    if retry_after is not None:
        info["retry_after"] = retry_after
    return info


def check_hello(data: bytes, most: int) -> None:
    """Raise EncodeError if a Hello has more than ``most`` bytes, which only credentials can do."""
    if len(data) > most:
        raise EncodeError(f"credentials must fit in a Hello of {most:,} bytes")


def read_info(info: dict[str, Any]) -> Peer:
    """Read the map of a Hello. Unknown keys belong to a later minor revision and are ignored.

    Raises DecodeError when a number is missing, is not an integer, or is out of range.
    """
    numbers = {}
    for name, (field, least) in _NUMBERS.items():
        value = info.get(name)
        if type(value) is not int:
            raise DecodeError(f"Hello does not state {name!r} as an integer")
        if not least <= value <= MAX_NUMBER:
            raise DecodeError(f"Hello states {name!r} as {value!s:.40}, not {least} to 2**53 - 1")
        numbers[field] = value
    if info.keys() == _NUMBERS.keys():
        return _plain_peer(*(numbers[field] for field, _ in _NUMBERS.values()))
    part = info.get("session")
    session = part if type(part) is str and _PART.fullmatch(part) else ""
    forms = Forms(*_read_codec(info), _read_tags(info))
    return Peer(
        **numbers,
        credentials=info.get("credentials"),
        session=session,
        forms=forms,
        retry_after=read_delay(info.get("retry_after"), RETRY_AFTER),
    )


@functools.lru_cache(16)
def _plain_peer(*numbers: int) -> Peer:
    """Return the peer with these numbers and nothing else. Most sessions share a few of them."""
    names = (field for field, _ in _NUMBERS.values())
    fields: dict[str, Any] = dict(zip(names, numbers, strict=True))
    return Peer(**fields)


def _read_codec(info: dict[str, Any]) -> tuple[str, int]:
    if "codec" not in info:
        return _DEFAULT_FORMS[:2]
    match info["codec"]:
        case [str() as name, int() as version] if type(version) is int and version >= 0:
            return name, version
    raise DecodeError("Hello states a 'codec' that is not a name and a version")


def _read_tags(info: dict[str, Any]) -> tuple[int, ...]:
    if "tags" not in info:
        return ()
    tags = info["tags"]
    if type(tags) is not list or any(type(tag) is not int for tag in tags):
        raise DecodeError("Hello states 'tags' that are not an array of integers")
    return tuple(sorted(tags))


def accept_hello(message: Hello, forms: Forms) -> Peer:
    """Return the peer that a Hello describes; raises Refused if it does not fit this end."""
    try:
        peer = read_info(message.info)
    except DecodeError as exc:
        raise Refused(f"the limits do not fit: {exc}") from exc
    if message.problem is not None:  # unreadable credentials must not pass as missing ones
        raise Refused(f"the Hello has a value that cannot be read: {message.problem}")
    theirs = peer.forms
    if theirs[:2] != forms[:2]:
        raise Refused(
            f"this end uses the codec {_codec(forms)}, the other end the codec {_codec(theirs)}"
        )
    if theirs.tags != forms.tags:
        raise Refused(
            f"this end has registered {_tags(forms)}, the other end {_tags(theirs)}: both ends "
            "need a TypeRegistry with the same tags"
        )
    return peer


def _codec(forms: Forms) -> str:
    return f"{one_line(forms.codec, 64)} version {forms.version}"


def _tags(forms: Forms) -> str:
    listed = ", ".join(map(str, forms.tags))
    return f"the tags {one_line(listed, 300)}" if listed else "no tags"


def session_id(ours: str, theirs: str) -> str | None:
    """Return the id of a session from the parts in both Hellos; both ends get the same."""
    return "-".join(sorted(filter(None, (ours, theirs)))) or None


def refusal_of(packet: bytes) -> Refused | None:
    """Return the error for a Hello of another version, or None. Other fields are not checked."""
    version = hello_version(packet)
    if version is None or version == PROTOCOL_VERSION:
        return None
    return Refused(
        f"this end speaks version {PROTOCOL_VERSION} of the protocol, "
        f"the other end version {version}"
    )

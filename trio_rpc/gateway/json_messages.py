"""The JSON messages between a gateway and its clients."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from trio_rpc.gateway.json_values import MAX_DEPTH, MAX_INTEGER, UNTYPED, is_deeper
from trio_rpc.util.exact_json import exact_float, unique_keys

__all__ = [
    "ANSWER",
    "ENVELOPE",
    "RESERVED",
    "SPREAD",
    "encode",
    "finish",
    "finish_payload",
    "from_json",
    "from_json_exactly",
    "pieces_of",
    "to_json",
]

TOO_DEEP: Final = f"nested more than {MAX_DEPTH} levels deep"

MAX_DIGITS: Final = 310
"""Characters of the longest integer that a float can be equal to."""

RESERVED: Final = frozenset(
    {"type", "request_uuid", "seq", "uuid", "payload", "error", "code", "error_type"}
)
"""Keys that messages use themselves: a result with one of them is sent as the ``payload``."""

SPREAD: Final = "spread"
"""A callback message's key: the names of the callbacks whose value holds all of their arguments.

The value of any other callback is its one argument.
"""

ANSWER: Final = "answer"
"""A callback message's key: its handler waits for the value that the callback returns.

Its value is an array: the number of the answer, and the lowest number for which a handler still
waits. The client keeps its answers from that one on, and repeats them after a reconnection.
"""

ENVELOPE: Final = frozenset({"type", "request_uuid", "seq", SPREAD, ANSWER})
"""Keys of a callback message that are not callbacks."""


def to_json(value: Any) -> bytes:
    """Encode a value for which there is no annotation.

    Raises TypeError or ValueError for a value that is not JSON's own, and so would be read back as
    something else, and for one that a gateway does not read because it is nested too deeply.
    """
    written = UNTYPED.write(value)
    if is_deeper(written, MAX_DEPTH + 1):  # the value is an object of all arguments
        raise ValueError(TOO_DEEP)
    return encode(written)


def encode(message: Any) -> bytes:
    """Encode a value of JSON's own types that has been checked.

    :func:`trio_rpc.gateway.json_values.lower` does that.
    """
    try:
        return msgspec.json.encode(message)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def from_json(text: bytes | str) -> Any:
    """Decode JSON. Raises ValueError, with one line of text, if it is not well formed."""
    try:
        return msgspec.json.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except (msgspec.DecodeError, UnicodeError) as exc:
        raise ValueError(str(exc)) from None


def from_json_exactly(text: bytes) -> Any:
    """Decode JSON, and refuse a key that occurs twice and a number that Python would round.

    The text is an object around the values of a client: none of them may have more than MAX_DEPTH
    levels.

    A number that is written as an integer and is beyond 2^53 - 1 becomes a float, if the float is
    the same number. A browser writes large floats like that, and has rounded large integers before.

    Raises ValueError, with one line of text.
    """
    from_json(text)  # stricter than the standard library, with better error texts
    try:
        value = json.loads(
            text, object_pairs_hook=unique_keys, parse_int=_integer, parse_float=exact_float
        )
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    opened = text.count(b"[") + text.count(b"{")
    if opened > MAX_DEPTH + 1 and is_deeper(value, MAX_DEPTH + 1):
        raise ValueError(TOO_DEEP)
    return value


def _integer(digits: str) -> int | float:
    number = int(digits) if len(digits) <= MAX_DIGITS else 0
    if -MAX_INTEGER <= number <= MAX_INTEGER and len(digits) <= MAX_DIGITS:
        return number
    if len(digits) > MAX_DIGITS or int(float(number)) != number:
        raise ValueError(
            f"the integer {digits:.40} is beyond 2^53 - 1, where browsers round: send it as text"
        )
    return float(number)


def pieces_of(text: bytes, size: int) -> Iterator[str]:
    """Cut a text in UTF-8 into pieces of at most ``size`` bytes, which is at least 4."""
    start = 0
    while start < len(text):
        end = start + size
        while end < len(text) and text[end] & 0xC0 == 0x80:  # in the middle of a character
            end -= 1
        yield text[start:end].decode()
        start = end


def finish(request: str, result: Any) -> dict[str, Any]:
    """Return the message that ends a call with a result, which consists of JSON's own types.

    The entries of an object become entries of the message, as existing clients expect. Any other
    result is the message's ``payload``. So is an empty object, and one with a key that messages use
    themselves. None adds nothing to the message.
    """
    message: dict[str, Any] = {"type": "finish", "request_uuid": request}
    if result is None:
        return message
    if type(result) is dict and result and RESERVED.isdisjoint(result):
        return {**message, **result}
    return {**message, "payload": result}


def finish_payload(message: Mapping[str, Any]) -> Any:
    """Return the result in a message that :func:`finish` has made."""
    if "payload" in message:
        return message["payload"]
    rest = {key: value for key, value in message.items() if key not in RESERVED}
    return rest or None

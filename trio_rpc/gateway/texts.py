"""The JSON messages between a gateway and its clients, and how values become JSON."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

import msgspec

__all__ = ["RESERVED", "callback_payload", "finish", "finish_payload", "from_json", "to_json"]

RESERVED: Final = frozenset(
    {"type", "request_uuid", "seq", "uuid", "payload", "error", "code", "error_type"}
)
"""Keys of messages, which no callback can have for its name."""


def to_json(value: Any) -> bytes:
    """Encode a value. Raises TypeError or ValueError for what JSON has no way to say."""
    return msgspec.json.encode(value, enc_hook=_encode_other)


def from_json(text: bytes | str) -> Any:
    """Decode a text. Raises ValueError, with a text of one line, if it is not well formed."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
        raise ValueError(str(exc) or "nested too deeply") from None


def callback_payload(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Make the one value that stands for the arguments of a callback."""
    if kwargs:
        if args:
            raise TypeError(
                "a callback of a browser takes positional or keyword arguments, not both"
            )
        return kwargs
    if len(args) == 1:
        return args[0]
    return list(args) or None


def finish(request: str, result: Any) -> dict[str, Any]:
    """Make the message that ends a call. Its payload is all but type, request_uuid and seq."""
    message: dict[str, Any] = {"type": "finish", "request_uuid": request}
    if result is None:
        return message
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        result = msgspec.to_builtins(result, enc_hook=_encode_other)
    if type(result) is dict and result and _may_be_spread(result):
        return {**message, **result}
    return {**message, "payload": result}


def finish_payload(message: dict[str, Any]) -> Any:
    """Take the result out of a message that :func:`finish` has made."""
    rest = {
        key: value for key, value in message.items() if key not in ("type", "request_uuid", "seq")
    }
    if rest.keys() == {"payload"}:
        return rest["payload"]
    return rest or None


def _may_be_spread(result: dict[Any, Any]) -> bool:
    return all(type(key) is str and key not in RESERVED for key in result)


def _encode_other(value: Any) -> Any:
    if isinstance(value, complex):
        return [value.real, value.imag]
    raise TypeError(f"a value of type {type(value).__qualname__} cannot be sent as JSON")

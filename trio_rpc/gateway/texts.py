"""The JSON messages between a gateway and its clients, and how values become JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

__all__ = ["RESERVED", "callback_payload", "finish", "finish_payload", "from_json", "to_json"]

RESERVED: Final = frozenset(
    {"type", "request_uuid", "seq", "uuid", "payload", "error", "code", "error_type"}
)
"""Keys of messages: no callback can have one for its name."""

_SCALARS = frozenset({str, int, float, bool})


def to_json(value: Any) -> bytes:
    """Encode a value. Raises TypeError or ValueError for what JSON has no way to say."""
    try:
        return msgspec.json.encode(value, enc_hook=_encode_other)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except OverflowError as exc:
        raise ValueError(str(exc)) from None


def from_json(text: bytes | str) -> Any:
    """Decode a text. Raises ValueError, with one line of text, if it is not well formed."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as exc:
        raise ValueError(str(exc) or "nested too deeply") from None


def callback_payload(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Make the one value that stands for the arguments of a callback."""
    if not kwargs:
        return args[0] if len(args) == 1 else list(args) or None
    if args:
        raise TypeError("a browser's callback takes positional or keyword arguments, not both")
    return kwargs


def finish(request: str, result: Any) -> dict[str, Any]:
    """Make the message that ends a call with a result.

    What makes an object is spread over the message, as existing clients have it; all else, and an object that
    would hide a key of messages, is its ``payload``.

    Raises TypeError or ValueError for a result that JSON has no way to say.
    """
    message: dict[str, Any] = {"type": "finish", "request_uuid": request}
    if result is None:
        return message
    if type(result) not in _SCALARS:
        try:
            result = msgspec.to_builtins(result, str_keys=True, enc_hook=_encode_other)
        except RecursionError:
            raise ValueError("nested too deeply") from None
    if type(result) is dict and result and RESERVED.isdisjoint(result):
        return {**message, **result}
    return {**message, "payload": result}


def finish_payload(message: Mapping[str, Any]) -> Any:
    """Take the result out of a message that :func:`finish` has made."""
    if "payload" in message:
        return message["payload"]
    rest = {key: value for key, value in message.items() if key not in RESERVED}
    return rest or None


def _encode_other(value: Any) -> Any:
    if isinstance(value, complex):
        return [value.real, value.imag]
    raise TypeError(f"a value of type {type(value).__qualname__} cannot be sent as JSON")

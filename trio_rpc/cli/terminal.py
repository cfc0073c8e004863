"""Text for terminals. Everything that came from the other end passes through here.

A terminal obeys control characters, and rich obeys square brackets, so text of the other end is
escaped, cut, and never handed to rich as markup: this package gives rich ``Text`` objects only.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import json
import math
from collections.abc import Mapping
from datetime import date, time, timedelta
from typing import Any

import msgpack

from trio_rpc.util.exact_json import unique_keys
from trio_rpc.util.text import one_line

__all__ = ["MOST", "plural", "pretty_json", "safe", "script_json"]

MOST = 300
"""Characters shown of one text from the peer."""


def safe(text: object, most: int = MOST) -> str:
    """Put text on one line of at most ``most`` characters, and escape control characters."""
    return one_line(str(text), most)


def script_json(value: object) -> str:
    """Write a value as one line of ASCII JSON. Raises ValueError if keys become the same text."""
    # DEL is the one ASCII control character that JSON lets through.
    text = json.dumps(_jsonable(value), ensure_ascii=True, allow_nan=False)
    return text.replace("\x7f", "\\u007f")


def pretty_json(value: object) -> str:
    """Write a value as indented JSON with unprintable characters escaped.

    Raises ValueError if keys become the same text.
    """
    text = json.dumps(_jsonable(value), ensure_ascii=False, allow_nan=False, indent=2)
    if text.isascii() and "\x7f" not in text:
        return text
    return "".join(char if char.isprintable() or char == "\n" else _escape(char) for char in text)


def plural(count: int, what: str) -> str:
    """Return "1 call", "2 calls"."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _escape(char: str) -> str:
    return json.dumps(char)[1:-1] if char != "\x7f" else "\\u007f"


def _jsonable(value: Any) -> Any:
    """Convert a result to JSON types, as :func:`trio_rpc.cli.app.call` describes."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return unique_keys([(_key(key), _jsonable(each)) for key, each in value.items()])
    if isinstance(value, list | tuple | set | frozenset) and type(value) is not msgpack.ExtType:
        return [_jsonable(each) for each in value]
    return _scalar(value)


def _scalar(value: Any) -> Any:
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, date | time):  # datetime is a date
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, msgpack.ExtType):
        return {"ext": value.code, "data": base64.b64encode(value.data).decode("ascii")}
    if isinstance(value, enum.Enum):
        return _jsonable(value.value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _jsonable(dataclasses.asdict(value))
    return str(value)  # UUID, Decimal, complex


def _key(key: Any) -> str:
    plain = _jsonable(key)
    return plain if isinstance(plain, str) else json.dumps(plain)

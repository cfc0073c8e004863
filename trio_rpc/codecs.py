"""Codecs convert the values of a session to bytes and back; see ``Options.codec``.

MessagePack is the default, and the fastest. :class:`JsonCodec` is for traffic that people read, and
an example of a codec of your own (:class:`Codec`).
"""

from __future__ import annotations

import base64
import json
import re
from typing import Any, Final

from trio_rpc.errors import DecodeError, EncodeError
from trio_rpc.util.exact_json import exact_float, no_constant, unique_keys
from trio_rpc.wire.coded import Extension, ReadBuffer, WriteBuffer
from trio_rpc.wire.coded import UserCodec as Codec

__all__ = ["Codec", "Extension", "JsonCodec", "ReadBuffer", "WriteBuffer"]

_SIGNS: Final = frozenset(b",:[{")
"""Each value but the first follows one of these; inside of texts they have no meaning."""

_TEXTS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)

_MARK: Final = "$"
"""The first character of the only key of an object that stands for another type."""


class JsonCodec:
    """JSON in UTF-8, for traffic that people or other programs read.

    None, bool, int, float, text, lists and dicts with text keys are JSON's own. Other values are
    objects with one key: ``{"$bytes": "aGVsbG8="}`` in base64, ``{"$ext": [1, ["a", 2]]}`` for the
    types of docs/protocol.md's table and of a ``TypeRegistry``, with their code, and
    ``{"$map": [["$key", 1]]}`` for dicts with other keys, or with a key that begins with ``$``.

    JSON has no NaN and no infinity: sending one raises EncodeError.

    Attributes:
        name: ``"json"``.
        version: 1.

    Example:
        >>> class Adder:
        ...     @trio_rpc.method
        ...     async def add(self, a: int, b: int) -> int:
        ...         return a + b
        >>> options = {"codec": trio_rpc.codecs.JsonCodec()}
        >>> async def main() -> None:
        ...     async with trio_rpc.testing.open_session_pair(
        ...         Adder(), options_a=options, options_b=options
        ...     ) as (_, client):
        ...         print(await client.call("add", 2, 3))
        >>> trio.run(main)
        5
    """

    name = "json"
    version = 1

    def __repr__(self) -> str:
        return "JsonCodec()"

    def encode(self, message: list[Any], buffer: WriteBuffer) -> None:
        """Write one message: see :class:`Codec`.

        Args:
            message: a list of plain values.
            buffer: takes the bytes.

        Raises:
            EncodeError: it has a NaN or an infinity.
        """
        try:
            text = json.dumps(
                _to_json(message), allow_nan=False, ensure_ascii=False, separators=(",", ":")
            )
        except ValueError as error:
            raise EncodeError(f"JSON cannot represent it: {error}") from None
        buffer.write_bytes(text.encode())

    def decode(self, buffer: ReadBuffer) -> Any:
        """Read one message: see :class:`Codec`.

        Args:
            buffer: has the bytes.

        Raises:
            DecodeError: it is not JSON, has a key twice or more values than this end allows.
        """
        data = buffer.read_bytes()
        if not data.startswith(b"["):
            raise DecodeError("malformed JSON: a message does not begin with an array")
        _check_count(data, buffer.max_values)
        try:
            value = json.loads(
                data.decode(),
                object_pairs_hook=unique_keys,
                parse_float=exact_float,
                parse_constant=no_constant,
            )
        except ValueError as error:
            raise DecodeError(f"malformed JSON: {error!s:.200}") from None
        return _from_json(value)


def _check_count(data: bytes, most: int) -> None:
    """Refuse a message with too many values before they are made."""
    if len(data) <= most or _count(data) <= most:
        return
    if _count(_TEXTS.sub(b"", data)) > most:
        raise DecodeError(f"a message of more than {most} values")


def _count(data: bytes) -> int:
    return sum(map(data.count, map(bytes, ([sign] for sign in _SIGNS))))


def _to_json(value: Any) -> Any:
    cls = type(value)
    if cls is list:
        return [_to_json(one) for one in value]
    if cls is bytes:
        return {"$bytes": base64.b64encode(value).decode()}
    if cls is Extension:
        return {"$ext": [value.code, _to_json(value.value)]}
    if cls is not dict:
        return value
    if all(type(key) is str and not key.startswith(_MARK) for key in value):
        return {key: _to_json(one) for key, one in value.items()}
    return {"$map": [[_to_json(key), _to_json(one)] for key, one in value.items()]}


def _from_json(value: Any) -> Any:
    if type(value) is list:
        return [_from_json(one) for one in value]
    if type(value) is not dict:
        return value
    marked = next((key for key in value if key.startswith(_MARK)), None)
    if marked is None:
        return {key: _from_json(one) for key, one in value.items()}
    if len(value) > 1:
        raise DecodeError(f"an object with the key {marked:.20} and others")
    return _marked(marked, value[marked])


def _marked(mark: str, content: Any) -> Any:
    match mark, content:
        case "$bytes", str():
            return base64.b64decode(content, validate=True)
        case "$ext", [int() as code, inner] if type(code) is int:
            return Extension(code, _from_json(inner))
        case "$map", list():
            return _map(content)
        case _:
            raise DecodeError(f"an object with the key {mark:.20} that is not one of this codec")


def _map(pairs: list[Any]) -> dict[Any, Any]:
    made: dict[Any, Any] = {}
    for pair in pairs:
        if type(pair) is not list or len(pair) != 2:
            raise DecodeError("a $map with an entry that is not a pair")
        key = _from_json(pair[0])
        if type(key) not in {str, bytes} or key in made:
            raise DecodeError("a $map with a key that is repeated, or is neither text nor bytes")
        made[key] = _from_json(pair[1])
    return made

"""The fixed table of extension types, for types of Python that MessagePack lacks.

A number in this table never changes its meaning. A row marked *of values* carries one MessagePack
value. Every other row carries the bytes described there.

====  ====================  =========================================================
code  Python                payload
====  ====================  =========================================================
   1  tuple                 of values: array
   2  set                   of values: array
   3  frozenset             of values: array
   4  datetime.datetime     ISO 8601 text, with the offset if there is one
   5  datetime.date         ISO 8601 text
   6  datetime.time         ISO 8601 text
   7  datetime.timedelta    array of days, seconds, microseconds
   8  decimal.Decimal       text
   9  uuid.UUID             16 bytes
  10  int beyond 64 bits    two's complement, big-endian, at most 1,024 bytes
  11  complex               two IEEE 754 doubles, big-endian: real, imaginary
  12  dict, other keys      of values: array of key, value, key, value …
  32  a reference           array of kind, number
  -1  MessagePack's own timestamp: read as a UTC datetime, never written
====  ====================  =========================================================
"""

from __future__ import annotations

import datetime as dt
import decimal
import re
import struct
import uuid
from collections.abc import Callable
from typing import Any

import msgpack

from trio_rpc.errors import DecodeError, EncodeError
from trio_rpc.wire.messages import MAX_NUMBER, Reference

__all__ = [
    "BIG_INT",
    "BUILT_IN_CLASSES",
    "FROZENSET",
    "LEAF_DECODERS",
    "LEAF_ENCODERS",
    "MAP",
    "REFERENCE",
    "SCALARS",
    "SET",
    "TUPLE",
    "decode_reference",
    "encode_big_int",
    "encode_reference",
]

TUPLE, SET, FROZENSET = 1, 2, 3
DATETIME, DATE, TIME, TIMEDELTA = 4, 5, 6, 7
DECIMAL, UUID, BIG_INT, COMPLEX = 8, 9, 10, 11
MAP = 12
REFERENCE = 32

MAX_TEXT = 1024
"""Bytes of a Decimal, date or time. Reading a longer one would be too expensive."""
MAX_INT = 1024
"""Bytes of an int. Arithmetic with longer ones can stall a program."""

SCALARS = frozenset({type(None), bool, int, float, str, bytes, bytearray, memoryview})
"""MessagePack's own scalar types."""

_COMPLEX = struct.Struct(">dd")


def encode_big_int(value: int) -> msgpack.ExtType:
    """Encode an int that exceeds 64 bits."""
    size = value.bit_length() // 8 + 1
    if size > MAX_INT:
        raise EncodeError(f"an int of {size} bytes is larger than {MAX_INT} bytes")
    return msgpack.ExtType(BIG_INT, value.to_bytes(size, "big", signed=True))


def _decode_big_int(data: bytes) -> int:
    if not 0 < len(data) <= MAX_INT:
        raise DecodeError(f"an int of {len(data)} bytes")
    return int.from_bytes(data, "big", signed=True)


# Only the forms that docs/protocol.md allows. Python's own parsers also accept others (week dates,
# a time without colons, digits with underscores), which those of another language would refuse.
_DATE_FORM = rb"\d{4}-\d\d-\d\d"
_CLOCK_FORM = rb"(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{6})?"
_OFFSET_FORM = rb"(?:[+-](?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:\.\d{6})?)?)?"

_is_date = re.compile(_DATE_FORM).fullmatch
_is_time = re.compile(_CLOCK_FORM + _OFFSET_FORM).fullmatch
_is_datetime = re.compile(_DATE_FORM + b"T" + _CLOCK_FORM + _OFFSET_FORM).fullmatch
_is_decimal = re.compile(
    rb"[+-]?(?:(?:\d+(?:\.\d*)?|\.\d+)(?:[Ee][+-]?\d{1,9})?|s?NaN|Infinity)"
).fullmatch


def _text(data: bytes, has_form: Callable[[bytes], object], name: str) -> str:
    if len(data) > MAX_TEXT:
        raise DecodeError(f"{len(data)} bytes of text where at most {MAX_TEXT} are allowed")
    if not has_form(data):
        raise DecodeError(f"{data[:50]!r} is not the text of a {name}")
    return data.decode("ascii")


def _encode_decimal(value: decimal.Decimal) -> bytes:
    data = str(value).encode("ascii")
    if len(data) > MAX_TEXT:
        raise EncodeError(f"a Decimal of {len(data)} digits is longer than {MAX_TEXT}")
    if not _is_decimal(data):
        raise EncodeError(
            f"Decimal({data.decode():.50}) cannot be sent: the wire has no form for a NaN that "
            "carries digits, nor for an exponent of more than nine digits"
        )
    return data


def _encode_timedelta(value: dt.timedelta) -> bytes:
    return _packed([value.days, value.seconds, value.microseconds])


def _decode_timedelta(data: bytes) -> dt.timedelta:
    days, seconds, microseconds = _ints(data, 3)
    if not (0 <= seconds < 86_400 and 0 <= microseconds < 1_000_000):
        raise DecodeError("a timedelta that is not normalised")
    return dt.timedelta(days, seconds, microseconds)


def _decode_uuid(data: bytes) -> uuid.UUID:
    return uuid.UUID(bytes=data)


def encode_reference(reference: Reference) -> msgpack.ExtType:
    """Encode a reference to an object that stays at its owner."""
    numbers = [reference.kind, reference.number]
    if not all(0 <= number <= MAX_NUMBER for number in numbers):
        raise EncodeError(f"{reference!r:.100} has a number that is negative or above 2**53 - 1")
    return msgpack.ExtType(REFERENCE, _packed(numbers))


def decode_reference(data: bytes, make: Callable[[int, int], Any]) -> Any:
    """Decode the payload of a reference; see :func:`encode_reference`."""
    kind, number = _ints(data, 2)
    if not (0 <= kind <= MAX_NUMBER and 0 <= number <= MAX_NUMBER):
        raise DecodeError("a reference with a number that is negative or above 2**53 - 1")
    return make(kind, number)


def _packed(numbers: list[int]) -> bytes:
    packed: bytes = msgpack.packb(numbers)
    return packed


def _ints(data: bytes, count: int) -> list[int]:
    # A longer payload is refused before it is decoded. The longest valid form has an array 32 and
    # 64-bit integers.
    if len(data) > 5 + 9 * count:
        raise DecodeError(f"{len(data)} bytes where {count} integers are expected")
    try:
        numbers = msgpack.unpackb(data)
    except msgpack.ExtraData:
        raise DecodeError(f"more bytes follow {count} integers") from None
    if type(numbers) is not list or [type(number) for number in numbers] != [int] * count:
        raise DecodeError(f"the value is not an array of {count} integers")
    return numbers


LEAF_ENCODERS: dict[type, tuple[int, Callable[[Any], bytes]]] = {
    dt.datetime: (DATETIME, lambda value: value.isoformat().encode("ascii")),
    dt.date: (DATE, lambda value: value.isoformat().encode("ascii")),
    dt.time: (TIME, lambda value: value.isoformat().encode("ascii")),
    dt.timedelta: (TIMEDELTA, _encode_timedelta),
    decimal.Decimal: (DECIMAL, _encode_decimal),
    uuid.UUID: (UUID, lambda value: value.bytes),
    complex: (COMPLEX, lambda value: _COMPLEX.pack(value.real, value.imag)),
}
"""For each scalar class: its extension code, and the function that makes the payload."""

LEAF_DECODERS: dict[int, Callable[[bytes], Any]] = {
    DATETIME: lambda data: dt.datetime.fromisoformat(_text(data, _is_datetime, "datetime")),
    DATE: lambda data: dt.date.fromisoformat(_text(data, _is_date, "date")),
    TIME: lambda data: dt.time.fromisoformat(_text(data, _is_time, "time")),
    TIMEDELTA: _decode_timedelta,
    DECIMAL: lambda data: decimal.Decimal(_text(data, _is_decimal, "decimal")),
    UUID: _decode_uuid,
    BIG_INT: _decode_big_int,
    COMPLEX: lambda data: complex(*_COMPLEX.unpack(data)),
}
"""For each scalar extension code: the function that reads its payload.

For a malformed payload it may raise any Exception, which the codec turns into a DecodeError.
"""

BUILT_IN_CLASSES = (
    SCALARS
    | LEAF_ENCODERS.keys()
    | {list, dict, tuple, set, frozenset, object, Reference, msgpack.ExtType}
)
"""Classes whose meaning on the wire is fixed."""

"""Read the notation of docs/vectors.json, which extends JSON with types that JSON lacks."""

from __future__ import annotations

import datetime as dt
import decimal
import uuid

import msgpack

from trio_rpc.wire import messages as m

CLASSES = {
    cls.TYPE: cls
    for cls in vars(m).values()
    if isinstance(cls, type) and isinstance(getattr(cls, "TYPE", None), int)
}


def value_of(notation):
    """Return the Python value that a JSON value of the vectors stands for."""
    if type(notation) is list:
        return [value_of(one) for one in notation]
    if type(notation) is not dict:
        return notation
    if len(notation) == 1:
        [(key, content)] = notation.items()
        if key.startswith("$"):
            return READERS[key](content)
    return {key: value_of(one) for key, one in notation.items()}


READERS = {
    "$bytes": bytes.fromhex,
    "$int": int,
    "$float": float,
    "$map": lambda pairs: {value_of(key): value_of(one) for key, one in pairs},
    "$tuple": lambda items: tuple(map(value_of, items)),
    "$set": lambda items: set(map(value_of, items)),
    "$frozenset": lambda items: frozenset(map(value_of, items)),
    "$datetime": dt.datetime.fromisoformat,
    "$date": dt.date.fromisoformat,
    "$time": dt.time.fromisoformat,
    "$timedelta": lambda numbers: dt.timedelta(*numbers),
    "$decimal": decimal.Decimal,
    "$uuid": uuid.UUID,
    "$complex": lambda parts: complex(*map(float, parts)),
    "$reference": lambda numbers: m.Reference(*numbers),
    "$ext": lambda pair: msgpack.ExtType(pair[0], bytes.fromhex(pair[1])),
}


def message_of(fields):
    """Return the message that an array of the vectors stands for."""
    return m.parse_message(value_of(fields))


def fields_of(message):
    """Return the array that a message is encoded as, without fields that may be omitted."""
    return message.to_wire()


def same(one, other):
    """Tell whether two values are the same in type and content, NaN included."""
    return type(one) is type(other) and repr(one) == repr(other)

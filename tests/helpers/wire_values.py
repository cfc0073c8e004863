"""Hypothesis strategies for values and messages on the wire, and a comparison of decoded values."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from trio_rpc.wire import Reference
from trio_rpc.wire.messages import (
    Cancel,
    Credit,
    Goodbye,
    Hello,
    LastPiece,
    Notification,
    Piece,
    Ping,
    Pong,
    Reply,
    ReplyErr,
    Request,
    Welcome,
)

QUICK = settings(deadline=None, max_examples=100)

offsets = st.integers(-1439, 1439).map(lambda m: dt.timezone(dt.timedelta(minutes=m)))
zones = st.none() | st.just(dt.UTC) | offsets
big_ints = st.builds(
    lambda sign, bits: sign * 2**bits, st.sampled_from([1, -1]), st.integers(0, 8182)
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)

_hashable_leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    big_ints,
    st.floats(),
    texts,
    st.binary(max_size=40),
    st.datetimes(timezones=zones),
    st.dates(),
    st.times(timezones=zones),
    st.timedeltas(),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.complex_numbers(allow_nan=False),
    st.builds(Reference, st.integers(0, 2**53 - 1), st.integers(0, 2**53 - 1)),
)

# deferred() keeps the printed form of a strategy short.
hashable_leaves = st.deferred(lambda: _hashable_leaves)

_hashables = st.recursive(
    hashable_leaves,
    lambda inner: st.lists(inner, max_size=4).map(tuple) | st.frozensets(inner, max_size=4),
    max_leaves=8,
)

hashables = st.deferred(lambda: _hashables)

_values = st.recursive(
    hashable_leaves | st.sets(hashables, max_size=4),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(texts | st.binary(max_size=8), inner, max_size=4),
        st.dictionaries(hashables, inner, max_size=4),
    ),
    max_leaves=12,
)

values = st.deferred(lambda: _values)

ids = st.integers(1, 2**53 - 1)
counts = st.integers(0, 2**53 - 1)
arguments = st.lists(values, max_size=4)
named = st.none() | st.dictionaries(texts, values, min_size=1, max_size=3)
_own = hashable_leaves.filter(lambda v: type(v) is not Reference)
maps = st.dictionaries(texts, _own)
_several = st.lists(_own, max_size=3)
contexts = st.none() | st.dictionaries(
    texts, _own | _several | _several.map(tuple), min_size=1, max_size=3
)

_messages = st.one_of(
    st.builds(Request, ids, texts, arguments, named, contexts),
    st.builds(Notification, texts, arguments, named, contexts),
    st.builds(Reply, ids, values),
    st.builds(ReplyErr, ids, maps),
    st.builds(Cancel, ids, st.none() | texts.filter(bool)),
    st.builds(Hello, st.just(1), maps),
    st.builds(Welcome),
    st.builds(Goodbye, texts, texts),
    st.builds(Ping, counts),
    st.builds(Pong, counts),
    st.builds(Credit, ids),
    st.builds(Credit, counts, ids, ids),
    st.builds(Piece, st.binary(min_size=1)),
    st.builds(LastPiece, st.binary()),
)


messages = st.deferred(lambda: _messages)


def same(one: Any, other: Any) -> bool:
    """Tell whether values and all types inside are equal; NaN is NaN and -0.0 is not 0.0."""
    return _key(one) == _key(other)


def _key(value: Any) -> Any:
    cls = type(value)
    if cls is float:
        return (cls, "nan" if math.isnan(value) else (value, math.copysign(1, value)))
    if cls is complex:
        return (cls, _key(value.real), _key(value.imag))
    if cls in (list, tuple):
        return (cls, [_key(item) for item in value])
    if cls in (set, frozenset):
        return (cls, sorted(repr(_key(item)) for item in value))
    if cls is dict:
        return (cls, [(_key(key), _key(item)) for key, item in value.items()])
    if cls in (dt.datetime, dt.time):
        return (cls, value.replace(tzinfo=None, fold=0), value.utcoffset())
    return (cls, str(value), value)

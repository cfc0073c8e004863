"""Recognising values that msgspec encodes as the protocol requires.

msgspec encodes None, bool, int, float, str and bytes, lists, dicts with keys that are str or bytes,
and the fields of dataclasses and Structs, to the same bytes as
:class:`~trio_rpc.wire.to_msgpack.Converter` and msgpack do together, in a fraction of the time.
Such values are *plain* here. But msgspec also encodes other types, in forms that the protocol does
not have. So :func:`is_plain` first looks at the types of all values, level by level, with loops
that run in C. Values that are not plain go to the Converter.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import functools
import inspect
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain
from operator import attrgetter, itemgetter
from typing import Any, Final, NamedTuple

import msgspec

from trio_rpc.wire.extensions import SCALARS
from trio_rpc.wire.limits import Limits
from trio_rpc.wire.parts import LARGE
from trio_rpc.wire.registry import TypeRegistry
from trio_rpc.wire.simpler import simplifier

__all__ = ["ENCODER", "SHORT", "fields_of", "is_plain"]

ENCODER: Final = msgspec.msgpack.Encoder()
"""Encodes plain values. It has no state, so one serves all sessions."""

SHORT: Final = SCALARS - {bytes, bytearray, memoryview}
"""Types of values that hold no others, and need no look at their size."""
_KEYS: Final = frozenset({str, bytes})

_of_all: Final = chain.from_iterable


def is_plain(values: Sequence[Any], registry: TypeRegistry, limits: Limits) -> bool:
    """Return whether the values of a message are plain.

    Large bytes are not, because they travel without a copy. Neither are values that exceed the
    limits: the Converter raises the error.

    Args:
        values: the values of the message's array.
        registry: its classes are sent as extensions.
        limits: bound the walk, because a few lists that hold each other twice have no end.
    """
    waiting: list[Any] = []
    for one in values:
        if type(one) not in SHORT:
            waiting.append(one)  # noqa: PERF401 - a comprehension takes longer for so few
    left = FEW if limits.max_depth > FEW else limits.max_depth - 1  # so few cannot be too deep
    nodes = 1 + len(values)
    while waiting:
        if not left:
            return _are_plain(values, registry, limits)
        left -= 1
        one = waiting.pop()
        cls = type(one)
        inner: Collection[Any]
        each = 2
        if cls is list:
            inner, each = one, 1
        elif cls is dict:
            if not _KEYS.issuperset(map(type, one)):
                return False
            inner = one.values()
        elif cls is bytes:
            if len(one) >= LARGE:
                return False
            continue
        else:
            kind: Any = cls
            fields = None if registry.for_class(kind) is not None else fields_of(kind)
            found = None if fields is None else fields.of(one)
            if found is None:
                return False
            inner = found
        nodes += each * len(inner)
        if not SHORT.issuperset(map(type, inner)):
            if len(inner) > left:
                return _are_plain(values, registry, limits)
            waiting += [value for value in inner if type(value) not in SHORT]
    return nodes <= limits.max_nodes


FEW: Final = 16
"""Containers in a message below which it is faster to look at them one by one."""


def _are_plain(values: Sequence[Any], registry: TypeRegistry, limits: Limits) -> bool:
    """Return whether all of many values are plain."""
    level: list[Any] = list(values)
    left = limits.max_nodes - 1 - len(values)
    for _ in range(limits.max_depth):
        kinds = set(map(type, level))
        if SHORT.issuperset(kinds):
            return True
        inner: list[Any] = []
        for kind in kinds - SHORT:
            members: list[Any] = level
            if len(kinds) > 1:
                members = [one for one in level if type(one) is kind]
            if kind is list:
                left -= sum(map(len, members))
                found: Iterable[Any] = _of_all(members)
            elif kind is dict:
                number = sum(map(len, members))
                left -= 2 * number
                if left < 0 or not _have_plain_keys(members, number):
                    return False
                found = _of_all(map(dict.values, members))
            elif kind is bytes:
                if max(map(len, members)) >= LARGE:
                    return False
                continue
            else:
                fields = None if registry.for_class(kind) is not None else fields_of(kind)
                if fields is None:
                    return False
                left -= 2 * fields.number * len(members)
                found = fields.of_all(members)
            if left < 0:
                return False
            try:
                inner += found
            except (AttributeError, KeyError):  # a field was deleted
                return False
        level = inner
    return False


def _have_plain_keys(dicts: list[dict[Any, Any]], number: int) -> bool:
    """Return whether the keys of dicts, so many together, are all str or bytes."""
    kinds = [*map(type, _of_all(dicts))]
    return kinds.count(str) == number or _KEYS.issuperset(kinds)


# ── classes ──────────────────────────────────────────────────────────────────────────────────────

_NATIVE: Final = (
    str,
    int,
    float,
    complex,
    bytes,
    bytearray,
    memoryview,
    list,
    dict,
    tuple,
    set,
    frozenset,
    dt.date,
    dt.time,
    dt.timedelta,
    decimal.Decimal,
    uuid.UUID,
    enum.Enum,
)
"""Classes whose subclasses msgspec encodes as these, whether they are dataclasses or not."""


class _Fields(NamedTuple):
    number: int
    get: Callable[[Any], Collection[Any]]
    """Returns the fields of an instance, or of its ``__dict__`` if it has one."""
    has_dict: bool

    def of(self, value: Any) -> Collection[Any] | None:
        """Return the fields of an instance; None if one was deleted."""
        try:
            return self.get(vars(value) if self.has_dict else value)
        except (AttributeError, KeyError):
            return None

    def of_all(self, members: Iterable[Any]) -> Iterator[Any]:
        """Iterate over the fields of all members. Raises if one was deleted."""
        return _of_all(map(self.get, map(vars, members) if self.has_dict else members))


@functools.lru_cache(maxsize=1024)
def fields_of(cls: Any) -> _Fields | None:
    """Describe the fields of a dataclass or a Struct; None for all other classes.

    Returns None also if msgspec would not encode exactly the fields that the Converter does: it
    ignores methods that replace access to attributes, and defaults that only the class has.
    """
    ordinary = not issubclass(cls, _NATIVE) and simplifier(cls) is None
    if not ordinary or hasattr(cls, "__aiter__") or hasattr(cls, "__getattr__"):
        return None
    if inspect.getattr_static(cls, "__getattribute__") is not object.__getattribute__:
        return None
    names = _names_of_struct(cls) if issubclass(cls, msgspec.Struct) else _names_of_dataclass(cls)
    if not names:
        return None
    found = [inspect.getattr_static(cls, name, None) for name in names]
    several = names if len(names) > 1 else names * 2  # for one name, a getter returns no tuple
    if all(map(inspect.ismemberdescriptor, found)):
        return _Fields(len(names), attrgetter(*several), has_dict=False)
    if cls.__dictoffset__ and not any(hasattr(type(one), "__get__") for one in found):
        return _Fields(len(names), itemgetter(*several), has_dict=True)
    return None


def _names_of_struct(cls: type[msgspec.Struct]) -> tuple[str, ...]:
    config = cls.__struct_config__
    return () if config.omit_defaults or config.tag is not None else cls.__struct_fields__


def _names_of_dataclass(cls: type) -> tuple[str, ...]:
    if not dataclasses.is_dataclass(cls):
        return ()
    names = tuple(field.name for field in dataclasses.fields(cls))
    # The others are ClassVars and InitVars, which msgspec would look for.
    return names if len(names) == len(cls.__dataclass_fields__) else ()

"""Bounding the time that the conversion of one message takes, by counting its cost.

``Limits.max_nodes`` bounds the values of a message, and so the time to decode it. Converting one
value to a class can take a hundred times as long as decoding it. So each value that is converted
by Python code costs a number of *units*, and a message may cost ``max_nodes`` of them. A unit is
about the time that decoding one of the most expensive values takes. The numbers below are
measured, and tests/wire/test_wire_time.py checks them.

msgspec converts values of built-in types and simple classes by itself, within the time of a unit.
Some of its classes take longer: :func:`count_objects` counts their objects beforehand.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator
from itertools import chain
from typing import Any, Final

import msgspec

from trio_rpc.wire.limits import DEFAULT_LIMITS
from trio_rpc.wire.simpler import ADDRESSES, model_fields

__all__ = [
    "COLLECTION",
    "ENUM",
    "FAILED",
    "FRACTION",
    "MADE_BY_PYDANTIC",
    "MAPPING",
    "MOST",
    "OTHER",
    "PAIR",
    "REFERENCE",
    "TAGGED",
    "Read",
    "TooCostly",
    "class_cost",
    "count_objects",
    "count_values",
    "leaf_cost",
    "model_cost",
    "record_cost",
    "text_cost",
    "union_cost",
]

MOST: Final = DEFAULT_LIMITS.max_nodes
"""The units that a message may cost by default."""

MICROSECONDS: Final = 0.7
"""The time of one unit on an ordinary machine."""

OTHER: Final = 4
"""Units of a value that only a call of a Python function converts."""

COLLECTION: Final = 10
"""Units of a container that is built from another one, in addition to its contents."""

MAPPING: Final = 14
"""The same for a dict whose keys are converted by Python code."""

PAIR: Final = 3
"""Units of a dict's entry whose key is converted by Python code."""

PATH: Final = 7
ADDRESS: Final = 20
NETWORK: Final = 26
INTERFACE: Final = 40
"""Units of a short path, an IP address, an IP network, and an interface, which is both."""

PATH_CHARACTERS: Final = 10
"""Characters of a path that cost one more unit: each may begin another part."""

FRACTION: Final = 6
"""Units of a short fraction."""

DIGITS: Final = 24
"""Digits of a fraction that cost one more unit."""

ENUM: Final = 3
"""Units of an enum's value. A flag costs one more for each of its members."""

TAGGED: Final = 5
"""Units of choosing the member of a union by a function."""

MADE_BY_PYDANTIC: Final = 3
"""Units of a value that Pydantic makes, in addition to those of its parts."""

EMAIL: Final = 150
"""Units of an email address, which Pydantic leaves to a library written in Python."""

REFERENCE: Final = 25
"""Units of a function or a stream that arrives as an argument: it is bound to its call."""

FAILED: Final = 12
"""Units of an attempt to convert a value that fails, as in a union."""


class TooCostly(Exception):
    """Converting a message costs more than its receiver allows.

    It is neither a TypeError nor a ValueError, so no other member of a union is tried.
    """

    def __init__(self, most: int) -> None:
        super().__init__(
            f"too costly to convert to the annotated types: max_nodes ({most}) in the limits"
            " of the receiving end allows less. Raise it there, or send less at once, as in a"
            " stream"
        )


class Read:
    """Reads the parts of one message by adapted annotations, and counts the cost.

    Args:
        most: the units that it may cost.
    """

    __slots__ = ("left", "most", "tried")

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self.left = most
        self.tried: Any = None
        """The outcomes of the unions that are being tried: see unions.py."""

    def __call__(self, value: Any, adapted: Any) -> Any:
        """Convert a part. Raises msgspec.ValidationError, TypeError, ValueError or TooCostly."""
        raise NotImplementedError

    def spend(self, units: int) -> None:
        """Count the cost of a conversion before it is done. Raises TooCostly if it is too much."""
        self.left -= units
        if self.left < 0:
            raise TooCostly(self.most)

    def check_items(self, value: Any, items: list[Any]) -> None:
        """Check the items of a value before they become a set, in which they have no order.

        Raises ValueError if this format does not allow the value.
        """


# ── classes of fields ────────────────────────────────────────────────────────────────────────


def record_cost(fields: int) -> int:
    """Return the units of an object that Python code makes from that many fields."""
    return 8 + fields


def class_cost(cls: Any) -> int:
    """Return the units of an object that msgspec makes, if all its fields have their defaults.

    Fields that are sent are values of the message themselves, and take less time.
    """
    if hasattr(cls, "__attrs_attrs__"):
        checked = sum(bool(one.validator or one.converter) for one in cls.__attrs_attrs__)
        return _units(0.6 + 0.5 * len(cls.__attrs_attrs__) + checked)
    if dataclasses.is_dataclass(cls):
        fields = dataclasses.fields(cls)
        made = sum(one.default_factory is not dataclasses.MISSING for one in fields)
        return _units(0.1 + 0.03 * len(fields) + 0.3 * made)
    if issubclass(cls, msgspec.Struct):
        return _units(0.1 + 0.07 * len(cls.__struct_defaults__))
    return 1


def model_cost(cls: Any) -> int:
    """Return the units of a model that Pydantic makes, without the conversion of its fields."""
    fields = (model_fields(cls) or {}).values()
    return _units(1.2 + 0.12 * len(fields) + sum(map(_default_cost, fields)))


def leaf_cost(cls: Any) -> int:
    """Return the units of one value that Pydantic makes by itself, such as an HttpUrl."""
    if not isinstance(cls, type):
        return 1
    if cls.__name__ in _EMAILS and cls.__module__ == "pydantic.networks":
        return EMAIL
    if cls.__module__.startswith("pydantic"):
        return OTHER
    return text_cost(cls) or 1


_EMAILS: Final = ("EmailStr", "NameEmail")


def text_cost(cls: type) -> int:
    """Return the units of a value that is made of short text; 0 for a class that is not."""
    if issubclass(cls, pathlib.PurePath):
        return PATH
    if cls not in ADDRESSES:
        return 0
    if cls.__name__.endswith("Interface"):
        return INTERFACE
    return NETWORK if cls.__name__.endswith("Network") else ADDRESS


def _default_cost(field: Any) -> float:
    """Return the microseconds to make the default of a model's field, in addition to 0.1."""
    if field.default_factory is not None:
        return 0.3
    if getattr(type(field.default), "__hash__", None) is not None:
        return 0.0
    size = len(field.default) if hasattr(field.default, "__len__") else 0
    return (2.0 if type(field.default) in (list, dict) else 15.0) + 2.0 * size  # a deep copy


def _units(microseconds: float) -> int:
    return max(1, round(microseconds / MICROSECONDS + 0.3))


def union_cost(members: int, classes: int) -> int:
    """Return the units of choosing among the members of a union, of which some have fields."""
    return 4 + 2 * members + 4 * classes


def count_objects(value: Any) -> int:
    """Return the number of containers in a value, including itself: any may become an object."""
    return sum(map(len, _levels(value)))


def count_values(value: Any) -> int:
    """Return the number of values in a value, including itself. A key of a dict is not counted."""
    return 1 + sum(sum(map(len, level)) for level in _levels(value))


def _levels(value: Any) -> Iterator[list[Any]]:
    """Yield the containers in a value, level by level."""
    level = [value] if type(value) in _CONTAINERS else []
    while level:
        yield level
        dicts = [outer for outer in level if type(outer) is dict]
        inner = chain(chain.from_iterable(level), chain.from_iterable(map(dict.values, dicts)))
        level = [one for one in inner if type(one) in _CONTAINERS]


_CONTAINERS: Final = frozenset({list, dict, tuple})

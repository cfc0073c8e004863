"""The context of a call: the entries that the protocol defines, and their checks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from trio_rpc.errors import DecodeError
from trio_rpc.wire.messages import MAX_NUMBER

__all__ = ["KNOWN", "check_context", "is_within"]


def check_context(context: dict[str, Any]) -> None:
    """Check the known entries of a call's context, and ignore unknown ones. Raises DecodeError."""
    for name, value in context.items():
        known = KNOWN.get(name)
        if known is not None and not known[0](value):
            raise DecodeError(f"{name} must be {known[1]}")


def is_within(context: Mapping[str, Any] | None, calls: Mapping[int, object]) -> bool:
    """Return whether a call is made inside one of ``calls``."""
    return context is not None and context.get("parent") in calls


def _is_time_left(value: object) -> bool:
    if type(value) is int:
        return 0 <= value <= MAX_NUMBER
    return type(value) is float and 0 <= value < math.inf


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_NUMBER


def _is_metadata(value: object) -> bool:
    return type(value) is dict and all(type(key) is str for key in value)


def _is_first_credit(value: object) -> bool:
    return type(value) is list and len(value) == 2 and all(_is_count(n) and n > 0 for n in value)


def _is_bool(value: object) -> bool:
    return type(value) is bool


_COUNT = (_is_count, "an integer from 0 to 2**53 - 1")

KNOWN: dict[str, tuple[Callable[[object], bool], str]] = {
    "deadline": (_is_time_left, "seconds from now, finite and not negative"),
    "sent": (_is_time_left, "seconds of a clock, finite and not negative"),
    "parent": _COUNT,
    "depth": _COUNT,
    "callback": _COUNT,
    "scope": _COUNT,
    "metadata": (_is_metadata, "a map with string keys"),
    "stream": (_is_first_credit, "an array of two positive integers: items and bytes"),
    "task_status": (_is_bool, "true or false"),
}

"""The context of a call: the entries that the protocol itself knows, and what they must be."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from trio_rpc.errors import DecodeError

__all__ = ["check_context", "is_within"]

_LAST_SECOND = sys.float_info.max
"""A larger integer compares well with a time, and then cannot be added to it."""


def check_context(context: dict[str, Any]) -> None:
    """Check the known entries of a call's context; unknown ones are ignored. Raises DecodeError."""
    deadline = context.get("deadline", 0.0)
    if type(deadline) not in (float, int) or not 0 <= deadline <= _LAST_SECOND:
        raise DecodeError("a deadline must be seconds from now, finite and not negative")
    for name in ("parent", "depth", "callback", "scope"):
        if not _is_count(context.get(name, 0)):
            raise DecodeError(f"{name} must be an integer that is not negative")
    metadata = context.get("metadata", {})
    if type(metadata) is not dict or any(type(key) is not str for key in metadata):
        raise DecodeError("metadata must be a map with string keys")
    stream = context.get("stream")
    if "stream" in context and not _is_first_credit(stream):
        raise DecodeError("stream must be an array of two positive integers: items and bytes")
    if type(context.get("task_status", True)) is not bool:
        raise DecodeError("task_status must be true or false")


def is_within(context: Mapping[str, Any] | None, calls: Mapping[int, object]) -> bool:
    """Whether a call is made inside one of ``calls``."""
    return context is not None and context.get("parent") in calls


def _is_first_credit(value: object) -> bool:
    return type(value) is list and len(value) == 2 and all(_is_count(n) and n > 0 for n in value)


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0

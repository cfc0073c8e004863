"""Checks of the types of arguments, so that a mistake raises where it is made."""

from __future__ import annotations

import ssl
from typing import Any

__all__ = ["check_ssl_context", "check_type"]


def check_type(name: str, value: object, kind: Any, wanted: str) -> None:
    """Raise TypeError unless an argument has a type.

    Args:
        name: the name of the argument.
        value: the argument.
        kind: a class, a tuple of classes, or a union.
        wanted: the type in words.
    """
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {wanted}, not {value!r:.200}")


def check_ssl_context(context: object) -> None:
    """Raise TypeError unless the argument ``ssl_context`` is an ``SSLContext`` or None."""
    check_type("ssl_context", context, ssl.SSLContext | None, "an ssl.SSLContext or None")

"""Texts about values that do not fit their annotations."""

from __future__ import annotations

import re
import types
from typing import Any, Final

import msgspec

from trio_rpc.errors import DecodeError
from trio_rpc.services.adapters import joined_paths
from trio_rpc.services.converters import Convert
from trio_rpc.services.costs import MOST, TooCostly
from trio_rpc.util.text import one_line

__all__ = ["checked", "complaint"]

_IN_PYTHON: Final = types.MappingProxyType({"null": "None", "array": "list", "object": "dict"})
"""Names of JSON that msgspec uses in its texts, and the names that Python has for them."""


def complaint(exc: Exception, *, in_json: bool = False) -> str:
    """Describe in one line why a value does not fit; ``$`` stands for the whole value.

    Args:
        exc: the error.
        in_json: the value came as JSON, so the types have the names of JSON.
    """
    if isinstance(exc, (msgspec.ValidationError, TypeError, ValueError, TooCostly)):
        text = one_line(joined_paths(str(exc)))
        return text if in_json else _in_python(text)
    if isinstance(exc, RecursionError):
        return "nested too deeply"
    return f"its own checks raised {type(exc).__name__}"


def _in_python(text: str) -> str:
    """Replace JSON's names of types by Python's names, where msgspec names the types."""
    what, at, path = text.partition(" - at ")
    if not what.startswith("Expected `"):
        return text
    for name, ours in _IN_PYTHON.items():
        what = re.sub(rf"(?<=[` ]){name}(?=[` ])(?=[^`]*`)", ours, what)
    return what + at + path


def checked(name: str, convert: Convert | None, what: str = "result") -> Convert | None:
    """Return a function that converts a result with ``convert``, or None if that is None.

    It raises DecodeError, with one line of text, if the result does not fit.

    Args:
        name: the name of the function that returned the result.
        convert: converts to its annotation.
        what: the name of the result in error texts.
    """
    if convert is None:
        return None

    def check(value: Any, /, most: int = MOST) -> Any:
        try:
            return convert(value, most)
        except Exception as exc:  # noqa: BLE001 - a class's own checks may raise anything
            raise DecodeError(f"the {what} of {name}: {complaint(exc)}") from None

    return check

"""Classes whose values travel as simpler values; the receiver's annotation restores them.

Nothing here imports Pydantic: a model is recognised by its class's attributes.
"""

from __future__ import annotations

import collections
import fractions
import ipaddress
import os
import pathlib
from collections.abc import Callable
from typing import Any, Final

__all__ = ["ADDRESSES", "MAX_FRACTION", "model_fields", "model_keys", "simplifier"]

ADDRESSES: Final = (
    ipaddress.IPv4Address,
    ipaddress.IPv4Interface,
    ipaddress.IPv4Network,
    ipaddress.IPv6Address,
    ipaddress.IPv6Interface,
    ipaddress.IPv6Network,
)


MAX_FRACTION: Final = 8192
"""Bits of a numerator or denominator; the same bound as for an int."""


def simplifier(cls: type) -> Callable[[Any], Any] | None:
    """Return a function that simplifies instances of ``cls``, or None.

    The function raises ValueError for a value that is too large.
    """
    if issubclass(cls, pathlib.PurePath):
        return os.fspath
    if issubclass(cls, ADDRESSES) or cls.__module__ == "pydantic.networks":
        return str
    if issubclass(cls, fractions.Fraction):
        return _of_fraction
    if issubclass(cls, collections.deque):
        return list
    keys = model_keys(cls)
    return None if keys is None else lambda value: _of_model(value, keys)


def model_keys(cls: type) -> dict[str, str] | None:
    """Map the fields of a Pydantic model or dataclass to the keys it is validated from.

    Returns None for other classes. Leaves out excluded fields (``exclude=True``), and fields that a
    dataclass sets itself.
    """
    fields = model_fields(cls)
    if fields is None:
        return None
    config = getattr(cls, "model_config", None) or getattr(cls, "__pydantic_config__", {})
    return {
        name: _key(name, field, config)
        for name, field in fields.items()
        if field.exclude is not True and getattr(field, "init", None) is not False
    }


def model_fields(cls: type) -> dict[str, Any] | None:
    """Return Pydantic's fields of a model or Pydantic dataclass, or None for other classes."""
    fields = vars(cls).get("__pydantic_fields__")
    if fields is None and hasattr(cls, "__pydantic_validator__"):
        fields = getattr(cls, "model_fields", None)
    return fields if isinstance(fields, dict) else None


def _key(name: str, field: Any, config: Any) -> str:
    alias = field.validation_alias
    for one in (alias, *getattr(alias, "choices", ())):
        if isinstance(one, str) and config.get("validate_by_alias", True):
            return one
    return name


def _of_fraction(value: fractions.Fraction) -> str:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_FRACTION:
        raise ValueError(f"a Fraction of more than {MAX_FRACTION} bits")
    return f"{value.numerator}/{value.denominator}"


def _of_model(value: Any, keys: dict[str, str]) -> Any:
    if getattr(type(value), "__pydantic_root_model__", False):
        return value.root
    simpler = {key: getattr(value, name) for name, key in keys.items()}
    return simpler | (getattr(value, "__pydantic_extra__", None) or {})

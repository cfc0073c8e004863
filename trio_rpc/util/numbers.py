"""Checks of numbers that a user passes as arguments, or a peer sends."""

from __future__ import annotations

from typing import Final, TypeVar

__all__ = ["check_count", "check_not_negative", "is_whole", "read_delay"]

T = TypeVar("T")

LONGEST: Final = 86400.0
"""The longest delay that a peer may ask for, in seconds."""


def check_not_negative(name: str, value: object) -> None:
    """Raise TypeError unless an argument is a number; ValueError if it is negative or NaN.

    Args:
        name: the name of the argument, for the text of the error.
        value: the argument.
    """
    if not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, not {value!r:.200}")
    if not value >= 0:
        raise ValueError(f"{name} must not be negative: {value!r}")


def check_count(name: str, value: object) -> None:
    """Raise TypeError unless an argument is an integer, ValueError if it is negative.

    Args:
        name: the name of the argument, for the text of the error.
        value: the argument.
    """
    if type(value) is not int:
        raise TypeError(f"{name} must be a whole number, not {value!r:.200}")
    check_not_negative(name, value)


def read_delay(value: object, default: T) -> float | T:
    """Return a delay that a peer asks for, in seconds; the default if it is not a usable number."""
    if type(value) in (int, float) and 0 <= value <= LONGEST:  # type: ignore[operator]
        return float(value)  # type: ignore[arg-type]
    return default


def is_whole(value: object, least: int = 0, most: int = 2**53 - 1) -> bool:
    """Return whether a value that a peer has sent is an integer within bounds."""
    return type(value) is int and least <= value <= most

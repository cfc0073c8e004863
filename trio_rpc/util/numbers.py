"""Checks of numbers that a user passes as arguments."""

from __future__ import annotations

__all__ = ["check_not_negative"]


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

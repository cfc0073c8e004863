"""The kind of a function, as far as Python can tell.

``inspect`` fails for an object that has only some of the attributes of a function, such as a mock
with a function as its spec. Such an object is a plain function here.
"""

from __future__ import annotations

import inspect

__all__ = ["is_coroutine_function", "is_generator_function"]


def is_coroutine_function(function: object) -> bool:
    """Return whether a function is an ``async def`` without a ``yield``."""
    try:
        return inspect.iscoroutinefunction(function)
    except TypeError:
        return False


def is_generator_function(function: object) -> bool:
    """Return whether a function has a ``yield``."""
    try:
        return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
    except TypeError:
        return False

"""Copies of contexts that can be changed without a change to the original."""

from __future__ import annotations

import decimal
from contextvars import Context, ContextVar

__all__ = ["copy_of", "own_decimal_context"]


def _decimal_variable() -> ContextVar[decimal.Context] | None:
    """Return the variable that holds the current context of ``decimal``.

    It has no public name, but it is the only variable that ``decimal.getcontext`` sets.
    """
    context = Context()
    context.run(decimal.getcontext)
    return next(iter(context), None)


_DECIMAL = _decimal_variable()


def copy_of(context: Context) -> Context:
    """Copy a context, together with the context of ``decimal`` in it.

    A plain copy would share that object, and ``decimal.getcontext().prec = 5`` changes it in place.
    """
    copy = context.copy()
    if _DECIMAL in context:
        copy.run(own_decimal_context)
    return copy


def own_decimal_context() -> None:
    """Replace this task's context of ``decimal``, if it has one, by a copy."""
    if _DECIMAL is not None and _DECIMAL.get(None) is not None:
        decimal.setcontext(decimal.getcontext().copy())

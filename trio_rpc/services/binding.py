"""The parameters of a function that remain after it has been bound, as in Python."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable
from inspect import Parameter
from typing import Any

__all__ = ["shown_signature", "signature_as_bound", "taken_names"]


def signature_as_bound(
    name: str, function: Callable[..., Any], *, skip_self: bool
) -> inspect.Signature:
    """Return the signature of a callable, without the parameter that binding it would fill."""
    try:
        return inspect.signature(types.MethodType(function, _Unbound) if skip_self else function)
    except ValueError as exc:
        why = "has no place for self: write (self, ...)" if skip_self else f"cannot be read: {exc}"
        raise TypeError(f"{name}: its signature {why}") from None


def taken_names(function: Callable[..., Any], *, skip_self: bool = False) -> frozenset[str]:
    """Return the names that ``**kwargs`` of a function cannot collect.

    These are parameters that binding the function has filled by position, such as ``self``. Its
    signature does not show them, but Python refuses arguments with their names.
    """
    if skip_self:
        function = types.MethodType(function, _Unbound)
    if isinstance(function, functools.partial):
        inner, count = function.func, len(function.args)
    elif isinstance(function, types.MethodType):
        inner, count = function.__func__, 1
    elif not inspect.isroutine(function) and not isinstance(function, type):
        call = getattr(function, "__call__", None)  # noqa: B004 - it is read, and not only tested
        return taken_names(call) if isinstance(call, types.MethodType) else frozenset()
    else:
        return frozenset()
    try:
        filled = list(inspect.signature(inner).parameters.values())[:count]
    except (TypeError, ValueError):
        filled = []
    by_name = (one.name for one in filled if one.kind is Parameter.POSITIONAL_OR_KEYWORD)
    return taken_names(inner).union(by_name)


class _Unbound:
    """Stands for the object that a method is bound to."""


class _Unquoted(str):
    """An annotation that was left as text, shown as it was written."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def shown_signature(signature: inspect.Signature, *, leave_out: str) -> str:
    """Return the text of a signature without one parameter, with annotations as written."""

    def unquoted(annotation: Any) -> Any:
        return _Unquoted(annotation) if isinstance(annotation, str) else annotation

    shown = [
        one.replace(annotation=unquoted(one.annotation))
        for one in signature.parameters.values()
        if one.name != leave_out
    ]
    result = unquoted(signature.return_annotation)
    return str(signature.replace(parameters=shown, return_annotation=result))

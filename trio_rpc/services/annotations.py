"""What annotations mean: names are looked up where the annotation was written."""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable, Mapping
from inspect import Parameter
from typing import Any, get_type_hints

from trio_rpc.services.functions import written_in

__all__ = ["Annotations", "class_annotations", "resolved"]


class Annotations:
    """Looks up annotations one by one, so that one that is not needed need not resolve."""

    def __init__(
        self,
        function: Callable[..., Any],
        like: Callable[..., Any] | None,
        owner: type | None,
        signature: inspect.Signature | None = None,
    ) -> None:
        self._sources = [written_in(source) for source in (function, like) if source is not None]
        self._owner = owner
        self._parameters = {} if signature is None else signature.parameters

    def get(self, name: str, default: Any = Any) -> Any:
        """Return the annotation of a parameter or of "return", ``default`` where there is none."""
        for source in self._sources:
            annotations = getattr(source, "__annotations__", None)  # a mock's may be anything
            if not isinstance(annotations, dict):
                continue
            annotation = annotations.get(name, Parameter.empty)
            if annotation is not Parameter.empty:
                return self._resolved(source, name, annotation)
        # A wrapper may say by __signature__ what it takes.
        parameter = self._parameters.get(name)
        if parameter is not None and parameter.annotation is not Parameter.empty:
            return self._resolved(self._sources[0], name, parameter.annotation)
        return default

    def _resolved(self, source: Callable[..., Any], name: str, annotation: Any) -> Any:
        if annotation is None:
            return None
        holder = types.SimpleNamespace(__annotations__={name: annotation})
        module = getattr(source, "__globals__", {})
        nearby = {**_closure(source), **_names_of(self._owner)}
        try:
            return get_type_hints(holder, module, nearby, include_extras=True)[name]
        except NameError as exc:
            raise TypeError(
                f"{getattr(source, '__qualname__', '?')}: the annotation {annotation!r} of {name!r}"
                f" cannot be resolved at run time ({exc}): what it names must be imported outside"
                " of `if TYPE_CHECKING`"
            ) from exc


def class_annotations(cls: type) -> dict[str, tuple[Any, Callable[[], Any]]]:
    """Map the names that the body of ``cls`` annotates to the annotation, and what resolves it."""
    module = vars(sys.modules.get(cls.__module__, types.ModuleType("")))

    def resolver(name: str, annotation: Any) -> Callable[[], Any]:
        return lambda: resolved(name, annotation, module, _names_of(cls))

    return {
        name: (annotation, resolver(name, annotation))
        for name, annotation in inspect.get_annotations(cls).items()
    }


def resolved(
    name: str, annotation: Any, module: Mapping[str, Any], nearby: Mapping[str, Any]
) -> Any:
    """Return what the annotation of ``name`` means. Raises NameError for a name that is not there."""
    holder = types.SimpleNamespace(__annotations__={name: annotation})
    return get_type_hints(holder, dict(module), dict(nearby), include_extras=True)[name]


def _names_of(owner: type | None) -> dict[str, Any]:
    """Return the names of a class body that annotations may mean: a method is never one."""
    if owner is None:
        return {}
    return {
        name: value
        for base in reversed(owner.__mro__)
        for name, value in {**vars(base), base.__name__: base}.items()
        if not inspect.isroutine(value)
    }


def _closure(function: Callable[..., Any]) -> dict[str, Any]:
    if not inspect.isfunction(function):
        return {}
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    # A cell is empty until its variable is assigned, which may well be after this.
    return {name: cell.cell_contents for name, cell in cells if _is_filled(cell)}


def _is_filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - there is no other way to ask
    except ValueError:
        return False
    return True

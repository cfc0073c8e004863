"""Annotations whose values JSON could never carry, found when a gateway is made."""

from __future__ import annotations

import enum
import types
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, get_args, get_origin

from trio_rpc.services.aliases import UNIONS, bare
from trio_rpc.services.annotations import Names
from trio_rpc.services.records import record_of
from trio_rpc.services.unions import field_names
from trio_rpc.wire.simpler import model_fields

__all__ = ["why_unfit"]

_NEVER_KEYS: Final = (bool, types.NoneType, complex, tuple, frozenset)
"""Types of keys that JSON has no text for."""


def why_unfit(annotation: Any) -> str | None:
    """Return why JSON could never carry the values of an annotation; None if it may carry some.

    A dict has keys of text in JSON. Text is read back as a number, a UUID or a date, but never as a
    tuple or a bool.
    """
    for mapping, key in _keys_in(annotation, set()):
        if _is_never_key(key):
            shown = getattr(key, "__name__", None) or str(key)
            name = getattr(mapping, "__name__", None) or str(mapping)
            return (
                f"has keys of {shown} in a {name}, but keys are text in JSON: write a list of pairs"
            )
    return None


def _keys_in(annotation: Any, seen: set[Any]) -> Iterator[tuple[Any, Any]]:
    """Yield each mapping in an annotation, also in fields of classes, and the type of its keys."""
    annotation = bare(annotation)
    try:
        if annotation in seen:
            return
        seen.add(annotation)
    except TypeError:
        return  # an annotation without a hash, such as the list in Callable[[int], str]
    origin, args = get_origin(annotation), get_args(annotation)
    if isinstance(origin, type) and issubclass(origin, Mapping) and len(args) == 2:
        yield origin, bare(args[0])
    for one in args:
        for part in one if isinstance(one, list) else (one,):
            yield from _keys_in(part, seen)
    for part in _fields_of(annotation, origin or annotation):
        yield from _keys_in(part, seen)


def _fields_of(annotation: Any, cls: Any) -> list[Any]:
    """Return the annotations of the fields of a class; none for other annotations."""
    models = model_fields(cls) if isinstance(cls, type) else None
    if models is not None:
        return [field.annotation for field in models.values()]
    if field_names(cls) is None:
        return []
    record = record_of(annotation, Names({}, {}))
    return [] if record is None else [field.annotation for field in record.fields]


def _is_never_key(key: Any) -> bool:
    origin = get_origin(key)
    if origin in UNIONS:
        return all(_is_never_key(bare(one)) for one in get_args(key))
    if origin is Literal:
        return all(isinstance(one, _NEVER_KEYS) for one in get_args(key))
    cls = types.NoneType if key is None else origin or key
    if not isinstance(cls, type):
        return False
    if issubclass(cls, enum.Enum):
        return bool(len(cls)) and all(isinstance(one.value, _NEVER_KEYS) for one in cls)
    return issubclass(cls, _NEVER_KEYS) or field_names(cls) is not None

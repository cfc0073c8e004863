"""The fields of the classes that signatures name, as text for people.

A signature such as ``(order: Order) -> Receipt`` says nothing to the author of a client who does
not have the classes. So a description of the methods has the fields of these classes, and of the
classes that their fields name.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import (
    Annotated,
    Any,
    ForwardRef,
    Literal,
    TypedDict,
    TypeVar,
    get_args,
    get_origin,
)

from trio_rpc.services.aliases import aliased, identity, stands_for
from trio_rpc.services.annotations import Names
from trio_rpc.services.conversion import QUALIFIERS
from trio_rpc.services.decorators import Kind
from trio_rpc.services.functions import function_types
from trio_rpc.services.models import is_model
from trio_rpc.services.records import record_of
from trio_rpc.services.tables import BoundMethod
from trio_rpc.wire.simpler import model_fields, model_keys

__all__ = ["FieldText", "TypeText", "Types"]


class FieldText(TypedDict):
    """One field: its key in the message, its type, and whether it must be given."""

    name: str
    type: str
    required: bool


class TypeText(TypedDict):
    """One class, and its fields in order."""

    name: str
    fields: list[FieldText]


class Types:
    """Finds the classes with fields that annotations name. Each is found once.

    A class without an end, which names itself with ever larger arguments, is refused before this,
    when its service is registered.
    """

    def __init__(self) -> None:
        self._seen: set[Any] = set()

    def of(self, method: BoundMethod) -> list[TypeText]:
        """Describe the classes that a method names, and no earlier one has named."""
        return [found for each in _annotations(method) for found in self._within(each)]

    def _within(self, annotation: Any) -> Iterator[TypeText]:
        key = identity(annotation)
        if key in self._seen:
            return
        self._seen.add(key)
        if (fields := _fields(annotation)) is not None:
            yield {
                "name": shown(annotation),
                "fields": [
                    {"name": name, "type": shown(each), "required": is_required}
                    for name, each, is_required in fields
                ],
            }
            parts = tuple(each for _, each, _ in fields)
        else:
            parts = _parts(annotation)
        for part in parts:
            yield from self._within(part)


def _annotations(method: BoundMethod) -> Iterator[Any]:
    """Return the annotations of the parameters and of the result; none that cannot be resolved."""
    signature = method.signature
    names = list(inspect.signature(method.function).parameters)
    read: Callable[[], Any] = functools.partial(signature.annotation, "return")
    if method.kind in (Kind.STREAM, Kind.DUPLEX):
        is_duplex = method.kind is Kind.DUPLEX
        names = names[is_duplex:]  # the first parameter is the channel
        read = functools.partial(signature.item_annotation, duplex=is_duplex)
    readers: list[Callable[[], Any]] = [
        functools.partial(signature.annotation, name) for name in names
    ]
    readers.append(read)
    for reader in readers:
        with contextlib.suppress(TypeError, NameError):
            yield reader()


def _fields(annotation: Any) -> list[tuple[str, Any, bool]] | None:
    """Return key, annotation and necessity of each field; None for a type without fields."""
    cls = get_origin(annotation) or annotation
    if is_model(annotation):
        fields, keys = model_fields(cls) or {}, model_keys(cls) or {}
        return [
            (keys[n], one.annotation, one.is_required()) for n, one in fields.items() if n in keys
        ]
    try:
        record = record_of(annotation, Names({}, {}))
    except (TypeError, NameError):
        return None
    if record is None:
        return None
    return [(one.key, one.annotation, one.is_required) for one in record.fields]


def _parts(annotation: Any) -> tuple[Any, ...]:
    """Return the annotations that another one is made of."""
    if (meaning := aliased(annotation)) is not None:
        return (meaning,)
    if isinstance(annotation, TypeVar):
        return (stands_for(annotation),)
    if (given := function_types(annotation)) is not None and get_origin(annotation) is None:
        return (*given.arguments, given.result)  # a Protocol
    args = get_args(annotation)
    if get_origin(annotation) is Literal:
        return ()
    if get_origin(annotation) is Annotated:
        return args[:1]
    return tuple(part for arg in args for part in (arg if isinstance(arg, list) else [arg]))


def shown(annotation: Any) -> str:
    """Return an annotation as one writes it, without the names of modules."""
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation is None or annotation is type(None):
        return "None"
    if annotation is ...:
        return "..."
    if isinstance(annotation, ForwardRef):
        return annotation.__forward_arg__
    if isinstance(annotation, str):
        return annotation
    if isinstance(annotation, list):
        return f"[{', '.join(map(shown, annotation))}]"
    if origin in QUALIFIERS or origin is Annotated:
        return shown(args[0])
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, args))}]"
    name = getattr(origin or annotation, "__name__", None) or str(annotation)
    if not args:
        return str(name).removeprefix("typing.")
    if name in ("Union", "UnionType"):
        return " | ".join(map(shown, args))
    return f"{name}[{', '.join(map(shown, args))}]"

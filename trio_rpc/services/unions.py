"""Choosing the member of a union that a value belongs to, for unions that msgspec refuses."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterable
from itertools import combinations
from typing import Annotated, Any, Final, Literal, get_args, get_origin

import msgspec

from trio_rpc.services.adapters import Ambiguous, Verdict, reader
from trio_rpc.services.annotations import Names
from trio_rpc.services.costs import FAILED, Read
from trio_rpc.services.records import record_of
from trio_rpc.wire.simpler import model_fields, model_keys

__all__ = ["field_names", "names_of", "union_converter"]


def union_converter(
    members: tuple[Any, ...], annotations: tuple[Any, ...], names: Names
) -> Callable[[Any, Read], Any]:
    """Return the converter of a union. It tries the members in turn, and the first that fits wins.

    The order for a value is:

    1. A member that the value already is an instance of, so that text stays ``str`` in
       ``datetime | str``; or a class with exactly the value's fields, or with matching Literals.
    2. Other classes with fields, beginning with the class that has most of the value's keys.
    3. The other members.

    Classes with the same fields are told apart by a tag, or by a field that is a Literal.

    Args:
        members: the adapted members.
        annotations: the annotations of the members.
        names: the names that the annotations of their fields may use.

    Raises:
        Ambiguous: two of the members cannot be told apart.
    """
    pairs = list(zip(map(reader, members), map(_bare, annotations), strict=True))
    fields = {cls: keys for _, cls in pairs if (keys := field_names(cls)) is not None}
    literals = {cls: _literals(cls, names) for cls in fields}
    tags = {cls: _tag(cls) for cls in fields}
    for one, other in combinations(fields, 2):
        alike = (fields[one], tags[one]) == (fields[other], tags[other])
        if alike and not _are_apart(literals[one], literals[other]):
            raise Ambiguous(
                f"{names_of((one, other))} cannot be told apart by their fields: give each a field"
                " of the same name with a Literal of its own, or use tagged msgspec.Structs"
            )

    def fits(cls: Any, value: Any) -> bool:
        if cls in fields and type(value) is dict:
            tag_field, tag = tags[cls]
            matches = [
                _is_one_of(value[key], literals[cls][key]) for key in literals[cls] if key in value
            ]
            has_all = fields[cls] == value.keys() - {tag_field} or bool(matches)
            return has_all and value.get(tag_field) == tag and all(matches)
        return type(value) is cls

    def known(cls: Any, value: Any) -> int:
        """Return how many of the value's keys are fields of a class."""
        return len(fields[cls] & value.keys()) if cls in fields and type(value) is dict else 0

    def first_that_fits(value: Any, read: Read) -> Any:
        inner: dict[bool, list[Exception]] = {True: [], False: []}
        for member, cls in sorted(
            pairs, key=lambda pair: (not fits(pair[1], value), -known(pair[1], value))
        ):
            try:
                return member(value, read)
            except (TypeError, ValueError) as exc:
                read.spend(FAILED)
                if not _is_kind(str(exc)):
                    inner[fits(cls, value)].append(exc)
        complaints = inner[True] or inner[False]
        if len(complaints) == 1:  # only one member can have been meant
            raise _same(complaints[0]) from None
        raise TypeError(f"Expected `{names_of(annotations)}`, got `{type(value).__name__}`")

    def convert(value: Any, read: Read) -> Any:
        if read.tried is None:
            read.tried = _Tried()
        return read.tried.once(first_that_fits, value, read)

    return convert


class _Tried:
    """The outcomes for the values of one message, while a union around them is being tried.

    Without this, nested unions take exponential time: each member of the outer union would try all
    members of the inner one again.
    """

    def __init__(self) -> None:
        self._depth = 0
        self._outcomes: dict[tuple[Any, int], tuple[Any, Any, Exception | None]] = {}

    def once(self, convert: Callable[[Any, Read], Any], value: Any, read: Read) -> Any:
        """Convert a value, or repeat the outcome of the same function for the same value."""
        key = convert, id(value)
        if key in self._outcomes:
            _, made, refusal = self._outcomes[key]
            if refusal is not None:
                raise _same(refusal)
            return made
        self._depth += 1
        try:
            made = convert(value, read)
        except (TypeError, ValueError) as exc:
            # The value is kept alive, so that no other value gets its id.
            self._outcomes[key] = value, None, _same(exc)
            raise
        else:
            if type(value) in _CONTAINERS:
                self._outcomes[key] = value, made, None
            return made
        finally:
            self._depth -= 1
            if not self._depth:
                self._outcomes.clear()


_CONTAINERS: Final = (list, dict)
"""Types whose objects are each in one place of a message. One text object may be in several."""


def _same(exc: Exception) -> Exception:
    return Verdict(str(exc), exc.count) if isinstance(exc, Verdict) else TypeError(str(exc))


def names_of(annotations: Iterable[Any]) -> str:
    """Return the name of a union in error texts."""
    return " | ".join(getattr(one, "__name__", None) or str(one) for one in annotations)


def field_names(cls: Any) -> frozenset[str] | None:
    """Return the keys under which the fields of a class are sent; None if it has no fields."""
    if not isinstance(cls, type):
        return None
    keys = model_keys(cls)
    if keys is not None:
        return frozenset(keys.values())
    if dataclasses.is_dataclass(cls):
        return frozenset(field.name for field in dataclasses.fields(cls))
    if hasattr(cls, "__attrs_attrs__"):
        return frozenset(field.name for field in cls.__attrs_attrs__)
    if issubclass(cls, msgspec.Struct) and not cls.__struct_config__.array_like:
        return frozenset(cls.__struct_encode_fields__)
    return None


def _literals(cls: Any, names: Names) -> dict[str, frozenset[Any]]:
    """Map the keys of fields that are a Literal to the values that they may have."""
    keys, models = model_keys(cls), model_fields(cls) or {}
    if keys is not None:
        found = {key: models[name].annotation for name, key in keys.items()}
    else:
        record = record_of(cls, names)
        found = {} if record is None else {one.key: one.annotation for one in record.fields}
    return {key: several for key, one in found.items() if (several := _values_of(one))}


def _values_of(annotation: Any) -> frozenset[Any]:
    annotation = _without_metadata(annotation)
    if get_origin(annotation) is not Literal:
        return frozenset()
    values = [one.value if isinstance(one, enum.Enum) else one for one in get_args(annotation)]
    return frozenset((type(one), one) for one in values)


def _are_apart(one: dict[str, frozenset[Any]], other: dict[str, frozenset[Any]]) -> bool:
    return any(several.isdisjoint(other[key]) for key, several in one.items() if key in other)


def _is_one_of(value: Any, several: frozenset[Any]) -> bool:
    bare = value.value if isinstance(value, enum.Enum) else value
    return type(bare) in {kind for kind, _ in several} and (type(bare), bare) in several


def _is_kind(text: str) -> bool:
    """Return whether an error text says that the whole value has another type."""
    return text.startswith("Expected ") and " got `" in text and " - at " not in text


def _bare(annotation: Any) -> Any:
    """Return the class of an annotation, without type arguments."""
    annotation = _without_metadata(annotation)
    return get_origin(annotation) or annotation


def _without_metadata(annotation: Any) -> Any:
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation


def _tag(cls: Any) -> tuple[str | None, Any]:
    """Return the key and value of a Struct's tag, or None for both if it has no tag."""
    config = getattr(cls, "__struct_config__", None)
    return (None, None) if config is None or config.tag is None else (config.tag_field, config.tag)

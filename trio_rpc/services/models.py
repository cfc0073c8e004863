"""Converting values to Pydantic models and dataclasses, by Pydantic's rules and in bounded time.

Each field is first converted to its annotation like any other value. Then the model validates the
results. So sets and dicts are built within a bounded time (see keyed.py), and a model with
``strict=True`` gets values of exactly the types that it requires. A value that does not fit its
annotation is passed on unconverted, because validators and Pydantic's own coercions may accept it.
The exceptions are values from which Pydantic would build a set or dict, and text that it would read
as base64.

Nothing here imports Pydantic. A model is recognised by the attributes of its class.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import inspect
import re
import sys
import types
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, Literal, NamedTuple, Protocol, get_args, get_origin

from trio_rpc.services.adapters import Ambiguous, Verdict, adapter, reader
from trio_rpc.services.aliases import UNIONS, aliased, substitute
from trio_rpc.services.annotations import Names
from trio_rpc.services.costs import (
    FAILED,
    MADE_BY_PYDANTIC,
    TAGGED,
    Read,
    count_values,
    leaf_cost,
)
from trio_rpc.services.keyed import needs_guard
from trio_rpc.services.makers import (
    MAX_ERRORS,
    Make,
    complaint_of,
    count_of,
    errors_of,
    is_complaint,
    type_adapter,
)
from trio_rpc.services.records import record_of
from trio_rpc.util.text import one_line
from trio_rpc.wire.simpler import model_fields, model_keys

__all__ = [
    "config_of",
    "dataclass_converter",
    "is_model",
    "keys_of",
    "model_converter",
    "pydantic_type",
    "refuse_unsendable",
    "tagged_union",
]

Part = Callable[[Any, Read], Any]
"""Converts the value of one field, or passes it on unconverted. Raises Verdict."""


class Adapt(Protocol):
    """Adapts the annotation of a field."""

    def __call__(self, annotation: Any, *, as_dicts: bool | None = None) -> Any:
        """Return the adapted annotation.

        Args:
            annotation: the annotation.
            as_dicts: inner models become dicts of converted fields, and Pydantic makes the models.
        """

    def note(self, cls: Any) -> None:
        """Consider a model that Pydantic makes by itself."""


_PLAIN: Final = frozenset({str, int, float, bool, None, types.NoneType, Any, object, list, dict})
"""Types whose values arrive as Pydantic requires them, even in strict mode."""

_LEAVES: Final = frozenset(
    {dt.datetime, dt.date, dt.time, dt.timedelta, decimal.Decimal, uuid.UUID, bytes, complex}
)
"""Types whose instances are passed on as they are."""

_BYTES: Final = (bytes, bytearray, memoryview)

_DATES: Final = {
    "AwareDatetime": dt.datetime,
    "NaiveDatetime": dt.datetime,
    "PastDatetime": dt.datetime,
    "FutureDatetime": dt.datetime,
    "PastDate": dt.date,
    "FutureDate": dt.date,
}
"""The plain types that Pydantic's classes of these names stand for."""

_KEYED: Final = (collections.Counter, collections.OrderedDict, collections.defaultdict)

_NEVER: Final = {
    "ImportString": "it would import a module that a peer chooses: write str",
    "Json": "its value is no longer the text that it is validated from: write the type itself",
    "EncodedBytes": "its value is no longer the text that it is validated from: write bytes",
    "EncodedStr": "its value is no longer the text that it is validated from: write str",
}
"""Pydantic's types whose values, once they have been sent, cannot be validated again."""


def is_model(annotation: Any) -> bool:
    """Return whether an annotation is a model or a Pydantic dataclass."""
    cls = get_origin(annotation) or annotation
    return isinstance(cls, type) and hasattr(cls, "__pydantic_validator__")


def config_of(cls: Any) -> Any:
    """Return the configuration of a model or a Pydantic dataclass."""
    return getattr(cls, "model_config", None) or getattr(cls, "__pydantic_config__", None) or {}


def model_converter(
    annotation: Any, make: Make, adapt: Adapt, names: Names
) -> Callable[[Any, Read], Any]:
    """Return a function that converts a value to an instance of a model.

    Args:
        annotation: the model.
        make: makes the instance from its fields.
        adapt: adapts the annotation of a field. It raises Ambiguous for a union whose member only
            Pydantic can choose.
        names: the names that the annotations of fields may use.

    Raises:
        TypeError: no value could ever fit it.
    """
    cls = get_origin(annotation) or annotation
    if getattr(cls, "__pydantic_root_model__", False):
        return _root_converter(cls, adapt, names, make)
    if model_keys(cls) is None:
        raise TypeError(f"{cls.__name__} is a kind of model that cannot be taken apart")
    return _converter(_parts(annotation, cls, adapt, names), _extra(cls, adapt, names), make)


def dataclass_converter(
    annotation: Any, make: Make, adapt: Adapt, names: Names
) -> Callable[[Any, Read], Any]:
    """Return the converter of a standard dataclass in a model, as :func:`model_converter` does."""
    record = record_of(annotation, names)
    cls = get_origin(annotation) or annotation
    fields = [] if record is None else record.fields
    parts = {one.key: _part(_Place(cls, one.name), one.annotation, adapt, names) for one in fields}
    return _converter(parts, None, make)


def _converter(
    parts: Mapping[str, Part | None], extra: Part | None, make: Make
) -> Callable[[Any, Read], Any]:
    def convert(value: Any, read: Read) -> Any:
        if type(value) is dict and is_needed:
            value = converted(value, read)
        try:
            return make(value)
        except Exception as exc:
            if not is_complaint(exc):
                raise
            raise Verdict(complaint_of(exc), count_of(exc)) from None

    def converted(value: dict[Any, Any], read: Read) -> dict[Any, Any]:
        read.spend(len(value))
        made: dict[Any, Any] = {}
        refused: dict[Any, Verdict] = {}
        for key, item in value.items():
            part = parts.get(key, extra)
            try:
                made[key] = item if part is None else part(item, read)
            except Verdict as exc:
                refused[key] = exc
        if refused:
            raise _all_of(refused, make, made)
        return made

    is_needed = extra is not None or any(parts.values())
    return convert


def _all_of(refused: dict[Any, Verdict], make: Make, rest: Any) -> Verdict:
    """Combine the errors of some fields with Pydantic's errors about the others."""
    key, first = next(iter(refused.items()))
    count = sum(one.count for one in refused.values())
    try:
        make(rest)
    except Exception as exc:  # noqa: BLE001 - validators of the class miss the refused fields
        if is_complaint(exc) and count_of(exc) <= MAX_ERRORS:
            count += sum(tuple(one["loc"])[:1] != (key,) for one in errors_of(exc))
    more = f" (and {count - 1} more)" if count > 1 else ""
    text = _MORE.sub(lambda found: more + (found[1] or ""), str(first), count=1)
    return Verdict(f"{text} - at `$.{one_line(str(key), 200)}`", count)


_MORE: Final = re.compile(r"(?: \(and [0-9]+ more\))?((?: - at `\$[^`]*`)*)\Z")


def _root_converter(cls: Any, adapt: Adapt, names: Names, make: Make) -> Callable[[Any, Read], Any]:
    field = (model_fields(cls) or {})["root"]
    part = _part(_Place(cls, "root", field.metadata), field.annotation, adapt, names)
    whole = _converter({}, None, make)

    def convert(value: Any, read: Read) -> Any:
        as_it_is = part is None or type(value) is cls
        return whole(value if as_it_is else part(value, read), read)  # type: ignore[misc]

    return convert


# ── fields ───────────────────────────────────────────────────────────────────────────────────


def _parts(annotation: Any, cls: Any, adapt: Adapt, names: Names) -> dict[str, Part | None]:
    """Map each key that a field is validated from to its converter; None if it needs none."""
    arguments = dict(zip(getattr(cls, "__parameters__", ()), get_args(annotation), strict=False))
    parts: dict[str, Part | None] = {}
    for name, field in (model_fields(cls) or {}).items():
        if getattr(field, "init_var", False):
            raise TypeError(
                f"{cls.__name__} has the InitVar {name!r}, which is not sent: make it a field"
            )
        keys = keys_of(cls, name, field)
        if not keys:
            raise TypeError(
                f"field {name!r} of {cls.__name__} is read only from an AliasPath, under which it"
                " is never sent: give it AliasChoices with a name, or the model"
                " validate_by_name=True"
            )
        wanted = substitute(field.annotation, arguments)
        for one in (field.discriminator, *field.metadata):
            if _is_of(one, "Discriminator"):
                wanted = Annotated[wanted, one]
        tagged = () if field.discriminator is None else (field.annotation,)
        part = _part(_Place(cls, name, field.metadata, tagged), wanted, adapt, names)
        parts |= dict.fromkeys(keys, part)
    return parts


def keys_of(cls: Any, name: str, field: Any) -> list[str]:
    """Return the keys that a field may be validated from; the first that a value has counts."""
    alias = field.validation_alias
    config = config_of(cls)
    by_name = config.get("validate_by_name") or config.get("populate_by_name")
    keys = [one for one in (alias, *getattr(alias, "choices", ())) if isinstance(one, str)]
    if alias is None or by_name:
        return [*keys, name]
    return keys


def _extra(cls: Any, adapt: Adapt, names: Names) -> Part | None:
    """Return the converter of values under other keys, if the model annotates their type."""
    for base in cls.__mro__:
        annotation = inspect.get_annotations(base).get("__pydantic_extra__")
        if annotation is not None and base.__module__ != "pydantic.main":
            args = get_args(names.resolve("__pydantic_extra__", annotation))
            return _part(_Place(cls, "__pydantic_extra__"), args[1], adapt, names) if args else None
    return None


def pydantic_type(cls: Any, adapt: Adapt, *, is_in_model: bool) -> Any:
    """Return the adapter of a class that Pydantic can make, such as ``HttpUrl``; None for others.

    In a field of a model, Pydantic itself makes it.
    """
    stands_for = _DATES.get(cls.__name__) if cls.__module__ == "pydantic.types" else None
    simpler = Any if stands_for is None else adapt(stands_for)
    if is_in_model:
        return None if stands_for is None else simpler
    if not hasattr(cls, "__get_pydantic_core_schema__") or "pydantic" not in sys.modules:
        return None
    refuse_unsendable([cls], "a value")
    make = type_adapter(cls).validator.validate_python

    def convert(value: Any, read: Read) -> Any:
        return value if isinstance(value, cls) else made(read_simpler(value, read), read)

    made, read_simpler = _converter({}, None, make), reader(simpler)
    return adapter(cls.__name__, convert, MADE_BY_PYDANTIC + leaf_cost(cls))


def tagged_union(annotation: Any, about: Sequence[Any], adapt: Adapt) -> Any:
    """Return the adapter of a union whose member is chosen by a function, or None for others.

    Args:
        annotation: the union. Annotated gives each of its members a tag.
        about: the metadata that Annotated adds to the union. It includes the function, which
            returns the tag of a value.
        adapt: adapts a member.
    """
    function = next((one.discriminator for one in about if _is_of(one, "Discriminator")), None)
    if not callable(function) or get_origin(annotation) not in UNIONS:
        return None
    tell: Callable[[Any], Any] = function
    members = {
        one.tag: reader(adapt(get_args(member)[0]))
        for member in get_args(annotation)
        for one in get_args(member)
        if _is_of(one, "Tag")
    }

    def convert(value: Any, read: Read) -> Any:
        try:
            tag = tell(value)
        except Exception as exc:
            raise TypeError(f"the discriminator of the union raised {type(exc).__name__}") from exc
        if not _has_hash(tag) or tag not in members:
            raise TypeError(f"no member of the union has the tag {one_line(repr(tag), 100)}")
        return members[tag](value, read)

    return adapter("Union", convert, TAGGED)


def _is_of(one: Any, name: str) -> bool:
    return type(one).__name__ == name and type(one).__module__.startswith("pydantic")


def refuse_unsendable(found: Iterable[Any], where: str) -> None:
    """Raise TypeError for one of Pydantic's types whose values cannot be validated again."""
    for one in found:
        kind = one if isinstance(one, type) else type(one)
        if kind.__module__ == "pydantic.types" and kind.__name__ in _NEVER:
            raise TypeError(f"{where} cannot be a {kind.__name__}: {_NEVER[kind.__name__]}")


class _Place(NamedTuple):
    """A field of a class, with the metadata that Annotated adds."""

    cls: Any
    name: str
    metadata: Sequence[Any] = ()
    tagged: Sequence[Any] = ()
    """The annotation, if Pydantic chooses the member of this union by the value of a field."""


def _part(place: _Place, annotation: Any, adapt: Adapt, names: Names) -> Part | None:
    """Return the converter of one field; None if Pydantic can take any value as it arrives."""
    cls, name, metadata, _ = place
    found = [*metadata, *_inside(annotation, names, set())]
    refuse_unsendable(found, f"field {name!r} of {cls.__name__}")
    tagged = [*place.tagged, *_tagged(found)]
    multiplies = _multiplied(found, tagged, names)
    if multiplies is None and _is_plain(annotation):
        for one in filter(is_model, found):
            adapt.note(get_origin(one) or one)
        return None
    has_table, has_bytes = (
        any(map(_is_table, found)),
        any(one in _BYTES for one in found if _has_hash(one)),
    )
    looks_first = _is_looked_at(cls, name, metadata)
    if multiplies is not None and looks_first:
        raise _tell_apart(place, multiplies)
    try:
        adapted = adapt(annotation, as_dicts=looks_first or None)
    except Ambiguous:
        if multiplies is not None:
            raise _tell_apart(place, multiplies) from None
        if has_table or has_bytes:
            raise
        return None  # Pydantic has its own rules for such a union
    except TypeError as exc:
        raise TypeError(f"field {name!r} of {cls.__name__}: {exc}") from exc
    if adapted is Any or adapted is object:
        return None
    leaves = _leaves(annotation)
    dearest = max(map(leaf_cost, found))
    keeps_whole = has_table or multiplies is not None
    read_it = reader(adapted)

    def convert(value: Any, read: Read) -> Any:
        if type(value) in leaves:
            return value
        try:
            return read_it(value, read)
        except (TypeError, ValueError) as exc:
            is_final = isinstance(exc, Verdict) and not looks_first
            if (
                is_final
                or has_bytes
                or (keeps_whole and type(value) in (list, dict, tuple, set, frozenset))
            ):
                count = getattr(exc, "count", 1)
                raise Verdict(str(exc), count) from None
            read.spend(FAILED + dearest * count_values(value))  # Pydantic converts all of it
            return value

    return convert


def _multiplied(found: Sequence[Any], tagged: Sequence[Any], names: Names) -> Any:
    """Return a union that Pydantic alone would take exponential time for, or None.

    Pydantic validates a value by each member. If two of the members contain the union again, each
    level of nesting doubles the time.

    Args:
        found: the annotations inside a field.
        tagged: the unions whose member Pydantic chooses by the value of a field.
        names: the names that the annotations may use.
    """
    for union in found:
        if get_origin(union) in UNIONS and union not in tagged:
            again = [one for one in get_args(union) if union in [*_inside(one, names, set())]]
            if len(again) > 1:
                return union
    return None


def _tagged(found: Sequence[Any]) -> Iterator[Any]:
    for one in found:
        if get_origin(one) is Annotated:
            bare, *about = get_args(one)
            if any(getattr(more, "discriminator", None) for more in about):
                yield bare
        if is_model(one):
            for field in (model_fields(get_origin(one) or one) or {}).values():
                if field.discriminator is not None:
                    yield field.annotation


def _tell_apart(place: _Place, union: Any) -> TypeError:
    return TypeError(
        f"field {place.name!r} of {place.cls.__name__}: {union} contains itself, so that Pydantic"
        " would take twice as long for each level of nesting: give each of its models a field with"
        " a Literal of its own, and name that field in Field(discriminator=...)"
    )


def _is_looked_at(cls: Any, name: str, metadata: Any) -> bool:
    """Return whether a validator of the model sees a field's value before Pydantic does."""
    decorators = getattr(cls, "__pydantic_decorators__", None)
    if decorators is None:
        return False
    fields = [*decorators.field_validators.values(), *decorators.validators.values()]
    return (
        any(one.info.mode != "after" for one in decorators.model_validators.values())
        or any(
            one.info.mode != "after" and not {name, "*"}.isdisjoint(one.info.fields)
            for one in fields
        )
        or any(type(one).__name__ in _LOOKING for one in metadata)
    )


_LOOKING: Final = frozenset({"BeforeValidator", "PlainValidator", "WrapValidator"})


def _is_plain(annotation: Any, within: frozenset[Any] = frozenset()) -> bool:
    """Return whether Pydantic can take any value that arrives for an annotation as it is."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is None:
        if annotation in within or not _has_hash(annotation) or annotation in _PLAIN:
            return _has_hash(annotation)
        return _is_plain_model(annotation, within | {annotation})
    if origin is Annotated:
        return _is_plain(args[0], within)
    if origin is Literal:
        return all(type(one) in (str, int, types.NoneType) for one in args)
    if origin is dict and args:
        return args[0] is str and _is_plain(args[1], within)
    return (origin is list or origin in UNIONS) and all(_is_plain(one, within) for one in args)


def _is_plain_model(cls: Any, within: frozenset[Any]) -> bool:
    return (
        is_model(cls)
        and not dataclasses.is_dataclass(cls)
        and all(_is_plain(one.annotation, within) for one in (model_fields(cls) or {}).values())
        and inspect.get_annotations(cls).get("__pydantic_extra__") is None
    )


def _leaves(annotation: Any) -> frozenset[type]:
    members = get_args(annotation) if get_origin(annotation) in UNIONS else (annotation,)
    return frozenset(
        one
        for one in members
        if _has_hash(one) and (one in _LEAVES or one in (str, types.NoneType))
    )


def _has_hash(one: Any) -> bool:
    try:
        hash(one)
    except TypeError:
        return False
    return True


def _is_table(annotation: Any) -> bool:
    origin = get_origin(annotation) or annotation
    args = get_args(annotation)
    if not _has_hash(origin):
        return False
    if origin in _KEYED:
        return needs_guard(dict, (*args, int)[:2]) if args else False
    return needs_guard(origin, args)


def _inside(annotation: Any, names: Names, seen: set[Any]) -> Iterator[Any]:
    """Yield an annotation and everything inside it, including the fields of classes."""
    if not _has_hash(annotation) or annotation in seen:
        if isinstance(annotation, list):  # the arguments of a function
            for one in annotation:
                yield from _inside(one, names, seen)
        return
    seen.add(annotation)
    yield annotation
    for one in (*get_args(annotation), aliased(annotation)):
        yield from _inside(one, names, seen)
    if is_model(annotation):
        cls = get_origin(annotation) or annotation
        for field in (model_fields(cls) or {}).values():
            yield from field.metadata
            yield from _inside(field.annotation, names, seen)
        return
    try:
        record = record_of(annotation, names)
    except TypeError:
        return  # adapting the annotation will raise this
    for one in () if record is None else record.fields:
        yield from _inside(one.annotation, names, seen)

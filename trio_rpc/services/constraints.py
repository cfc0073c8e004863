"""Constraints that ``Annotated`` adds to a type: those of Pydantic and of annotated_types.

Pydantic checks them, after the value has been converted to the type like any other value. It
ignores ``annotated_types.Timezone``, which is checked here. msgspec checks its own ``Meta``. Other
metadata is ignored, as type checkers ignore it.

In a field of a model, Pydantic checks the whole field, so this module is not used.
"""

from __future__ import annotations

import datetime as dt
import zoneinfo
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, Final, get_origin

from trio_rpc.services.adapters import Verdict, adapter, reader
from trio_rpc.services.costs import MADE_BY_PYDANTIC, OTHER, Read
from trio_rpc.services.makers import complaint_of, count_of, is_complaint, type_adapter
from trio_rpc.services.models import refuse_unsendable
from trio_rpc.util.text import one_line

__all__ = ["constrained", "constraints_in"]

_NO_CONSTRAINTS: Final = frozenset(
    {
        "Discriminator",
        "DocInfo",
        "Examples",
        "PlainSerializer",
        "SerializeAsAny",
        "SkipValidation",
        "Tag",
        "WithJsonSchema",
        "WrapSerializer",
    }
)
"""Metadata of Pydantic and annotated_types that does not constrain the value."""

_LOOKING: Final = frozenset({"BeforeValidator", "PlainValidator", "WrapValidator"})
"""Validators that get the value as it arrived."""

_TYPES: Final = frozenset({int, float, str, bytes, bool, list, dict, set, frozenset, tuple})
"""Types that are passed to Pydantic, since some constraints apply only to their values."""


def constraints_in(about: Iterable[Any]) -> list[Any]:
    """Return the constraints in the metadata of ``Annotated`` that Pydantic checks."""
    return [*_constraints(about)]


def _constraints(about: Iterable[Any]) -> Iterator[Any]:
    for one in about:
        kind = one if isinstance(one, type) else type(one)
        library = kind.__module__.partition(".")[0]
        if kind.__name__ == "FieldInfo" and library == "pydantic":
            yield from _constraints(one.metadata)
        elif library in {"pydantic", "annotated_types"} and kind.__name__ not in _NO_CONSTRAINTS:
            yield one


def constrained(bare: Any, adapted: Any, constraints: list[Any]) -> Any:
    """Return the adapter of a type with constraints.

    Args:
        bare: the type.
        adapted: the adapted type.
        constraints: the result of :func:`constraints_in`, at least one constraint.

    Raises:
        TypeError: Pydantic is not installed, or cannot check this constraint of this type.
    """
    zones = [_zone_check(one.tz) for one in constraints if type(one).__name__ == "Timezone"]
    constraints = [one for one in constraints if type(one).__name__ != "Timezone"]
    if zones:
        adapted = adapter("a time", _in_zones(reader(adapted), zones), OTHER)
    if not constraints:
        return adapted
    shown = f"the constraint {constraints[0]!r}"
    refuse_unsendable(constraints, "a value")
    try:
        import pydantic  # noqa: F401, PLC0415 - only where a constraint needs it
    except ImportError:
        raise TypeError(
            f"{shown} can be checked only by Pydantic, which is not installed: install it, or write"
            " a constraint of msgspec, such as msgspec.Meta(gt=0)"
        ) from None
    cls = get_origin(bare) or bare
    check = _checker(cls if cls in _TYPES else Any, bare, constraints, shown)
    if any(type(one).__name__ == "UrlConstraints" for one in constraints):
        check = _of_text(check)
    looks_first = any(type(one).__name__ in _LOOKING for one in constraints)
    return adapter(
        getattr(cls, "__name__", str(cls)),
        _converter(reader(adapted), check, looks_first=looks_first),
        OTHER + MADE_BY_PYDANTIC,
    )


def _checker(known: Any, bare: Any, constraints: list[Any], shown: str) -> Callable[[Any], Any]:
    """Return the function of Pydantic that checks a value.

    Some constraints, such as the version of a UUID, are only for one type, which is then named. All
    others are checked without it, because Pydantic does not know every type.
    """
    failures: list[Exception] = []
    for wanted in (known, bare):
        try:
            made = type_adapter(Annotated[(wanted, *constraints)])
            return made.validator.validate_python  # type: ignore[no-any-return]
        except Exception as exc:  # noqa: BLE001 - Pydantic has many, and its types may have others
            failures.append(exc)
    why = next(iter(str(failures[0]).splitlines()), "")
    raise TypeError(f"Pydantic cannot check {shown}: {one_line(why)}") from failures[0]


def _of_text(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a function that checks the text of a URL: Pydantic accepts URLs without checking."""
    return lambda value: check(str(value))


def _converter(
    read_bare: Callable[[Any, Read], Any], check: Callable[[Any], Any], *, looks_first: bool
) -> Callable[[Any, Read], Any]:
    def convert(value: Any, read: Read) -> Any:
        try:
            value = read_bare(value, read)
        except (TypeError, ValueError):
            if not looks_first:
                raise
        try:
            return check(value)
        except Exception as exc:
            if not is_complaint(exc):
                raise
            raise Verdict(complaint_of(exc), count_of(exc)) from None

    return convert


def _in_zones(
    read_bare: Callable[[Any, Read], Any], checks: list[Callable[[Any], None]]
) -> Callable[[Any, Read], Any]:
    def convert(value: Any, read: Read) -> Any:
        value = read_bare(value, read)
        for check in checks:
            check(value)
        return value

    return convert


def _zone_check(wanted: Any) -> Callable[[Any], None]:
    """Return a function that raises ValueError for a time that does not satisfy ``Timezone``.

    Names of zones do not travel, so a time fits a zone if it has the zone's offset at that time.

    Args:
        wanted: None for a time without an offset, ``...`` for one with an offset, or the zone.

    Raises TypeError for an unknown zone.
    """
    zone: Any = wanted
    if isinstance(wanted, str):
        try:
            zone = zoneinfo.ZoneInfo(wanted)
        except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
            raise TypeError(f"there is no time zone {wanted!r}") from None

    def fits(value: Any) -> bool:
        offset = value.utcoffset()
        if zone is None or zone is ... or offset is None:
            return (offset is None) is (zone is None)
        either = {value.replace(tzinfo=zone, fold=fold).utcoffset() for fold in (0, 1)}
        return offset in either or either == {None}  # a time without a date may have no offset

    where = {None: "without an offset", ...: "with an offset"}.get(wanted, f"in the zone {wanted}")

    def check(value: Any) -> None:
        if isinstance(value, (dt.datetime, dt.time)) and not fits(value):
            raise ValueError(f"Expected a time {where}, got `{value.isoformat()}`")

    return check

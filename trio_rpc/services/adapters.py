"""Stand-ins for the types that msgspec does not take: classes made on the spot that convert by a function.

msgspec takes such a class for a custom type and hands the value to our hook, which calls the function.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, ClassVar, Final, TypeAlias

import msgspec

__all__ = [
    "Adapter",
    "AdapterType",
    "Ambiguous",
    "Read",
    "Verdict",
    "adapter",
    "joined_paths",
    "reader",
]

Read: TypeAlias = Callable[[Any, Any], Any]
"""Converts a value to an adapted annotation: ``convert_to``, or what another form of values has for it."""

_PATHS: Final = re.compile(r"((?: - at (?:`key` in )?`\$[^`]*`)+)\Z")
_IN_PART: Final = re.compile(r" - at (`key` in )?`\$\[0\]([^`]*)`\Z")
_PATH: Final = re.compile(r"(`key` in )?`\$([^`]*)`")


class Ambiguous(TypeError):
    """An annotation is refused, since nothing tells which member of a union a value is meant to be."""


class Verdict(TypeError):
    """A value does not fit, and nothing is gained by giving it to the class round it as it came.

    Attributes:
        count: how many errors there are in it.
    """

    def __init__(self, text: str, count: int = 1) -> None:
        super().__init__(text)
        self.count = count


class AdapterType(type):
    """The class of all stand-ins."""

    # msgspec checks what the hook returned against the type it asked for.
    def __instancecheck__(cls, instance: object) -> bool:
        """Say yes to whatever the function has returned."""
        return True


class Adapter(metaclass=AdapterType):
    """Stands in an annotation for a type that msgspec does not take."""

    convert: ClassVar[Callable[[Any, Read], Any]]


def adapter(name: str, convert: Callable[[Any, Read], Any]) -> Any:
    """Make a stand-in that converts by ``convert``, which is given the value and what converts its parts."""
    return AdapterType(name, (Adapter,), {"convert": staticmethod(convert)})


def reader(adapted: Any) -> Callable[[Any, Read], Any]:
    """Return what converts a part of a value, within the function of a stand-in.

    It raises TypeError or ValueError, whose text ends with the path of what does not fit: to it msgspec adds the
    path to the part.
    """
    if isinstance(adapted, AdapterType):  # without msgspec, which only calls it
        part: Any = adapted
        return lambda value, read: part.convert(value, read)
    if isinstance(adapted, type) and issubclass(adapted, msgspec.Struct):
        return lambda value, read: _read(value, adapted, read)
    # msgspec remembers what it found out about a Struct, and not about anything else.
    shape: Any = msgspec.defstruct("Part", [("value", adapted)], array_like=True)

    def convert(value: Any, read: Read) -> Any:
        try:
            return read((value,), shape).value
        except msgspec.ValidationError as exc:
            raise _without_path(exc, _IN_PART.sub(_of_part, str(exc))) from None

    return convert


def _read(value: Any, adapted: Any, read: Read) -> Any:
    try:
        return read(value, adapted)
    except msgspec.ValidationError as exc:
        raise _without_path(exc, str(exc)) from None


def _without_path(exc: Exception, text: str) -> TypeError:
    cause = exc.__cause__
    return Verdict(text, cause.count) if isinstance(cause, Verdict) else TypeError(text)


def _of_part(found: re.Match[str]) -> str:
    key, path = found.groups("")
    return f" - at {key}`${path}`" if key or path else ""


def joined_paths(text: str) -> str:
    """Make one path of those that a text ends with, each of a part of the next."""
    found = _PATHS.search(text)
    if found is None:
        return text
    whole, key = "", ""
    for in_key, path in reversed(_PATH.findall(found[1])):
        whole += path
        if in_key:  # msgspec does not tell where in a key
            key = in_key
            break
    return text[: found.start()] + (f" - at {key}`${whole}`" if whole or key else "")

"""Stand-ins for types that msgspec does not support: classes that convert with a function.

The classes are created at run time. msgspec treats such a class as a custom type and passes the
value to our hook, which calls the function.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, ClassVar, Final

import msgspec

from trio_rpc.services.costs import Read

__all__ = [
    "Adapter",
    "AdapterType",
    "Ambiguous",
    "Read",
    "Verdict",
    "adapter",
    "define",
    "joined_paths",
    "reader",
]

_PATHS: Final = re.compile(r"((?: - at (?:`key` in )?`\$[^`]*`)+)\Z")
_IN_PART: Final = re.compile(r" - at (`key` in )?`\$\[0\]([^`]*)`\Z")
_LONGEST_PATHS: Final = 10_000
"""The end of a text in which paths are sought. Before it may be 16 MiB of the value itself."""
_PATH: Final = re.compile(r"(`key` in )?`\$([^`]*)`")


class Ambiguous(TypeError):
    """An annotation is refused because a value may belong to either of two union members."""


class Verdict(TypeError):
    """A value does not fit, and passing it unconverted to the enclosing class would not help.

    Attributes:
        count: the number of errors in it.
    """

    def __init__(self, text: str, count: int = 1) -> None:
        super().__init__(text)
        self.count = count


class AdapterType(type):
    """The metaclass of all stand-ins."""

    # msgspec checks the hook's result against the type it asked for.
    def __instancecheck__(cls, instance: object) -> bool:
        """Return True, so that msgspec accepts every result of the function."""
        return True


class Adapter(metaclass=AdapterType):
    """Stands in an annotation for a type that msgspec does not support."""

    convert: ClassVar[Callable[[Any, Read], Any]]
    instances_of: ClassVar[type | None] = None
    """The class whose instances alone are accepted, as they are; None if it is something else."""


def adapter(name: str, convert: Callable[[Any, Read], Any], cost: int) -> Any:
    """Return a stand-in that converts with a function.

    Args:
        name: its name in error messages.
        convert: gets the value, and the function that reads its parts.
        cost: the units that one conversion costs, without those of the parts.
    """
    mine = AdapterType(name, (Adapter,), {})
    define(mine, convert, cost)
    return mine


def define(mine: Any, convert: Callable[[Any, Read], Any], cost: int) -> None:
    """Set the function of a stand-in. The arguments are as for :func:`adapter`."""

    def counted(value: Any, read: Read) -> Any:
        read.left -= cost  # as read.spend() does, without a call
        if read.left < 0:
            read.spend(0)
        return convert(value, read)

    mine.convert = staticmethod(counted)


def reader(adapted: Any) -> Callable[[Any, Read], Any]:
    """Return the function that converts one part of a value inside a stand-in's function.

    The returned function raises TypeError or ValueError. The text ends with the path of the value
    that does not fit, and msgspec adds the path to the part after it.
    """
    if isinstance(adapted, AdapterType):  # without msgspec, which would only call it
        part: Any = adapted
        return lambda value, read: part.convert(value, read)
    if isinstance(adapted, type) and issubclass(adapted, msgspec.Struct):
        return lambda value, read: _read(value, adapted, read)
    # msgspec caches its type information for a Struct, but for nothing else.
    shape: Any = msgspec.defstruct("Part", [("value", adapted)], array_like=True)

    def convert(value: Any, read: Read) -> Any:
        try:
            return read((value,), shape).value
        except msgspec.ValidationError as exc:
            raise _without_path(exc, _of_value(str(exc))) from None

    return convert


def _read(value: Any, adapted: Any, read: Read) -> Any:
    try:
        return read(value, adapted)
    except msgspec.ValidationError as exc:
        raise _without_path(exc, str(exc)) from None


def _without_path(exc: Exception, text: str) -> TypeError:
    cause = exc.__cause__
    return Verdict(text, cause.count) if isinstance(cause, Verdict) else TypeError(text)


def _of_value(text: str) -> str:
    """Return the text of an error in a ``Part`` as that of an error in its value."""
    found = _IN_PART.search(text, max(0, len(text) - _LONGEST_PATHS))
    if found is None:
        return text
    key, path = found.groups("")
    return text[: found.start()] + (f" - at {key}`${path}`" if key or path else "")


def joined_paths(text: str) -> str:
    """Join the paths at the end of a text into one.

    Each path starts at the part of the value that the next path leads to.
    """
    found = _PATHS.search(text, max(0, len(text) - _LONGEST_PATHS))
    if found is None:
        return text
    whole, key = "", ""
    for in_key, path in reversed(_PATH.findall(found[1])):
        whole += path
        if in_key:  # msgspec does not report a path inside a key
            key = in_key
            break
    return text[: found.start()] + (f" - at {key}`${whole}`" if whole or key else "")

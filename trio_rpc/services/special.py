"""Adapters for types of the standard library that msgspec does not support."""

from __future__ import annotations

import collections
import collections.abc
import contextlib
import enum
import fractions
import inspect
import io
import os
import pathlib
import re
import types
import typing
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, Generic, Literal, Protocol, Union, get_args, get_origin

import msgspec
import trio

from trio_rpc.services.adapters import Ambiguous, adapter, reader
from trio_rpc.services.aliases import bare
from trio_rpc.services.costs import (
    COLLECTION,
    DIGITS,
    ENUM,
    FRACTION,
    OTHER,
    PATH_CHARACTERS,
    Read,
    text_cost,
)
from trio_rpc.services.flags import maker_of_flags
from trio_rpc.services.records import is_typed_dict, unpacked
from trio_rpc.util.text import one_line
from trio_rpc.wire.simpler import ADDRESSES, MAX_FRACTION
from trio_rpc.wire.to_msgpack import keeps_its_type

__all__ = [
    "NEVER",
    "NO_TYPES",
    "check_apart",
    "container",
    "enumeration",
    "is_plain_enum",
    "literal",
    "nested_tuple",
    "special",
    "why_no_type",
]

Adapt = Callable[[Any], Any]

_BARE: Final = (str, int, float, bytes, list, tuple, dict, set, frozenset)
"""Types whose subclasses arrive as the type itself."""

_NEVER: Final[dict[Any, str]] = {
    type: "a class cannot be sent: send its name",
    collections.abc.Iterator: "an iterator cannot be sent: write list, or AsyncIterator to stream",
    collections.abc.Generator: "a generator cannot be sent: write list, or AsyncIterator to stream",
    collections.abc.Awaitable: "an awaitable cannot be sent: write a Callable that returns one",
    collections.abc.Coroutine: "a coroutine cannot be sent: write a Callable that returns one",
    os.PathLike: "a path arrives as text: write pathlib.Path",
    **dict.fromkeys(
        (typing.TextIO, io.TextIOBase, io.TextIOWrapper),
        "a file cannot be sent: write str, or AsyncIterator[str]",
    ),
    # io.BytesIO and io.StringIO are values in memory, which a registry may have.
    **dict.fromkeys(
        (
            *(typing.IO, typing.BinaryIO, io.IOBase, io.RawIOBase, io.BufferedIOBase, io.FileIO),
            *(io.BufferedReader, io.BufferedWriter, io.BufferedRandom, io.BufferedRWPair),
        ),
        "a file cannot be sent: write bytes, or AsyncIterator[bytes]",
    ),
    types.FunctionType: "a function is described by its arguments and result: write Callable",
    types.MethodType: "a method is described by its arguments and result: write Callable",
    types.ModuleType: "a module cannot be sent: send its name",
    trio.MemorySendChannel: (
        "a memory channel cannot be sent: write Callable[[...], Awaitable[None]] and pass its send"
        " method, or mark the method with @duplex"
    ),
}

NO_TYPES: Final = (Annotated, Generic, Protocol)
"""Classes, in some versions of Python, that are not types by themselves."""

_FRACTION: Final = re.compile(r"-?[0-9]+/0*[1-9][0-9]*")

_FACTORIES: Final = (int, float, complex, str, bytes, bool, list, dict, set, frozenset, tuple)


def _alike(one: Any, other: Any) -> str:
    value = other.value if isinstance(other, enum.Enum) else other
    shown = " and ".join(map(_shown, (one, other)))
    return f"{shown} both travel as {value!r}, and cannot be told apart: write one of them"


def _shown(one: Any) -> str:
    return f"{type(one).__name__}.{one.name}" if isinstance(one, enum.Enum) else repr(one)


def check_apart(members: Sequence[Any]) -> None:
    """Raise Ambiguous if members of a union are enums or Literals with the same values.

    Args:
        members: the annotations of the members.
    """
    found: dict[Any, tuple[Any, Any]] = {}
    for annotation in map(bare, members):
        for one in _listed(annotation):
            value = one.value if isinstance(one, enum.Enum) else one
            try:
                first, within = found.setdefault((type(value), value), (one, annotation))
            except TypeError:
                continue  # it has no hash
            if within is not annotation and first is not one and type(first) is not type(one):
                raise Ambiguous(_alike(first, one))


def _listed(annotation: Any) -> Sequence[Any]:
    """Return all values of an annotation that lists them, or nothing."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    if annotation in (None, types.NoneType):
        return (None,)
    is_enum = isinstance(annotation, type) and issubclass(annotation, enum.Enum)
    return list(annotation) if is_enum and not issubclass(annotation, enum.Flag) else ()


def _nothing_fits(value: Any, _read: Read) -> Any:
    got = type(value).__name__
    raise TypeError(f"Expected no value, because the annotation is Never, got `{got}`")


NEVER: Final = adapter("Never", _nothing_fits, OTHER)
"""The adapter that no value fits."""


def special(cls: type, adapt: Adapt) -> Any:
    """Return the adapter of a class without arguments, or None if it needs none.

    Raises TypeError if no value could ever fit it.
    """
    _refuse(cls)
    if issubclass(cls, BaseException):
        raise TypeError("an exception cannot be sent as a value: raise it, or send its text")
    if issubclass(cls, pathlib.PurePath):
        cls("x")  # raises if this platform does not have such paths
        return _from_text(cls, PATH_CHARACTERS)
    if cls in ADDRESSES:
        return _from_text(cls)
    if cls is fractions.Fraction:
        return adapter("Fraction", _fraction, FRACTION)
    made = container(cls, (), adapt)
    return made if made is not None else _subclass(cls)


def _refuse(cls: type) -> None:
    if cls in _NEVER:
        raise TypeError(_NEVER[cls])
    if cls.__module__.partition(".")[0] == "trio" and not issubclass(cls, os.PathLike):
        raise TypeError(f"trio.{cls.__name__} cannot be sent: it belongs to its own Trio run")


def why_no_type(annotation: Any) -> str:
    """Return why something is not a type, and what to write instead."""
    name = getattr(annotation, "__name__", None) or getattr(annotation, "_name", None)
    shown = one_line(str(name or repr(annotation)), 100)
    if isinstance(annotation, tuple):
        return f"{shown} is a tuple of types: write tuple[...]"
    if isinstance(annotation, list):
        return f"{shown} is a list of types: write list[...]"
    if isinstance(annotation, dict):
        return f"{shown} is a dict: write dict[...], or a TypedDict"
    if isinstance(annotation, enum.Enum):
        shown = _shown(annotation)
    if isinstance(annotation, (int, bytes, enum.Enum)):
        return f"{shown} is a value: write Literal[{shown}]"
    if annotation is any:
        return "any is a function: write Any"
    if inspect.isroutine(annotation):
        return f"{shown} is a function: write Callable[...] for a function, or the type it returns"
    if isinstance(annotation, types.ModuleType):
        return f"{shown} is a module: write a class in it"
    if getattr(get_origin(annotation), "_name", None) in ("TypeGuard", "TypeIs"):
        return f"{shown} has a meaning only for type checkers: write bool"
    if type(annotation).__name__ == "PydanticRecursiveRef":
        return (
            "a generic model of Pydantic that contains itself cannot be checked: write a model"
            " without type variables, or a dataclass"
        )
    return f"{shown} is not a type of values: write the type that the values have"


def container(cls: type, args: Sequence[Any], adapt: Adapt) -> Any:
    """Return the adapter of a container from the module ``collections``, or None for others."""
    _refuse(cls)
    if cls is collections.deque:
        items: Any = list[adapt(args[0])] if args else list  # type: ignore[misc]
        return _made_of(cls, items, collections.deque)
    if cls is collections.Counter:
        counts: Any = dict[args[0] if args else Any, int]  # type: ignore[misc]
        return _made_of(cls, adapt(counts), collections.Counter)
    if cls is collections.OrderedDict:
        return _made_of(cls, _dict(args, adapt), collections.OrderedDict)
    if cls is collections.defaultdict:
        item = get_origin(args[1]) or args[1] if args else None
        factory: Any = item if item in _FACTORIES else None
        return _made_of(
            cls, _dict(args, adapt), lambda made: collections.defaultdict(factory, made)
        )
    if cls in _LOOSE and args:
        return _each_of(cls, args[0], adapt)
    return None


_LOOSE: Final = (
    collections.abc.Iterable,
    collections.abc.Reversible,
    collections.abc.Container,
)
"""Classes of many containers. msgspec checks that a value is one, but not its items."""


def _each_of(cls: type, item: Any, adapt: Adapt) -> Any:
    """Return the adapter of a loose class. It converts the items, and keeps the container."""
    items: Any = {list: list[item], tuple: tuple[item, ...]}
    read = {kind: reader(adapt(one)) for kind, one in items.items()}
    for kind in (set, frozenset):
        with contextlib.suppress(TypeError):  # no set has such items
            read[kind] = reader(adapt(kind[item]))

    def convert(value: Any, reading: Read) -> Any:
        if not isinstance(value, cls):
            raise TypeError(f"Expected `{cls.__name__}`, got `{type(value).__name__}`")
        read_it = read.get(type(value))
        return value if read_it is None else read_it(value, reading)

    return adapter(cls.__name__, convert, COLLECTION)


def nested_tuple(args: Sequence[Any], adapt: Adapt) -> Any:
    """Adapt a tuple that contains unpacked tuples, of which at most one can have any length."""
    flat: list[Any] = []
    for one in args:
        more = unpacked(one)
        flat += [one] if more is None else [more] if more[1:] == (...,) else more
    middle = next((index for index, one in enumerate(flat) if isinstance(one, tuple)), None)
    if middle is None:
        return adapt(tuple[tuple(flat)])  # type: ignore[misc]
    each = [adapt(one[0] if isinstance(one, tuple) else one) for one in flat]
    return _long_tuple(each[:middle], each[middle], each[middle + 1 :])


def _long_tuple(first: Sequence[Any], middle: Any, last: Sequence[Any]) -> Any:
    """Return the adapter of a tuple of any length whose first and last items have other types."""
    read_ends = reader(tuple.__class_getitem__((*first, *last)))
    read_middle = reader(list[middle])
    least, end = len(first) + len(last), len(last)

    def convert(value: Any, read: Read) -> Any:
        if type(value) not in (list, tuple) or len(value) < least:
            raise TypeError(f"Expected `array` of length >= {least}")
        rest = len(value) - end
        ends = read_ends([*value[: len(first)], *value[rest:]], read)
        return (
            *ends[: len(first)],
            *read_middle(list(value[len(first) : rest]), read),
            *ends[len(first) :],
        )

    return adapter("tuple", convert, COLLECTION)


def _dict(args: Sequence[Any], adapt: Adapt) -> Any:
    return adapt(dict[args[0], args[1]]) if args else dict  # type: ignore[valid-type]


def _made_of(cls: type, simpler: Any, make: Callable[[Any], Any]) -> Any:
    read_simpler = reader(simpler)

    def convert(value: Any, read: Read) -> Any:
        return value if type(value) is cls else make(read_simpler(value, read))

    return adapter(cls.__name__, convert, COLLECTION)


def _from_text(cls: type[Any], characters: int = 64) -> Any:
    """Return the adapter of a class that is made of text.

    Args:
        cls: the class.
        characters: the number of characters that cost one more unit.
    """
    name = cls.__name__

    def convert(value: Any, read: Read) -> Any:
        if isinstance(value, cls):
            return value
        if type(value) is not str:
            raise TypeError(f"Expected `{name}`, got `{type(value).__name__}`")
        read.spend(len(value) // characters)
        return cls(value)

    return adapter(name, convert, text_cost(cls))


def _fraction(value: Any, read: Read) -> Any:
    if isinstance(value, fractions.Fraction):
        return value
    # Fraction() itself would also accept "1e1000000000".
    if type(value) is not str or len(value) > MAX_FRACTION or not _FRACTION.fullmatch(value):
        raise TypeError(f"Expected `Fraction`, got `{type(value).__name__}`")
    read.spend(len(value) // DIGITS)
    numerator, _, denominator = value.partition("/")
    return fractions.Fraction(int(numerator), int(denominator))


def _subclass(cls: type) -> Any:
    """Return the adapter of a plain subclass, such as ``class Celsius(float)``, or None.

    A plain subclass has neither ``__new__`` nor ``__init__`` of its own.
    """
    if hasattr(cls, "_fields"):
        return None
    base: Any = next((one for one in _BARE if issubclass(cls, one)), None)
    if base is None or cls is base or is_typed_dict(cls) or cls.__module__ == "builtins":
        return None
    if cls.__new__ is not base.__new__ or cls.__init__ is not base.__init__:  # type: ignore[misc]
        return None

    read_base = reader(base)

    def convert(value: Any, read: Read) -> Any:
        return value if isinstance(value, cls) else cls(read_base(value, read))

    return adapter(cls.__name__, convert, OTHER)


# ── enums and literals ───────────────────────────────────────────────────────────────────────


def is_plain_enum(cls: type[enum.Enum]) -> bool:
    """Return whether the values of an enum are exactly its members, which is not so for flags."""
    return not issubclass(cls, enum.Flag)


def enumeration(cls: type[enum.Enum], adapt: Adapt) -> Any:
    """Return the adapter of an enum that msgspec does not support.

    Raises TypeError if no value that arrives could be one of its members.
    """
    if not cls.__members__:
        raise TypeError(f"{cls.__name__} has no members, so no value fits: write an enum with some")
    is_flag = issubclass(cls, enum.Flag)
    make: Callable[[Any], Any] = maker_of_flags(cls) if issubclass(cls, enum.Flag) else cls
    if not is_flag:
        for member in cls:
            if not keeps_its_type(member.value) and not _is_bare(member.value):
                kind = type(member.value).__name__
                raise TypeError(
                    f"the value of {cls.__name__}.{member.name} is a {kind}, which arrives as"
                    " another type: give the members values of built-in types"
                )

    lists = [member.value for member in cls if type(member.value) is list]
    read_member = None if is_flag else _reader_of_members(cls, adapt)

    def convert(value: Any, read: Read) -> Any:
        if isinstance(value, cls):
            return value
        if read_member is not None:
            member = read_member(value, read)
            if member is not None:
                return member
        if type(value) is list:  # a tuple often arrives as a list
            value = value if value in lists else _tuples(value)
        if is_flag and type(value) is not int:
            raise TypeError(f"Expected `{cls.__name__}`, got `{type(value).__name__}`")
        return make(value)

    members = len(cls.__members__) if is_flag or not _are_hashed(cls) else 0
    return adapter(cls.__name__, convert, ENUM + members)


def _reader_of_members(cls: type[enum.Enum], adapt: Adapt) -> Any:
    """Return a function that finds a member by a simpler form of its value, such as JSON's.

    The value of a member may be a date, bytes, a set, or a tuple of these, which JSON has in other
    types. The function returns None for a value without such a member. There is no function if all
    values are of JSON's own types.
    """
    forms: dict[Any, list[enum.Enum]] = {}
    for member in cls:
        forms.setdefault(_type_of(member.value), []).append(member)
    read = [(reader(adapt(one)), members) for one, members in forms.items() if not _is_json(one)]
    if not read:
        return None
    own = {type(member.value) for member in cls}

    def find(value: Any, reading: Read) -> enum.Enum | None:
        if type(value) in own and any(_is_equal(value, member.value) for member in cls):
            return None  # the value of a member as it is
        for read_one, members in read:
            with contextlib.suppress(TypeError, ValueError, msgspec.ValidationError):
                made = read_one(value, reading)
                for member in members:
                    if _is_equal(made, member.value):
                        return member
        return None

    return find


def _is_equal(value: Any, other: Any) -> bool:
    return type(value) is type(other) and bool(value == other)


def _type_of(value: Any) -> Any:
    """Return the annotation of a value, with the types of its items."""
    kind = type(value)
    if kind is tuple:
        return tuple.__class_getitem__(tuple(map(_type_of, value)))
    if kind in (set, frozenset) and value:
        return kind[Union.__getitem__(tuple(map(_type_of, value)))]
    return kind


def _is_json(annotation: Any) -> bool:
    """Return whether values have the same type in JSON, apart from tuples, which are arrays."""
    if get_origin(annotation) is tuple:
        return all(map(_is_json, get_args(annotation)))
    return annotation in (*_BARE[:3], bool, types.NoneType, list, dict, tuple)


def _are_hashed(cls: type[enum.Enum]) -> bool:
    """Return whether Python finds the members of an enum by the hashes of their values."""
    return all(type(member.value).__hash__ is not None for member in cls)


def _is_bare(value: Any) -> bool:
    return isinstance(value, (str, int, float))


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if type(value) is list else value


def literal(members: Sequence[Any]) -> Any:
    """Return the adapter of a Literal with members that are enums, bytes or bools."""
    accepted: dict[Any, Any] = {}
    for member in members:
        value = member.value if isinstance(member, enum.Enum) else member
        first = accepted.setdefault((type(value), value), member)
        if first is not member and type(first) is not type(member):
            raise Ambiguous(_alike(first, member))
        accepted[type(member), member] = member
    shown = ", ".join(map(str, members))
    read_bytes = reader(bytes) if any(type(one) is bytes for one in members) else None

    def convert(value: Any, read: Read) -> Any:
        try:
            if read_bytes is not None and type(value) is str and (str, value) not in accepted:
                value = read_bytes(value, read)  # bytes are text in JSON
            return accepted[type(value), value]
        except (KeyError, TypeError):
            raise ValueError(
                f"Expected one of {shown}, got `{one_line(repr(value), 100)}`"
            ) from None

    return adapter("Literal", convert, OTHER)

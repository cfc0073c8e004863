"""Building the sets and dicts that annotations ask for, guarded against colliding hashes.

The codec guards the sets and maps of the wire. This module guards sets and dicts that only the
annotation asks for: an array that becomes a set, and text that becomes the keys of a dict. msgspec
would build them in one go, however badly their keys collide. So msgspec only converts the items,
and a KeyBuilder builds the table. Text and bytes do not need this, because their hashes depend on a
secret of this process. Neither do types that have only a few values.
"""

from __future__ import annotations

import collections
import collections.abc
import datetime as dt
import enum
import re
import threading
import types
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from itertools import islice
from operator import is_
from pathlib import PurePath
from typing import Annotated, Any, Final, Literal, get_args, get_origin

from trio_rpc.errors import DecodeError
from trio_rpc.services.adapters import adapter, reader
from trio_rpc.services.aliases import UNIONS
from trio_rpc.services.costs import MAPPING, OTHER, PAIR, Read
from trio_rpc.wire.keys import KeyBuilder

__all__ = ["SETS", "check_hash", "guarded_dict", "guarded_set", "mapping", "needs_guard"]

SETS: Final[dict[Any, type]] = {
    set: set,
    frozenset: frozenset,
    collections.abc.Set: set,
    collections.abc.MutableSet: set,
}
"""The annotations of sets, and the class that is built for each."""

DICTS: Final = (dict, collections.abc.Mapping, collections.abc.MutableMapping)

SECRET: Final = frozenset({str, bytes, bool, types.NoneType, None, dt.date})
"""Types whose hashes a peer cannot choose, or that have too few values to make many collide."""

_HASHABLE: Final = {list: "tuple", set: "frozenset", bytearray: "bytes", dict: "a frozen dataclass"}

_PAIR: Final = re.compile(r"`\$\[[0-9]+\]\[([01])\]([^`]*)`\Z")

CHUNK: Final = 64
"""The number of keys that msgspec may put into a dict: so few are fast even if all collide."""


class _Keys(threading.local):
    """The builder of a thread. Ordinary keys replenish the time that one message has used up."""

    def __init__(self) -> None:
        self.builder = KeyBuilder()


_KEYS: Final = _Keys()


def needs_guard(origin: Any, args: tuple[Any, ...]) -> bool:
    """Return whether a peer could choose the hashes in a set or dict built for this annotation."""
    if origin in SETS:
        return not args or not _is_secret(args[0])
    # Keys of any type are not converted, and the codec has guarded them.
    return (
        origin in DICTS and bool(args) and args[0] not in (Any, object) and not _is_secret(args[0])
    )


def _is_secret(annotation: Any) -> bool:
    origin = get_origin(annotation)
    if origin is Literal or annotation in SECRET:
        return True
    if origin is Annotated:
        return _is_secret(get_args(annotation)[0])
    if origin in UNIONS:
        return all(map(_is_secret, get_args(annotation)))
    if hasattr(annotation, "__supertype__"):  # a NewType
        return _is_secret(annotation.__supertype__)
    return (
        isinstance(annotation, type)
        and issubclass(annotation, enum.Enum)
        and not issubclass(annotation, enum.Flag)
    )


def check_hash(annotation: Any, what: str) -> None:
    """Raise TypeError if values of that type can never be items of a set or keys of a dict."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        check_hash(args[0], what)
    elif origin is tuple:
        for one in args:
            check_hash(one, what)
    elif origin in UNIONS:
        return  # one of the members may have a hash
    else:
        cls = origin or annotation
        if isinstance(cls, type) and cls.__hash__ is None:
            raise TypeError(
                f"{what} must have a hash, and a {cls.__name__} has none: {_instead(cls)}"
            )


def _instead(cls: type) -> str:
    if cls in _HASHABLE:
        return f"write {_HASHABLE[cls]}"
    return f"make it frozen, or write list[{cls.__name__}]"


def guarded_set(origin: Any, item: Any = Any, about: tuple[Any, ...] = ()) -> Any:
    """Return the adapter of a set.

    Args:
        origin: the class that the set is annotated with.
        item: the adapted annotation of its items.
        about: the metadata that ``Annotated`` adds.
    """
    made: Any = SETS[origin]
    items: Any = list[item]
    if about:
        items = Annotated[(items, *about)]

    read_all = reader(items)

    def convert(value: Any, read: Read) -> Any:
        read_items = read_all(value, read)
        if type(value) is made and all(map(is_, iter(value), read_items)):
            return value  # the codec has built it
        read.check_items(value, read_items)
        built: set[Any] = set()
        _fill(built.update, read_items, read_items)
        return built if made is set else made(built)

    return adapter(made.__name__, convert, OTHER)


def guarded_dict(origin: Any, key: Any, item: Any, about: tuple[Any, ...] = ()) -> Any:
    """Return the adapter of a dict. The arguments are as for :func:`guarded_set`."""
    part: Any = dict[key, item]
    read_part = reader(part)
    read_whole = reader(Annotated[(part, *about)]) if about else read_part
    check_length = reader(Annotated[(dict, *about)]) if about else None

    def convert(value: Any, read: Read) -> Any:
        if type(value) is not dict or len(value) <= CHUNK or (key is int and _has_ints(value)):
            return _each_once(read_whole(value, read), value)
        if check_length is not None:
            check_length(value, read)
        keys: list[Any] = []
        items: list[Any] = []
        for chunk in _chunks(value):
            read_chunk = _each_once(read_part(chunk, read), chunk)
            keys += read_chunk
            items += read_chunk.values()
        return _each_once(_map(keys, items), keys)

    return adapter(getattr(origin, "__name__", "dict"), convert, OTHER)


def mapping(origin: Any, key: Any, item: Any, about: tuple[Any, ...] = ()) -> Any:
    """Return the adapter of a dict whose keys msgspec would not convert.

    The arguments are as for :func:`guarded_set`.
    """
    pairs: Any = list[tuple[key, item]]
    if about:
        pairs = Annotated[(pairs, *about)]

    read_all = reader(pairs)

    def convert(value: Any, read: Read) -> Any:
        if not isinstance(value, dict):
            raise TypeError(f"Expected `object`, got `{type(value).__name__}`")
        read.spend(PAIR * len(value))
        try:
            read_pairs = read_all(list(value.items()), read)
        except TypeError as exc:
            raise TypeError(_PAIR.sub(_path_in_dict, str(exc))) from None
        keys = [one for one, _ in read_pairs]
        return _each_once(_map(keys, [one for _, one in read_pairs]), keys)

    return adapter(origin.__name__, convert, MAPPING)


def _path_in_dict(found: re.Match[str]) -> str:
    """Turn a path into a list of pairs into a path into the dict, as msgspec writes it."""
    return f"`$[...]{found[2]}`" if found[1] == "1" else "`key` in `$`"


def _has_ints(value: dict[Any, Any]) -> bool:
    """Return whether the keys are integers, which the codec has guarded and nothing converts.

    Looks only at the first key. In JSON all keys are text. In MessagePack, text among integers is
    refused.
    """
    return type(next(iter(value))) is not str


def _chunks(value: dict[Any, Any]) -> Iterator[dict[Any, Any]]:
    pairs = iter(value.items())
    while chunk := dict(islice(pairs, CHUNK)):
        yield chunk


def _map(keys: list[Any], items: list[Any]) -> dict[Any, Any]:
    built: dict[Any, Any] = {}
    _fill(built.update, list(zip(keys, items, strict=True)), keys)
    return built


def _each_once(made: Any, came: Any) -> Any:
    if len(made) < len(came):
        raise ValueError("two keys of a dict are equal after conversion")
    return made


def _fill(update: Callable[[list[Any]], None], entries: list[Any], keys: list[Any]) -> None:
    if all(isinstance(key, PurePath) or type(key) is IPv4Address for key in keys):
        # Their hashes are slow, but safe: they depend on text, so a peer cannot choose them.
        update(entries)
        return
    try:
        _KEYS.builder.fill(update, entries, keys)
    except DecodeError as exc:
        raise ValueError(str(exc)) from None

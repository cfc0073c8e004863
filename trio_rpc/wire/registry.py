"""The extension types that the users of one session add to MessagePack."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from trio_rpc.wire.extensions import BUILT_IN_CLASSES

__all__ = ["FIRST_TAG", "LAST_TAG", "Registration", "TypeRegistry"]

FIRST_TAG = 64
LAST_TAG = 127

T = TypeVar("T")


class Registration(NamedTuple):
    """A user's class, with the functions that encode and decode its instances."""

    tag: int
    cls: type
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


class TypeRegistry:
    """Your own classes that may be arguments and results.

    Both ends of a session must register the same tags; otherwise both raise Refused. A session
    freezes its registry: nothing can be added to it afterwards, but a :meth:`copy` can be extended.

    Example:
        >>> from ipaddress import IPv4Address
        >>> registry = trio_rpc.TypeRegistry()
        >>> registry.register(64, IPv4Address, encode=str, decode=IPv4Address)
        >>> options = trio_rpc.Options(registry=registry)
    """

    def __init__(self) -> None:
        self._by_tag: dict[int, Registration] = {}
        self._by_class: dict[type, Registration] = {}
        self._frozen = False

    def register(
        self, tag: int, cls: type[T], encode: Callable[[T], Any], decode: Callable[[Any], T]
    ) -> None:
        """Register a class, so that its instances can be sent.

        Args:
            tag: the number on the wire, 64 to 127.
            cls: the class; its subclasses are not included.
            encode: turns an instance into a value that can be sent: a built-in type, or another
                registered one.
            decode: makes an instance from that value. If it raises, only the call that brought the
                value fails.

        Raises:
            ValueError: the tag is out of range or taken, or the class is registered or built in.
            TypeError: the tag is not an int, ``cls`` is not a class, or a function is not callable.
            RuntimeError: a session already uses this registry.
        """
        if self._frozen:
            raise RuntimeError("this TypeRegistry is in use by a session: register on a copy()")
        _check(tag, cls, encode, decode)
        if tag in self._by_tag:
            raise ValueError(f"tag {tag} already stands for {self._by_tag[tag].cls.__qualname__}")
        if cls in self._by_class:
            raise ValueError(f"{cls.__qualname__} already has tag {self._by_class[cls].tag}")
        self._by_tag[tag] = self._by_class[cls] = Registration(tag, cls, encode, decode)

    def copy(self) -> TypeRegistry:
        """Return a registry with the same classes, which can be extended."""
        other = TypeRegistry()
        other._by_tag.update(self._by_tag)
        other._by_class.update(self._by_class)
        return other

    def freeze(self) -> None:
        """Refuse further registrations, since a tag must not change its meaning in a session.

        :meta private:
        """
        self._frozen = True

    @property
    def tags(self) -> tuple[int, ...]:
        """The registered numbers, in order.

        :meta private:
        """
        return tuple(sorted(self._by_tag))

    def for_class(self, cls: type) -> Registration | None:
        """Return the registration of exactly this class, or None.

        :meta private:
        """
        return self._by_class.get(cls)

    def for_tag(self, tag: int) -> Registration | None:
        """Return the registration of a number on the wire, or None.

        :meta private:
        """
        return self._by_tag.get(tag)

    def __len__(self) -> int:
        return len(self._by_tag)

    def __repr__(self) -> str:
        names = ", ".join(f"{tag}: {r.cls.__qualname__}" for tag, r in self._by_tag.items())
        return f"<TypeRegistry {{{names}}}>"


def _check(tag: object, cls: object, encode: object, decode: object) -> None:
    if type(tag) is not int:
        raise TypeError(f"a tag must be an int, not {tag!r}")
    if not FIRST_TAG <= tag <= LAST_TAG:
        raise ValueError(f"tag {tag} is not one of {FIRST_TAG} to {LAST_TAG}")
    if not isinstance(cls, type):
        raise TypeError(f"only a class can be registered, not {cls!r}")
    if cls in BUILT_IN_CLASSES:
        raise ValueError(f"{cls.__qualname__} is built in and needs no registration")
    if not (callable(encode) and callable(decode)):
        raise TypeError("encode and decode must be functions of one argument")

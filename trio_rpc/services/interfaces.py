"""Interfaces: the marked methods of a class, and identifiers that name a service and its interface.

An interface is a plain class with marked methods. It may be the class of the service itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from trio_rpc.services.aliases import class_of
from trio_rpc.services.decorators import NAME, MethodMark, inside, mark_of

__all__ = [
    "RESERVED",
    "Identifier",
    "check_interface",
    "check_service_name",
    "is_service_name",
    "marked_methods",
    "methods_of",
    "name_and_interface",
]

T_co = TypeVar("T_co", covariant=True)

RESERVED: Final = "trio_rpc"
"""The service name that users cannot give to their own services."""


@dataclass(frozen=True, slots=True)
class Identifier(Generic[T_co]):
    """The name of a service and its interface, as one typed object that both ends import.

    The end that serves uses it in place of the name, and the class of its service is compared with
    the interface. The end that calls gets a typed proxy for it.

    Args:
        name: the name of the service, of ASCII letters, digits, ``_`` and ``-``; "" for the service
            without a name.
        interface: the class that declares the methods. A generic class may have type arguments.

    Raises:
        TypeError: the name is not a str, or the interface is not a class with decorated methods.
        ValueError: the name has other characters, or is ``"trio_rpc"``, which is reserved.

    Example:
        >>> class Commands:
        ...     @trio_rpc.method
        ...     async def run(self, command: str) -> str:
        ...         raise NotImplementedError
        >>> class Main:
        ...     commands = trio_rpc.Identifier("commands", Commands)
        >>> class MainCommands(Commands):
        ...     async def run(self, command: str) -> str:
        ...         return f"ran {command}"
        >>> services = {Main.commands: MainCommands()}  # at one end
        >>> async def use(session: trio_rpc.Session) -> str:  # at the other end
        ...     return await session.proxy(Main.commands).run("save")
    """

    name: str
    interface: Callable[..., T_co]

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise TypeError(f"the name of an identifier must be a str, not {self.name!r:.200}")
        check_service_name(self.name)
        if self.name == RESERVED:
            raise ValueError(f"the service name {RESERVED!r} is reserved")
        check_interface(self.interface)


def name_and_interface(service: Any, interface: Any) -> tuple[Any, Any]:
    """Return the name and the interface of a service that is given by name or by identifier.

    Raises TypeError for an identifier with a second interface.
    """
    if not isinstance(service, Identifier):
        return service, interface
    if interface is not None:
        raise TypeError(f"the identifier {service.name!r} has its own interface: give no other")
    return service.name, service.interface


def check_service_name(name: object) -> None:
    """Raise ValueError for a name that no service can have."""
    if not is_service_name(name):
        raise ValueError(
            f"a service name must consist of ASCII letters, digits, '_' and '-', not {name!r:.200}"
        )


def is_service_name(name: object) -> bool:
    """Return whether a service could have this name."""
    return isinstance(name, str) and (name == "" or NAME.fullmatch(name) is not None)


def check_interface(interface: Any) -> None:
    """Raise TypeError unless ``interface`` is a class with marked methods."""
    cls = class_of(interface)
    if not isinstance(cls, type):
        raise TypeError(f"an interface must be a class, not {interface!r}")
    if not methods_of(cls):
        raise TypeError(f"{cls.__name__} has no methods marked with @method")


# Each session makes proxies of the same few interfaces. Results that depend only on the class are
# cached: computing them took a quarter of the time to connect, call once and close.


@functools.lru_cache(maxsize=256)
def methods_of(interface: type) -> dict[str, tuple[Callable[..., Any], MethodMark]]:
    """Return the remote methods of a class. The result is cached: do not change it."""
    return marked_methods(interface)


def marked_methods(cls: type) -> dict[str, tuple[Callable[..., Any], MethodMark]]:
    """Map the names of a class's remote methods to the marked function and its mark.

    A subclass may override a method without decorating it again: the mark nearest in the MRO
    holds. Raises TypeError for a mark inside a staticmethod, classmethod or property.
    """
    found: dict[str, tuple[Callable[..., Any], MethodMark]] = {}
    for base in cls.__mro__:
        for name, attribute in vars(base).items():
            if name in found or name.startswith("_"):
                continue
            mark = mark_of(attribute)
            if mark is not None:
                if not NAME.fullmatch(name):
                    raise TypeError(f"{base.__name__}: {name!r} cannot name a remote method")
                found[name] = (attribute, mark)
            elif _hides_mark(attribute):
                what = type(attribute).__name__
                raise TypeError(
                    f"{base.__name__}.{name}: a remote method cannot be a {what}: decorate a def"
                    " that takes self, and call this one from there"
                )
    return found


def _hides_mark(attribute: object) -> bool:
    if isinstance(attribute, functools.partialmethod):
        return False  # it calls a marked method, but its own name is not marked
    return mark_of(inside(attribute)) is not None

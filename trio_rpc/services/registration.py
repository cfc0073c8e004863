"""The services of one end: a value that sessions share until one of them changes its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from trio_rpc.services.fallbacks import fallback_of
from trio_rpc.services.foreign import check_no_foreign
from trio_rpc.services.interfaces import Identifier
from trio_rpc.services.introspection import with_introspection
from trio_rpc.services.tables import Table, build_table, named_services

__all__ = ["NO_SERVICES", "Services", "is_context_manager", "name_of", "service_of"]


def service_of(method: str) -> str:
    """Return the service in the full name of a method; "" for the service without a name."""
    return method.rpartition(".")[0]


def is_context_manager(service: object) -> bool:
    """Return whether a service is an async context manager."""
    return hasattr(type(service), "__aenter__") and hasattr(type(service), "__aexit__")


class Services:
    """Services by name, and the table of the methods that the other end may call.

    Never changed: :meth:`having` and :meth:`without` return others. So all sessions of a server may
    have the same one.

    Args:
        built_in: the methods that every session has.
        objects: the services by name.
        methods: the methods of the services.
        managers: the services that each session enters and leaves, by name; by default, all
            async context managers.
        has_registry: whether the sessions have a TypeRegistry, which may carry any class.

    Attributes:
        fallbacks: the fallbacks of the services, by the names of the services.
        objects: the services by name.
        managers: the services that each session enters and leaves, by name.
        table: the methods of the services, and the methods that every session has.

    Raises:
        ValueError: a service is named ``trio_rpc``.
    """

    __slots__ = (
        "_built_in",
        "_has_registry",
        "_methods",
        "fallbacks",
        "managers",
        "objects",
        "table",
    )

    def __init__(
        self,
        built_in: Table,
        objects: Mapping[str, object] | None = None,
        methods: Table | None = None,
        managers: Mapping[str, object] | None = None,
        *,
        has_registry: bool = True,
    ) -> None:
        self.objects: Mapping[str, object] = objects or {}
        found = {name: fallback_of(name, obj) for name, obj in self.objects.items()}
        self.fallbacks = {name: one for name, one in found.items() if one is not None}
        if managers is None:
            managers = {name: one for name, one in self.objects.items() if is_context_manager(one)}
        self.managers = managers
        self._built_in = built_in
        self._has_registry = has_registry
        self._methods = methods or {}
        self.table: Table = {**with_introspection(self._methods), **built_in}

    def having(self, services: object) -> Services:
        """Return these services and others.

        Args:
            services: services as :func:`build_table` takes them.

        Raises:
            TypeError: one of them is not a service, does not fit its interface, or has a method
                that could never be called.
            ValueError: one of them has an illegal name, or the name of another.
        """
        objects = {name: obj for name, obj, _ in named_services(services)}
        table = build_table(services)
        if not self._has_registry:
            check_no_foreign(table)
        return self.joined(Services({}, objects, table))

    def joined(self, other: Services) -> Services:
        """Return these services and those of ``other``. Raises ValueError for a common name."""
        for name in other.objects:
            if name in self.objects:
                raise ValueError(f"there is already a service with the name {name!r}")
        return Services(
            self._built_in,
            {**self.objects, **other.objects},
            {**self._methods, **other._methods},
            {**self.managers, **other.managers},
            has_registry=self._has_registry,
        )

    def entered(self) -> Services:
        """Return these services for sessions that share them, and neither enter nor leave any."""
        return Services(
            self._built_in, self.objects, self._methods, {}, has_registry=self._has_registry
        )

    def without(self, name: str) -> Services:
        """Return these services without one of them. Raises LookupError if it is not there."""
        if name not in self.objects:
            raise LookupError(f"there is no service with the name {name!r:.200}")
        return Services(
            self._built_in,
            {key: obj for key, obj in self.objects.items() if key != name},
            {key: one for key, one in self._methods.items() if service_of(key) != name},
            {key: one for key, one in self.managers.items() if key != name},
            has_registry=self._has_registry,
        )


NO_SERVICES: Final = Services({})
"""The services of a session that has not made its own yet, or is over."""


def name_of(service: str | Identifier[Any]) -> str:
    """Return the name of a service that is given by name or by identifier."""
    return service.name if isinstance(service, Identifier) else service

"""The ``module:object`` argument of ``serve``."""

from __future__ import annotations

import importlib
import operator
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trio_rpc.cli.exits import Usage
from trio_rpc.cli.terminal import safe
from trio_rpc.services.fallbacks import has_fallback
from trio_rpc.services.interfaces import Identifier, marked_methods
from trio_rpc.services.introspection import with_introspection
from trio_rpc.services.registration import name_of
from trio_rpc.services.tables import (
    build_table,
    check_maker,
    is_per_session,
    named_services,
    resolve,
)

__all__ = ["load_services", "with_service"]


def load_services(target: str) -> object:
    """Import a module, which may be in the working directory, and return its object.

    Args:
        target: ``module:object``; both may contain dots.

    Raises:
        Usage: the module or the object does not exist, or it cannot be served.
    """
    module_name, colon, path = target.partition(":")
    if not (colon and module_name and path):
        raise Usage(
            f"expected module:object, such as market:services, but was given {safe(target)}"
        )
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except Exception as exc:
        raise Usage(_why_not(module_name, exc)) from exc
    try:
        services: object = operator.attrgetter(path)(module)
    except AttributeError as exc:
        raise Usage(f"module {module_name} has no {safe(path, 100)}") from exc
    _check(target, services)
    return services


def with_service(services: object, name: str, service: object) -> object:
    """Return services with one more. Raises Usage if one of them already has its name.

    Args:
        services: as :func:`load_services` returns them.
        name: the name of the added service.
        service: the added service.
    """
    if is_per_session(services):
        return lambda session: _joined(resolve(services, session), name, service)
    try:
        return _joined(services, name, service)
    except ValueError as exc:
        raise Usage(str(exc)) from exc


def _joined(services: object, name: str, service: object) -> Mapping[Any, object]:
    named = {
        key if interface is None else Identifier(key, interface): one
        for key, one, interface in named_services(services)
    }
    if name in {name_of(key) for key in named}:
        raise ValueError(f"there is already a service {name!r}: give yours another name")
    return {**named, name: service}


def _check(target: str, services: object) -> None:
    """Report now the faults of services that would otherwise fail each session."""
    try:
        if not is_per_session(services):
            with_introspection(build_table(services))
        elif isinstance(services, type) and not (
            marked_methods(services) or has_fallback(services)
        ):
            raise TypeError("the class has no methods marked with @method")  # noqa: TRY301
        else:
            check_maker(services)  # type: ignore[arg-type]  # it is a function
    except (TypeError, ValueError) as exc:
        raise Usage(f"{target} cannot be served: {safe(exc)}") from exc


def _why_not(module: str, exc: Exception) -> str:
    if isinstance(exc, ModuleNotFoundError) and module.startswith(exc.name or "\0"):
        return f"there is no module {safe(module, 100)} in this directory or installed"
    where = traceback.extract_tb(exc.__traceback__)[-1]
    place = f"{Path(where.filename).name}, line {where.lineno}"
    reason = f"{type(exc).__name__}: {safe(exc)} ({place})"
    return f"module {safe(module, 100)} cannot be imported: {reason}"

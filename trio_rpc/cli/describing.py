"""The commands that describe services in other languages: TypeScript and OpenAPI."""

from __future__ import annotations

import json
from typing import Any

from trio_rpc.cli.exits import Usage
from trio_rpc.cli.target import load_services
from trio_rpc.services.tables import is_per_session
from trio_rpc.services.typescript import typescript

__all__ = ["openapi_text", "typescript_text"]


def _services(target: str) -> object:
    services = load_services(target)
    if is_per_session(services):
        raise Usage(f"{target} is a function of the session: give an object with its services")
    return services


def typescript_text(target: str, *, gateway: bool, module: str | None) -> str:
    """Return the TypeScript types of ``module:object``. Raises Usage if it has no services."""
    return typescript(_services(target), gateway=gateway, module=module)


def openapi_text(target: str, *, title: str, version: str) -> str:
    """Return the OpenAPI document of ``module:object``, as JSON.

    Raises Usage if it has no services, or the extra "gateway" is not installed.
    """
    services = _services(target)
    try:
        from trio_rpc.gateway import openapi  # noqa: PLC0415 - needs an extra
    except ModuleNotFoundError as exc:
        raise Usage(str(exc)) from exc
    document: dict[str, Any] = openapi(services, title=title, version=version)
    return json.dumps(document, indent=2, ensure_ascii=False)

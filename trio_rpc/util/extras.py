"""The text for a module that is missing because an extra of this package is not installed."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

__all__ = ["needs_extra"]

MODULES: Final = MappingProxyType(
    {
        "cli": ("cyclopts", "rich"),
        "gateway": ("h11", "httpx", "hypercorn", "starlette", "wsproto"),
        "nats": ("nkeys", "nacl"),
        "otel": ("opentelemetry",),
        "reload": ("watchfiles",),
    }
)
"""The modules that are imported from the packages of each extra."""


def needs_extra(what: str, extra: str, error: ModuleNotFoundError) -> str | None:
    """Say how to install a missing module; return None if it does not belong to the extra.

    Args:
        what: the part of this package that needs it.
        extra: the name of the extra.
        error: the error of the import.
    """
    missing = (error.name or "").partition(".")[0]
    if missing not in MODULES[extra]:
        return None
    return (
        f'{what} needs {missing}, from the extra "{extra}": '
        f"in a clone of trio_rpc, run pip install '.[{extra}]'"
    )

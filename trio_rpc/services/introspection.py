"""The read-only method of every session that lists the session's other methods.

``trio_rpc.describe()`` returns a list of maps with the keys ``name``, ``kind``, ``signature``,
``doc`` (the first line) and ``raises``. The first method that names a class with fields also has
``types``, with the fields of the class. It lists only methods that the caller may call. If a
session authenticates its peers, only an authenticated peer can call it.
"""

from __future__ import annotations

import functools
from typing import Any, Final

from trio_rpc.services.decorators import Kind
from trio_rpc.services.fields import Types
from trio_rpc.services.interfaces import RESERVED
from trio_rpc.services.signatures import Signature
from trio_rpc.services.tables import BoundMethod, Table

__all__ = ["DESCRIBE", "describe", "with_introspection"]

DESCRIBE: Final = f"{RESERVED}.describe"


def with_introspection(table: Table) -> Table:
    """Return ``table`` with the method ``trio_rpc.describe`` added, which does not list itself.

    Raises ValueError if the table has a service named ``trio_rpc``.
    """
    for name in table:
        if name.startswith(f"{RESERVED}."):
            raise ValueError(f"the service name {RESERVED!r} is reserved: {name} cannot be served")
    return {**table, DESCRIBE: _describing(table)}


def describe(table: Table) -> list[dict[str, Any]]:
    """Describe each method of ``table`` for people: name, kind, signature, doc, raises, types."""
    types = Types()
    described = []
    for _, method in sorted(table.items()):
        entry: dict[str, Any] = {
            "name": method.name,
            "kind": method.kind.value,
            "signature": method.signature.text,
            "doc": method.doc.strip().partition("\n")[0],
            "raises": [cls.__name__ for cls in method.raises],
        }
        if found := types.of(method):
            entry["types"] = found
        described.append(entry)
    return described


def _describing(table: Table) -> BoundMethod:
    def answer() -> list[dict[str, Any]]:
        return describe(table)

    return BoundMethod(
        name=DESCRIBE,
        kind=Kind.METHOD,
        function=answer,
        is_async=False,
        signature=_no_arguments(),
        doc="List the methods that may be called.",
    )


@functools.cache
def _no_arguments() -> Signature:
    return Signature(lambda: None, skip_self=False, name=DESCRIBE)

"""Parameters that no value can ever fit, because only a ``TypeRegistry`` could make such a value.

A class that has no fields, such as a socket or a class of the application with an ``__init__``, is
accepted in an annotation: a registry may carry its instances. Without a registry no value that
arrives is an instance of such a class.
"""

from __future__ import annotations

import datetime as dt
import decimal
import types
import uuid
from typing import Any, Final, Self

import msgspec
import trio

from trio_rpc.services.adapters import AdapterType
from trio_rpc.services.aliases import bare
from trio_rpc.services.item_stream import ItemStream
from trio_rpc.services.records import content_base
from trio_rpc.services.tables import Table

__all__ = ["check_no_foreign"]

_ARRIVING: Final[tuple[type, ...]] = (
    *(types.NoneType, bool, int, float, complex, str, bytes, bytearray),
    *(list, tuple, dict, set, frozenset),
    *(dt.datetime, dt.date, dt.time, dt.timedelta, decimal.Decimal, uuid.UUID),
    *(types.FunctionType, ItemStream, trio.abc.Channel),
)
"""The types of values that arrive without an annotation; a class may be a base of one of them."""


def check_no_foreign(
    table: Table,
    where: str = "",
    instead: str = "make it a dataclass, or register it on a TypeRegistry",
) -> None:
    """Raise TypeError if a required parameter of a method can never be given without a registry.

    Args:
        table: the methods.
        where: follows the name of the method in the text.
        instead: the advice at the end of the text.
    """
    for method in table.values():
        for parameter in method.signature.parameters.all:
            cls = _foreign(parameter.adapted) if parameter.required else None
            # Self says nothing about the class: a subclass may have fields, or be registered.
            if cls is not None and bare(parameter.annotation) is not Self:
                base = content_base(cls)
                why = f"has no fields: {instead}"
                if base is not None:
                    why = f"is also a {base.__name__}, which is not sent: make that a field of it"
                raise TypeError(
                    f"{method.name}{where}: no value for parameter {parameter.name!r} can ever"
                    f" arrive, because {cls.__name__} {why}"
                )


def _foreign(adapted: Any) -> type | None:
    """Return the class whose instances are the only values of an adapted annotation, or None."""
    adapted = bare(adapted)
    if isinstance(adapted, AdapterType):
        cls = getattr(adapted, "instances_of", None)
    elif isinstance(adapted, type) and _is_unknown(adapted):
        cls = adapted
    else:
        return None
    if cls is None or any(issubclass(one, cls) for one in _ARRIVING):
        return None
    return cls  # type: ignore[no-any-return]


def _is_unknown(cls: type) -> bool:
    try:
        return isinstance(msgspec.inspect.type_info(cls), msgspec.inspect.CustomType)
    except Exception:  # noqa: BLE001 - such as a name that cannot be resolved
        return False

"""Pydantic's part: making models and dataclasses, and describing the errors of their fields.

Nothing here imports Pydantic. If one of its classes exists, it has been imported.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any, Final, get_args, get_origin

from trio_rpc.util.text import one_line

__all__ = [
    "MAX_ERRORS",
    "Make",
    "complaint_of",
    "count_of",
    "errors_of",
    "is_complaint",
    "maker_of",
    "maker_of_dataclass",
    "type_adapter",
]

_INIT_ONLY: Final = dataclasses._FIELD_INITVAR  # type: ignore[attr-defined]  # noqa: SLF001

Make = Callable[[Any], Any]
"""Makes an instance from converted fields."""

MAX_ERRORS: Final = 1000
"""The most errors of one value that Pydantic is asked to describe. It describes all of them."""


def maker_of(annotation: Any) -> Make:
    """Return the function with which Pydantic makes an instance.

    Raises TypeError for an incomplete model.
    """
    cls = get_origin(annotation) or annotation
    _complete(cls)
    validator = cls.__pydantic_validator__
    if not dataclasses.is_dataclass(cls):
        return validator.validate_python  # type: ignore[no-any-return]
    if get_origin(annotation) is not None:
        validator = type_adapter(annotation).validator
    return _dataclass_maker(cls, validator)


def maker_of_dataclass(annotation: Any, config: Any) -> Make | None:
    """Return the function that makes a standard dataclass in a field of a model, as Pydantic does.

    In a model, Pydantic also checks the fields of a standard dataclass. The result is None if
    Pydantic cannot make one.

    Args:
        annotation: the dataclass.
        config: the configuration of the model, which also applies to the dataclass.
    """
    cls = get_origin(annotation) or annotation
    fields = cls.__dataclass_fields__.values()
    if any(one._field_type is _INIT_ONLY for one in fields):  # noqa: SLF001
        return None
    frozen = cls.__dataclass_params__.frozen
    args = get_args(annotation)
    try:
        made = sys.modules["pydantic"].dataclasses.dataclass(cls, frozen=frozen, config=config)
        validator = type_adapter(made[args]).validator if args else made.__pydantic_validator__
        _complete(made)
    except Exception:  # noqa: BLE001 - Pydantic may raise anything for a class that it cannot make
        return None
    return _dataclass_maker(cls, validator)


def _dataclass_maker(cls: Any, validator: Any) -> Make:
    def make(value: Any) -> Any:
        if type(value) is not dict:
            return validator.validate_python(value)
        # The dataclass's own __init__ does it like this. In strict mode nothing else works.
        return validator.validate_python(value, self_instance=cls.__new__(cls))

    return make


def type_adapter(annotation: Any) -> Any:
    """Return Pydantic's TypeAdapter of an annotation."""
    return sys.modules["pydantic"].TypeAdapter(annotation)


def _complete(cls: Any) -> None:
    """Make Pydantic resolve names that it has not resolved yet. Raises TypeError if it cannot."""
    try:
        cls.__pydantic_validator__.validate_python(object())
    except Exception as exc:
        if not is_complaint(exc):
            raise TypeError(f"{cls.__name__} is not complete: {one_line(str(exc))}") from exc


def is_complaint(exc: Any) -> bool:
    """Return whether an exception is a ValidationError of Pydantic, recognised by its methods."""
    return callable(getattr(exc, "errors", None)) and callable(getattr(exc, "error_count", None))


def count_of(exc: Any) -> int:
    """Return the number of errors in a ValidationError."""
    return exc.error_count()  # type: ignore[no-any-return]


def errors_of(exc: Any) -> list[dict[str, Any]]:
    """Return the errors of a ValidationError, described without the values."""
    return exc.errors(  # type: ignore[no-any-return]
        include_url=False, include_context=False, include_input=False
    )


def complaint_of(exc: Any) -> str:
    """Return one line of text for Pydantic's errors."""
    count = count_of(exc)
    if count > MAX_ERRORS:
        return f"{count} of its values do not fit"
    first = errors_of(exc)[0]
    path = "".join(f".{one}" if isinstance(one, str) else f"[{one}]" for one in first["loc"])
    more = f" (and {count - 1} more)" if count > 1 else ""
    text = one_line(first["msg"].replace("`", "'"))
    return f"{text}{more}" + (f" - at `${one_line(path, 200)}`" if path else "")

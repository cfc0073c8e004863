"""Converting values to classes with fields, if a field has a type that msgspec does not support.

Classes with fields are dataclasses, attrs classes, Structs, NamedTuples and TypedDicts. Where
msgspec supports all fields it makes the instances by itself, and faster.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import (
    Annotated,
    Any,
    ClassVar,
    Final,
    Generic,
    NotRequired,
    Required,
    TypeVarTuple,
    Unpack,
    get_args,
    get_origin,
)

import msgspec

from trio_rpc.services.adapters import reader
from trio_rpc.services.aliases import evaluate_aliases, substitute, type_arguments
from trio_rpc.services.annotations import Names, why_missing
from trio_rpc.services.costs import Read

__all__ = ["READ_ONLY", "Field", "Record", "content_base", "is_typed_dict", "record_of", "unpacked"]

MISSING: Final = object()


@dataclass(frozen=True, slots=True)
class Field:
    """One field: its name, its key in the message, its annotation, and whether it is required."""

    name: str
    key: str
    annotation: Any
    is_required: bool


@dataclass(frozen=True, slots=True)
class Record:
    """A class with fields.

    Attributes:
        cls: the class.
        fields: its fields, in order.
        is_array: whether they are sent as an array.
        make: makes an instance from the received fields, given by name.
        extra: the annotation of all other keys, if the class has one; empty otherwise.
        is_closed: whether other keys are an error. By default they are ignored.
    """

    cls: type
    fields: list[Field]
    is_array: bool
    make: Callable[[dict[str, Any]], Any]
    extra: tuple[Any, ...] = ()
    is_closed: bool = False

    def converter(
        self, annotations: Mapping[str, Any], extra: Any = None
    ) -> Callable[[Any, Read], Any]:
        """Return a function that makes an instance from a map or an array.

        Args:
            annotations: the adapted annotations of the fields, by name.
            extra: the adapted annotation of a dict of all other keys; None to ignore them.
        """
        config: Any = getattr(self.cls, "__struct_config__", None)
        tag_field, tag = (None, None) if config is None else (config.tag_field, config.tag)
        shape = msgspec.defstruct(
            self.cls.__name__,
            [
                (
                    f"f_{index}",
                    annotations[one.name],
                    msgspec.field(name=one.key)
                    if one.is_required
                    else msgspec.field(name=one.key, default=MISSING),
                )
                for index, one in enumerate(self.fields)
            ],
            array_like=self.is_array,
            kw_only=not self.is_array,
            tag_field=tag_field,
            tag=tag,
            forbid_unknown_fields=issubclass(self.cls, tuple)
            or self.is_closed
            or _forbids(self.cls),
        )

        read_all = reader(shape)
        read_more = None if extra is None else reader(extra)
        known = {one.key for one in self.fields}

        def convert(value: Any, read: Read) -> Any:
            if not is_typed_dict(self.cls) and isinstance(value, self.cls):
                return value
            if self.is_array and type(value) is tuple:
                value = list(value)
            came = msgspec.structs.astuple(read_all(value, read))
            pairs = zip(self.fields, came, strict=True)
            made = self.make({one.name: item for one, item in pairs if item is not MISSING})
            if read_more is not None:
                made |= read_more({k: one for k, one in value.items() if k not in known}, read)
            return made

        return convert


def content_base(cls: type) -> type | None:
    """Return the built-in base of a dataclass or attrs class, such as dict; None without one.

    An object of such a class has content besides its fields. msgspec would leave that part of its
    memory empty, and Python may crash when it uses the object.
    """
    if not (dataclasses.is_dataclass(cls) or hasattr(cls, "__attrs_attrs__")):
        return None
    for base in cls.__mro__:
        made_by = vars(base).get("__new__")
        if base not in (object, Generic) and isinstance(made_by, types.BuiltinFunctionType):
            return base
    return None


def record_of(annotation: Any, names: Names) -> Record | None:
    """Return the description of a class with fields, or None for any other annotation.

    Raises TypeError if the annotation of a field cannot be resolved.
    """
    cls = get_origin(annotation) or annotation
    if not isinstance(cls, type):
        return None
    if is_typed_dict(cls):
        hints = _hints(annotation, names)
        fields = [Field(n, n, a, _is_required(cls, n, a)) for n, a in hints.items()]
        return Record(cls, fields, False, dict, *_other_keys(annotation))
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        hints = _hints(annotation, names)
        defaults: dict[str, Any] = cls._field_defaults  # type: ignore[attr-defined]
        fields = [Field(n, n, hints.get(n, Any), n not in defaults) for n in cls._fields]
        return Record(cls, fields, True, lambda values: cls(**values))
    if issubclass(cls, msgspec.Struct):
        return _struct(cls, _hints(annotation, names))
    if dataclasses.is_dataclass(cls):
        return _dataclass(cls, _hints(annotation, names))
    if hasattr(cls, "__attrs_attrs__"):
        return _attrs(cls, _hints(annotation, names))
    return None


READ_ONLY: Final = frozenset(
    getattr(sys.modules[name], "ReadOnly")  # noqa: B009 - Python has it since 3.13
    for name in ("typing", "typing_extensions")
    if hasattr(sys.modules.get(name), "ReadOnly")
)


def unpacked(annotation: Any) -> tuple[Any, ...] | None:
    """Return the arguments of an unpacked ``*tuple[...]``; None for anything else."""
    if get_origin(annotation) is Unpack:
        annotation = get_args(annotation)[0]
        if isinstance(annotation, TypeVarTuple):
            return Any, ...
    elif not getattr(annotation, "__unpacked__", False):
        return None
    return get_args(annotation)


def is_typed_dict(cls: Any) -> bool:
    """Return whether a class is a TypedDict of ``typing`` or ``typing_extensions``."""
    return isinstance(cls, type) and issubclass(cls, dict) and hasattr(cls, "__required_keys__")


def _other_keys(annotation: Any) -> tuple[tuple[Any, ...], bool]:
    """Return the annotation of other keys that a TypedDict may have, and whether it is closed."""
    cls = get_origin(annotation) or annotation
    arguments = type_arguments(annotation)[cls]
    extra = getattr(cls, "__extra_items__", MISSING)
    if extra is not MISSING and not repr(extra).endswith(".NoExtraItems"):
        return (substitute(extra, arguments),), False
    if getattr(cls, "__closed__", None):
        return (), True
    for base in getattr(cls, "__orig_bases__", ()):
        if is_typed_dict(get_origin(base) or base):
            inherited, is_closed = _other_keys(base)
            if inherited or is_closed:
                return tuple(substitute(one, arguments) for one in inherited), is_closed
    return (), False


def _is_required(cls: Any, name: str, annotation: Any) -> bool:
    """Return whether a TypedDict must have a key.

    ``__required_keys__`` is wrong where the annotation is text.
    """
    while get_origin(annotation) in (Annotated, *READ_ONLY):
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Required, NotRequired):
        return get_origin(annotation) is Required
    return name in cls.__required_keys__


def _struct(cls: Any, hints: dict[str, Any]) -> Record:
    names = cls.__struct_fields__
    defaults = (msgspec.NODEFAULT,) * (len(names) - len(cls.__struct_defaults__))
    described = zip(
        names, cls.__struct_encode_fields__, (*defaults, *cls.__struct_defaults__), strict=True
    )
    fields = [Field(n, k, hints.get(n, Any), one is msgspec.NODEFAULT) for n, k, one in described]
    return Record(cls, fields, cls.__struct_config__.array_like, lambda values: cls(**values))


def _forbids(cls: Any) -> bool:
    config = getattr(cls, "__struct_config__", None)
    return config is not None and config.forbid_unknown_fields


def _dataclass(cls: Any, hints: dict[str, Any]) -> Record:
    described = {one.name: one for one in dataclasses.fields(cls)}
    has_init_only = any(
        isinstance(one, dataclasses.InitVar) or one is dataclasses.InitVar for one in hints.values()
    )

    def is_required(one: dataclasses.Field[Any]) -> bool:
        none = one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
        return one.init and none

    def make(values: dict[str, Any]) -> Any:
        made = cls.__new__(cls)
        for name, one in described.items():
            if name in values:
                object.__setattr__(made, name, values[name])
            elif one.default_factory is not dataclasses.MISSING:
                object.__setattr__(made, name, one.default_factory())
            elif one.default is not dataclasses.MISSING:
                object.__setattr__(made, name, one.default)
        # An InitVar is not sent. The fields that __post_init__ derived from it have been sent.
        if not has_init_only and hasattr(cls, "__post_init__"):
            made.__post_init__()
        return made

    fields = [Field(n, n, hints.get(n, Any), is_required(one)) for n, one in described.items()]
    return Record(cls, fields, False, make)


def _attrs(cls: Any, hints: dict[str, Any]) -> Record:
    described = {one.name: one for one in cls.__attrs_attrs__}

    def make(values: dict[str, Any]) -> Any:
        given = {
            one.alias: values[name]
            for name, one in described.items()
            if one.init and name in values
        }
        made = cls(**given)
        for name, one in described.items():
            if not one.init and name in values:
                object.__setattr__(made, name, values[name])
        return made

    nothing = next(
        (type(one.default) for one in described.values() if repr(one.default) == "NOTHING"), None
    )
    fields = [
        Field(
            name, name, hints.get(name, one.type or Any), one.init and type(one.default) is nothing
        )
        for name, one in described.items()
    ]
    return Record(cls, fields, False, make)


# ── annotations of the fields ────────────────────────────────────────────────────────────────


def _hints(annotation: Any, names: Names) -> dict[str, Any]:
    """Return the annotations of a class's fields, with the type arguments of ``annotation``."""
    cls = get_origin(annotation) or annotation
    arguments = type_arguments(annotation)
    hints: dict[str, Any] = {}
    for base in reversed(_bases(cls)):
        module = vars(sys.modules.get(base.__module__, types.ModuleType("")))
        within = names.within(module, base)
        for name, one in inspect.get_annotations(base).items():
            resolved = _resolved(within, base, name, one)
            if resolved is Final:
                hints[name] = Any
            elif get_origin(resolved) is not ClassVar and resolved is not ClassVar:
                hints[name] = substitute(resolved, arguments.get(base, {}))
    return hints


def _resolved(names: Names, cls: type, name: str, annotation: Any) -> Any:
    try:
        resolved = names.resolve(name, annotation)
        evaluate_aliases(resolved)
        return resolved
    except NameError as exc:
        missing = exc.name or str(exc)
        raise TypeError(
            f"{missing!r} in the annotation of {name!r} of {cls.__qualname__} cannot be resolved"
            f" at run time: {why_missing(cls, missing)}"
        ) from exc
    except AttributeError as exc:
        raise TypeError(f"the annotation of {name!r} of {cls.__qualname__}: {exc}") from exc


def _bases(cls: Any) -> list[Any]:
    found = [base for base in cls.__mro__ if base not in (object, dict, tuple)]
    if is_typed_dict(cls):  # its __mro__ lacks its bases, but it has all their annotations
        return [cls]
    return found

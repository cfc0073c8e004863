"""Taking exceptions apart and rebuilding them, without running any code of their classes.

A built-in exception holds its ``args`` and a few values in slots, such as ``OSError.filename``. A
user's class adds attributes. Its ``__init__`` may need other arguments than ``args`` holds, may
open files or count instances, and may build the text from its arguments. So it is not run again.
Instead:

1. :func:`plan_of` finds out, from the class alone, which attributes its instances may have: the
   slots of the built-in class it is derived from, the annotations in class bodies, and the names
   that its constructors use. An attribute that is not annotated in a class body, but has the name
   of a parameter of ``__init__``, has the annotation of that parameter.
2. The sender reads those attributes, and records the names of all others.
3. The receiver creates an empty instance with the ``__new__`` of the built-in class, sets ``args``,
   and sets the attributes that are in its own plan, each checked against its annotation. Any other
   name that arrives has no effect. No property, method or ``__setstate__`` is called.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter
from typing import Annotated, Any, Final, TypeAlias

import msgspec

from trio_rpc.services.annotations import Annotations, class_annotations
from trio_rpc.services.conversion import adapt
from trio_rpc.services.converters import check_supported, make_reader
from trio_rpc.services.costs import Read
from trio_rpc.util.raised import attributes_of

__all__ = ["Plan", "is_rebuildable", "plan_of"]

HEAP_TYPE: Final = 1 << 9
"""The flag that all classes have except those built into Python."""
MAX_NAMES: Final = 100

Natural: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
Text: TypeAlias = str | None
Path: TypeAlias = str | bytes | int | None
Number: TypeAlias = Natural | None

Convert: TypeAlias = Callable[[Any, Read], Any]

_TEXT_ERROR: Final = {"start": Natural, "end": Natural, "reason": str}
_BUILT_IN: Final[dict[type, dict[str, Any]]] = {
    OSError: {
        "errno": int | str | None,
        "strerror": Text,
        "filename": Path,
        "filename2": Path,
        "characters_written": Natural,
    },
    ImportError: {"msg": Any, "name": Text, "path": Text, "name_from": Text},
    NameError: {"name": Text},
    AttributeError: {"name": Text},
    SyntaxError: {
        "msg": Any,
        "filename": Text,
        "lineno": Number,
        "offset": int | None,
        "text": Text,
        "end_lineno": Number,
        "end_offset": int | None,
    },
    UnicodeDecodeError: {"encoding": str, "object": bytes, **_TEXT_ERROR},
    UnicodeEncodeError: {"encoding": str, "object": str, **_TEXT_ERROR},
    UnicodeTranslateError: {"object": str, **_TEXT_ERROR},
}
"""The slots of built-in exceptions and their types, since C code uses some of them unchecked."""

_POSITIONS: Final[dict[type, tuple[str, ...]]] = {
    OSError: ("errno", "strerror", "filename", "", "filename2"),
    ImportError: ("msg",),
    UnicodeDecodeError: ("encoding", "object", "start", "end", "reason"),
    UnicodeEncodeError: ("encoding", "object", "start", "end", "reason"),
    UnicodeTranslateError: ("object", "start", "end", "reason"),
}
"""The slots that built-in constructors fill from positional arguments; "" for none."""

_CONSTRUCTORS: Final = ("__init__", "__post_init__", "__attrs_post_init__")
_ABSENT: Final = object()


@dataclass(frozen=True, slots=True)
class _Field:
    """One attribute: how to read, write and convert it without running code of the class."""

    get: Callable[[Any], Any]
    set: Callable[[Any, Any], None]
    convert: Convert | None
    is_built_in: bool = False
    is_needed: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """The functions that take apart and rebuild the instances of one exception class.

    Attributes:
        cls: the class.
        base: the built-in class that it is derived from.
        fields: the attributes that instances may have.
        positions: the names (``""`` for none) and converters of the positional arguments.
        rest: the converter of further arguments. None if they may be anything, ``_ABSENT`` if there
            cannot be any.
        defaults: the defaults of the parameters of ``__init__`` that have one.
        required: the names of the parameters of ``__init__`` that have no default.
        has_constructor: whether the class, or one of its bases, has an ``__init__`` in Python.
    """

    cls: type[BaseException]
    base: Any
    fields: Mapping[str, _Field]
    positions: Sequence[tuple[str, Convert | None]]
    rest: Any
    defaults: Mapping[str, Any]
    required: frozenset[str]
    has_constructor: bool

    @property
    def is_bare(self) -> bool:
        """Whether instances hold nothing but ``args``."""
        text = inspect.getattr_static(self.cls, "__str__")
        return not (self.fields or self.has_constructor or inspect.isfunction(text))

    def read(self, exc: BaseException) -> tuple[dict[str, Any], list[str]]:
        """Return the attributes in the plan, and the names of all other attributes."""
        state = {}
        for name, field in self.fields.items():
            value = field.get(exc)
            if value is not _ABSENT and not (field.is_built_in and value is None):
                state[name] = value
        others = [name for name in attributes_of(exc) if name not in state and name[:2] != "__"]
        if isinstance(exc, AttributeError) and exc.obj is not None:
            # The object is not sent: it may be anything, and may hold private data.
            others.append("obj")
        return state, others

    def is_typed(self, name: str) -> bool:
        """Return whether an attribute has an annotation to check it against."""
        return self.fields[name].convert is not None

    def is_needed(self, name: str) -> bool:
        """Return whether no instance can be made without an attribute."""
        return self.fields[name].is_needed

    def is_typed_argument(self, index: int) -> bool:
        """Return whether a positional argument has an annotation to check it against."""
        if index < len(self.positions):
            return self.positions[index][1] is not None
        return self.rest is not _ABSENT and self.rest is not None

    def make(
        self, args: Sequence[Any], state: Mapping[str, Any] | None, read: Read
    ) -> tuple[BaseException, list[str]] | None:
        """Make an instance. Return it with the names of the attributes that did not fit.

        Args:
            args: its ``args``.
            state: its attributes by name. None if the peer did not send any. Then ``args`` are the
                arguments of its constructor.
            read: converts them, and counts the cost for the whole message.

        Returns None if no instance can be made of these.
        """
        if state is None:
            bound = self._bind(args, read)
            if bound is None:
                return None
            args, state = bound
        else:
            args = [self._argument(index, value, read) for index, value in enumerate(args)]
        exc = self.base.__new__(self.cls)
        BaseException.args.__set__(exc, tuple(args))  # type: ignore[attr-defined]
        lost = [name for name, value in state.items() if not self._set(exc, name, value, read)]
        needed = {name for name, field in self.fields.items() if field.is_needed}
        if not needed <= state.keys() - set(lost):
            return None
        return exc, lost

    def _argument(self, index: int, value: Any, read: Read) -> Any:
        convert = None
        if index < len(self.positions):
            convert = self.positions[index][1]
        elif self.rest is not _ABSENT:
            convert = self.rest
        try:
            return value if convert is None else convert(value, read)
        except Exception:  # noqa: BLE001 - args may differ from the arguments of __init__
            return value

    def _set(self, exc: BaseException, name: str, value: Any, read: Read) -> bool:
        field = self.fields.get(name)
        if field is None:
            return False
        try:
            field.set(exc, value if field.convert is None else field.convert(value, read))
        except Exception:  # noqa: BLE001 - a class's own checks may raise anything
            return value is None and self.defaults.get(name, _ABSENT) is None and _force(field, exc)
        return True

    def _bind(self, args: Sequence[Any], read: Read) -> tuple[list[Any], dict[str, Any]] | None:
        """Bind arguments to the constructor's parameters. Returns None if they do not fit."""
        if len(args) > len(self.positions) and self.rest is _ABSENT:
            return None
        bound, state = [], {**self.defaults}
        for index, value in enumerate(args):
            name, convert = "", None if self.rest is _ABSENT else self.rest
            if index < len(self.positions):
                name, convert = self.positions[index]
            try:
                bound.append(value if convert is None else convert(value, read))
            except Exception:  # noqa: BLE001 - likewise
                return None
            if name:
                state[name] = bound[-1]
        if not self.required <= state.keys():
            return None
        if issubclass(self.base, OSError):
            if not self.has_constructor and len(bound) < 2:
                state = {}  # a text alone, without an error number
            elif not self.has_constructor:
                del bound[2:]
        return bound, {name: value for name, value in state.items() if name in self.fields}


def is_rebuildable(cls: type[BaseException]) -> bool:
    """Return whether instances of a class can be made without its own constructor.

    A class of an extension module may hold values that only its own code can make.
    """
    try:
        _built_in_base(cls).__new__(cls)
    except TypeError:
        return False
    return True


def plan_of(cls: type[BaseException]) -> Plan:
    """Return the plan of an exception class. It is made once."""
    return _plan_of(cls)  # type: ignore[arg-type]  # a class has a hash


@functools.lru_cache(maxsize=512)
def _plan_of(cls: type[BaseException]) -> Plan:
    """Make the plan of a class. Bounds: the size of the cache, and MAX_NAMES attributes each."""
    base = _built_in_base(cls)
    built_in = next((one for one in base.__mro__ if one in _BUILT_IN), None)
    init = inspect.getattr_static(cls, "__init__")
    init = inspect.unwrap(init) if inspect.isfunction(init) else None
    parameters = [] if init is None else list(inspect.signature(init).parameters.values())[1:]
    annotations = None if init is None else Annotations(init, None, cls)
    converters = {one.name: _converter(annotations, one) for one in parameters}
    fields = _slots_of(built_in)
    for name in [*_declared(cls), *_named_by_constructors(cls)][:MAX_NAMES]:
        field = _field(cls, name, converters)
        if name not in fields and field is not None:
            fields[name] = field
    kinds = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    positional = [one for one in parameters if one.kind in kinds]
    positions = [(one.name, converters[one.name] or None) for one in positional]
    rest: Any = _ABSENT
    for one in parameters:
        if one.kind is Parameter.VAR_POSITIONAL:
            rest = converters[one.name] or None
    if init is None:
        rest = None
        names = _POSITIONS.get(built_in, ()) if built_in else ()
        positions = [(name, None) for name in names]
    named = [one for one in parameters if one.kind in (*kinds, Parameter.KEYWORD_ONLY)]
    return Plan(
        cls,
        base,
        fields,
        positions,
        rest,
        {one.name: one.default for one in named if one.default is not Parameter.empty},
        frozenset(one.name for one in named if one.default is Parameter.empty),
        has_constructor=init is not None,
    )


def _built_in_base(cls: type[BaseException]) -> Any:
    base: Any = cls
    while base.__flags__ & HEAP_TYPE:
        base = base.__base__
    return base


def _slots_of(built_in: type | None) -> dict[str, _Field]:
    found = {}
    for name, annotation in _BUILT_IN.get(built_in, {}).items() if built_in else ():
        descriptor = vars(built_in).get(name)
        if descriptor is not None:
            needed = built_in is not None and issubclass(built_in, UnicodeError)
            convert = make_reader(adapt(annotation))
            found[name] = _Field(
                _getter(descriptor), descriptor.__set__, convert, is_built_in=True, is_needed=needed
            )
    return found


def _getter(descriptor: Any) -> Callable[[Any], Any]:
    def get(exc: Any) -> Any:
        try:
            return descriptor.__get__(exc)
        except AttributeError:
            return _ABSENT

    return get


def _declared(cls: type) -> Iterator[str]:
    for base in cls.__mro__:
        if base.__flags__ & HEAP_TYPE:
            yield from inspect.get_annotations(base)


def _named_by_constructors(cls: type) -> Iterator[str]:
    """Yield the names that the constructors of a class use, among them the attributes they set."""
    for base in cls.__mro__:
        for name in _CONSTRUCTORS:
            function = vars(base).get(name)
            if inspect.isfunction(function):
                yield from inspect.unwrap(function).__code__.co_names


def _field(cls: type, name: str, converters: Mapping[str, Any]) -> _Field | None:
    """Return the field of an attribute.

    Returns None for a special name, for an attribute that cannot be sent, and where the class has a
    method or a descriptor under that name.
    """
    if name.startswith("__") and name.endswith("__"):
        return None
    convert = _annotated(cls, name, converters)
    if convert is False:
        return None
    attribute = inspect.getattr_static(cls, name, _ABSENT)
    if isinstance(attribute, types.MemberDescriptorType):
        return _Field(_getter(attribute), attribute.__set__, convert)
    if attribute is not _ABSENT and (callable(attribute) or hasattr(type(attribute), "__get__")):
        return None

    def set_item(exc: Any, value: Any) -> None:
        attributes_of(exc)[name] = value

    return _Field(lambda exc: attributes_of(exc).get(name, _ABSENT), set_item, convert)


def _annotated(cls: type, name: str, converters: Mapping[str, Any]) -> Any:
    """Return the converter of an attribute.

    The result is None if there is no annotation, and False if the attribute cannot be sent.
    """
    for base in cls.__mro__:
        if base.__flags__ & HEAP_TYPE and name in inspect.get_annotations(base):
            return _tried(class_annotations(base)[name])
    for base in cls.__mro__:
        bare = name.removeprefix(f"_{base.__name__.lstrip('_')}__").lstrip("_")
        if bare in converters:
            return converters[bare]
    return None


def _converter(annotations: Annotations | None, parameter: Parameter) -> Any:
    if annotations is None or parameter.kind is Parameter.VAR_KEYWORD:
        return None
    return _tried(lambda: annotations.get(parameter.name))


def _tried(resolve: Callable[[], Any]) -> Any:
    """Return the converter to an annotation: None if it is Any, False if it cannot be checked."""
    try:
        adapted = adapt(resolve())
        check_supported(adapted)
    except Exception:  # noqa: BLE001 - resolving an annotation evaluates it
        return False
    return make_reader(adapted)


def _force(field: _Field, exc: BaseException) -> bool:
    """Set an attribute to None: its parameter has that default, against its own annotation."""
    field.set(exc, None)
    return True

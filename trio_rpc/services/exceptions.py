"""What an exception holds, and how it is made again from that without running any code of its class.

An exception of Python's own holds its ``args`` and a few values in slots, such as ``OSError.filename``. A
class of a user's adds attributes. Its ``__init__`` need not take what ``args`` has, may open files and count
things, and may build its text from what it is given, so it is not run again. Instead:

1. :func:`plan_of` finds out, from the class alone, which attributes its instances may have: the slots of the
   built-in class it is derived from, the annotations of class bodies, and the attributes that its
   constructors name. An attribute that is named as a parameter of ``__init__`` has that annotation.
2. The sender reads those attributes, and notes the names of all others.
3. The receiver makes an empty instance with the ``__new__`` of the built-in class, sets ``args``, and sets the
   attributes that its own plan has, each checked against its annotation. No name that arrives means anything
   that the class does not say itself; no property, method or ``__setstate__`` is called.
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
from trio_rpc.services.conversion import Convert, adapt, check_supported, make_converter

__all__ = ["Plan", "plan_of", "set_cause", "set_notes"]

HEAP_TYPE: Final = 1 << 9
"""The flag of classes that were made by a ``class`` statement, or a library, and are not Python's own."""
MAX_NAMES: Final = 100

Natural: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
Text: TypeAlias = str | None
Path: TypeAlias = str | bytes | int | None
Number: TypeAlias = Natural | None

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
"""What Python's own exceptions hold besides ``args``, and what it may be: C code goes by some of it unchecked."""

_POSITIONS: Final[dict[type, tuple[str, ...]]] = {
    OSError: ("errno", "strerror", "filename", "", "filename2"),
    ImportError: ("msg",),
    UnicodeDecodeError: ("encoding", "object", "start", "end", "reason"),
    UnicodeEncodeError: ("encoding", "object", "start", "end", "reason"),
    UnicodeTranslateError: ("object", "start", "end", "reason"),
}
"""What their constructors make of positional arguments."""

_CONSTRUCTORS: Final = ("__init__", "__post_init__", "__attrs_post_init__")
_ABSENT: Final = object()
_CAUSE: Final[Any] = vars(BaseException)["__cause__"]
_DICT: Final[Any] = vars(BaseException)["__dict__"]


@dataclass(frozen=True, slots=True)
class _Field:
    """One attribute: how it is read and written without the class's code, and what it may be."""

    get: Callable[[Any], Any]
    set: Callable[[Any, Any], None]
    convert: Convert | None
    is_built_in: bool = False
    is_needed: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """How the instances of one exception class are taken apart and made again.

    Attributes:
        base: the class of Python's own that it is derived from.
        fields: the attributes that instances may have.
        positions: the names, ``""`` for none, and the converters of positional arguments.
        rest: the converter of more arguments; None if they may be anything, ``_ABSENT`` if there are none.
        defaults: of the parameters of ``__init__`` that have one.
        has_constructor: whether the class, or one that it is derived from, has an ``__init__`` in Python.
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
        """Whether ``args`` is all that instances hold."""
        text = inspect.getattr_static(self.cls, "__str__")
        return not (self.fields or self.has_constructor or inspect.isfunction(text))

    def read(self, exc: BaseException) -> tuple[dict[str, Any], list[str]]:
        """Return the attributes that the plan has, and the names of all others."""
        state = {}
        for name, field in self.fields.items():
            value = field.get(exc)
            if value is not _ABSENT and not (field.is_built_in and value is None):
                state[name] = value
        others = [name for name in _attributes(exc) if name not in state and name[:2] != "__"]
        if isinstance(exc, AttributeError) and exc.obj is not None:
            others.append(
                "obj"
            )  # the object may be anything, and hold what is nobody else's business
        return state, others

    def is_typed(self, name: str) -> bool:
        """Whether an annotation says what that attribute is."""
        return self.fields[name].convert is not None

    def is_typed_argument(self, index: int) -> bool:
        """Whether an annotation says what that positional argument is."""
        if index < len(self.positions):
            return self.positions[index][1] is not None
        return self.rest is not _ABSENT and self.rest is not None

    def make(
        self, args: Sequence[Any], state: Mapping[str, Any] | None
    ) -> tuple[BaseException, list[str]] | None:
        """Make an instance, and name the attributes that did not fit.

        Args:
            args: its ``args``.
            state: its attributes by name; None if the peer has none to tell: then ``args`` is
                what its constructor takes.

        Returns None when the class cannot be made of that.
        """
        if state is None:
            bound = self._bind(args)
            if bound is None:
                return None
            args, state = bound
        else:
            args = [self._argument(index, value) for index, value in enumerate(args)]
        exc = self.base.__new__(self.cls)
        BaseException.args.__set__(exc, tuple(args))  # type: ignore[attr-defined]
        lost = [name for name, value in state.items() if not self._set(exc, name, value)]
        needed = {name for name, field in self.fields.items() if field.is_needed}
        if not needed <= state.keys() - set(lost):
            return None
        return exc, lost

    def _argument(self, index: int, value: Any) -> Any:
        convert = None
        if index < len(self.positions):
            convert = self.positions[index][1]
        elif self.rest is not _ABSENT:
            convert = self.rest
        try:
            return value if convert is None else convert(value)
        except Exception:  # noqa: BLE001 - args need not be what __init__ takes
            return value

    def _set(self, exc: BaseException, name: str, value: Any) -> bool:
        field = self.fields.get(name)
        if field is None:
            return False
        try:
            field.set(exc, value if field.convert is None else field.convert(value))
        except Exception:  # noqa: BLE001 - a class's own checks may raise anything
            return value is None and self.defaults.get(name, _ABSENT) is None and _force(field, exc)
        return True

    def _bind(self, args: Sequence[Any]) -> tuple[list[Any], dict[str, Any]] | None:
        """Take arguments as what the constructor is called with; None if they do not fit."""
        if len(args) > len(self.positions) and self.rest is _ABSENT:
            return None
        bound, state = [], {**self.defaults}
        for index, value in enumerate(args):
            name, convert = "", None if self.rest is _ABSENT else self.rest
            if index < len(self.positions):
                name, convert = self.positions[index]
            try:
                bound.append(value if convert is None else convert(value))
            except Exception:  # noqa: BLE001 - likewise
                return None
            if name:
                state[name] = bound[-1]
        if not self.required <= state.keys():
            return None
        if issubclass(self.base, OSError):
            if not self.has_constructor and len(bound) < 2:
                state = {}  # a text, and no number
            elif not self.has_constructor:
                del bound[2:]
        return bound, {name: value for name, value in state.items() if name in self.fields}


def plan_of(cls: type[BaseException]) -> Plan:
    """Return what instances of ``cls`` hold, found out once."""
    return _plan_of(cls)  # type: ignore[arg-type]  # a class has a hash


@functools.lru_cache(maxsize=512)
def _plan_of(cls: type[BaseException]) -> Plan:
    """Find out what instances of ``cls`` hold. Bound: the cache's, and MAX_NAMES attributes each."""
    base: Any = cls
    while base.__flags__ & HEAP_TYPE:
        base = base.__base__
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


def set_notes(exc: BaseException, notes: list[str]) -> None:
    """Set the notes of an exception. ``add_note`` would run its class's ``__setattr__``, which may be frozen."""
    if notes:
        _attributes(exc)["__notes__"] = notes


def set_cause(exc: BaseException, cause: BaseException) -> None:
    """Set the cause of an exception, likewise."""
    _CAUSE.__set__(exc, cause)


def _slots_of(built_in: type | None) -> dict[str, _Field]:
    found = {}
    for name, annotation in _BUILT_IN.get(built_in, {}).items() if built_in else ():
        descriptor = vars(built_in).get(name)
        if descriptor is not None:
            needed = built_in is not None and issubclass(built_in, UnicodeError)
            convert = make_converter(adapt(annotation))
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
    """The names that the constructors of a class use; the attributes that they set are among them."""
    for base in cls.__mro__:
        for name in _CONSTRUCTORS:
            function = vars(base).get(name)
            if inspect.isfunction(function):
                yield from inspect.unwrap(function).__code__.co_names


def _field(cls: type, name: str, converters: Mapping[str, Any]) -> _Field | None:
    """Return how that attribute is used; None where it is none, or one that code of the class stands behind."""
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
        _attributes(exc)[name] = value

    return _Field(lambda exc: _attributes(exc).get(name, _ABSENT), set_item, convert)


def _annotated(cls: type, name: str, converters: Mapping[str, Any]) -> Any:
    """Return what converts an attribute: None if nothing is said, False if it cannot travel."""
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
    """Return what converts a value to an annotation: None if it is Any, False if it cannot be checked."""
    try:
        adapted = adapt(resolve())
        check_supported(adapted)
    except Exception:  # noqa: BLE001 - resolving evaluates the class's own text
        return False
    return make_converter(adapted)


def _attributes(exc: BaseException) -> dict[str, Any]:
    return _DICT.__get__(exc)  # type: ignore[no-any-return]


def _force(field: _Field, exc: BaseException) -> bool:
    """Set an attribute to None, whose parameter has that default though its annotation does not say so."""
    field.set(exc, None)
    return True

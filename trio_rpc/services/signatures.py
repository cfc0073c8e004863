"""Checking a method's arguments and result against its annotations.

The callee checks arguments, because it cannot rely on the caller's annotations. The caller checks
results. Most calls have a few scalars as positional arguments: for these, one comparison of two
lists of types is enough. All other calls are checked parameter by parameter, so that the error text
can name the parameter.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from inspect import Parameter
from typing import Any, Final, Unpack, get_args, get_origin

import msgspec
import trio

from trio_rpc.errors import InvalidArguments
from trio_rpc.services.aliases import UNIONS, bare, identity, is_never
from trio_rpc.services.annotations import Annotations, Names
from trio_rpc.services.binding import shown_signature, signature_as_bound, taken_names
from trio_rpc.services.complaints import checked, complaint
from trio_rpc.services.conversion import adapt, is_function
from trio_rpc.services.converters import (
    Convert,
    WireRead,
    check_supported,
    is_natural,
    make_converter,
    scalar_type,
)
from trio_rpc.services.costs import MOST, Read, TooCostly
from trio_rpc.services.functions import (
    CHANNELS,
    ITERABLES,
    FunctionTypes,
    awaited,
    collected_types,
    is_vaguer,
)
from trio_rpc.services.lending import Prepare, PrepareAll, prepare_all, preparer
from trio_rpc.services.method_parameters import Parameters, WireParameter
from trio_rpc.services.records import record_of
from trio_rpc.services.shapes import shape_of_arguments
from trio_rpc.util.text import quoted
from trio_rpc.wire.one_pass import Shape

__all__ = ["TASK_STATUS", "Signature", "complaint", "signature_of"]

TASK_STATUS: Final = "task_status"


_RESULT: Final = ("its result", "return")


class _Anything(msgspec.Struct):
    """Stands for arguments that need no check."""


class Signature:
    """The parameters of one function that the other end may call.

    A parameter named ``task_status`` is not one of them: it is never filled from the wire.

    Args:
        function: a callable; a function as written in a class body when ``skip_self`` is true.
        skip_self: it will be called as a bound method, so leave out its first parameter.
        like: the method of an interface that ``function`` implements. Its annotations are used
            where ``function`` has none.
        owner: the class, with its type arguments, whose names annotations may use, in addition to
            those of the function's module.
        interface: the class that ``like`` is from, with its type arguments.
        name: the method's name in error texts; its qualified name by default.
        given: the types in the annotation of ``function``, if it is a callback, in its method.
            They are used where ``function`` has no annotation, or none that can be resolved at run
            time.

    Raises:
        TypeError: the function's signature cannot be read, an annotation cannot be resolved at run
            time, or no value can be checked against it. The text names the method and parameter.
    """

    __slots__ = (
        "_annotations",
        "_converters",
        "_direct",
        "_extra_keywords",
        "_extra_positional",
        "_first",
        "_given",
        "_named",
        "_natural",
        "_plain",
        "_positional",
        "_shapes",
        "_taken",
        "callbacks",
        "method",
        "takes_task_status",
        "text",
    )

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        skip_self: bool = True,
        like: Callable[..., Any] | None = None,
        owner: Any = None,
        interface: Any = None,
        name: str | None = None,
        given: FunctionTypes | None = None,
    ) -> None:
        self.method: str = name or str(getattr(function, "__qualname__", function))
        signature = signature_as_bound(self.method, function, skip_self=skip_self)
        parameters = list(signature.parameters.values())
        self._annotations = Annotations(function, like, owner, signature, interface)
        self._given = given
        self.callbacks: dict[str, bool] = {}
        """Parameters for callbacks that can be given by name, and whether each is required."""
        self._first = parameters[0].name if parameters else ""
        self._positional: list[WireParameter] = []
        self._named: dict[str, WireParameter] = {}
        self._extra_positional: WireParameter | None = None
        self._extra_keywords: WireParameter | None = None
        self._converters: dict[str, Convert | None] = {}
        self.takes_task_status = False
        for parameter in parameters:
            self._add(parameter)
        if given is not None:
            self._add_given(given)
        elif like is not None:
            self._add_declared(signature_as_bound(self.method, like, skip_self=True))
        self._taken = self._taken_names(function, skip_self=skip_self)
        self._plain, self._shapes = self._short_cuts()
        self._direct: dict[int, Shape | None] = {}
        self._natural: dict[int, bool] = {}
        self.text = shown_signature(signature, leave_out=TASK_STATUS)

    @property
    def parameters(self) -> Parameters:
        """The parameters that can be filled from the wire."""
        extra = self._extra_positional, self._extra_keywords
        return Parameters(self._positional, self._named, *extra)

    def bind_names(self, kwargs: dict[str, Any], read: Read) -> dict[str, Any]:
        """Check and convert arguments that were all given by name, and not in the wire's format.

        Args:
            kwargs: the arguments.
            read: converts a value in that format to an adapted annotation.

        Raises:
            InvalidArguments: they do not fit. The text has one line and names the parameter.
        """
        return self._bind_named(0, kwargs, read)

    def annotation(self, name: str) -> Any:
        """Return the annotation of a parameter or of "return", or ``Any`` without one.

        Raises TypeError if it cannot be resolved.
        """
        return self._annotations.get(name)

    def adapted_result(self) -> Any:
        """Return the adapted annotation of the result of a call.

        Raises TypeError if it cannot be resolved or checked.
        """
        return self._adapt("its result", awaited(self._annotations.get("return")), "return")

    def bind(
        self, args: Sequence[Any], kwargs: dict[str, Any] | None = None, most: int = MOST
    ) -> tuple[Sequence[Any], dict[str, Any]]:
        """Check and convert arguments from the wire. The function itself fills in defaults.

        Args:
            args: the arguments by position.
            kwargs: the arguments by name.
            most: the units that this may cost: ``Limits.max_nodes`` of this end.

        Raises:
            InvalidArguments: they do not fit. The text has one line and names the parameter.
        """
        if not kwargs:
            count = len(args)
            plain = self._plain.get(count)
            if plain is not None:
                exact = plain == [*map(type, args)]
                return (args if exact else self._bind_positional(args, WireRead(most))), {}
            shape = self._shapes.get(count)
            if shape is _Anything:
                return args, {}
            if shape is not None:
                try:
                    read = msgspec.convert if self._is_natural(count) else WireRead(most)
                    return msgspec.structs.astuple(read(args, shape)), {}
                except TooCostly as exc:
                    raise InvalidArguments(f"{self.method}() arguments: {exc}") from None
                except Exception:  # noqa: BLE001, S110 - the checks below find the parameter
                    pass
        read = WireRead(most)
        return self._bind_positional(args, read), self._bind_named(len(args), kwargs or {}, read)

    def shape(self, count: int) -> Shape | None:
        """Return the shape of so many positional arguments, or None if they have none."""
        if count not in self._direct:
            if count not in self._plain and count not in self._shapes:
                return None  # a peer may send any number
            wanted = [one.adapted for one in self._positional[:count]]
            self._direct[count] = shape_of_arguments(wanted)
        return self._direct[count]

    def _is_natural(self, count: int) -> bool:
        if count not in self._natural:
            self._natural[count] = is_natural(self._shapes[count])
        return self._natural[count]

    def result_converter(self) -> Convert | None:
        """Return a function that checks and converts a result, or None if anything fits.

        The function raises DecodeError, with one line of text, if the result does not fit.

        Raises TypeError if the annotation cannot be resolved or checked.
        """
        return self._made(
            "result", lambda: checked(self.method, make_converter(self.adapted_result()))
        )

    def _made(self, what: str, make: Callable[[], Convert | None]) -> Convert | None:
        """Make a converter once. Until it is needed, its annotation may be unresolvable."""
        if what not in self._converters:
            self._converters[what] = make()
        return self._converters[what]

    def started_converter(self) -> Convert | None:
        """Return a function that converts the started value, or None if anything fits.

        The started value is the one that ``task_status.started`` was given. The function raises
        DecodeError, with one line of text, if it does not fit.

        Raises TypeError if the annotation of ``task_status`` cannot be resolved or checked.
        """
        if not self.takes_task_status:
            return None

        def make() -> Convert | None:
            adapted = self._adapt("the started value", self.started_annotation(), TASK_STATUS)
            return checked(self.method, make_converter(adapted), "started value")

        return self._made("started value", make)

    def started_annotation(self) -> Any:
        """Return the annotation of the started value, or ``Any`` without one.

        Raises TypeError if it cannot be resolved.
        """
        annotation = bare(self._annotations.get(TASK_STATUS)) if self.takes_task_status else Any
        several = get_args(annotation) if get_origin(annotation) in UNIONS else (annotation,)
        for one in map(bare, several):
            if get_origin(one) is trio.TaskStatus:
                return get_args(one)[0]
        return Any

    def prepare(self) -> PrepareAll | None:
        """Return a function that marks the arguments that are lent; None if no argument can be."""

        def how(one: WireParameter | None) -> Prepare | None:
            if one is None:
                return None
            return preparer(one.annotation, self._annotations.names(one.name))

        return prepare_all(
            [how(one) for one in self._positional],
            {name: how(one) for name, one in self._named.items()},
            how(self._extra_positional),
            how(self._extra_keywords),
        )

    def item_converter(self, *, duplex: bool = False) -> Convert | None:
        """Return a function that converts an item of a stream, or None if anything fits.

        Args:
            duplex: the items are those of the channel in the first parameter.

        Raises:
            TypeError: the annotation does not declare a stream, or cannot be resolved or checked.
        """
        name = self._first if duplex else "return"
        return self._made(
            f"items of {name}", lambda: make_converter(self.adapted_item(duplex=duplex))
        )

    def adapted_item(self, *, duplex: bool = False) -> Any:
        """Return the adapted annotation of the items of a stream; raises as the converter does."""
        where, name = (f"parameter {self._first!r}", self._first) if duplex else _RESULT
        return self._adapt(f"the items of {where}", self.item_annotation(duplex=duplex), name)

    def item_annotation(self, *, duplex: bool = False) -> Any:
        """Return the annotation of a stream's items, or ``Any`` without one.

        Raises TypeError if the annotation does not declare a stream, or cannot be resolved.
        """
        where, name = (f"parameter {self._first!r}", self._first) if duplex else _RESULT
        annotation = bare(awaited(self._annotations.get(name)))
        cls = get_origin(annotation) or annotation
        if cls is Any:
            return Any
        if identity(cls) not in (CHANNELS if duplex else ITERABLES):
            instead = "trio.abc.Channel" if duplex else "AsyncIterator"
            raise TypeError(
                f"{self.method}: the annotation of {where} is not that of a stream: write"
                f" {instead}[...]"
            )
        return (*get_args(annotation), Any)[0]

    def _add(self, parameter: Parameter) -> None:
        name, kind = parameter.name, parameter.kind
        if name == TASK_STATUS:
            if kind is Parameter.POSITIONAL_ONLY:
                raise TypeError(f"{self.method}: task_status cannot be positional-only")
            self.takes_task_status = True
            return
        annotation = self._own(parameter)
        if get_origin(annotation) is Unpack:
            self._add_unpacked(parameter, get_args(annotation)[0])
            return
        one = self._parameter(parameter, annotation)
        if self._given is None and is_never(annotation) and not kind.name.startswith("VAR_"):
            raise TypeError(f"{self.method}: parameter {name!r} is Never: remove it")
        if kind is Parameter.VAR_POSITIONAL:
            self._extra_positional = one
        elif kind is Parameter.VAR_KEYWORD:
            self._extra_keywords = one
        else:
            # No argument after task_status can be positional, because none may take its place.
            if kind is not Parameter.KEYWORD_ONLY and not self.takes_task_status:
                self._positional.append(one)
            if one.by_name:
                self._named[name] = one
                if is_function(one.annotation):
                    self.callbacks[name] = one.required

    def _own(self, parameter: Parameter) -> Any:
        """Return the function's own annotation of a parameter, or ``Any``.

        Raises TypeError if it cannot be resolved, unless the function is a callback.
        """
        try:
            return self._annotations.get(parameter.name)
        except TypeError:
            if self._given is None:
                raise
            return Any  # only a type checker can resolve it

    def _parameter(self, parameter: Parameter, annotation: Any) -> WireParameter:
        """Make one parameter. An unusable annotation of a callback is ignored."""
        where = f"parameter {parameter.name!r}"
        given = Any if self._given is None else self._given_type(parameter, self._given)
        if not is_vaguer(annotation, given):
            try:
                adapted = self._adapt(where, annotation, parameter.name)
                return WireParameter(parameter, annotation, adapted)
            except TypeError:
                if self._given is None:
                    raise
        return WireParameter(parameter, given, self._adapt_given(where, given))

    def _given_type(self, parameter: Parameter, given: FunctionTypes) -> Any:
        """Return the type that a callback's method gives to one of the callback's parameters."""
        position, kind = len(self._positional), parameter.kind
        if kind is Parameter.VAR_POSITIONAL:
            return given.more
        if kind is Parameter.VAR_KEYWORD:
            return given.others
        if kind is Parameter.KEYWORD_ONLY:
            return given.named.get(parameter.name, given.others)
        if position < len(given.positional):
            return given.positional[position]
        return given.named.get(parameter.name, given.more)

    def _taken_names(self, function: Callable[..., Any], *, skip_self: bool) -> frozenset[str]:
        """Return the names that ``**kwargs`` cannot collect, if there is one."""
        if self._extra_keywords is None:
            return frozenset()
        return taken_names(function, skip_self=skip_self)

    def _add_given(self, given: FunctionTypes) -> None:
        """Apply the given types to the arguments that ``*args`` and ``**kwargs`` collect."""
        rest = self._extra_positional
        for number, annotation in enumerate(given.positional[len(self._positional) :]):
            if rest is None:
                break
            if rest.annotation is not given.more and not is_vaguer(rest.annotation, annotation):
                break
            parameter = Parameter(f"{rest.name}_{number}", Parameter.POSITIONAL_ONLY, default=None)
            adapted = self._adapt_given(f"argument {number}", annotation)
            self._positional.append(WireParameter(parameter, annotation, adapted))
        others = self._extra_keywords
        for name in given.named.keys() - self._named.keys():
            if others is None:
                break
            annotation = given.named[name]
            if others.annotation is given.others or is_vaguer(others.annotation, annotation):
                parameter = Parameter(name, Parameter.KEYWORD_ONLY, default=None)
                adapted = self._adapt_given(f"argument {name!r}", annotation)
                self._named[name] = WireParameter(parameter, annotation, adapted)

    def _add_declared(self, like: inspect.Signature) -> None:
        """Apply the interface to the arguments that ``*args`` and ``**kwargs`` collect."""
        rest, others = self._extra_positional, self._extra_keywords
        declared = [one for one in like.parameters.values() if one.name not in self._named]
        kinds = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
        count = len(self._positional)
        own = [one for one in like.parameters.values() if one.kind in kinds][:count]
        for one in declared:
            if one.name == TASK_STATUS:
                self.takes_task_status |= others is not None
                continue
            if one.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD):
                mine = rest if one.kind is Parameter.VAR_POSITIONAL else others
                if mine is not None and mine.annotation is Any:
                    self._add(one)
                continue
            by_position = rest is not None and one.kind in kinds and one not in own
            by_name = others is not None and one.kind in (kinds[1], Parameter.KEYWORD_ONLY)
            if not (by_position or by_name):
                continue
            kind = Parameter.KEYWORD_ONLY if by_name else Parameter.POSITIONAL_ONLY
            added = self._parameter(
                Parameter(one.name, kind, default=None), self._annotations.get(one.name)
            )
            if by_position:
                self._positional.append(added)
            if by_name:
                self._named[one.name] = added
                if is_function(added.annotation):
                    self.callbacks[one.name] = one.default is Parameter.empty

    def _add_unpacked(self, parameter: Parameter, annotation: Any) -> None:
        """Add the parameters that an unpacked annotation stands for.

        It is ``**options: Unpack[...]`` of a TypedDict, or ``*rest: *tuple[...]``.
        """
        names = self._annotations.names(parameter.name)
        record = record_of(annotation, names)
        if parameter.kind is Parameter.VAR_KEYWORD and record is not None:
            for field in record.fields:
                default = Parameter.empty if field.is_required else None
                named = Parameter(field.name, Parameter.KEYWORD_ONLY, default=default)
                where = f"parameter {field.name!r} of {parameter.name!r}"
                adapted = self._adapt(where, field.annotation, parameter.name)
                self._named[field.name] = WireParameter(named, field.annotation, adapted)
                if is_function(field.annotation):
                    self.callbacks[field.name] = field.is_required
            for extra in record.extra:
                adapted = self._adapt(f"other keys of {parameter.name!r}", extra, parameter.name)
                self._extra_keywords = WireParameter(parameter, extra, adapted)
            return
        collected = None if parameter.kind is Parameter.VAR_KEYWORD else collected_types(annotation)
        if collected is None:
            raise TypeError(
                f"{self.method}: the annotation of parameter {parameter.name!r} cannot be checked:"
                " write a parameter for each argument"
            )
        where, (first, more) = f"parameter {parameter.name!r}", collected
        for number, one in enumerate(first):
            fixed = Parameter(f"{parameter.name}_{number}", Parameter.POSITIONAL_ONLY)
            adapted = self._adapt(where, one, parameter.name)
            self._positional.append(WireParameter(fixed, one, adapted))
        for one in more:
            adapted = self._adapt(where, one, parameter.name)
            self._extra_positional = WireParameter(parameter, one, adapted)

    def _adapt_given(self, where: str, annotation: Any) -> Any:
        """Adapt an annotation from the method that takes the callback."""
        names = None if self._given is None else self._given.names
        return self._adapted(where, annotation, names or self._annotations.names(""))

    def _adapt(self, where: str, annotation: Any, name: str) -> Any:
        return self._adapted(where, annotation, self._annotations.names(name))

    def _adapted(self, where: str, annotation: Any, names: Names) -> Any:
        try:
            adapted = adapt(annotation, names)
            check_supported(adapted)
        except Exception as exc:
            text = f"{self.method}: the annotation of {where} cannot be checked: {exc}"
            raise TypeError(text) from exc
        return adapted

    def _short_cuts(self) -> tuple[dict[int, list[type]], dict[int, type[msgspec.Struct]]]:
        """Map each sufficient number of positional arguments to a fast check of them.

        1. If all are scalars, the check is a list of their types. Arguments with other types may
           still fit, and are then converted one by one.
        2. If all may be anything, it is ``_Anything``.
        3. Otherwise it is a Struct with a field for each argument, because msgspec caches its type
           information for a Struct but not for a tuple.
        """
        plain: dict[int, list[type]] = {}
        shapes: dict[int, type[msgspec.Struct]] = {}
        if any(one.required for one in self._named.values() if one not in self._positional):
            return plain, shapes
        least = sum(one.required for one in self._positional)
        for count in range(least, len(self._positional) + 1):
            wanted = [one.adapted for one in self._positional[:count]]
            scalars = [cls for cls in map(scalar_type, wanted) if cls is not None]
            if len(scalars) == count:
                plain[count] = scalars
            elif all(one is Any for one in wanted):
                shapes[count] = _Anything
            else:
                fields = [(f"_{index}", one) for index, one in enumerate(wanted)]
                shapes[count] = msgspec.defstruct("Arguments", fields, array_like=True)
        return plain, shapes

    def _bind_positional(self, args: Sequence[Any], read: Read) -> list[Any]:
        parameters = self._positional
        if len(args) > len(parameters) and self._extra_positional is None:
            raise InvalidArguments(self._too_many(len(args)))
        pairs = zip(parameters, args, strict=False)
        bound = [self._converted(one, value, read) for one, value in pairs]
        if self._extra_positional is not None:
            extra = args[len(parameters) :]
            bound += [self._converted(self._extra_positional, value, read) for value in extra]
        return bound

    def _too_many(self, given: int) -> str:
        count = len(self._positional)
        most = f"at most {count} positional argument" if count else "no positional arguments"
        text = f"{self.method}() takes {most}{'s' * (count > 1)}, but was given {given}"
        by_name = [repr(one.name) for one in self._named.values() if one not in self._positional]
        return f"{text}; give {', '.join(by_name)} by name" if by_name else text

    def _missing(self, one: WireParameter, *, is_named: bool) -> InvalidArguments:
        text = f"{self.method}() lacks parameter {one.name!r}"
        if one not in self._positional and not is_named:
            text += ", which has to be given by name"
        return InvalidArguments(text, one.name)

    def _bind_named(self, filled: int, kwargs: dict[str, Any], read: Read) -> dict[str, Any]:
        by_position = self._positional[:filled]
        bound = {}
        for name, value in kwargs.items():
            one = self._named.get(name)
            if one is None:
                bound[name] = self._bind_extra(name, value, read)
            elif one in by_position:
                raise InvalidArguments(
                    f"{self.method}() got parameter {name!r} by position and by name", name
                )
            else:
                bound[name] = self._converted(one, value, read)
        for one in (*self._positional[filled:], *self._named.values()):
            if one.required and one.name not in bound and one not in by_position:
                raise self._missing(one, is_named=_is_json(read))
        return bound

    def _bind_extra(self, name: str, value: Any, read: Read) -> Any:
        if self._extra_keywords is None or name == TASK_STATUS or name in self._taken:
            shown = quoted(name)
            text = f"{self.method}() has no parameter {shown}"
            if any(one.name == name and not one.by_name for one in self._positional):
                text += " that can be given by name, only by position"
            raise InvalidArguments(text, shown[1:-1])
        return self._converted(self._extra_keywords, value, read, name)

    def _converted(
        self, one: WireParameter, value: Any, read: Read, name: str | None = None
    ) -> Any:
        if one.convert is None:
            return value
        try:
            return one.convert(value, read)
        except Exception as exc:  # noqa: BLE001 - a class's own checks may raise anything
            shown = quoted(name or one.name)
            what = complaint(exc, in_json=_is_json(read))
            text = f"{self.method}() parameter {shown}: {what}"
            raise InvalidArguments(text, shown[1:-1]) from None


@functools.lru_cache(maxsize=2048)
def signature_of(
    function: Callable[..., Any], like: Callable[..., Any], owner: Any, name: str, of: Any = None
) -> Signature:
    """Return the :class:`Signature` of a method, made once for all sessions.

    Making one takes 100 µs or more: too long for each connection. ``of`` is the interface.
    """
    return Signature(function, like=like, owner=owner, name=name, interface=of)


def _is_json(read: Read) -> bool:
    return not isinstance(read, WireRead)

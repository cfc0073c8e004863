"""The annotations of a gateway's methods, read and checked when the methods are registered."""

from __future__ import annotations

import collections.abc
import inspect
import types
from inspect import Parameter
from typing import Any, TypeVar, get_args, get_origin

import msgspec
import trio

from trio_rpc.errors import DecodeError, Fate, InvalidArguments
from trio_rpc.gateway.json_messages import ENVELOPE, RESERVED
from trio_rpc.gateway.json_values import Form, JsonRead, has_lost, lower, read_json
from trio_rpc.gateway.server.unfit import why_unfit
from trio_rpc.services.aliases import UNIONS, bare, stands_for
from trio_rpc.services.conversion import adapt, is_function
from trio_rpc.services.costs import MOST, TooCostly
from trio_rpc.services.error_maps import set_fate
from trio_rpc.services.functions import FunctionTypes, function_types
from trio_rpc.services.lending import is_reference_type
from trio_rpc.services.signatures import TASK_STATUS
from trio_rpc.services.tables import BoundMethod
from trio_rpc.util.text import quoted

__all__ = ["CallbackForm", "Forms"]


class Forms:
    """Reads and writes the arguments, the result and the callbacks of one method.

    Raises:
        TypeError: a browser could never pass one of the method's parameters, or one of its
            annotations cannot be resolved. The text names the method and the parameter, and says
            what to write.
    """

    def __init__(self, method: BoundMethod) -> None:
        self._signature = method.signature
        _check_parameters(method)
        self.result = Form(method.signature.annotation("return"), method.signature.adapted_result())
        self.callbacks = {
            name: CallbackForm(name, method.signature.annotation(name))
            for name in method.signature.callbacks
        }

    def bind(self, arguments: dict[str, Any], most: int = MOST) -> dict[str, Any]:
        """Check and convert the arguments of a call: JSON values and callbacks.

        Args:
            arguments: the arguments by name.
            most: the units that this may cost: ``GatewayLimits.max_nodes``.

        Raises InvalidArguments.
        """
        bound = self._signature.bind_names(arguments, JsonRead(most))
        for name, value in arguments.items():
            if has_lost(value, bound[name]):
                shown = quoted(name)
                raise InvalidArguments(
                    f"{self._signature.method}() parameter {shown}: repeats an element of a set,"
                    " or a key",
                    shown[1:-1],
                )
        if self._signature.takes_task_status:
            bound[TASK_STATUS] = trio.TASK_STATUS_IGNORED  # no caller waits for it here
        return bound


_PLAIN = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


class CallbackForm:
    """Writes the arguments of one callback.

    Args:
        name: the name of the callback.
        annotation: the annotation of the parameter that takes the callback.

    Raises:
        TypeError: the annotation of one of its arguments, or of its result, cannot be checked.

    Attributes:
        asks: whether its handler waits for a value.
        may_be_none: whether None is such a value, for clients that return none.
    """

    def __init__(self, name: str, annotation: Any) -> None:
        self._name = name
        self._signature, annotations, names = _taken_apart(annotation)
        self._forms = {key: Form(one, adapt(one, names)) for key, one in annotations.items()}
        kinds = [one.kind for one in self._signature.parameters.values()]
        self._positional = [
            self._forms[key]
            for key, one in self._signature.parameters.items()
            if one.kind in _PLAIN
        ]
        """The forms of its positional parameters; empty if it has others."""
        if len(self._positional) < len(kinds):
            self._positional = []
        asked = _asked_type(annotation)
        self.asks = asked is not None
        self.may_be_none = types.NoneType in get_args(asked)
        self._answer = adapt(asked, names)
        self._takes_one = Parameter.VAR_POSITIONAL in kinds or len(kinds) == 1

    def read(self, value: Any, most: int) -> Any:
        """Check and convert the value that the callback has returned. Raises DecodeError."""
        try:
            read = read_json(value, self._answer, most)
        except (msgspec.ValidationError, TooCostly) as exc:
            raise self._misfit(str(exc)) from None
        if has_lost(value, read):
            raise self._misfit("it repeats an element of a set, or a key")
        return read

    def _misfit(self, why: str) -> DecodeError:
        error = DecodeError(
            f"the callback {self._name!r} returned a value that does not fit: {why}"
        )
        set_fate(error, Fate.STOPPED)  # the callback has run
        return error

    def write_whole(self, value: Any) -> tuple[Any, bool]:
        """Write the value that :func:`~trio_rpc.gateway.call_back` was given for this callback.

        The value is the one argument, or a tuple of the arguments for a callback that takes several
        or none. Returns and raises as :meth:`write` does.
        """
        if self._takes_one:
            return self.write((value,), {})
        if type(value) is not tuple and value is not None:
            raise TypeError(f"the callback {self._name!r} takes several arguments: give a tuple")
        return self.write(value or (), {})

    def write(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, bool]:
        """Return the value that stands for the arguments, and whether it is spread.

        A value that is not spread is the one argument. A value that is spread holds all arguments.

        Raises:
            TypeError: the arguments do not fit the annotation, or JSON has no such types.
            ValueError: JSON cannot carry the arguments.
        """
        if args and kwargs:
            raise TypeError("a browser's callback takes positional or keyword arguments, not both")
        positional, named = self._write_each(args, kwargs)
        if named:
            return named, True
        return (positional[0], False) if len(positional) == 1 else (positional or None, True)

    def _write_each(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        if args and not kwargs and len(args) == len(self._positional):
            # Most callbacks are called like this. Signature.bind takes longer than all the rest.
            return [form.write(one) for form, one in zip(self._positional, args, strict=True)], {}
        positional: list[Any] = []
        named: dict[str, Any] = {}
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as exc:
            raise TypeError(f"the callback {self._name!r} was called wrongly: {exc}") from None
        for name, value in bound.arguments.items():
            kind, form = self._signature.parameters[name].kind, self._forms[name]
            if kind is Parameter.VAR_POSITIONAL:
                positional += map(form.write, value)
            elif kind is Parameter.VAR_KEYWORD:
                named |= {lower(key): form.write(one) for key, one in value.items()}
            elif kwargs:
                named[lower(name)] = form.write(value)
            else:
                positional.append(form.write(value))
        return positional, named


def _taken_apart(annotation: Any) -> tuple[inspect.Signature, dict[str, Any], Any]:
    """Return the signature that a callback's annotation describes.

    The second value is the annotation of each parameter, by name, and the third one is the names
    that these annotations may use.
    """
    annotation = _one_function(annotation)
    origin, args = get_origin(annotation), get_args(annotation)
    given = function_types(annotation) or FunctionTypes()
    if origin is collections.abc.Callable and isinstance((*args, None)[0], list):
        wanted = {f"argument_{number}": one for number, one in enumerate(given.positional, 1)}
        parameters = [Parameter(name, Parameter.POSITIONAL_ONLY) for name in wanted]
        if len(given.positional) < len(args[0]):  # it has an unpacked tuple of any length
            wanted["args"] = given.more
            parameters.append(Parameter("args", Parameter.VAR_POSITIONAL))
        return inspect.Signature(parameters), wanted, given.names
    function = getattr(origin or annotation, "__call__", None)  # noqa: B004 - as a Protocol has it
    if inspect.isfunction(function):
        parameters = list(inspect.signature(function).parameters.values())[1:]
        each = {one.name: _given_type(one, index, given) for index, one in enumerate(parameters)}
        return inspect.Signature(parameters), each, given.names
    anything = inspect.signature(lambda *args, **kwargs: None)  # noqa: ARG005
    return anything, {"args": Any, "kwargs": Any}, None


def _one_function(annotation: Any) -> Any:
    """Return the one annotation of a function that an annotation stands for, or None."""
    annotation = bare(annotation)
    if isinstance(annotation, TypeVar):
        return _one_function(stands_for(annotation))
    if get_origin(annotation) not in UNIONS:
        return annotation
    members = [one for one in get_args(annotation) if one is not types.NoneType]
    return _one_function(members[0]) if len(members) == 1 else None


def _given_type(parameter: Parameter, index: int, given: FunctionTypes) -> Any:
    if parameter.kind is Parameter.VAR_POSITIONAL:
        return given.more
    if parameter.kind is Parameter.VAR_KEYWORD:
        return given.others
    if parameter.kind is Parameter.KEYWORD_ONLY:
        return given.named.get(parameter.name, Any)
    return given.positional[index]


def _check_parameters(method: BoundMethod) -> None:
    by_position = [one for one in method.signature.parameters.positional if not one.by_name]
    for parameter in inspect.signature(method.function).parameters.values():
        if parameter.name == TASK_STATUS:
            continue
        annotation = method.signature.annotation(parameter.name)
        unfit = _why_unfit(method.name, repr(parameter.name), annotation)
        why = _why_never_given(parameter, annotation) or unfit
        if parameter.kind is Parameter.VAR_POSITIONAL and any(one.required for one in by_position):
            why = "requires arguments by position, but browsers pass them by name: give each a name"
        if why is not None:
            raise TypeError(f"{method.name}, in a gateway: {parameter.name!r} {why}")
    result = method.signature.annotation("return")
    why = _why_unfit(method.name, "its result", result)
    if is_reference_type(result, in_fields=True):
        why = "can never be sent: JSON has no streams, and no functions inside other values"
    if why is not None:
        raise TypeError(f"{method.name}, in a gateway: its result {why}")


def _why_unfit(method: str, what: str, annotation: Any) -> str | None:
    """Return why JSON could never carry such values. Raises TypeError for an unknown name."""
    try:
        return why_unfit(annotation)
    except TypeError as exc:
        raise TypeError(f"{method}, in a gateway: the annotation of {what}: {exc}") from exc


def _why_never_given(parameter: Parameter, annotation: Any) -> str | None:
    """Return why a parameter could never be passed in an HTTP request; None if it could."""
    name, kind = parameter.name, parameter.kind
    if kind is Parameter.POSITIONAL_ONLY:
        return "is positional-only, but browsers pass arguments by name: remove the '/'"
    if is_function(annotation):
        if kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD):
            return "stands for several callbacks: give each a separate parameter"
        if not name.isascii():
            return "cannot be the name of a callback: it travels in a header, so use ASCII"
        if name in RESERVED | ENVELOPE:
            return "cannot be the name of a callback: messages use this key themselves"
        return None
    if is_reference_type(annotation, in_fields=True):
        return "can never be passed: JSON has no streams, and no functions inside other values"
    return None


def _asked_type(annotation: Any) -> Any:
    """Return the declared result of a callback; None if its handler expects no value."""
    given = function_types(annotation)
    result = None if given is None else given.result
    members = get_args(result) if get_origin(result) in UNIONS else (result,)
    nothing = (None, types.NoneType, Any, object)
    if all(one in nothing or isinstance(one, TypeVar) for one in members):
        return None
    return result

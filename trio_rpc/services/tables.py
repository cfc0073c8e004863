"""Building the method table: a dict of the methods that a peer may call.

The dict is built once, at registration. A name from the wire is only ever looked up in this dict,
never as an attribute (law 13).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, TypeAlias

from trio_rpc.errors import MethodNotFound
from trio_rpc.services.aliases import class_made, class_of, is_never
from trio_rpc.services.annotations import is_unresolved
from trio_rpc.services.decorators import Kind, MethodMark, Raises, checked_raises
from trio_rpc.services.fallbacks import has_fallback
from trio_rpc.services.fitting import check_signature, declared_methods
from trio_rpc.services.functions import awaited
from trio_rpc.services.interfaces import Identifier, check_service_name, marked_methods
from trio_rpc.services.lending import is_reference_type, why_never_lent
from trio_rpc.services.signatures import Signature, signature_of
from trio_rpc.util.coroutines import is_coroutine_function, is_generator_function
from trio_rpc.util.text import quoted

__all__ = [
    "BoundMethod",
    "Table",
    "build_table",
    "check_maker",
    "is_per_session",
    "missing",
    "named_services",
    "resolve",
    "wrong_kind",
]


@dataclass(frozen=True, slots=True, eq=False)
class BoundMethod:
    """One callable entry of a table.

    Attributes:
        name: the full name, "service.method", or "method" for the service "".
        kind: its kind, such as a stream.
        function: the method, bound to its service object.
        is_async: whether it may wait.
        signature: checks the arguments.
        raises: the exception classes that reach the caller as themselves.
        doc: the docstring as written, or "" without one.
        drops_result: whether its result is not sent, because its caller expects None.
        service: the service whose fallback it is, or None for a method with its own name.
    """

    name: str
    kind: Kind
    function: Callable[..., Any] = field(repr=False)
    is_async: bool
    signature: Signature = field(repr=False)
    raises: Raises = ()
    doc: str = field(default="", repr=False)
    drops_result: bool = False
    service: str | None = None

    @property
    def own_name(self) -> str:
        """A name that this program has chosen: callers of a fallback choose the method's name."""
        return self.name if self.service is None else f"the fallback of {self.service!r}"


Table: TypeAlias = dict[str, BoundMethod]

_NOT_PLAIN: Final = "the function that makes a session's services must be a plain def"


def is_per_session(services: object) -> bool:
    """Return whether ``services`` is a function that makes the services of a session.

    An object with marked methods is a service, even if it is callable. A class is such a function:
    each session gets its own instance, made with the session as its argument.
    """
    if services is None or isinstance(services, Mapping) or _is_service(services):
        return False
    return callable(services)


def check_maker(make: Callable[..., Any]) -> None:
    """Raise TypeError for a function that could not make the services of any session.

    Args:
        make: a function or class, of which :func:`is_per_session` is true.
    """
    if is_coroutine_function(make) or is_generator_function(make):
        raise TypeError(_NOT_PLAIN)
    try:
        signature = inspect.signature(make)
    except (TypeError, ValueError):
        return  # Python cannot tell how it is called
    try:
        signature.bind(None)
    except TypeError as exc:
        if isinstance(make, type):
            raise TypeError(
                f"the class {make.__name__} cannot be made with a session as its argument ({exc}):"
                " give an instance of it"
            ) from None
        raise TypeError(
            f"the function that makes a session's services must take the session: {exc}"
        ) from None


def resolve(services: object, session: object) -> object:
    """Return the services of one session, which a function may make.

    Raises TypeError if the function is an ``async def``.
    """
    if not is_per_session(services):
        return services  # if it is not a service either, build_table raises
    made = services(session)  # type: ignore[operator]
    if inspect.iscoroutine(made):
        made.close()
        raise TypeError(_NOT_PLAIN)
    return made


def build_table(services: object) -> Table:
    """Return the table of all marked methods of ``services``.

    Args:
        services: a mapping from service names or identifiers to objects, one object (the service
            ""), or None.

    Raises:
        TypeError: something is not a service, or does not fit the interface of its identifier; or
            an annotation cannot be checked.
        ValueError: a service's name has characters other than ASCII letters, digits, '_' and '-',
            or two services or two methods have the same name.
    """
    table: Table = {}
    for service, obj, interface in named_services(services):
        for bound in _bound_methods(service, obj, interface):
            if bound.name in table:
                raise ValueError(f"two methods have the name {bound.name!r}")
            table[bound.name] = bound
    return table


def missing(table: Table, name: str) -> MethodNotFound:
    """Return the error for a name that is not in ``table``, which may name an unknown service."""
    service, dot, _ = name.rpartition(".")
    known = service in {key.rpartition(".")[0] for key in table}
    if dot and not known:
        return MethodNotFound(f"there is no service {quoted(service)}")
    return MethodNotFound(f"there is no method {quoted(name)}")


def wrong_kind(method: BoundMethod) -> MethodNotFound:
    """Return the error for a method that was used as if it had another kind."""
    return MethodNotFound(
        f"{method.name!r} is a {method.kind.value}: it must be {_USE[method.kind]}"
    )


_USE: Final = {
    Kind.METHOD: "called, not notified or opened",
    Kind.NOTIFICATION: "notified, not called",
    Kind.STREAM: "opened as a stream",
    Kind.DUPLEX: "opened as a duplex",
}


def named_services(services: object) -> Iterator[tuple[str, object, Any]]:
    """Yield the name, the object and the interface, if it is known, of each service."""
    if services is None:
        return
    if not isinstance(services, Mapping) or _is_service(services):
        yield "", services, None
        return
    seen: set[str] = set()
    for key, obj in services.items():
        name: Any = key.name if isinstance(key, Identifier) else key
        check_service_name(name)
        if name in seen:
            raise ValueError(f"two services have the name {name!r}")
        seen.add(name)
        yield name, obj, interface_of(key)


def interface_of(key: object) -> Any:
    """Return the interface of an identifier; None for a name."""
    return key.interface if isinstance(key, Identifier) else None


def _is_service(obj: object) -> bool:
    return bool(marked_methods(type(obj))) or has_fallback(type(obj))


def _bound_methods(service: str, obj: object, interface: Any) -> Iterator[BoundMethod]:
    label = f"service {service!r}"
    if isinstance(obj, type):
        raise TypeError(f"{label} is the class {obj.__name__}: give an instance of it")
    cls = type(obj)
    marked = marked_methods(cls)
    if not marked and not has_fallback(cls):
        raise TypeError(
            f"{label} is of type {cls.__name__}, which has no methods marked with @method: give an"
            " object whose class has some, or a dict of such objects by name"
        )
    declared = {} if interface is None else declared_methods(cls, marked, interface)
    for name, (function, mark) in marked.items():
        called = mark.name or name
        full_name = f"{service}.{called}" if service else called
        if interface is None or name not in declared:
            yield _bind(full_name, obj, name, function, mark)
            continue
        like, promised = declared[name]
        if (promised.name or name) != called:
            other = f"{class_of(interface).__name__} {promised.name or name!r}"
            raise TypeError(
                f"{cls.__name__}.{name} is called {called!r}, and in the interface {other}: give"
                " both the same name="
            )
        raises = (*mark.raises, *(one for one in promised.raises if one not in mark.raises))
        own_mark = MethodMark(mark.kind, checked_raises(raises))
        is_own = vars(cls).get(name) is function
        bound = _bind(
            full_name, obj, name, like if is_own else function, own_mark, interface=interface
        )
        check_signature(cls, interface, name, bound.signature)
        yield bound


def _bind(
    full_name: str,
    obj: object,
    name: str,
    like: Callable[..., Any],
    mark: MethodMark,
    *,
    interface: Any = None,
) -> BoundMethod:
    cls, made = type(obj), class_made(obj)
    attribute = next(vars(base)[name] for base in cls.__mro__ if name in vars(base))
    function = _bound(attribute, obj)
    if function is None:
        what = type(attribute).__name__
        raise TypeError(
            f"{cls.__name__}.{name} overrides a remote method with a {what}: write a def"
            " that takes self and calls it"
        )
    signature = (
        signature_of(attribute, like, made, full_name, interface)
        if inspect.isfunction(attribute)
        else Signature(
            function, skip_self=False, like=like, owner=made, name=full_name, interface=interface
        )
    )
    try:
        _check_lending(signature, mark.kind, like=function)
        _check_answers(signature, mark.kind)
    except RecursionError:
        raise TypeError(
            f"{full_name}: one of its annotations contains itself without end"
        ) from None
    is_async = mark.kind.is_opened or is_coroutine_function(function)
    if is_never(awaited(_resolved_or_any(signature.annotation, "return"))):
        function = _never_returning(function, full_name)
    return BoundMethod(
        name=full_name,
        kind=mark.kind,
        function=function,
        is_async=is_async,
        signature=signature,
        raises=mark.raises,
        doc=attribute.__doc__
        if inspect.isfunction(attribute) and attribute.__doc__
        else like.__doc__ or "",
    )


def _never_returning(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Wrap a function that is annotated never to return. If it does, the wrapper raises."""

    async def wait(awaitable: Awaitable[Any]) -> NoReturn:
        raise _returned(await awaitable)

    def _returned(result: Any) -> TypeError:
        kind = type(result).__name__
        return TypeError(f"{name} is annotated never to return, but has returned a {kind}")

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        if inspect.isawaitable(result):
            return wait(result)
        raise _returned(result)

    return call


def _check_lending(signature: Signature, kind: Kind, like: Callable[..., Any]) -> None:
    """Raise TypeError for a method that no call could use as declared.

    Its arguments, result or items would be functions or streams where these cannot be sent.
    """
    if kind is Kind.NOTIFICATION:
        for name in inspect.signature(like).parameters:
            if is_reference_type(signature.annotation(name)):
                raise TypeError(
                    f"{signature.method}: parameter {name!r} is a function or a stream, which lives"
                    " until its call ends, and a notification has no end: mark it with @method"
                )
        return
    if kind is Kind.METHOD and is_reference_type(
        awaited(_resolved_or_any(signature.annotation, "return"))
    ):
        raise TypeError(
            f"{signature.method}: its result is a function or a stream, which would outlive the"
            " call: mark an async generator with @stream, or add a parameter for a callback"
        )
    if kind.is_opened and is_reference_type(_items(signature, kind)):
        raise TypeError(
            f"{signature.method}: its items are functions or streams, but only an argument of a"
            " call can be one: add a parameter for a callback"
        )
    if is_reference_type(_resolved_or_any(signature.started_annotation)):
        raise TypeError(
            f"{signature.method}: its started value is a function or a stream, but only an argument"
            " of a call can be one: add a parameter for a callback"
        )
    for name in [*inspect.signature(like).parameters][kind is Kind.DUPLEX :]:
        why = why_never_lent(_resolved_or_any(signature.annotation, name))
        if why is not None:
            raise TypeError(f"{signature.method}: parameter {name!r} takes {why}")


def _check_answers(signature: Signature, kind: Kind) -> None:
    """Raise TypeError if a caller with the same interface could never check the received values."""
    if kind is Kind.METHOD:
        _resolved_or_any(signature.result_converter)
    elif kind.is_opened:
        _resolved_or_any(functools.partial(signature.item_converter, duplex=kind is Kind.DUPLEX))
    _resolved_or_any(signature.started_converter)


def _items(signature: Signature, kind: Kind) -> Any:
    if kind is Kind.DUPLEX:  # its handler gets the channel here, so the annotation must be right
        return signature.item_annotation(duplex=True)
    return _resolved_or_any(signature.item_annotation)


def _resolved_or_any(get: Callable[..., Any], *name: str) -> Any:
    try:
        return get(*name)
    except TypeError as exc:
        if not is_unresolved(exc):
            raise
        return Any  # only a type checker can resolve it, and the serving side does not need it


def _bound(attribute: Any, obj: object) -> Callable[..., Any] | None:
    """Bind an attribute of a class to an object, as Python does; None if it is not a method.

    No attribute of the object is read, because a property would run the user's code. A
    singledispatchmethod is refused, because its signature cannot be known.
    """
    if isinstance(
        attribute, (property, functools.cached_property, functools.singledispatchmethod, type)
    ):
        return None
    get = getattr(type(attribute), "__get__", None)
    bound = attribute if get is None else get(attribute, obj, type(obj))
    return bound if callable(bound) else None

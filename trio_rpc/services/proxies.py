"""The local end of a remote service: a proxy, whose attributes are remote methods.

Calling one of them passes the arguments to ``invoke`` of the *caller*, which is the session. With
an interface, a plain class with marked methods, a proxy has exactly these methods. Without one, any
public name is a method of kind METHOD: it is called, not notified or opened.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, NamedTuple, NoReturn, Protocol

from trio_rpc.errors import LocalProtocolError
from trio_rpc.services.aliases import class_of
from trio_rpc.services.converters import Convert
from trio_rpc.services.decorators import Kind, MethodMark, wire_name
from trio_rpc.services.interfaces import check_interface, methods_of
from trio_rpc.services.lending import PrepareAll
from trio_rpc.services.shapes import shape_of
from trio_rpc.services.signatures import signature_of
from trio_rpc.wire.one_pass import Shape

__all__ = ["Caller", "Proxy", "RemoteMethod", "remote_method"]


class Caller(Protocol):
    """The part of a session that a proxy uses."""

    def invoke(
        self, method: RemoteMethod, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Coroutine[Any, Any, Any] | AbstractAsyncContextManager[Any]:
        """Call, notify or open ``method`` at the other end, depending on its kind."""


class Converters(NamedTuple):
    """The converters of one method, made from the annotations of an interface."""

    convert: Convert | None = None
    """Checks and converts a result or an item."""
    started: Convert | None = None
    """Checks and converts the value that ``task_status.started`` was given."""
    prepare: PrepareAll | None = None
    """Marks the arguments that are lent."""
    result: Shape | None = None
    """The shape of a result."""
    item: Shape | None = None
    """The shape of an item."""


_NOTHING = Converters()


class RemoteMethod:
    """A method at the other end. Calling it gives a coroutine, as calling an async def does.

    Calling a stream or a duplex gives an async context manager that opens it.

    Attributes:
        name: the full name, "service.method", or "method" for the service "".
        title: the name shown to people.
        kind: its kind, such as a stream.
        raises: the declared exception classes, by the names under which they are sent.
        idempotent: whether the interface declares that it may be called again.
    """

    # caller: the session. converters: made from the interface's types. convert: the same as
    # converters.convert, which each call needs.
    __slots__ = (
        "__weakref__",
        "_invoke",
        "caller",
        "convert",
        "converters",
        "idempotent",
        "kind",
        "name",
        "raises",
        "title",
    )

    def __init__(
        self,
        caller: Caller,
        name: str,
        kind: Kind = Kind.METHOD,
        raises: dict[str, type[Exception]] | None = None,
        converters: Converters | None = None,
        *,
        idempotent: bool = False,
    ) -> None:
        self.caller = caller
        self.name = self.title = name
        self.kind = kind
        self.raises = {} if raises is None else raises
        self.converters = converters = converters or _NOTHING
        self.convert = converters.convert
        self.idempotent = idempotent
        self._invoke = caller.invoke

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the method. Its arguments are checked at the other end."""
        return self._invoke(self, args, kwargs)

    def __repr__(self) -> str:
        return f"<remote {self.kind.value} {self.name!r}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a remote method cannot be pickled or copied")


_INSTEAD: Final = {
    Kind.METHOD: "call it",
    Kind.NOTIFICATION: "notify it",
    Kind.STREAM: "open it with stream()",
    Kind.DUPLEX: "open it with duplex()",
}


def remote_method(caller: Caller, method: object, kind: Kind) -> RemoteMethod:
    """Return the RemoteMethod for a name or for a method of one of the caller's proxies.

    Raises:
        TypeError: ``method`` is neither.
        ValueError: it belongs to another session.
        LocalProtocolError: it is not of that kind.
    """
    if isinstance(method, str):
        return RemoteMethod(caller, method, kind)
    if not isinstance(method, RemoteMethod):
        raise TypeError(f"a method's name or a proxy's method is needed, not {method!r}")
    if method.caller is not caller:
        raise ValueError(f"{method!r} belongs to another session")
    if method.kind is not kind:
        raise LocalProtocolError(
            f"{method.name} is a {method.kind.value}: {_INSTEAD[method.kind]} instead"
        )
    return method


class Proxy:
    """A service at the other end. Its attributes are :class:`RemoteMethod` objects.

    :meth:`Session.proxy` and :meth:`RemoteScope.proxy` make it.
    """

    _caller: Caller
    _service: str
    _interface: Any
    _marked: dict[str, tuple[Callable[..., Any], MethodMark]] | None

    def __init__(self, caller: Caller, service: str = "", interface: Any = None) -> None:
        """Make a proxy.

        Args:
            caller: the session.
            service: the service's name at the other end, "" for the one without a name.
            interface: the class whose marked methods the service has. None leaves names, arguments
                and results unchecked.

        Raises:
            TypeError: ``service`` is not a str; or ``interface`` is not a class, or has no marked
                methods.
        """
        marked = None
        _check_name(service)
        if interface is not None:
            check_interface(interface)
            marked = methods_of(class_of(interface))
        vars(self).update(_caller=caller, _service=service, _interface=interface, _marked=marked)

    def __getattr__(self, name: str) -> RemoteMethod:
        # Called once per name: the method then stays in the instance's __dict__.
        if name.startswith("_"):
            raise AttributeError(f"{self!r} has no attribute {name!r}")
        remote = self._make(name)
        vars(self)[name] = remote
        return remote

    def _make(self, name: str) -> RemoteMethod:
        prefix = f"{self._service}." if self._service else ""
        if self._interface is None or self._marked is None:
            return RemoteMethod(self._caller, prefix + name)
        if name not in self._marked:
            cls, names = class_of(self._interface), ", ".join(sorted(self._marked))
            raise AttributeError(f"{cls.__name__} has no remote method {name!r}; it has {names}")
        _, mark = self._marked[name]
        full_name = prefix + (mark.name or name)
        raises, converters = _converters_of(self._interface, name, full_name)
        return RemoteMethod(
            self._caller, full_name, mark.kind, raises, converters, idempotent=mark.idempotent
        )

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a proxy's attributes are remote methods and cannot be set")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *(vars(self)["_marked"] or ())})

    def __repr__(self) -> str:
        interface = vars(self).get("_interface")
        typed = f" as {class_of(interface).__name__}" if interface else ""
        return f"<proxy of {vars(self).get('_service', '')!r}{typed}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a proxy cannot be pickled or copied")


def _check_name(service: object) -> None:
    if not isinstance(service, str):
        shown = service.__name__ if isinstance(service, type) else "Interface"
        raise TypeError(f"a service's name must be a str, not {service!r}: proxy(name, {shown})")


@functools.lru_cache(maxsize=2048)
def _converters_of(
    interface: Any, name: str, full_name: str
) -> tuple[dict[str, type[Exception]], Converters]:
    """Return a method's declared exceptions by wire name, and the converters of its values."""
    function, mark = methods_of(class_of(interface))[name]
    signature = signature_of(function, function, interface, full_name)
    raises = {wire_name(cls): cls for cls in mark.raises}
    convert = (
        signature.item_converter(duplex=mark.kind is Kind.DUPLEX)
        if mark.kind.is_opened
        else signature.result_converter()
    )
    result = item = None
    if mark.kind.is_opened:
        item = shape_of(signature.adapted_item(duplex=mark.kind is Kind.DUPLEX))
    elif mark.kind is Kind.METHOD:
        result = shape_of(signature.adapted_result())
    started, prepare = signature.started_converter(), signature.prepare()
    return raises, Converters(convert, started, prepare, result, item)

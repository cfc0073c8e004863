"""Functions and streams that are passed as arguments (law 8).

A function stays at the caller; only its number within the call travels. At the callee that number
becomes a :class:`Callback`. Calling it sends a Request back to the caller, which names the call and
the number. The function runs at the caller as a child of that call: it begins in the order of
arrival, is cancelled with the call, and ends before the call does.

A stream is lent in the same way. The callee gets an :class:`ItemReceiver`, and taking the first
item from it sends a Request back that asks for items.
"""

from __future__ import annotations

import functools
import types
from collections.abc import AsyncIterable, Callable, Coroutine
from typing import Any, NamedTuple, TypeAlias

import trio

from trio_rpc.errors import EncodeError, LocalProtocolError
from trio_rpc.services.aliases import bound_to, class_made
from trio_rpc.services.complaints import checked
from trio_rpc.services.converters import Convert
from trio_rpc.services.decorators import Kind, Raises
from trio_rpc.services.functions import FunctionTypes
from trio_rpc.services.lending import PrepareAll, ReferenceArgument
from trio_rpc.services.proxies import RemoteMethod
from trio_rpc.services.signatures import Signature
from trio_rpc.services.tables import BoundMethod
from trio_rpc.session.calls.incoming_call import IncomingCall
from trio_rpc.util.coroutines import is_coroutine_function
from trio_rpc.wire.messages import Reference
from trio_rpc.wire.to_msgpack import has_data

__all__ = ["CALLBACK", "STREAM", "CallBack", "Callback", "Lent", "lend", "not_lent"]

CALLBACK = 1
"""Reference kind: a function."""
STREAM = 2
"""Reference kind: an async iterable."""

CallBack: TypeAlias = Callable[
    [IncomingCall, RemoteMethod, int, tuple[Any, ...], dict[str, Any]], Coroutine[Any, Any, Any]
]


class Callback:
    """The caller's function, as its handler gets it: an async function that lives with the call."""

    __slots__ = (
        "_call_back",
        "_convert",
        "_method",
        "_owner",
        "_prepare",
        "_within_call",
        "kind",
        "number",
    )

    def __init__(self, kind: int, number: int) -> None:
        self.kind = kind
        self.number = number
        self._convert: Convert | None = None
        self._prepare: PrepareAll | None = None
        self._within_call: IncomingCall | None = None
        self._owner: str | None = None
        """The method that it was passed to."""
        self._method: RemoteMethod
        self._call_back: CallBack

    def use(self, convert: Convert | None, prepare: PrepareAll | None) -> None:
        """Set the functions that convert its results, and that mark the references in arguments."""
        self._convert = convert
        self._prepare = prepare

    def bind(self, call: IncomingCall, method: RemoteMethod, call_back: CallBack) -> None:
        """Bind it to the call that it arrived with, and to a method for its Requests."""
        method.convert = checked(method.title, self._convert)
        if self._prepare is not None:
            method.converters = method.converters._replace(prepare=self._prepare)
        self._within_call = call
        self._owner = method.name
        self._method = method
        self._call_back = call_back

    def expire(self, _owner: str) -> None:
        """End it, since the call that it was passed to has ended (law 8)."""
        self._within_call = None  # it refers to this callback

    def __repr__(self) -> str:
        return f"<callback {self.number} of {self._owner or 'nothing'}>"

    async def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the function at the other end; return its result or raise its error.

        Raises LocalProtocolError once the handler that it was passed to has ended (law 8),
        DecodeError for a result that does not have the annotated type, and any error of a call.
        """
        if self._owner is None:
            raise LocalProtocolError("this callback did not arrive as an argument of a call")
        if self._within_call is None:
            raise LocalProtocolError(
                f"a callback of {self._owner} lives only until its handler has ended"
            )
        return await self._call_back(self._within_call, self._method, self.number, args, kwargs)


class Lent(NamedTuple):
    """A local function or stream that the peer may use while a call lasts."""

    reference: Reference
    method: BoundMethod
    """The method by which the peer calls it."""


def lend(value: Any, method: RemoteMethod, number: int) -> Lent | None:
    """Lend an argument of a type that the codec does not know; return None if it cannot be lent.

    Args:
        value: a function, sync or async, or an async iterable.
        method: the method that it is passed to. Exceptions that this method declares also travel as
            themselves from the function.
        number: its number within the call.
    """
    given = None
    if type(value) is ReferenceArgument:
        value, given = value.value, value.given
        kind: int | None = STREAM if given is None else CALLBACK
    else:
        kind = _kind_by_looks(value)
    if kind is None:
        return None
    raises = tuple(method.raises.values())
    make = (
        _as_stream
        if kind == STREAM
        else functools.partial(_as_method, given=given or FunctionTypes())
    )
    return Lent(Reference(kind, number), make(value, method.name, number, raises))


def not_lent(value: Any) -> None:
    """Raise EncodeError for a function or stream in a notification, which has no lifetime to share.

    An argument that could also be data is data here.
    """
    is_marked = type(value) is ReferenceArgument
    value = value.value if is_marked else value
    could_be_lent = callable(value) or isinstance(value, AsyncIterable)
    if is_marked or (could_be_lent and not _is_data(value)):
        raise EncodeError(
            "a notification cannot carry a function or a stream, such as this "
            f"{type(value).__qualname__}: they live only as long as a call, so make it a method"
        )


def _kind_by_looks(value: Any) -> int | None:
    """Return whether a value is a function or a stream, or None for neither.

    Raises EncodeError, which says what to write, for a value that could be both, or data.
    """
    is_function = callable(value) and not isinstance(value, type)
    if not isinstance(value, AsyncIterable):
        return CALLBACK if is_function else None
    is_data = _is_data(value)
    if is_function or is_data:
        name = type(value).__qualname__
        looks = ["data"] * is_data + ["a function"] * is_function + ["a stream"]
        hints = ["a dict or list for the data"] * is_data
        hints += ["its __call__ for the function"] * is_function
        raise EncodeError(
            f"this {name} could be {' or '.join(looks)}, and no annotation says which: use a proxy"
            f" with an interface that does, or pass {', '.join(hints)}, or aiter() of it for the"
            " stream"
        )
    return STREAM


def _is_data(value: Any) -> bool:
    # Trio's channels also have fields, but these are not data.
    return has_data(type(value)) and not isinstance(value, trio.abc.AsyncResource)


def _as_stream(items: AsyncIterable[Any], method: str, number: int, raises: Raises) -> BoundMethod:
    return BoundMethod(
        name=f"stream {number} of {method}",
        kind=Kind.STREAM,
        function=lambda: items,
        is_async=True,
        signature=_NOTHING,
        raises=raises,
    )


def _as_method(
    function: Callable[..., Any], method: str, number: int, raises: Raises, *, given: FunctionTypes
) -> BoundMethod:
    return BoundMethod(
        name=f"callback {number} of {method}",
        kind=Kind.METHOD,
        function=function,
        is_async=is_coroutine_function(function),
        signature=_signature_of(function, given),
        raises=raises,
        drops_result=given.result in (None, types.NoneType),
    )


def _signature_of(function: Callable[..., Any], given: FunctionTypes) -> Signature:
    owner = bound_to(function)
    owner = owner if isinstance(owner, type) else class_made(owner)
    name = getattr(function, "__qualname__", None)
    name = name if isinstance(name, str) else type(function).__qualname__
    if _is_bound_dispatch(function):  # its signature would be that of the unbound method
        function = _anything
    try:
        return Signature(function, skip_self=False, owner=owner, name=name, given=given)
    except TypeError:  # Python cannot tell how it is called
        return Signature(_anything, skip_self=False, name=name, given=given)


def _is_bound_dispatch(function: Callable[..., Any]) -> bool:
    """Return whether a function is a ``functools.singledispatchmethod`` of an object."""
    code = getattr(function, "__code__", None)
    return getattr(code, "co_qualname", "").startswith("singledispatchmethod.")


def _anything(*args: Any, **kwargs: Any) -> None:
    """Accept any arguments, for functions whose signature is unknown."""


_NOTHING = Signature(lambda: None, skip_self=False, name="a stream")

"""Functions and streams that were given as arguments: what they are at each end (law 8).

At the caller a function stays where it is; only its number within the call travels. At the callee that
number becomes a :class:`Callback`, and calling it is a Request back to the caller, which names the call
and the number. It runs at the caller as a child of the call it was given to: begun in the order of
arrival, cancelled with the call, and over before the call is.

A stream is lent in the same way: what arrives is an :class:`ItemReceiver`, and taking the first item from it
is a Request back that asks for items.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterable, Callable, Coroutine
from typing import Any, NamedTuple, TypeAlias

from trio_rpc.errors import LocalProtocolError
from trio_rpc.services.conversion import Convert
from trio_rpc.services.decorators import Kind, Raises
from trio_rpc.services.functions import Said, Wanted
from trio_rpc.services.proxies import RemoteMethod
from trio_rpc.services.signatures import Signature, checked
from trio_rpc.services.tables import BoundMethod
from trio_rpc.session.context import Handled
from trio_rpc.wire.messages import Reference

__all__ = ["CALLBACK", "STREAM", "CallBack", "Callback", "Lent", "lend"]

CALLBACK = 1
"""The kind of a reference to a function."""
STREAM = 2
"""The kind of a reference to what can be iterated over."""

CallBack: TypeAlias = Callable[
    [Handled, RemoteMethod, int, tuple[Any, ...], dict[str, Any]], Coroutine[Any, Any, Any]
]


class Callback:
    """A function of the caller's, as its handler has it: an async function that lives with the call."""

    __slots__ = ("_call_back", "_convert", "_handled", "_method", "kind", "number")

    def __init__(self, kind: int, number: int) -> None:
        self.kind = kind
        self.number = number
        self._convert: Convert | None = None
        self._handled: Handled | None = None
        self._method: RemoteMethod
        self._call_back: CallBack

    def convert_results(self, convert: Convert | None) -> None:
        """Check and convert what it returns with that function."""
        self._convert = convert

    def bind(self, handled: Handled, method: RemoteMethod, call_back: CallBack) -> None:
        """Tie it to the call that it came with; ``method`` is what it is here."""
        method.convert = checked(method.title, self._convert)
        self._handled = handled
        self._method = method
        self._call_back = call_back

    def __repr__(self) -> str:
        where = "nothing" if self._handled is None else self._handled.method.name
        return f"<callback {self.number} of {where}>"

    async def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the function at the other end, and return or raise what comes of it there.

        Raises LocalProtocolError once the handler that it was given to has ended (law 8), DecodeError for
        a result that is not of the annotated type, and in addition all that any call raises.
        """
        if self._handled is None:
            raise LocalProtocolError("this callback came with nothing that it could live in")
        return await self._call_back(self._handled, self._method, self.number, args, kwargs)


class Lent(NamedTuple):
    """A function or a stream of ours that the peer may use while a call lasts."""

    reference: Reference
    method: BoundMethod
    """What it is to the peer."""


def lend(value: Any, method: RemoteMethod, number: int) -> Lent | None:
    """Make what is to travel in place of an argument of no type that the codec knows, or None.

    Args:
        value: a function, sync or async, or an async iterable.
        method: what it is given to; an exception that this declares travels as itself from here, too.
        number: its number within the call.
    """
    said, wanted = None, None
    if type(value) is Wanted:
        value, said = value.value, value.said
        wanted = STREAM if said is None else CALLBACK
    elif callable(value) and not isinstance(value, type):
        wanted = CALLBACK  # also one that can be iterated over: a mock, most likely
    elif isinstance(value, AsyncIterable):
        wanted = STREAM
    if wanted is None:
        return None
    raises = tuple(method.raises.values())
    make = _as_stream if wanted == STREAM else functools.partial(_as_method, said=said or Said())
    return Lent(Reference(wanted, number), make(value, method.name, number, raises))


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
    function: Callable[..., Any], method: str, number: int, raises: Raises, *, said: Said
) -> BoundMethod:
    return BoundMethod(
        name=f"callback {number} of {method}",
        kind=Kind.METHOD,
        function=function,
        is_async=inspect.iscoroutinefunction(function),
        signature=_signature_of(function, said),
        raises=raises,
    )


def _signature_of(function: Callable[..., Any], said: Said) -> Signature:
    owner = getattr(function, "__self__", function)
    owner = owner if isinstance(owner, type) else type(owner)
    name = getattr(function, "__qualname__", None)
    name = name if isinstance(name, str) else type(function).__qualname__
    try:
        return Signature(function, skip_self=False, owner=owner, name=name, said=said)
    except TypeError:  # Python cannot tell how it is called
        return Signature(_anything, skip_self=False, name=name, said=said)


def _anything(*args: Any, **kwargs: Any) -> None:
    """Take whatever comes, for functions that do not say what they take."""


_NOTHING = Signature(lambda: None, skip_self=False, name="a stream")

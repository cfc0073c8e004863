"""Functions that were given as arguments: what they are at each end (law 8).

At the caller a function stays where it is; only its number within the call travels. At the callee that
number becomes a :class:`Callback`, and calling it is a Request back to the caller, which names the call
and the number. It runs at the caller as a child of the call it was given to: begun in the order of
arrival, cancelled with the call, and over before the call is.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeAlias

from trio_rpc.errors import LocalProtocolError
from trio_rpc.services.decorators import Kind, Raises
from trio_rpc.services.signatures import Signature
from trio_rpc.services.tables import BoundMethod
from trio_rpc.session.context import Handled

__all__ = ["CALLBACK", "CallBack", "Callback", "as_method", "is_function"]

CALLBACK = 1
"""The kind of a reference to a function."""

CallBack: TypeAlias = Callable[
    [Handled, int, tuple[Any, ...], dict[str, Any]], Coroutine[Any, Any, Any]
]


class Callback:
    """A function of the caller's, as its handler has it: an async function that lives with the call."""

    __slots__ = ("_call_back", "_handled", "kind", "number")

    def __init__(self, kind: int, number: int) -> None:
        self.kind = kind
        self.number = number
        self._handled: Handled | None = None
        self._call_back: CallBack | None = None

    def bind(self, handled: Handled, call_back: CallBack) -> None:
        """Tie it to the call that it came with."""
        self._handled = handled
        self._call_back = call_back

    def __repr__(self) -> str:
        where = "nothing" if self._handled is None else self._handled.method.name
        return f"<callback {self.number} of {where}>"

    async def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the function at the other end, and return or raise what comes of it there.

        Raises LocalProtocolError once the handler that it was given to has ended (law 8); besides
        that, all that any call raises.
        """
        if self._handled is None or self._call_back is None:
            raise LocalProtocolError("this callback came with nothing that it could live in")
        return await self._call_back(self._handled, self.number, args, kwargs)


def is_function(value: object) -> bool:
    """Whether a value is to travel as a callback."""
    return callable(value) and not isinstance(value, type)


def as_method(
    function: Callable[..., Any], method: str, number: int, raises: Raises
) -> BoundMethod:
    """Make the method that a callback is to the peer.

    Args:
        function: sync or async; what it is given is checked against its annotations, as far as it
            has any that can be.
        method: the name of the call that it was given to.
        number: its number within that call.
        raises: what travels as itself, besides what is built in.
    """

    async def run(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        return await result if isinstance(result, Awaitable) else result

    return BoundMethod(
        name=f"callback {number} of {method}",
        kind=Kind.METHOD,
        function=run,
        is_async=True,
        signature=_signature(function),
        raises=raises,
    )


def _signature(function: Callable[..., Any]) -> Signature:
    bare = getattr(function, "__func__", function)
    if isinstance(bare, types.FunctionType):
        try:
            return Signature(bare, skip_self=inspect.ismethod(function))
        except TypeError:
            pass  # an annotation that only a checker can read
    return Signature(_anything, skip_self=False)


def _anything(*args: Any, **kwargs: Any) -> None:
    """Take whatever comes, for functions that do not say what they take."""

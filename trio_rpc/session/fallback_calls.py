"""A call that the fallback of a service handles, as a method of the name that arrived."""

from __future__ import annotations

import functools
from typing import Any, Final

from trio_rpc.errors import Fate, MethodNotFound
from trio_rpc.services.decorators import Kind
from trio_rpc.services.fallbacks import Fallback
from trio_rpc.services.signatures import Signature
from trio_rpc.services.tables import BoundMethod
from trio_rpc.session.calls.context import handled_call
from trio_rpc.session.calls.eager import is_awaitable
from trio_rpc.session.current import current_call

__all__ = ["fallback_method"]

_ANYTHING: Final = Signature(lambda *_args, **_kwargs: None, skip_self=False, name="fallback")


def fallback_method(fallback: Fallback, name: str, kind: Kind) -> BoundMethod:
    """Return a method that passes one call to a fallback.

    Args:
        fallback: the fallback.
        name: the name that arrived.
        kind: METHOD or NOTIFICATION.
    """
    return BoundMethod(
        name=name,
        kind=kind,
        function=functools.partial(_handle, fallback),
        is_async=True,
        signature=_ANYTHING,
        raises=fallback.raises,
        service=fallback.service,
    )


async def _handle(fallback: Fallback, *_args: Any, **_kwargs: Any) -> Any:
    try:
        result = fallback.function(current_call())
        return await result if is_awaitable(result) else result
    except MethodNotFound as exc:
        handled = handled_call.get()
        if handled is not None and exc.fate is Fate.NOT_STARTED:
            handled.has_begun = False  # so the caller gets this error, and may repeat the call
        raise

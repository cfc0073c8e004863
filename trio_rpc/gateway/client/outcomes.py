"""A client's handling of a gateway's messages: call callbacks, and return or raise the end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from trio_rpc.errors import Fate, RemoteError, RpcError, SessionBroken
from trio_rpc.gateway.json_messages import finish_payload
from trio_rpc.services.error_maps import from_error, set_fate

__all__ = ["Callback", "call_with", "result_of"]

Callback: TypeAlias = Callable[..., Awaitable[object] | object]


def call_with(
    callback: Callback, name: str, payload: Any, spread: Any
) -> Awaitable[object] | object:
    """Call a callback with the arguments in a message.

    Args:
        callback: the callback.
        name: its name in the message.
        payload: its value in the message: its one argument, or all its arguments if it is spread: a
            list of positional arguments, an object of keyword arguments, or None for no arguments.
        spread: the names of the callbacks of the message that are spread.
    """
    if not (type(spread) is list and name in spread):
        return callback(payload)
    if type(payload) is dict:
        return callback(**payload)
    return callback(*(payload if type(payload) is list else ()))


def result_of(end: dict[str, Any] | RpcError | None) -> Any:
    """Return the result in the message that has ended a call, or raise its error.

    Args:
        end: the message, or an error in its place, or None if the call did not end in time.
    """
    if isinstance(end, RpcError):
        raise end
    if end is None:
        raise SessionBroken("the gateway has not ended the cancelled call within cancel_grace")
    if end.get("type") == "finish":
        return finish_payload(end)
    text = str(end.get("error"))
    if end.get("code") in ("raised", "internal"):
        error: Exception = RemoteError(str(end.get("error_type") or end.get("code")), text)
    else:
        error = from_error({"code": str(end.get("code")), "message": text})
    started = end.get("started")
    if isinstance(started, bool):
        set_fate(error, Fate.STOPPED if started else Fate.NOT_STARTED)
    try:
        raise error
    finally:
        del error  # its traceback holds this frame

"""Sending and receiving texts over an ASGI WebSocket."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

import trio
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

__all__ = ["WITHOUT_DEFLATE", "receiving", "sending"]

WITHOUT_DEFLATE = "trio_rpc.without_deflate"
"""A key in the scope of a WebSocket whose messages are not compressed, or bounded once inflated.

Its value is a function that sets the size limit of the client's messages, and the share of a budget
that counts a message while it arrives.
"""


def sending(websocket: WebSocket) -> Callable[[str], Awaitable[None]]:
    """Return a function that sends a text; it does nothing once the WebSocket has ended."""

    async def send(text: str) -> None:
        if websocket.application_state is not WebSocketState.CONNECTED:
            await trio.lowlevel.checkpoint()  # the receiving task learns of the end
            return
        with contextlib.suppress(WebSocketDisconnect):
            await websocket.send_text(text)

    return send


def receiving(websocket: WebSocket) -> Callable[[], Awaitable[str | None]]:
    """Return a function that waits for a text; it returns None at the end of the WebSocket."""

    async def receive() -> str | None:
        message = await websocket.receive()
        return None if message["type"] == "websocket.disconnect" else message.get("text") or ""

    return receive

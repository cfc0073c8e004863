"""The answers of a gateway that does not run, or that is served in the wrong way."""

from __future__ import annotations

import trio
from starlette.types import Receive, Scope, Send

from trio_rpc.gateway.json_messages import encode

__all__ = ["WITHOUT_TRIO", "check_trio", "refuse_all"]

WITHOUT_TRIO = (
    "trio_rpc.gateway.serve and open_http_server need Trio: call them under trio.run. In a program"
    " on asyncio, mount the gateway in an application that uvicorn serves, whose lifespan enters"
    " `async with gateway.run():`"
)


def check_trio() -> None:
    """Raise RuntimeError, which says what to do, if the caller does not run on Trio."""
    if not trio.lowlevel.in_trio_task():
        raise RuntimeError(WITHOUT_TRIO)


async def refuse_all(scope: Scope, receive: Receive, send: Send, why: str) -> None:
    """Answer a request, or a WebSocket, with 503, on asyncio as well as on Trio."""
    kind = "http"
    if scope["type"] == "websocket":
        await receive()
        if "websocket.http.response" not in (scope.get("extensions") or {}):
            await send({"type": "websocket.close", "code": 1011, "reason": why[:100]})
            return
        kind = "websocket.http"
    body = encode({"error": why})
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": f"{kind}.response.start", "status": 503, "headers": headers})
    await send({"type": f"{kind}.response.body", "body": body})

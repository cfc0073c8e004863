"""The check that a gateway runs on Trio, and the answers of one that does not."""

from __future__ import annotations

import logging

import trio
from starlette.types import Receive, Scope, Send

from trio_rpc.gateway.json_messages import encode

__all__ = ["WITHOUT_TRIO", "check_trio", "refuse_without_trio"]

logger = logging.getLogger("trio_rpc.gateway")

WITHOUT_TRIO = (
    "a trio_rpc gateway needs Trio, and this server (uvicorn, for example) runs on asyncio:"
    " start the application with `hypercorn --worker-class trio module:app`,"
    " or with trio_rpc.gateway.serve(app, url) under trio.run"
)

_complaints: set[str] = set()


def check_trio() -> None:
    """Raise RuntimeError, which says what to do, if the caller does not run on Trio."""
    if not trio.lowlevel.in_trio_run():
        raise RuntimeError(WITHOUT_TRIO)


async def refuse_without_trio(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse to work under a server on asyncio: fail its startup, and answer requests with 503."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.failed", "message": WITHOUT_TRIO})
        return
    if WITHOUT_TRIO not in _complaints:  # log once: requests may never stop
        _complaints.add(WITHOUT_TRIO)
        logger.error(WITHOUT_TRIO)
    kind = "http"
    if scope["type"] == "websocket":
        await receive()
        if "websocket.http.response" not in (scope.get("extensions") or {}):
            await send({"type": "websocket.close", "code": 1011, "reason": WITHOUT_TRIO[:100]})
            return
        kind = "websocket.http"
    body = encode({"error": WITHOUT_TRIO})
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": f"{kind}.response.start", "status": 503, "headers": headers})
    await send({"type": f"{kind}.response.body", "body": body})

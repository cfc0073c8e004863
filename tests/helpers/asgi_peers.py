"""Clients of an ASGI application, without a network, that read only when a test asks them to."""

from __future__ import annotations

import json
from typing import Any

import trio

__all__ = ["HttpPeer", "WebSocketPeer"]

JSON = (b"content-type", b"application/json")


class HttpPeer:
    """One POST. Its body arrives whole, or in the parts that are sent while it runs.

    Attributes:
        reads: set it, and the peer accepts the answer; before that, the server's send waits.
    """

    def __init__(
        self,
        path: str,
        data: Any = None,
        headers: dict[str, str] | None = None,
        *,
        is_whole: bool = True,
        reads: bool = False,
    ) -> None:
        self.scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [
                JSON,
                *((key.lower().encode(), each.encode()) for key, each in (headers or {}).items()),
            ],
        }
        self.reads = trio.Event()
        if reads:
            self.reads.set()
        self._to, self._from = trio.open_memory_channel[dict[str, Any]](1000)
        if is_whole:
            self.sends(json.dumps(data or {}).encode(), more=False)
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""

    async def run(self, app: Any) -> None:
        await app(self.scope, self._from.receive, self._send)

    def sends(self, part: bytes, *, more: bool) -> None:
        """Send a part of the body."""
        self._to.send_nowait({"type": "http.request", "body": part, "more_body": more})

    def hang_up(self) -> None:
        self._to.send_nowait({"type": "http.disconnect"})

    @property
    def answer(self) -> Any:
        """The answer that the server sends; perhaps this peer has not read it yet."""
        return json.loads(self.body)

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): each.decode() for name, each in message["headers"]}
        else:
            self.body += message["body"]
            await self.reads.wait()


class WebSocketPeer:
    """One WebSocket, which reads while ``reads`` is set.

    Attributes:
        messages: the messages that it has read.
        close_code: the code that the WebSocket was closed with; None before that.
        status: the status of the answer that refused it; 0 if none did.
    """

    def __init__(self, query: str = "resumable=1") -> None:
        self.scope = {
            "type": "websocket",
            "path": "/ws",
            "raw_path": b"/ws",
            "query_string": query.encode(),
            "headers": [],
            "extensions": {"websocket.http.response": {}},
        }
        self.reads = trio.Event()
        self.reads.set()
        self.messages: list[dict[str, Any]] = []
        self.close_code: int | None = None
        self.status = 0
        self._to, self._from = trio.open_memory_channel[dict[str, Any]](1000)
        self._to.send_nowait({"type": "websocket.connect"})

    async def run(self, app: Any) -> None:
        await app(self.scope, self._from.receive, self._send)

    def says(self, kind: str, **rest: Any) -> None:
        text = json.dumps({"type": kind, **rest})
        self._to.send_nowait({"type": "websocket.receive", "text": text})

    def disconnect(self) -> None:
        self._to.send_nowait({"type": "websocket.disconnect", "code": 1006})

    def acknowledge(self) -> None:
        """Acknowledge everything that was read."""
        self.says("ack", seq=self.messages[-1].get("seq", 0))

    def post(self, method: str, data: Any = None, **more: Any) -> HttpPeer:
        """Return a POST of this client, which reads its answer."""
        hello = self.messages[0]
        token = {"Trio-Rpc-Token": hello["token"]}
        return HttpPeer(f"/api/{method}/{hello['uuid']}", data, token, reads=True, **more)

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "websocket.close":
            self.close_code = message["code"]
        elif message["type"] == "websocket.http.response.start":
            self.status = message["status"]
        elif message["type"] == "websocket.send":
            await self.reads.wait()
            got = json.loads(message["text"])
            self.messages += got if type(got) is list else [got]

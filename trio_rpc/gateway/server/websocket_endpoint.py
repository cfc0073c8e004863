"""The gateway's WebSocket endpoint: a new client, or one that resumes."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from typing import Any

import trio
from starlette.websockets import WebSocket, WebSocketDisconnect

from trio_rpc.gateway.json_messages import encode, from_json
from trio_rpc.gateway.server.browser import Client
from trio_rpc.gateway.server.checks import Refusal
from trio_rpc.gateway.server.connection import Connection, End, Receive, Send
from trio_rpc.gateway.server.gateway_state import GatewayState
from trio_rpc.gateway.server.memory_budget import MemoryShare
from trio_rpc.gateway.server.responses import answer_refusal
from trio_rpc.gateway.server.websocket import WITHOUT_DEFLATE, receiving, sending
from trio_rpc.util.time_limits import time_limit

__all__ = ["WebSocketEndpoint", "lost"]


class WebSocketEndpoint:
    """The endpoint of a gateway's WebSocket route.

    Args:
        state: the gateway's clients and calls.
    """

    def __init__(self, state: GatewayState) -> None:
        self._state = state
        self._limits = state.limits

    async def connect(self, websocket: WebSocket) -> None:
        """Carry one WebSocket until it ends."""
        with contextlib.closing(MemoryShare(self._state.bodies)) as share:
            await self._carry(websocket, share)

    async def _carry(self, websocket: WebSocket, share: MemoryShare) -> None:
        is_new = "resume" not in websocket.query_params
        try:
            self._state.running()
            self._state.checks.check(websocket.headers)
            await self._state.authenticate(websocket)
            nursery = self._admit(websocket, share, is_new=is_new)
        except Refusal as exc:
            await websocket.send_denial_response(await answer_refusal(websocket, exc))
            return
        await websocket.accept()
        end = await (self._welcome(websocket, nursery) if is_new else self._resume(websocket))
        if end is not End.GONE:
            with contextlib.suppress(WebSocketDisconnect):
                await websocket.close(*end.value)

    def _admit(self, websocket: WebSocket, share: MemoryShare, *, is_new: bool) -> trio.Nursery:
        nursery = self._state.accepting() if is_new else self._state.running()
        limit = websocket.scope.get(WITHOUT_DEFLATE)
        if limit is not None:
            limit(self._limits.max_message, self._limits.shutdown_timeout, share)
        elif "sec-websocket-extensions" in websocket.headers:
            self._state.complain(
                "this server may accept compressed WebSocket messages, which can take a thousand"
                " times their size in memory: see Security in docs/gateway.md"
            )
        is_full = len(self._state.clients) >= self._limits.max_clients
        if is_new and is_full and not self._state.make_room():
            raise Refusal(503, "there are too many clients")
        if not is_new and self._state.unidentified >= self._limits.max_clients:
            raise Refusal(503, "too many clients are reconnecting", retry_after=1)
        return nursery

    async def _welcome(self, websocket: WebSocket, nursery: trio.Nursery) -> End:
        client = Client(
            self._limits,
            resumable="resumable" in websocket.query_params,
            pieces="pieces" in websocket.query_params,
            answers="answers" in websocket.query_params,
            complaints=self._state.settings.complaints,
            budget=self._state.unsent,
            home=self._state.home,
        )
        hello = {
            "type": "uuid",
            "uuid": client.id,
            "token": client.token,
            "grace": _finite(self._limits.grace),
            "keepalive": _finite(self._limits.keepalive),
            "max_message": self._limits.max_message,
            "window": _finite(self._limits.callbacks_ahead),
        }
        connection = Connection(client, hello, sending(websocket), receiving(websocket))
        self._state.clients[client.id] = client
        await nursery.start(self._state.keep, client)
        return await connection.run()

    async def _resume(self, websocket: WebSocket) -> End:
        text: str | None = ""
        self._state.unidentified += 1
        try:
            async with time_limit(self._limits.handshake_timeout, "no first message"):
                text = await receiving(websocket)()
        except TimeoutError:
            pass
        finally:
            self._state.unidentified -= 1
        if text is None:
            return End.GONE
        send, receive = sending(websocket), receiving(websocket)
        elsewhere = self._state.elsewhere
        if elsewhere is not None:  # only then is the text read here as well
            home = self._state.home.of(str(_resume_message(text).get("uuid")))
            if home is not None:
                return await elsewhere.resume(home, text, send, receive)
        return await self.resume(text, send, receive)

    async def resume(self, text: str, send: Send, receive: Receive) -> End:
        """Carry the WebSocket of a client that this instance holds, until it ends.

        Args:
            text: the client's first message.
            send: sends one text.
            receive: waits for one text and returns it; returns None at the end.
        """
        client = self._returning(text)
        if client is None:
            return await lost(send)
        return await Connection(client, {"type": "resumed", "uuid": client.id}, send, receive).run()

    def _returning(self, text: str) -> Client | None:
        """Return the client of a resume message, ready to receive the messages that it missed.

        None if the message does not prove an identity, if the client has ended, or if the backlog
        no longer holds everything that it missed.
        """
        message = _resume_message(text)
        client, seen = self._state.clients.get(str(message.get("uuid"))), message.get("seq")
        if client is None or type(seen) is not int or not client.owns(str(message.get("token"))):
            return None
        if client.is_over or not client.backlog.rewind(seen):
            return None
        client.made_room()
        return client


async def lost(send: Send) -> End:
    """Tell a client that it cannot resume."""
    text = {"type": "lost", "reason": "the gateway no longer knows this session"}
    await send(encode(text).decode())
    return End.LOST


def _finite(limit: float) -> float | None:
    return None if limit == math.inf else limit


def _resume_message(text: str) -> Mapping[str, Any]:
    """Return the message with which a client resumes; an empty one if the text is another."""
    try:
        message = from_json(text)
    except ValueError:
        return {}
    return message if type(message) is dict and message.get("type") == "resume" else {}

"""One WebSocket of a client: what it carries in either direction, and how it ends."""

from __future__ import annotations

import enum
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import trio

from trio_rpc.gateway.json_messages import encode, from_json
from trio_rpc.gateway.server.browser import Client
from trio_rpc.util.packet_timer import was_blocked

__all__ = ["Connection", "End"]

GATHERING = 64
"""Turns of Trio's loop in which messages are gathered at most; a frame takes as long as several of them."""

Send: TypeAlias = Callable[[str], Awaitable[None]]
Receive: TypeAlias = Callable[[], Awaitable[str | None]]


class End(enum.Enum):
    """How a connection ended, with the code and the reason that its WebSocket is closed with."""

    GONE = 1000, "goodbye"
    """The other side has left."""
    OVER = 1001, "the gateway is closing"
    TOO_LARGE = 1009, "the message is too large"
    LOST = 4404, "session lost"
    SILENT = 4408, "nothing was heard"
    REPLACED = 4409, "a newer connection has come"


class Connection:
    """A WebSocket of a client; sends while it is the client's current one.

    Args:
        client: whose it is; attached to it from now on, so that nothing is sent over an older one.
        first: the message that goes before all others.
        send: sends one text.
        receive: waits for one, or for the end, which is None.
    """

    def __init__(self, client: Client, first: dict[str, Any], send: Send, receive: Receive) -> None:
        self._client = client
        self._send = send
        self._receive = receive
        self._scope = trio.CancelScope()
        self._end = End.GONE
        self._news = trio.Event()
        self._has_complained = False
        # What has no number, and is not sent again. Bound: one of each type.
        self._aside: dict[str, dict[str, Any]] = {"first": first}
        client.attach(self)

    async def run(self) -> End:
        """Carry messages until the end; return how it ended."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write)
                    await self._read()
                    nursery.cancel_scope.cancel(reason="the client has disconnected")
        finally:
            self._client.detach(self)
        return self._end

    def has_news(self) -> None:
        """There is something to be sent."""
        self._news.set()

    def replaced(self) -> None:
        """A newer one has come."""
        self._stop(End.REPLACED)

    def client_is_over(self) -> None:
        """There is nobody to be connected to."""
        self._stop(End.OVER)

    def _stop(self, end: End) -> None:
        if not self._scope.cancel_called:
            self._end = end
            self._scope.cancel(reason=end.value[1])
            # At once: a send of the server's that nothing can cancel may keep the tasks for a while.
            self._client.detach(self)

    # ── to the client ────────────────────────────────────────────────────────────────────────

    async def _write(self) -> None:
        while True:
            frame = self._next_frame()
            if frame is None:
                self._news = trio.Event()
                await self._news.wait()
            else:
                await self._send(frame.decode())
                await self._gather()

    async def _gather(self) -> None:
        """Let those go on who have more to say: what they say in the next turns leaves in one frame."""
        backlog = self._client.backlog
        for _ in range(GATHERING):
            known = backlog.next_number
            await trio.lowlevel.checkpoint()
            if backlog.next_number == known:
                return

    def _next_frame(self) -> bytes | None:
        # The race of a resumed client: a writer that has just finished a frame has been replaced, but not
        # been cancelled yet. What it took now would be lost.
        client = self._client
        if not client.is_current(self):
            return None
        if self._aside:
            return encode(self._aside.pop(next(iter(self._aside))))
        texts = client.backlog.take(client.limits.frame_bytes if client.is_resumable else 0)
        if not client.is_resumable:
            client.made_room()
        if len(texts) > 1:
            return b"[" + b",".join(texts) + b"]"
        return texts[0] if texts else None

    def _say_aside(self, message: dict[str, Any]) -> None:
        self._aside[message["type"]] = message
        self._news.set()

    # ── from the client ──────────────────────────────────────────────────────────────────────

    async def _read(self) -> None:
        pinged = False
        while True:
            with trio.CancelScope() as patience:
                if self._client.is_resumable:
                    patience.deadline = trio.current_time() + self._client.limits.keepalive
                text = await self._receive()
                if text is None:
                    return
                self._hear(text)
                pinged = False
            if patience.cancelled_caught:
                if was_blocked(patience.deadline, self._client.limits.keepalive):
                    continue  # what has come meanwhile lies unread
                if pinged:
                    self._stop(End.SILENT)
                self._say_aside({"type": "ping"})
                pinged = True

    def _hear(self, text: str) -> None:
        """Act on one message of the client's; what is not understood is ignored."""
        client = self._client
        if len(text.encode(errors="replace")) > client.limits.max_message:
            self._stop(End.TOO_LARGE)  # under a server that knows nothing of that limit
            return
        try:
            message = from_json(text)
        except ValueError as exc:
            self._complain(f"sent what is no JSON: {exc}")
            return
        if type(message) is dict:
            self._act_on(message)

    def _complain(self, of: str) -> None:
        if (
            not self._has_complained
        ):  # once for each connection; and those are not without end, either
            self._has_complained = True
            self._client.complaints.log(
                logging.WARNING, "%r %s: ignored, as is all such from now on", self._client, of
            )

    def _act_on(self, message: dict[str, Any]) -> None:
        client, kind = self._client, message.get("type")
        if kind == "ack":
            client.backlog.acknowledge(_number(message.get("seq")))
            client.made_room()
        elif kind == "ping":
            self._say_aside({"type": "pong", "id": message.get("id")})
        elif kind == "bye":
            client.end("the client has left")
        else:
            work = client.works.get(_short(message.get("request_uuid")))
            if work is None:
                return
            if kind == "handled":
                work.handled(_number(message.get("count")))
                client.made_room()
            elif kind == "cancel":
                work.cancel(_short(message.get("reason")) or "cancelled by its client")
            elif kind == "callback_error":
                work.callback_failed(_short(message.get("name")), _short(message.get("error")))


def _number(value: Any) -> int:
    return value if type(value) is int else 0


def _short(value: Any) -> str:
    return "" if value is None else str(value)[:1000]

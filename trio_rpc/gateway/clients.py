"""One browser, from its first connection until it has been away for too long."""

from __future__ import annotations

import hmac
import logging
import secrets
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from trio_rpc.gateway.backlog import Backlog
from trio_rpc.gateway.limits import GatewayLimits
from trio_rpc.gateway.texts import from_json, to_json
from trio_rpc.gateway.work import Work

__all__ = ["LOST", "REPLACED", "Client"]

logger = logging.getLogger("trio_rpc.gateway")

LOST, REPLACED = 4404, 4409
"""Close codes of a WebSocket: nothing to resume, and a newer connection has taken its place."""

Send = Callable[[str], Awaitable[None]]
Receive = Callable[[], Awaitable[str | None]]


class Client:
    """A browser, its work and what it is still to be told.

    Its work runs in its own nursery, whether it is connected or not. All messages to it leave in the order in
    which they were put, through the one task that writes to its WebSocket.

    Args:
        limits: of the gateway.
        resumable: it acknowledges what it has seen, and can come back.

    Attributes:
        id: names it; unguessable all the same.
        token: proves that a request is its own.
        works: its calls that are running, by their request_uuid.
    """

    def __init__(self, limits: GatewayLimits, *, resumable: bool) -> None:
        self.id = str(uuid.uuid4())
        self.token = secrets.token_urlsafe(16)
        self.works: dict[str, Work] = {}
        self.is_over = False
        self._limits = limits
        self._resumable = resumable
        self._backlog = Backlog(limits.backlog_messages, limits.backlog_bytes, keeps=resumable)
        self._nursery: trio.Nursery
        self._connection: trio.CancelScope | None = None
        self._changed = trio.Event()
        self._news = trio.Event()
        # Bound: a task for each callback that its own work is making.
        self._room = trio.lowlevel.ParkingLot()

    def __repr__(self) -> str:
        return f"<trio_rpc.gateway client {self.id}>"

    @property
    def name(self) -> str:
        """What it is called in logs."""
        return f"browser {self.id}"

    def owns(self, token: str) -> bool:
        """Whether that token is its own; takes as long for a wrong one as for the right one."""
        return hmac.compare_digest(self.token.encode(), token.encode(errors="replace"))

    # ── its life ─────────────────────────────────────────────────────────────────────────────

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold its work until it has been away for too long; then cancel it, and wait."""
        try:
            async with trio.open_nursery() as self._nursery:
                task_status.started()
                await self._until_gone()
                self._nursery.cancel_scope.cancel(reason="the client is gone")
        finally:
            self.is_over = True
            self._room.unpark_all()

    async def _until_gone(self) -> None:
        grace = self._limits.grace if self._resumable else 0
        await self._changed.wait()  # its first connection
        while True:
            while self._connection is not None:
                await self._changed.wait()
            with trio.move_on_after(grace):
                await self._changed.wait()
            if self._connection is None:
                return

    def _connect(self, scope: trio.CancelScope | None) -> None:
        self._connection = scope
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    async def start(self, work: Work, *, grace_free: trio.Nursery | None = None) -> None:
        """Start a call of its; in that nursery if it is to outlive this client."""
        self.works[work.uuid] = work
        (grace_free or self._nursery).start_soon(work.run, self, name=work.name)

    # ── what it is told ──────────────────────────────────────────────────────────────────────

    async def say(self, message: dict[str, Any]) -> None:
        """Have a message sent; waits while its backlog is full."""
        await trio.lowlevel.checkpoint()
        while self._backlog.is_full and not self.is_over:
            await self._room.park()
        self.say_last(message)

    def say_last(self, message: dict[str, Any]) -> None:
        """Have the last message of a call sent; there is one for each, so it need not wait."""
        if not self.is_over:
            self._backlog.put(to_json({**message, "seq": self._backlog.next_number}))
            self._news.set()

    # ── its connections ──────────────────────────────────────────────────────────────────────

    def rewind(self, seen: int) -> bool:
        """Get ready to send again what follows that message; False if it is not known any more."""
        return not self.is_over and self._resumable and self._backlog.rewind(seen)

    async def serve(self, send: Send, receive: Receive) -> bool:
        """Be connected until the other side disconnects; False when a newer connection took over.

        Args:
            send: sends one text.
            receive: waits for one, or for the end, which is None.
        """
        if self._connection is not None:
            self._connection.cancel(reason="a newer connection has taken over")
        scope = trio.CancelScope()
        self._connect(scope)
        try:
            with scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write, send)
                    while (text := await receive()) is not None:
                        await self._hear(text, send)
                    nursery.cancel_scope.cancel(reason="the client has disconnected")
        finally:
            if self._connection is scope:
                self._connect(None)
        return not scope.cancelled_caught

    async def _write(self, send: Send) -> None:
        most = self._limits.frame_bytes if self._resumable else 0
        while True:
            texts = self._backlog.take(most)
            if texts:
                joined = texts[0] if len(texts) == 1 else b"[" + b",".join(texts) + b"]"
                await send(joined.decode())
                if not self._resumable:
                    self._room.unpark_all()
            else:
                self._news = trio.Event()
                await self._news.wait()

    async def _hear(self, text: str, send: Send) -> None:
        """Act on one message of the client's; what is not understood is ignored (A28)."""
        if len(text) > self._limits.max_message:
            logger.warning("%s sent a message of %d bytes: ignored", self.name, len(text))
            return
        try:
            message = from_json(text)
        except ValueError as exc:
            logger.warning("%s sent what is no JSON: %s", self.name, exc)
            return
        if type(message) is not dict:
            return
        kind, number = message.get("type"), message.get("seq")
        if kind == "ack" and type(number) is int:
            self._backlog.acknowledge(number)
            self._room.unpark_all()
        elif kind == "ping":
            await self.say({"type": "pong", "id": message.get("id")})
        else:
            work = self.works.get(str(message.get("request_uuid")))
            if work is not None and kind == "cancel":
                work.cancel(str(message.get("reason") or "cancelled by its client")[:1000])
            elif work is not None and kind == "callback_error":
                work.callback_failed(str(message.get("name")), str(message.get("error")))

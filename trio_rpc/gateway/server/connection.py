"""One WebSocket of a client: its reader, its writer, and how it ends."""

from __future__ import annotations

import enum
import logging
import math
import sys
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import trio

from trio_rpc.gateway.json_messages import encode, from_json, from_json_exactly
from trio_rpc.gateway.server.browser import Client
from trio_rpc.util.time_limits import SilenceTimer, was_blocked

__all__ = ["Connection", "End", "Receive", "Send"]

GATHERING = 64
"""The most ticks of Trio's loop in which the writer gathers messages for one frame.

Sending a frame takes as long as several ticks.
"""

BRIEF = 100
"""The most characters of the ``id`` of a ping, which waits in the pong until the client reads."""

Send: TypeAlias = Callable[[str], Awaitable[None]]
Receive: TypeAlias = Callable[[], Awaitable[str | None]]


class End(enum.Enum):
    """The kind of a connection's end, with code and reason for the WebSocket's Close frame."""

    GONE = 1000, "goodbye"
    """The client has disconnected."""
    OVER = 1001, "the gateway is closing"
    TOO_LARGE = 1009, "the message is too large"
    AWAY = 1013, "the instance that holds this client cannot be reached now"
    LOST = 4404, "session lost"
    SILENT = 4408, "the client sent nothing"
    REPLACED = 4409, "replaced by a newer connection"


class Connection:
    """A WebSocket of a client. It sends only while it is the client's current connection.

    Args:
        client: the client. The connection is attached to it at once, so that an older connection
            sends nothing more.
        first: the message to send before all others.
        send: sends one text.
        receive: waits for one text and returns it; returns None at the end.
    """

    def __init__(self, client: Client, first: dict[str, Any], send: Send, receive: Receive) -> None:
        self._client = client
        self._send = send
        self._receive = receive
        self._scope = trio.CancelScope()
        self._end = End.GONE
        self._news = trio.Event()
        self._has_complained = False
        # Messages without a number, which are never sent again. Bound: one of each type.
        self._aside: dict[str, dict[str, Any]] = {"first": first}
        client.attach(self)

    async def run(self) -> End:
        """Carry messages until the connection ends; return how it ended."""
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
        """Wake the writer, because the backlog has a message to send."""
        self._news.set()

    def replaced(self) -> None:
        """End this connection, because the client has a newer one."""
        self._stop(End.REPLACED)

    def client_is_over(self) -> None:
        """End this connection, because the client has ended."""
        self._stop(End.OVER)

    def _stop(self, end: End) -> None:
        if not self._scope.cancel_called:
            self._end = end
            self._scope.cancel(reason=end.value[1])
            # Detach at once. The tasks may take a while to end, because a server's send may not be
            # cancellable.
            self._client.detach(self)

    # ── to the client ────────────────────────────────────────────────────────────────────────

    async def _write(self) -> None:
        while True:
            frame = self._next_frame()
            if frame is None:
                self._news = trio.Event()
                await self._news.wait()
            else:
                await self._send_counted(frame)
                if not self._client.is_resumable:
                    self._client.backlog.were_sent()
                    self._client.made_room()
                await self._gather()

    async def _send_counted(self, text: str) -> None:
        """Send a frame. The server has a second copy of it until the client has accepted it.

        Both count until then, even if the client has ended meanwhile: a server's send may not be
        cancellable. Bound: one frame for each connection.
        """
        budget, size = self._client.budget, 2 * sys.getsizeof(text)
        budget.take(size)
        try:
            await self._send(text)
        finally:
            budget.give_back(size)

    async def _gather(self) -> None:
        """Wait some ticks, so that messages that other tasks queue meanwhile share one frame.

        Returns after a tick without a new message, or after ``GATHERING`` ticks.
        """
        backlog = self._client.backlog
        for _ in range(GATHERING):
            known = backlog.next_number
            await trio.lowlevel.checkpoint()
            if backlog.next_number == known:
                return

    def _next_frame(self) -> str | None:
        # A race when a client resumes:
        # 1. A newer connection replaces this one and cancels its tasks.
        # 2. This writer is already scheduled to run, after a frame for example, so it gets here
        #    before the cancellation reaches it.
        # 3. A message that it took from the backlog now would be lost. So it takes none.
        client = self._client
        if not client.is_current(self):
            return None
        if self._aside:
            return encode(self._aside.pop(next(iter(self._aside)))).decode()
        texts = client.backlog.take(client.limits.frame_bytes if client.is_resumable else 0)
        if len(texts) > 1:
            return (b"[" + b",".join(texts) + b"]").decode()
        return texts[0].decode() if texts else None

    def _say_aside(self, message: dict[str, Any]) -> None:
        self._aside[message["type"]] = message
        self._news.set()

    # ── from the client ──────────────────────────────────────────────────────────────────────

    async def _read(self) -> None:
        keepalive = self._client.limits.keepalive if self._client.is_resumable else math.inf
        answer: SilenceTimer | None = None  # while a ping is unanswered
        while True:
            until = trio.current_time() + keepalive if answer is None else answer.deadline
            with trio.CancelScope(deadline=until) as patience:
                text = await self._receive()
                if text is None:
                    return
                self._hear(text)
                answer = None
            if not patience.cancelled_caught:
                continue
            if answer is not None:
                if answer.is_over():
                    self._stop(End.SILENT)
            elif not was_blocked(until, keepalive):  # messages that came meanwhile may be unread
                self._say_aside({"type": "ping"})
                answer = SilenceTimer(keepalive)

    def _hear(self, text: str) -> None:
        """Act on one message from the client. Unknown messages are ignored."""
        client = self._client
        if len(text.encode(errors="replace")) > client.limits.max_message:
            self._stop(End.TOO_LARGE)  # the server may not enforce this limit
            return
        try:
            message = from_json(text)
        except ValueError as exc:
            self._complain(f"sent invalid JSON: {exc}")
            return
        if type(message) is dict:
            if message.get("type") == "callback_result":
                message = _read_exactly(text, message)
            self._act_on(message)

    def _complain(self, of: str) -> None:
        # Once for each connection. All clients share the rate limit of these lines.
        if not self._has_complained:
            self._has_complained = True
            self._client.complaints.log(
                logging.WARNING,
                "%s %s; this and later invalid messages on this connection are ignored",
                self._client.name,
                of,
            )

    def _act_on(self, message: dict[str, Any]) -> None:
        client, kind = self._client, message.get("type")
        if kind == "ack":
            client.backlog.acknowledge(_number(message.get("seq")))
            client.made_room()
        elif kind == "ping":
            self._say_aside({"type": "pong", "id": _brief(message.get("id"))})
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
                work.cancel(_short(message.get("reason")) or "cancelled by the client")
            elif kind == "callback_result":
                error = message.get("error")
                text = None if error is None else _short(error)
                work.answered(_number(message.get("answer")), message.get("value"), text)
            elif kind == "callback_error":
                work.callback_failed(_short(message.get("name")), _short(message.get("error")))


def _read_exactly(text: str, message: dict[str, Any]) -> dict[str, Any]:
    """Return the message of a text, whose value a handler gets, or an error if it is not exact."""
    try:
        return from_json_exactly(text.encode())  # type: ignore[no-any-return]
    except ValueError as exc:
        return {**message, "error": f"its value is not JSON that can be read exactly: {exc}"}


def _number(value: Any) -> int:
    return value if type(value) is int else 0


def _brief(value: Any) -> Any:
    """Return a number or a short text as it is, and None for anything that may be large."""
    is_brief = type(value) in (int, float) or (type(value) is str and len(value) <= BRIEF)
    return value if is_brief else None


def _short(value: Any) -> str:
    return "" if value is None else str(value)[:1000]
